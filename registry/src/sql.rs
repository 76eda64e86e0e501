//! SQLite's errors, told as ours.
//!
//! SQLite has one word for a file that is damaged, locked, full or out of reach: that it failed.
//! Whoever reads the message has to do something else in each case.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::{Error, files};

pub(crate) fn error(path: &Path, source: rusqlite::Error) -> Error {
    let owned = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Damaged {
            path: owned,
            what: source.to_string(),
        },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy { path: owned },
        Some(ErrorCode::DiskFull) => no_room(path),
        // SQLite does not say that it was room which failed it, for its shared index.
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_full(path) => no_room(path),
        _ => Error::Sql {
            path: owned,
            source,
        },
    }
}

fn no_room(path: &Path) -> Error {
    Error::NoRoom {
        action: "write to",
        path: path.to_owned(),
        bytes: None,
    }
}

/// Returns whether the disk has no room for even a page of SQLite's shared index.
fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(files::parent(path))
        .is_ok_and(|disk| disk.f_bavail * disk.f_frsize < 64 * 1024)
}
