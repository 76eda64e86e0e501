//! `FILE-STEM.lock`: what an experiment reads from outside, as it was first seen.
//!
//! It stands beside the experiment file and is meant to be committed, so that a run
//! next year reads the same revision. It is keyed by source, not by stage, so two
//! stages that read the same thing cannot disagree. It is written whole, through a
//! temporary file, and only when something was added.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{plain_file::read_plain, remote::Pin};

/// The format that this program writes.
const VERSION: u32 = 1;

const HEAD: &str = "\
# Written by tinylm: what this experiment reads from outside, as first seen.
# Commit it; `tinylm update` asks again.
";

/// The pins of one experiment file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockFile {
    version: u32,
    #[serde(default)]
    sources: BTreeMap<String, Pin>,
}

#[derive(Debug, thiserror::Error)]
pub enum LockFileError {
    #[error("`{path}`: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("`{path}` cannot be read as a lock file: {message}")]
    Malformed { path: PathBuf, message: String },
    #[error("`{path}` has format {found}, and this tinylm knows up to {VERSION}")]
    Newer { path: PathBuf, found: u32 },
}

impl LockFileError {
    /// Returns what to do about it.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Io { .. } => None,
            Self::Malformed { .. } => {
                Some("put back the one that was committed, or remove it and run `tinylm update`")
            }
            Self::Newer { .. } => Some("use the newer tinylm that wrote it"),
        }
    }
}

/// All that can be read of a lock file whatever its version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Default for LockFile {
    fn default() -> Self {
        Self {
            version: VERSION,
            sources: BTreeMap::new(),
        }
    }
}

impl LockFile {
    /// Returns where the lock of an experiment file is.
    pub fn path_for(experiment: &Path) -> PathBuf {
        experiment.with_extension("lock")
    }

    /// Reads the lock at `path`; a missing file is an empty lock.
    pub fn read(path: &Path) -> Result<Self, LockFileError> {
        let text = match read_plain(path).and_then(utf8) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                let path = path.to_owned();
                return Err(LockFileError::Io { path, source });
            }
        };
        let malformed = |message: String| LockFileError::Malformed {
            path: path.to_owned(),
            message,
        };
        let Versioned { version: found } =
            serde_yaml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if found > VERSION {
            let path = path.to_owned();
            return Err(LockFileError::Newer { path, found });
        }
        serde_yaml::from_str(&text).map_err(|error| malformed(error.to_string()))
    }

    pub fn get(&self, id: &str) -> Option<&Pin> {
        self.sources.get(id)
    }

    /// Adds or replaces a pin; returns whether that changed anything.
    pub fn set(&mut self, id: &str, pin: Pin) -> bool {
        self.sources.insert(id.to_owned(), pin.clone()) != Some(pin)
    }

    /// Writes the lock beside its experiment.
    pub fn write(&self, path: &Path) -> Result<(), LockFileError> {
        let at = |source| LockFileError::Io {
            path: path.to_owned(),
            source,
        };
        let body = serde_yaml::to_string(self).map_err(|error| LockFileError::Malformed {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        let temporary = path.with_extension(format!("lock.{}", std::process::id()));
        fs::write(&temporary, format!("{HEAD}{body}")).map_err(at)?;
        fs::rename(&temporary, path).map_err(at)
    }
}

fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = LockFile::path_for(&dir.path().join("tiny.yaml"));
        assert_eq!(path, dir.path().join("tiny.lock"));
        let mut lock = LockFile::read(&path).unwrap();
        let pin = Pin {
            identity: json!({"commit": "abc", "files": ["*.json"]}),
            detail: json!({"bytes": 12}),
        };
        assert!(lock.set("hub dataset a/b@main", pin.clone()));
        assert!(!lock.set("hub dataset a/b@main", pin.clone()));
        lock.write(&path).unwrap();
        let again = LockFile::read(&path).unwrap();
        assert_eq!(again.get("hub dataset a/b@main"), Some(&pin));
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        fs::write(&path, "version: 2\nshape: another\n").unwrap();
        let error = LockFile::read(&path).unwrap_err();
        assert!(matches!(error, LockFileError::Newer { found: 2, .. }));
        assert!(error.to_string().contains("x.lock"), "{error}");
        fs::write(&path, "version: 1\nshape: another\n").unwrap();
        let error = LockFile::read(&path).unwrap_err();
        assert!(matches!(error, LockFileError::Malformed { .. }), "{error}");
    }
}
