//! Reading every byte of a folder: what it holds, as a manifest.

use std::{
    fs::{self, File, Metadata, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use rayon::prelude::*;

use super::{
    manifest::{Known, KnownFolder, Manifest},
    tree::Tree,
};
use crate::{
    Error, FileEntry, files, hash_file, names,
    stat::{Stat, now_ns},
};

/// Reads every file of a tree; for a commit also flushes it and makes it nobody else's.
pub(super) fn read_contents(tree: &Tree, for_commit: bool) -> Result<Manifest, Error> {
    let files: Vec<Known> = tree
        .files
        .par_iter()
        .map(|(relative, metadata)| {
            let path = tree.path(relative);
            if for_commit {
                own(&path, metadata)?;
            }
            read_file(&path, relative)
        })
        .collect::<Result<_, Error>>()?;
    let folders = tree
        .folders
        .iter()
        .map(|(relative, metadata)| {
            if for_commit {
                own_folder(&tree.path(relative), metadata)?;
            }
            Ok(KnownFolder::new(relative, Stat::of(metadata)))
        })
        .collect::<Result<_, Error>>()?;
    Ok(Manifest::new(files, folders))
}

/// Replaces a hard link by a copy, since the other name could change our bytes; then flushes.
fn own(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    if metadata.nlink() > 1 {
        let copy = path.with_file_name(format!(".{}.copy", names::unique()));
        fs::copy(path, &copy)
            .map_err(|error| Error::io_of("copy", path, Some(metadata.len()), error))?;
        files::rename(&copy, path)?;
    }
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::io_of("flush", path, Some(metadata.len()), error))
}

/// Copies a file of the store into a folder that is to be an artifact, and flushes it.
pub(super) fn copy(from: &Path, to: &Path, bytes: u64) -> Result<(), Error> {
    fs::copy(from, to).map_err(|error| Error::io_of("copy", to, Some(bytes), error))?;
    files::sync_file(to)
}

/// Lets us empty the folder one day, which a copy of a read-only one would not; then flushes.
fn own_folder(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    let mode = metadata.mode();
    if mode & 0o700 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(mode | 0o700))
            .map_err(|error| Error::io("make writable", path, error))?;
    }
    files::sync_file(path)
}

pub(super) fn read_file(path: &Path, relative: &str) -> Result<Known, Error> {
    let read_at_ns = now_ns();
    let before = stat(path)?;
    let (digest, bytes) = hash_file(path)?;
    let after = stat(path)?;
    if !after.is_same_but_ctime(&before) {
        return Err(Error::ChangedWhileRead { path: path.into() });
    }
    let path = relative.to_owned();
    let entry = FileEntry {
        path,
        bytes,
        digest,
    };
    let mut known = Known::new(entry, after, read_at_ns);
    // Another artifact may have begun to share it.
    known.settled &= after == before;
    Ok(known)
}

pub(super) fn stat(path: &Path) -> Result<Stat, Error> {
    let metadata = fs::symlink_metadata(path).map_err(|error| Error::io("read", path, error))?;
    Ok(Stat::of(&metadata))
}
