//! The store that a team shares: where it is named, and how it is opened.
//!
//! `TINYLM_REMOTE` holds before the file `tinylm-remote.yaml` beside the home, which goes into the
//! project's repository and holds no secret. `TINYLM_REMOTE=none` goes without.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tinylm_registry::{Home, Store};
use tinylm_remote::{Mode, OpenError, Remote, Settings};

use crate::{
    failure::Failure,
    project::{Project, folder, outside, variables},
};

/// The name of a project's file.
const FILE: &str = "tinylm-remote.yaml";

const URL: &str = "TINYLM_REMOTE";
const MODE: &str = "TINYLM_REMOTE_MODE";
const TIMEOUT: &str = "TINYLM_REMOTE_TIMEOUT";

/// The remote that is named, and how.
pub(crate) enum Named {
    Nothing,
    /// It is on the network, of which nothing is asked just now.
    Offline(Box<Settings>),
    Remote(Box<Settings>),
}

impl Project {
    /// Returns the remote that stands behind this project's store, without asking it anything.
    pub(crate) fn remote(&self) -> Result<Option<Arc<Remote>>, Failure> {
        match self.named_remote()? {
            Named::Remote(settings) => Ok(Some(Arc::new(open(&settings)?))),
            Named::Nothing | Named::Offline(_) => Ok(None),
        }
    }

    pub(crate) fn remote_to_read(&self) -> Result<Arc<Remote>, Failure> {
        let none = || {
            Failure::wrong("there is no shared store to ask").help(
                "name one: `TINYLM_REMOTE=s3://BUCKET/PREFIX`, or `url` in `tinylm-remote.yaml`",
            )
        };
        self.remote()?.ok_or_else(none)
    }

    pub(crate) fn remote_to_write(&self) -> Result<Arc<Remote>, Failure> {
        let remote = self.remote_to_read()?;
        match remote.mode() {
            Mode::Write => Ok(remote),
            Mode::Read => {
                let message = format!("{} is only read here", remote.shown());
                Err(Failure::wrong(message)
                    .help("`TINYLM_REMOTE_MODE=write` for this command; what CI made, people read"))
            }
        }
    }

    pub(crate) fn named_remote(&self) -> Result<Named, Failure> {
        let own = variables(URL);
        let text = |name: &str| {
            own.get(name)
                .map(String::as_str)
                .filter(|text| !text.is_empty())
        };
        let file = self.remote_file();
        let mut settings = match (text(URL), file.is_file()) {
            (Some("none"), _) | (None, false) => return Ok(Named::Nothing),
            (Some(url), _) => Settings {
                url: url.to_owned(),
                ..Settings::default()
            },
            (None, true) => self.read_remote_file(file)?,
        };
        if let Some(mode) = text(MODE) {
            settings.mode = Mode::parse(mode).map_err(mistake)?;
        }
        if let Some(seconds) = text(TIMEOUT) {
            let parsed = seconds.parse().ok();
            let patience = parsed.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let patience = patience.filter(|patience| !patience.is_zero());
            settings.patience = Some(patience.ok_or_else(|| {
                Failure::wrong(format!("`{TIMEOUT}` is `{seconds}`, which are no seconds"))
            })?);
        }
        settings.variables = variables("AWS_");
        settings.user_home = folder("HOME");
        let is_here = settings.url.trim().starts_with("file:");
        match outside().offline && !is_here {
            true => Ok(Named::Offline(Box::new(settings))),
            false => Ok(Named::Remote(Box::new(settings))),
        }
    }

    fn remote_file(&self) -> PathBuf {
        self.home().root().with_file_name(FILE)
    }

    fn read_remote_file(&self, path: PathBuf) -> Result<Settings, Failure> {
        let shown = self.shown(&path);
        let bytes = tinylm_pipeline::read_plain(&path);
        let bytes = bytes.map_err(|error| Failure::wrong(format!("`{shown}`: {error}")))?;
        Settings::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| {
            let message = format!("`{shown}`: {error}");
            mistake(OpenError { message, ..error })
        })
    }
}

pub(crate) fn open(settings: &Settings) -> Result<Remote, Failure> {
    Remote::open(settings).map_err(mistake)
}

/// A home's store, with this remote behind it.
pub(crate) fn store_behind(home: &Home, remote: Option<&Arc<Remote>>) -> Store {
    match remote {
        Some(remote) => Store::behind(home.clone(), Arc::clone(remote) as _),
        None => Store::new(home.clone()),
    }
}

fn mistake(error: OpenError) -> Failure {
    let failure = Failure::wrong(error.message);
    match error.help {
        Some(help) => failure.help(help),
        None => failure,
    }
}
