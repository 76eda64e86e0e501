//! A look at an artifact's files: stats held against the manifest, and only what has changed is read.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    condition::is_absent,
    contents::read_file,
    manifest::{KnownFolder, Manifest},
    tree::{join, scan},
};
use crate::{Error, stat::Stat};

/// The differences between the files and the manifest.
pub(super) enum Look {
    Same,
    /// Some files had to be read; all held what they should, and this is the newer manifest.
    Reread(Manifest),
    Damaged {
        path: PathBuf,
        what: String,
    },
}

pub(super) fn look(root: &Path, manifest: &Manifest) -> Result<Look, Error> {
    let mut refreshed = manifest.clone();
    let mut same = true;
    for known in &mut refreshed.files {
        let path = join(root, &known.entry.path);
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if is_absent(&error) => return Ok(damaged(path, "is missing")),
            metadata => metadata.map_err(|error| Error::io("read", &path, error))?,
        };
        let stat = Stat::of(&metadata);
        if known.settled && known.stat() == stat {
            continue;
        }
        // Whoever shares a file with this artifact moves its ctime by coming and going.
        if known.settled && metadata.nlink() > 1 && known.stat().is_same_but_ctime(&stat) {
            known.ctime_ns = stat.ctime_ns;
            same = false;
            continue;
        }
        if !metadata.is_file() {
            return Ok(damaged(path, "is no longer a file"));
        }
        if stat.bytes != known.entry.bytes {
            let what = format!("has {} bytes instead of {}", stat.bytes, known.entry.bytes);
            return Ok(Look::Damaged { path, what });
        }
        let read = read_file(&path, &known.entry.path)?;
        if read.entry != known.entry {
            return Ok(damaged(path, "has other contents"));
        }
        *known = read;
        same = false;
    }
    if let Some(folders) = look_at_folders(root, manifest)? {
        let (folders, added) = folders;
        if let Some(path) = added {
            return Ok(damaged(path, "was added"));
        }
        refreshed.folders = folders;
        same = false;
    }
    Ok(if same {
        Look::Same
    } else {
        Look::Reread(refreshed)
    })
}

type Folders = (Vec<KnownFolder>, Option<PathBuf>);

/// Lists the folders again if one has changed: nothing if none has, else what they look like now
/// and a file that does not belong there.
fn look_at_folders(root: &Path, manifest: &Manifest) -> Result<Option<Folders>, Error> {
    let is_same = |known: &KnownFolder| {
        fs::symlink_metadata(join(root, &known.path))
            .is_ok_and(|metadata| known.is_as(Stat::of(&metadata)))
    };
    if manifest.folders.iter().all(is_same) {
        return Ok(None);
    }
    let tree = scan(root)?;
    let ours: BTreeSet<&str> = manifest.files().map(|file| file.path.as_str()).collect();
    let added = tree
        .files
        .iter()
        .find(|(path, _)| !ours.contains(path.as_str()));
    let added = added.map(|(path, _)| tree.path(path));
    let folders = tree
        .folders
        .iter()
        .map(|(path, metadata)| KnownFolder::new(path, Stat::of(metadata)));
    Ok(Some((folders.collect(), added)))
}

fn damaged(path: PathBuf, what: &str) -> Look {
    let what = what.to_owned();
    Look::Damaged { path, what }
}
