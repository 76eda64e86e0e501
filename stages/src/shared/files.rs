//! Folders as sorted lists of files, and files as digests.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use tinylm_pipeline::{At, StageError};

/// Returns every file below a folder with its path inside it (`/` between parts), sorted by that.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<(String, PathBuf)>, StageError> {
    let mut files = Vec::new();
    let mut folders = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, path)) = folders.pop() {
        for entry in fs::read_dir(&path).at(&path)? {
            let entry = entry.at(&path)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().at(entry.path())?.is_dir() {
                folders.push((format!("{name}/"), entry.path()));
            } else {
                files.push((name, entry.path()));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the blake3 digest of a file. It is read and not mapped: what is mapped counts as
/// memory of the process, and files may be larger than all of that.
pub(crate) fn digest(path: &Path) -> Result<blake3::Hash, StageError> {
    let mut file = File::open(path).at(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 4 << 20];
    loop {
        match file.read(&mut buffer).at(path)? {
            0 => return Ok(hasher.finalize()),
            n_read => hasher.update_rayon(&buffer[..n_read]),
        };
    }
}

/// Returns `name` if it stays in the folder that it is relative to. A colon is as good as
/// any other character, except where it names a drive.
pub(crate) fn safe_name(name: &str) -> Result<String, StageError> {
    let parts: Vec<&str> = name
        .split(['/', '\\'])
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    let is_drive =
        |part: &&str| matches!(part.as_bytes(), [letter, b':'] if letter.is_ascii_alphabetic());
    let is_absolute = name.starts_with(['/', '\\']) || parts.first().is_some_and(is_drive);
    let leaves = |part: &&str| *part == ".." || part.contains('\0');
    if is_absolute || parts.is_empty() || parts.iter().any(leaves) {
        let message = format!("`{}` leads out of its folder", name.escape_debug());
        return Err(StageError::new(message).is_final());
    }
    Ok(parts.join("/"))
}

pub(crate) fn remove(path: &Path) -> Result<(), StageError> {
    std::fs::remove_file(path).map_err(|error| StageError::io(path, &error))
}
