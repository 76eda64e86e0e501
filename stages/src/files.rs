//! Folders as sorted lists of files.

use std::{
    fs,
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
