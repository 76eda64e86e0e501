//! Writing a file so that a reader, or a crash, sees all of it or none.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use crate::Error;

/// Replaces the file at `path` by `bytes`: temporary file, fsync, rename, fsync of the folder.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = write_beside(path, bytes, true)?;
    rename(&temporary, path).inspect_err(|_| remove_quietly(&temporary))?;
    sync_folder(parent(path))
}

/// As [`write_atomic`] but not flushed to the disk: for what a crash may take back.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = write_beside(path, bytes, false)?;
    rename(&temporary, path).inspect_err(|_| remove_quietly(&temporary))
}

fn write_beside(path: &Path, bytes: &[u8], sync: bool) -> Result<PathBuf, Error> {
    create_folder(parent(path))?;
    let temporary = parent(path).join(format!(".{}.new", uuid::Uuid::now_v7().simple()));
    let written = File::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        if sync { file.sync_all() } else { Ok(()) }
    });
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            remove_quietly(&temporary);
            Err(Error::io_of("write", path, Some(bytes.len() as u64), error))
        }
    }
}

pub(crate) fn create_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|error| Error::io("create", path, error))
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|error| Error::io("move a file to", to, error))
}

pub(crate) fn sync_file(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::io("flush", path, error))
}

/// Flushes a folder's list of names, without which a rename may not survive a power cut.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Error> {
    sync_file(path)
}

/// Removes a folder and all in it; that it is gone already is fine.
pub(crate) fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Removes a file; that it is gone already is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// The entries of a folder in order of their names; none when it does not exist.
pub(crate) fn list_folder(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Error::io("list", path, error))?,
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::io("list", path, error))?;
    paths.sort();
    Ok(paths)
}

/// The bytes of all files below a folder; what vanishes meanwhile counts as nothing.
pub(crate) fn folder_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => folder_bytes(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}

pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn remove_quietly(path: &Path) {
    // The error that made us give up matters more than this one.
    let _ = fs::remove_file(path);
}
