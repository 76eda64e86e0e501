//! The condition of an artifact, and damage in words.

use std::path::{Path, PathBuf};

use super::{manifest::Manifest, tree::join};
use crate::{Error, FileEntry};

/// The condition of an artifact.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    Whole(Manifest),
    Missing,
    Damaged { path: PathBuf, what: String },
}

/// Something that no artifact can hold, found in one, is damage; anything else is an error.
pub(super) fn damaged_or(error: Error, files: &Path) -> Result<Condition, Error> {
    let (path, what) = match error {
        Error::Symlink { path } => (path, "is a symbolic link".to_owned()),
        Error::NotUtf8 { path } => (path, "was added".to_owned()),
        Error::OddFile { path, what } => (path, format!("is a {what}")),
        Error::Io { path, source, .. } if path == files && is_absent(&source) => {
            (path, "is missing".to_owned())
        }
        error => return Err(error),
    };
    Ok(Condition::Damaged { path, what })
}

/// Names the first file in which what was found differs from what was known.
pub(super) fn difference(root: &Path, known: Option<&Manifest>, found: &Manifest) -> Condition {
    let Some(known) = known else {
        return Condition::Damaged {
            path: root.to_owned(),
            what: "has neither a manifest nor the contents of its name".into(),
        };
    };
    let is_in = |file: &FileEntry, manifest: &Manifest| manifest.files().any(|other| other == file);
    let lost = known.files().find(|file| !is_in(file, found));
    let added = found.files().find(|file| !is_in(file, known));
    let (file, what) = match (lost, added) {
        (Some(file), _) if found.files().any(|other| other.path == file.path) => {
            (file, "has other contents")
        }
        (Some(file), _) => (file, "is missing"),
        (None, Some(file)) => (file, "was added"),
        (None, None) => {
            return Condition::Damaged {
                path: root.to_owned(),
                what: "has a manifest of something else".into(),
            };
        }
    };
    Condition::Damaged {
        path: join(root, &file.path),
        what: what.into(),
    }
}

pub(super) fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}
