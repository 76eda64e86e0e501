//! A folder that is, or is to be, the files of an artifact: its names, and what the kernel says of
//! each. A link, a pipe or a name that is not UTF-8 is refused.

use std::{
    fs::{self, Metadata},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use crate::{Error, files};

/// A folder as it stands: relative paths, sorted, with what the kernel says of each.
#[derive(Default)]
pub(super) struct Tree {
    root: PathBuf,
    pub(super) files: Vec<(String, Metadata)>,
    pub(super) folders: Vec<(String, Metadata)>,
}

impl Tree {
    pub(super) fn path(&self, relative: &str) -> PathBuf {
        join(&self.root, relative)
    }
}

pub(super) fn join(root: &Path, relative: &str) -> PathBuf {
    if relative.is_empty() {
        root.to_owned()
    } else {
        root.join(relative)
    }
}

pub(super) fn scan(root: &Path) -> Result<Tree, Error> {
    let metadata = fs::symlink_metadata(root).map_err(|error| Error::io("read", root, error))?;
    let mut tree = Tree {
        root: root.to_owned(),
        ..Tree::default()
    };
    if !metadata.is_dir() {
        let (path, what) = (root.to_owned(), odd(&metadata));
        return Err(Error::OddFile { path, what });
    }
    scan_folder(&mut tree, String::new(), metadata)?;
    // By bytes of the path, which is not the order of a walk: `a.b` sorts before `a/b`.
    tree.files.sort_by(|(a, _), (b, _)| a.cmp(b));
    tree.folders.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(tree)
}

fn scan_folder(tree: &mut Tree, relative: String, metadata: Metadata) -> Result<(), Error> {
    for path in files::list_folder(&tree.path(&relative))? {
        let metadata =
            fs::symlink_metadata(&path).map_err(|error| Error::io("read", &path, error))?;
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(Error::NotUtf8 { path });
        };
        let name = if relative.is_empty() {
            name.to_owned()
        } else {
            format!("{relative}/{name}")
        };
        if metadata.is_dir() {
            scan_folder(tree, name, metadata)?;
        } else if metadata.is_file() {
            tree.files.push((name, metadata));
        } else if metadata.is_symlink() {
            return Err(Error::Symlink { path });
        } else {
            let what = odd(&metadata);
            return Err(Error::OddFile { path, what });
        }
    }
    tree.folders.push((relative, metadata));
    Ok(())
}

fn odd(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "named pipe"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "device"
    } else if kind.is_symlink() {
        "symbolic link"
    } else {
        "file, not a folder"
    }
}
