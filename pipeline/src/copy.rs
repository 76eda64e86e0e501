//! Copying a file so that an error names the end that it is about.

use std::{fs, io, path::Path};

use crate::error::StageError;

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
