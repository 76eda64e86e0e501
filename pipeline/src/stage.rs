//! A stage kind: data in, data out.
//!
//! A kind declares its settings, the roles it reads and a `REVISION` that stands for
//! its code, and does its work in `run`, which sees the world only through
//! [`StageIo`]. It knows neither the graph nor the registry, so it can be run by a
//! test, by a child process or, one day, by a cluster job alike.
//!
//! [`Kind`] is the same thing with its types erased, so that a catalog can be a list.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    io::StageIo,
    settings::{Setting, SettingError, Settings, plain},
};

/// What the author of a kind writes.
pub trait Stage: 'static {
    type Settings: Settings;
    /// What is only looked at: never in the key. Use `NoSettings` where there is nothing.
    type Watch: Settings;

    const KIND: &'static str;
    /// One line for `tinylm stages`.
    const ABOUT: &'static str;
    /// Raised when the same recipe would now make other bytes.
    const REVISION: u32;
    /// The first role is the one that a plain list of inputs fills.
    const ROLES: Roles;
    /// Heavy kinds run one at a time per device.
    const HEAVY: bool = false;
    /// Whether the seed is part of the recipe.
    const SEEDED: bool = false;

    /// Returns the settings with everything that follows from others spelled out
    /// (a preset's fields), or says which cannot be.
    fn canonical(settings: Self::Settings) -> Result<Self::Settings, SettingError> {
        Ok(settings)
    }

    /// Returns what these settings read from outside this machine.
    fn remotes(_settings: &Self::Settings) -> Vec<Remote> {
        Vec::new()
    }

    /// Asks the outside what `remote` is now. Called once; the answer is kept in the lock file.
    fn resolve(
        _settings: &Self::Settings,
        remote: &Remote,
        _outside: &Outside,
    ) -> Result<Pin, StageError> {
        Err(StageError::new(format!(
            "nothing here can resolve `{}`",
            remote.id
        )))
    }

    /// Does the work: reads `io`'s inputs, writes into `io.out()`.
    fn run(
        settings: &Self::Settings,
        watch: &Self::Watch,
        io: &StageIo,
    ) -> Result<Metrics, StageError>;
}

/// What a kind reads.
#[derive(Debug, Clone, Copy)]
pub enum Roles {
    Fixed(&'static [Role]),
    /// Whatever the author names (`command`).
    Any,
}

#[derive(Debug, Clone, Copy)]
pub struct Role {
    pub name: &'static str,
    pub about: &'static str,
    pub required: bool,
    /// Whether several stages may fill it, in order.
    pub many: bool,
}

impl Role {
    pub const fn one(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            required: true,
            many: false,
        }
    }

    pub const fn many(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            required: true,
            many: true,
        }
    }

    pub const fn optional(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            required: false,
            many: false,
        }
    }
}

/// Something outside this machine that a stage reads, before it is known what it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Names it in the lock file: `hub dataset roskoN/dailydialog@main`.
    pub id: String,
    /// The settings that only say where it is (`hub`, `revision`): the pin stands for
    /// them in the key. Dotted paths inside `with`.
    pub places: Vec<String>,
}

/// What a [`Remote`] turned out to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// Takes part in the key: a commit, a digest. Never an address or a time.
    pub identity: Value,
    /// Kept beside it for people and for the download itself: sizes, file names.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

/// The environment as it concerns stages, read once by the binary.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    pub hf_endpoint: Option<String>,
    pub hf_token: Option<String>,
    /// Where the hub's own tools keep what they fetched.
    pub hf_cache: Option<PathBuf>,
    /// `HF_HUB_OFFLINE` or `TINYLM_OFFLINE`: nothing may be asked of the network.
    pub offline: bool,
    pub kaggle_endpoint: Option<String>,
    pub kaggle_user: Option<String>,
    pub kaggle_key: Option<String>,
    /// Set once whoever asks should stop: a run in its process, a stage in its own.
    pub stop: Arc<AtomicBool>,
}

/// Numbers worth remembering that a stage ends with, in the order given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics(pub Vec<(String, f64)>);

impl Metrics {
    #[must_use]
    pub fn count(self, name: &str, n: u64) -> Self {
        self.number(name, n as f64)
    }

    #[must_use]
    pub fn number(mut self, name: &str, value: f64) -> Self {
        self.0.push((name.to_owned(), value));
        self
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value)
    }
}

/// Why a stage did not finish: what is wrong, and separately its cause, what was kept
/// and what to do. It crosses a process boundary, so it is text, not a source chain.
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

impl StageError {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
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
        self.cause = Some(cause.to_string());
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

/// Copies a file; an error names the end that it is about.
pub fn copy_file(from: &Path, to: &Path) -> Result<(), StageError> {
    fs::copy(from, to)
        .map(drop)
        .map_err(|error| StageError::io(end_at_fault(&error, from, to), &error))
}

/// Returns which end of a copy an error is about: there is no room where it goes to, and all else
/// is most likely wrong with what it comes from.
pub fn end_at_fault<'a>(error: &io::Error, from: &'a Path, to: &'a Path) -> &'a Path {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge | ReadOnlyFilesystem => to,
        _ => from,
    }
}

type TypeFn = fn(&Value) -> Result<Value, SettingError>;
type ResolveFn = fn(&Value, &Remote, &Outside) -> Result<Pin, StageError>;
type RunFn = fn(&Value, &Value, &StageIo) -> Result<Metrics, StageError>;

/// A [`Stage`] with its types erased.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub about: &'static str,
    pub revision: u32,
    pub roles: Roles,
    pub heavy: bool,
    pub seeded: bool,
    pub settings: fn() -> Vec<Setting>,
    pub exclusive: &'static [&'static [&'static str]],
    pub watch: fn() -> Vec<Setting>,
    /// Types settings whose defaults are filled in and returns their canonical form.
    pub canonical: TypeFn,
    /// Types what stands under `watch`.
    pub canonical_watch: TypeFn,
    pub remotes: fn(&Value) -> Vec<Remote>,
    pub resolve: ResolveFn,
    pub run: RunFn,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Kind {
    pub const fn of<S: Stage>() -> Self {
        Self {
            name: S::KIND,
            about: S::ABOUT,
            revision: S::REVISION,
            roles: S::ROLES,
            heavy: S::HEAVY,
            seeded: S::SEEDED,
            settings: S::Settings::list,
            exclusive: S::Settings::EXCLUSIVE,
            watch: S::Watch::list,
            canonical: |value| {
                let typed = S::canonical(typed::<S::Settings>(value)?)?;
                Ok(plain(&typed))
            },
            canonical_watch: |value| Ok(plain(&typed::<S::Watch>(value)?)),
            remotes: |value| typed(value).map_or_else(|_| Vec::new(), |s| S::remotes(&s)),
            resolve: |value, remote, outside| S::resolve(&typed(value)?, remote, outside),
            run: |settings, watch, io| S::run(&typed(settings)?, &typed(watch)?, io),
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

/// Returns `value` as settings of type `S`, or which setting is wrong.
pub fn typed<S: Settings>(value: &Value) -> Result<S, SettingError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        SettingError::new(path, error.into_inner().to_string())
    })
}
