//! Why a stage did not finish, in parts that are told one below the other.
//!
//! Text rather than a chain of sources, because it crosses from a child process to its parent.

use std::{fmt, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::settings::SettingError;

/// The message says what is wrong; its cause, what was kept and what to do stand apart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StageError {
    pub message: String,
    pub cause: Option<String>,
    pub kept: Option<String>,
    pub help: Option<String>,
    /// The stage was asked to stop and did.
    pub cancelled: bool,
    /// Trying again cannot help (a wrong setting, a bad row), so `retries` does not.
    pub is_final: bool,
    /// Not the stage is at fault but the store or the registry: damaged, locked or too new.
    #[serde(default)]
    pub is_damage: bool,
}

/// Of a message that quotes something foreign: a name in a file may be a hundred megabytes long.
const CHARS_MAX: usize = 2000;

/// A text as a terminal and the registry can hold it.
pub(crate) fn tellable(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(CHARS_MAX) {
        text.truncate(end);
        text += "..";
    }
    text
}

impl StageError {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: tellable(message.into()),
            ..Self::default()
        }
    }

    pub fn cancelled() -> Self {
        Self {
            cancelled: true,
            ..Self::new("stopped")
        }
    }

    /// The system gave no thread to something that needs one.
    pub fn no_thread(error: &io::Error) -> Self {
        Self::new("the system allows no further thread")
            .cause(error)
            .help(
                "raise its limits (`ulimit -u`, `ulimit -v`), or run fewer stages at once (`-j 1`)",
            )
    }

    pub fn io(path: &Path, error: &io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let mut this = Self::new(format!("`{}`: {error}", path.display()));
        let help = match error.kind() {
            StorageFull | QuotaExceeded => "free some space and run the same command again",
            FileTooLarge => "raise the limit on files (`ulimit -f`) and run the same command again",
            _ => return this,
        };
        this.help = Some(help.to_owned());
        this
    }

    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(tellable(cause.to_string()));
        self
    }

    #[must_use]
    pub fn kept(mut self, kept: impl fmt::Display) -> Self {
        self.kept = Some(kept.to_string());
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// Fills in the address of the stage, which only a run knows: `RUN/STAGE` in a help.
    #[must_use]
    pub fn addressed(mut self, run: &str, stage: &str) -> Self {
        let help = self.help.take();
        self.help = help.map(|help| help.replace("RUN/STAGE", &format!("{run}/{stage}")));
        self
    }

    #[must_use]
    pub fn is_final(mut self) -> Self {
        self.is_final = true;
        self
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StageError {}

/// Names the path of a file-system error: `fs::read(path).at(path)?`.
pub trait At<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T, StageError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T, StageError> {
        self.map_err(|error| StageError::io(path.as_ref(), &error))
    }
}

impl From<tinylm_registry::Error> for StageError {
    fn from(error: tinylm_registry::Error) -> Self {
        Self {
            cause: std::error::Error::source(&error).map(ToString::to_string),
            help: error.hint(),
            is_damage: error.is_damage(),
            ..Self::new(error.to_string())
        }
    }
}

impl From<SettingError> for StageError {
    fn from(error: SettingError) -> Self {
        let help = error.help.clone();
        Self {
            help,
            ..Self::new(error.to_string()).is_final()
        }
    }
}
