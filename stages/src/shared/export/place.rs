//! The folder that an export goes to: whole or not there, and never in place of something else.

use std::{
    fs::{self, DirEntry, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tinylm_pipeline::{At, StageError};

use super::files::{
    ADAPTER_SETTINGS_NAME, CARD_NAME, MARK, MODELFILE_NAME, NAMES, OURS, SETTINGS_NAME, TAG,
};

/// Makes a folder beside `out` with `make` and then moves it there. What stood there before must be
/// an earlier export or an empty folder, and stays as it is if anything fails. One export writes at a
/// time: two would mix their files.
pub fn in_place<T>(
    out: &Path,
    make: impl FnOnce(&Path) -> Result<T, StageError>,
) -> Result<T, StageError> {
    // A link to a folder stays a link.
    let out = fs::canonicalize(out).unwrap_or_else(|_| out.to_owned());
    check(&out)?;
    let (unfinished, earlier) = (beside(&out, "unfinished"), beside(&out, "earlier"));
    let _alone = alone(&unfinished, &out)?;
    if earlier.exists() && !out.exists() {
        // An export was killed between its two moves.
        fs::rename(&earlier, &out).at(&earlier)?;
    }
    remove(&earlier)?;
    empty(&unfinished)?;
    let made = make(&unfinished).and_then(|made| {
        swap(&unfinished, &out, &earlier)?;
        Ok(made)
    });
    if made.is_err() {
        remove(&unfinished).ok();
    }
    made
}

/// Returns the folder that is written, locked for as long as it is open: the lock of an export that
/// was killed is gone with it.
fn alone(unfinished: &Path, out: &Path) -> Result<File, StageError> {
    fs::create_dir_all(unfinished).at(unfinished)?;
    let folder = File::open(unfinished).at(unfinished)?;
    let is_there = || {
        let same = fs::metadata(unfinished).ok()?.ino() == folder.metadata().ok()?.ino();
        same.then_some(())
    };
    let is_free = match folder.try_lock() {
        Ok(()) => is_there().is_some(),
        Err(TryLockError::WouldBlock) => false,
        // A file system without locks.
        Err(TryLockError::Error(_)) => true,
    };
    match is_free {
        true => Ok(folder),
        false => {
            let message = format!("another export to `{}` is under way", out.display());
            let help = "wait until it is done, or name another folder with `--out`";
            Err(StageError::new(message).help(help))
        }
    }
}

fn empty(folder: &Path) -> Result<(), StageError> {
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        let removed = match path.is_dir() && !path.is_symlink() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        removed.at(&path)?;
    }
    Ok(())
}

fn check(out: &Path) -> Result<(), StageError> {
    let shown = out.display();
    let help = "name another folder with `--out`";
    let wrong = |message: String| Err(StageError::new(message).help(help).is_final());
    if out.file_name().is_none() {
        return wrong(format!("`{shown}` has no name that an export could have"));
    }
    match fs::metadata(out) {
        Err(_) if out.is_symlink() => wrong(format!("`{shown}` is a link to nothing")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StageError::io(out, &error)),
        Ok(found) if !found.is_dir() => wrong(format!("`{shown}` is there and is no folder")),
        Ok(_) if is_empty(out)? || is_export(out) => Ok(()),
        Ok(_) => wrong(format!(
            "`{shown}` is there and holds something else than an export"
        )),
    }
}

fn is_empty(folder: &Path) -> Result<bool, StageError> {
    Ok(fs::read_dir(folder).at(folder)?.next().is_none())
}

/// Whether a folder is one of ours, with nothing in it that somebody put there since.
fn is_export(folder: &Path) -> bool {
    let settings = fs::read(folder.join(SETTINGS_NAME)).unwrap_or_default();
    let settings: Value = serde_json::from_slice(&settings).unwrap_or_default();
    let modelfile = fs::read_to_string(folder.join(MODELFILE_NAME)).unwrap_or_default();
    let card = fs::read_to_string(folder.join(CARD_NAME)).unwrap_or_default();
    let is_adapter = folder.join(ADAPTER_SETTINGS_NAME).exists() && card.contains(TAG);
    (settings[OURS].is_object() || modelfile.starts_with(MARK) || is_adapter)
        && holds_ours(folder, "")
}

/// Whether all files of a folder, whose own names begin so, are ones that an export may have.
fn holds_ours(folder: &Path, prefix: &str) -> bool {
    let is_ours = |entry: DirEntry| {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type().is_ok_and(|sort| sort.is_dir()) {
            true => holds_ours(&entry.path(), &format!("{name}/")),
            false => NAMES.contains(&name.as_str()),
        }
    };
    fs::read_dir(folder).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(is_ours)))
}

fn beside(out: &Path, what: &str) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".{name}.{what}"))
}

fn swap(from: &Path, out: &Path, earlier: &Path) -> Result<(), StageError> {
    let is_replaced = out.exists();
    if is_replaced {
        fs::rename(out, earlier).at(out)?;
    }
    if let Err(error) = fs::rename(from, out) {
        if is_replaced {
            fs::rename(earlier, out).at(earlier)?;
        }
        return Err(StageError::io(out, &error));
    }
    remove(earlier)
}

fn remove(folder: &Path) -> Result<(), StageError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StageError::io(folder, &error))
        }
        _ => Ok(()),
    }
}
