//! The user's own files that settings name: which they are, and what is in them.
//!
//! A path setting may be a file, a folder or a glob. In the key stand the names and
//! digests of the files found, never where they are, so a corpus that moved or was
//! touched re-runs nothing and one that changed behind an old time stamp does.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    io::LocalFile,
    settings::{Setting, Shape},
    stage::StageError,
};

/// Where the digest of a file comes from: a cache, or the file itself.
pub(crate) type DigestFile<'a> = dyn Fn(&Path) -> Result<(String, u64), StageError> + 'a;

/// Returns every path setting in `value` with its dotted name.
pub(crate) fn path_settings(list: &[Setting], value: &Value) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for setting in list {
        if let Some(inner) = value.get(setting.name) {
            collect(&setting.shape, inner, setting.name, &mut found);
        }
    }
    found
}

fn collect(shape: &Shape, value: &Value, name: &str, found: &mut Vec<(String, PathBuf)>) {
    match (shape, value) {
        (Shape::Path, Value::String(path)) => found.push((name.to_owned(), PathBuf::from(path))),
        (Shape::Map(list, _), Value::Object(_)) => {
            let inner = path_settings(list, value);
            found.extend(
                inner
                    .into_iter()
                    .map(|(path, file)| (format!("{name}.{path}"), file)),
            );
        }
        (Shape::List(inner), Value::Array(items)) => {
            for (idx, item) in items.iter().enumerate() {
                collect(inner, item, &format!("{name}.{idx}"), found);
            }
        }
        _ => {}
    }
}

/// Returns the files that the path settings name, with their digests.
pub(crate) fn local_files(
    list: &[Setting],
    value: &Value,
    digest: &DigestFile,
) -> Result<Vec<LocalFile>, StageError> {
    let mut files = Vec::new();
    for (setting, path) in path_settings(list, value) {
        for (name, path) in named_files(&path)? {
            let (digest, bytes) = digest(&path)?;
            files.push(LocalFile {
                setting: setting.clone(),
                name,
                path,
                bytes,
                digest,
            });
        }
    }
    Ok(files)
}

/// Returns the files behind one path setting, each with the name it goes by, sorted by name.
fn named_files(path: &Path) -> Result<Vec<(String, PathBuf)>, StageError> {
    let mut files = Vec::new();
    if path.is_dir() {
        walk_folder(path, path, &mut files)?;
    } else if path.exists() {
        let name = path.file_name().unwrap_or(path.as_os_str());
        files.push((utf8(Path::new(name))?, path.to_owned()));
    } else if let Some(pattern) = path.to_str().filter(|text| text.contains(['*', '?', '['])) {
        glob_files(pattern, &mut files)?;
    } else {
        return Err(missing(path));
    }
    if files.is_empty() {
        let message = format!("`{}` names no file", path.display());
        return Err(StageError::new(message).is_final());
    }
    files.sort();
    Ok(files)
}

fn walk_folder(
    root: &Path,
    folder: &Path,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<(), StageError> {
    let io = |error: &std::io::Error| StageError::io(folder, error);
    for entry in fs::read_dir(folder).map_err(|error| io(&error))? {
        let path = entry.map_err(|error| io(&error))?.path();
        if path.is_dir() {
            walk_folder(root, &path, files)?;
        } else {
            files.push((utf8(path.strip_prefix(root).unwrap_or(&path))?, path));
        }
    }
    Ok(())
}

fn glob_files(pattern: &str, files: &mut Vec<(String, PathBuf)>) -> Result<(), StageError> {
    let matches = glob::glob(pattern).map_err(|error| {
        StageError::new(format!("`{pattern}` is not a glob: {error}")).is_final()
    })?;
    let root = fixed_part(pattern);
    for path in matches {
        let path = path.map_err(|error| StageError::io(error.path(), error.error()))?;
        if path.is_file() {
            files.push((utf8(path.strip_prefix(&root).unwrap_or(&path))?, path));
        }
    }
    Ok(())
}

/// Returns the folders of a pattern before its first wildcard.
fn fixed_part(pattern: &str) -> PathBuf {
    Path::new(pattern)
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']))
        .collect()
}

fn utf8(path: &Path) -> Result<String, StageError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let message = format!("the name of `{}` is not UTF-8", path.display());
        StageError::new(message).help("rename the file").is_final()
    })
}

fn missing(path: &Path) -> StageError {
    let error = StageError::new(format!("`{}` does not exist", path.display())).is_final();
    match nearest_sibling(path) {
        Some(name) => error.help(format!("did you mean `{name}`?")),
        None => error,
    }
}

fn nearest_sibling(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let entries = fs::read_dir(path.parent()?).ok()?;
    let names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    crate::spec::nearest(wanted, names.iter().map(String::as_str)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/deep")).unwrap();
        for file in ["a/one.txt", "a/deep/two.txt", "a/three.md"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        dir
    }

    fn names(path: &Path) -> Vec<String> {
        let files = named_files(path).unwrap();
        files.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_file_keeps_its_base_name_and_a_folders_files_their_paths_inside() {
        let dir = project();
        assert_eq!(names(&dir.path().join("a/one.txt")), ["one.txt"]);
        assert_eq!(
            names(&dir.path().join("a")),
            ["deep/two.txt", "one.txt", "three.md"]
        );
    }

    #[test]
    fn a_globs_files_are_named_below_the_last_folder_without_a_wildcard() {
        let dir = project();
        assert_eq!(names(&dir.path().join("a/*.txt")), ["one.txt"]);
        assert_eq!(names(&dir.path().join("*/*.txt")), ["a/one.txt"]);
        assert_eq!(
            names(&dir.path().join("a/**/*.txt")),
            ["deep/two.txt", "one.txt"]
        );
    }

    #[test]
    fn a_missing_file_is_named_with_the_nearest() {
        let dir = project();
        let error = named_files(&dir.path().join("a/oen.txt")).unwrap_err();
        assert!(error.message.contains("a/oen.txt"), "{error}");
        assert_eq!(error.help.as_deref(), Some("did you mean `one.txt`?"));
    }
}
