//! The user's own files that settings name: which they are, and what is in them.
//!
//! A path setting may be a file, a folder or a glob. In the key stand the names and
//! digests of the files found, never where they are, so a corpus that moved or was
//! touched re-runs nothing and one that changed behind an old time stamp does.

use std::{
    ffi::OsStr,
    fs, io, iter,
    path::{Path, PathBuf},
};

use glob::Pattern;
use serde_json::Value;

use crate::{
    error::{At, StageError},
    io::LocalFile,
    settings::{Setting, Shape},
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
pub(crate) fn named_files(path: &Path) -> Result<Vec<(String, PathBuf)>, StageError> {
    let mut files = Vec::new();
    match fs::metadata(path) {
        Ok(_) => {
            let mut open = Vec::new();
            if !add_folder(path, path, &mut open, &mut files)? {
                let folder = path.parent().unwrap_or(path);
                files.push((name_below(folder, path)?, path.to_owned()));
            }
        }
        Err(error) => {
            let (root, parts) = at_first_wildcard(path);
            if !parts.is_empty() {
                add_matches(&root, &root, &patterns(path, &parts)?, &mut files)?;
            } else if is_absent(&error) {
                return Err(missing(path));
            } else {
                return Err(StageError::io(path, &error));
            }
        }
    }
    if files.is_empty() {
        let message = format!("`{}` names no file", path.display());
        return Err(StageError::new(message).is_final());
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// Adds all files below a folder; returns whether `folder` is one and not a file. `open` are the
/// real places of the folders around it, so that a link back into one of them ends the walk.
fn add_folder(
    root: &Path,
    folder: &Path,
    open: &mut Vec<PathBuf>,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<bool, StageError> {
    if !is_folder(folder)? {
        return Ok(false);
    }
    let real = fs::canonicalize(folder).at(folder)?;
    if open.iter().any(|outer| outer.starts_with(&real)) {
        return Err(refused(folder, "is a link to a folder that it is in"));
    }
    open.push(real);
    for path in entries(folder)? {
        if !add_folder(root, &path, open, files)? {
            files.push((name_below(root, &path)?, path));
        }
    }
    open.pop();
    Ok(true)
}

/// Splits a path before its first part with a wildcard. A part that is there as it is written
/// has none, so that a project may live in a folder called `[draft]`.
fn at_first_wildcard(path: &Path) -> (PathBuf, Vec<&OsStr>) {
    let mut root = PathBuf::new();
    let mut parts = path.iter();
    while let Some(part) = parts.next() {
        let is_wild = part.to_string_lossy().contains(['*', '?', '[']);
        if is_wild && !root.join(part).exists() {
            return (root, iter::once(part).chain(parts).collect());
        }
        root.push(part);
    }
    (root, Vec::new())
}

fn patterns(path: &Path, parts: &[&OsStr]) -> Result<Vec<Pattern>, StageError> {
    let parts = parts.iter();
    let patterns: Result<_, _> = parts
        .map(|part| Pattern::new(&part.to_string_lossy()))
        .collect();
    patterns.map_err(|error| {
        let path = path.display();
        StageError::new(format!("`{path}` is not a glob: {error}")).is_final()
    })
}

/// Adds the files below `folder` that a glob's remaining parts match.
///
/// Our own walk, because the library's passes over names that are not UTF-8 without a word.
fn add_matches(
    root: &Path,
    folder: &Path,
    parts: &[Pattern],
    files: &mut Vec<(String, PathBuf)>,
) -> Result<(), StageError> {
    let Some((part, rest)) = parts.split_first() else {
        return Ok(());
    };
    let is_deep = part.as_str() == "**";
    if is_deep && !rest.is_empty() {
        add_matches(root, folder, rest, files)?;
    }
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !is_deep && !part.matches(&name) {
            continue;
        }
        if path.is_dir() {
            // Where nothing bounds the depth a link could lead around in a circle.
            if !is_deep || !path.is_symlink() {
                add_matches(root, &path, if is_deep { parts } else { rest }, files)?;
            }
        } else if rest.is_empty() {
            is_folder(&path)?;
            files.push((name_below(root, &path)?, path));
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StageError> {
    let entries = fs::read_dir(folder).at(folder)?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    paths.at(folder)
}

/// Returns whether a path leads to a folder; anything but that and a plain file is refused,
/// because reading a pipe or a device may never end.
fn is_folder(path: &Path) -> Result<bool, StageError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(found) if found.is_file() => Ok(false),
        Ok(_) => Err(refused(path, "is neither a file nor a folder")),
        Err(error) if path.is_symlink() && is_absent(&error) => {
            Err(refused(path, "is a link to nothing"))
        }
        Err(error) => Err(StageError::io(path, &error)),
    }
}

fn refused(path: &Path, what: &str) -> StageError {
    StageError::new(format!("`{}` {what}", path.display()))
        .help("take it away, or name only the files that are meant")
        .is_final()
}

fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn name_below(root: &Path, path: &Path) -> Result<String, StageError> {
    let name = path.strip_prefix(root).unwrap_or(path).to_str();
    name.map(str::to_owned).ok_or_else(|| {
        let message = format!("the name of `{}` is not UTF-8", path.display());
        let error = StageError::new(message).is_final();
        error.help("rename it, or name only the files that are meant")
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
    use crate::skipped::skipped;

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
    fn a_part_that_is_there_as_written_is_no_wildcard() {
        let dir = project();
        let odd = dir.path().join("draft [v2]*");
        fs::create_dir(&odd).unwrap();
        fs::write(odd.join("one.txt"), "").unwrap();
        assert_eq!(names(&odd.join("*.txt")), ["one.txt"]);
        assert_eq!(names(&odd.join("one.txt")), ["one.txt"]);
        let error = named_files(&odd.join("two.txt")).unwrap_err();
        assert!(error.message.ends_with("does not exist"), "{error}");
        assert!(named_files(&dir.path().join("a/[")).is_err());
    }

    #[test]
    fn links_are_followed_but_not_in_a_circle_and_pipes_are_refused() {
        use std::os::unix::fs::symlink;
        let dir = project();
        let linked = dir.path().join("linked");
        fs::create_dir(&linked).unwrap();
        symlink("../a", linked.join("to_a")).unwrap();
        symlink("../a/one.txt", linked.join("one.txt")).unwrap();
        let found = "one.txt to_a/deep/two.txt to_a/one.txt to_a/three.md";
        assert_eq!(names(&linked).join(" "), found);
        assert_eq!(names(&linked.join("*.txt")), ["one.txt"]);

        let refused = |path: PathBuf| named_files(&path).unwrap_err().message;
        symlink("../linked", dir.path().join("a/back")).unwrap();
        assert!(refused(linked.clone()).contains("to_a/back` is a link to a folder that it is in"));
        assert_eq!(names(&linked.join("**/*.txt")), ["one.txt"]);
        symlink("nothing", linked.join("z.txt")).unwrap();
        assert!(refused(linked.join("*.txt")).contains("z.txt` is a link to nothing"));
        assert!(refused(PathBuf::from("/dev/zero")).contains("neither a file nor a folder"));
    }

    #[test]
    fn a_name_that_is_not_utf_8_is_refused_wherever_it_would_count() {
        use std::os::unix::ffi::OsStrExt;
        let dir = project();
        let odd = dir
            .path()
            .join("a")
            .join(OsStr::from_bytes(b"odd-\xff.txt"));
        if fs::write(odd, "").is_err() {
            return skipped("this file system takes UTF-8 only");
        }
        let place = dir.path().join("a");
        for path in [place.clone(), place.join("*.txt"), place.join("**/*.txt")] {
            let error = named_files(&path).unwrap_err();
            assert!(error.message.contains("is not UTF-8"), "{error}");
        }
        assert_eq!(names(&place.join("*.md")), ["three.md"]);
    }

    #[test]
    fn a_missing_file_is_named_with_the_nearest() {
        let dir = project();
        let error = named_files(&dir.path().join("a/oen.txt")).unwrap_err();
        assert!(error.message.contains("a/oen.txt"), "{error}");
        assert_eq!(error.help.as_deref(), Some("did you mean `one.txt`?"));
    }
}
