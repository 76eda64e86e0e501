//! Everything that can go wrong here, with its path.
//!
//! A message says what is wrong; what to do about it is apart, in [`Error::hint`]. The binary turns
//! the three families (`is_damage`, `is_mistake`, the rest) into exit codes.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::where_filter::FilterError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("no room left to {action} `{}`{}", path.display(), needed(*.bytes))]
    NoRoom {
        action: &'static str,
        path: PathBuf,
        /// How much was to be written, where it is known.
        bytes: Option<u64>,
    },
    #[error("`{}` is a symbolic link, which an artifact cannot hold", path.display())]
    Symlink { path: PathBuf },
    #[error("the name of `{}` is not UTF-8", path.display())]
    NotUtf8 { path: PathBuf },
    #[error("`{}` is a {what}, which an artifact cannot hold", path.display())]
    OddFile { path: PathBuf, what: &'static str },
    #[error("`{}` changed while it was read", path.display())]
    ChangedWhileRead { path: PathBuf },
    #[error("`{}` is a link, and nothing is made or removed behind one in a home", path.display())]
    LinkInHome { path: PathBuf },
    #[error("`{}` is not inside the home", path.display())]
    OutsideHome { path: PathBuf },
    #[error("`{}` and `{}` are on different file systems", from.display(), to.display())]
    OtherFileSystem { from: PathBuf, to: PathBuf },
    #[error("the home `{}` may only be read", path.display())]
    ReadOnly { path: PathBuf },
    #[error("`{}` has format {found}, and this tinylm knows up to {known}", path.display())]
    Newer {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("`{}` has the older format {found} and cannot be written to", path.display())]
    Older { path: PathBuf, found: u32 },
    #[error("the registry `{}` is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("`{}` stayed locked by another program", path.display())]
    Busy { path: PathBuf },
    #[error("the registry `{}` failed", path.display())]
    Sql {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("no run is called `{text}`")]
    UnknownRun { text: String, nearest: Vec<String> },
    #[error("`{text}` could be any of {} runs", matches.len())]
    AmbiguousRun { text: String, matches: Vec<String> },
    #[error("no run has a field, setting or metric `{name}`")]
    UnknownName {
        name: String,
        nearest: Option<String>,
    },
    #[error("{0}")]
    NoHistory(&'static str),
    #[error(transparent)]
    Filter(#[from] FilterError),
}

impl Error {
    /// The next thing to do, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Damaged { path, .. } => Some(damage_hint(path)),
            Error::Newer { .. } => Some("use the newer tinylm that wrote it".into()),
            Error::Older { .. } => Some("open it once where it can be written to".into()),
            Error::NoRoom { .. } => {
                Some("make room (`tinylm gc` may help) and give the same command again".into())
            }
            Error::ReadOnly { .. } => Some(
                "give the command as somebody who may write there, or copy the home and name the copy (`--home`)".into(),
            ),
            Error::Busy { .. } => Some("wait for the other program, or end it".into()),
            Error::Symlink { .. } => Some("write a copy of what it points to".into()),
            Error::LinkInHome { path } => Some(format!(
                "look at what it leads to, then remove the link (`rm '{}'`); to keep the home on another disk, link or name the home as a whole (`--home`)",
                path.display()
            )),
            Error::OtherFileSystem { .. } => Some(
                "a home is one file system, for what is made is moved into its store as a whole; keep all of it on the larger disk (`--home`)".into(),
            ),
            Error::NotUtf8 { .. } => Some("rename it".into()),
            Error::UnknownRun { nearest, .. } if !nearest.is_empty() => {
                Some(format!("did you mean {}?", quoted(nearest, " or ")))
            }
            Error::UnknownRun { .. } => Some("`tinylm runs` lists them".into()),
            Error::AmbiguousRun { matches, .. } => {
                Some(format!("it fits {}", quoted(matches, ", ")))
            }
            Error::UnknownName { nearest, .. } => Some(nearest.as_ref().map_or_else(
                || "`tinylm show RUN` lists what a run has".to_owned(),
                |near| format!("did you mean `{near}`?"),
            )),
            Error::Filter(error) => error.hint.clone(),
            _ => None,
        }
    }

    /// Returns whether the registry or the store is at fault: damaged, locked, or too new.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Error::Damaged { .. } | Error::Newer { .. } | Error::Older { .. } | Error::Busy { .. }
        )
    }

    /// Returns whether what was typed is at fault.
    #[must_use]
    pub fn is_mistake(&self) -> bool {
        matches!(
            self,
            Error::UnknownRun { .. }
                | Error::AmbiguousRun { .. }
                | Error::NotUtf8 { .. }
                | Error::UnknownName { .. }
                | Error::Filter(_)
        )
    }

    /// Returns whether something on the way is simply not there.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Returns whether it is about one file and says nothing of others.
    pub(crate) fn is_of_one_file(&self) -> bool {
        matches!(self, Error::Io { .. } | Error::Newer { .. })
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Error::io_of(action, path, None, source)
    }

    /// As [`Error::io`], for writes of a known length.
    pub(crate) fn io_of(
        action: &'static str,
        path: &Path,
        bytes: Option<u64>,
        source: io::Error,
    ) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoRoom {
                action,
                path,
                bytes,
            },
            _ => Error::Io {
                action,
                path,
                source,
            },
        }
    }
}

fn needed(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| format!(", which needs {bytes} bytes"))
}

fn damage_hint(path: &Path) -> String {
    format!(
        "move `{}` and its `-wal` and `-shm` away: the next command makes it again from the \
         journals of the runs, and nothing will be retrained",
        path.display()
    )
}

fn quoted(names: &[String], between: &str) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(between)
}
