//! An artifact: a list of files, and the digest of that list.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// A committed folder of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    pub digest: Digest,
    pub bytes: u64,
    pub files: Vec<FileEntry>,
}

/// One file of an artifact; `path` is relative, with `/` between its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub path: String,
    pub bytes: u64,
    pub digest: Digest,
}

impl Artifact {
    /// Its sorted list of files, as the bytes that its digest is of: a list hashes to its own name.
    #[must_use]
    pub fn to_list(&self) -> Vec<u8> {
        let mut list = Vec::new();
        write_list(&self.files, |bytes| list.extend_from_slice(bytes));
        list
    }

    /// Reads such a list, whoever wrote it; the error says in words what is wrong with it.
    ///
    /// A list that is taken can be written below a folder: its paths are relative, lead nowhere
    /// else, and stand in order, each once.
    pub fn of_list(list: &[u8]) -> Result<Self, String> {
        let rest = list.strip_prefix(LIST_HEAD);
        let mut rest = rest.ok_or("is no list of files that this tinylm knows")?;
        let mut files: Vec<FileEntry> = Vec::new();
        let mut total = 0_u64;
        while !rest.is_empty() {
            let file = read_entry(&mut rest).ok_or("has a torn list of files")?;
            let shown = file.path.escape_debug();
            if !is_inside(&file.path) {
                return Err(format!("has a file `{shown}`, which leads out of it"));
            }
            if files.last().is_some_and(|last| last.path >= file.path) {
                return Err(format!("has `{shown}` out of order"));
            }
            let sum = total.checked_add(file.bytes);
            total = sum.ok_or("has more bytes than can be counted")?;
            files.push(file);
        }
        Ok(Artifact {
            digest: Digest::of_bytes(list),
            bytes: total,
            files,
        })
    }
}

const LIST_HEAD: &[u8] = b"tinylm artifact 1\n";

/// The digest of a sorted list of files. Lengths stand before what they measure, so that no two
/// lists share an encoding.
pub(crate) fn artifact_digest<'a>(files: impl IntoIterator<Item = &'a FileEntry>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    write_list(files, |bytes| {
        hasher.update(bytes);
    });
    hasher.finalize().into()
}

fn write_list<'a>(files: impl IntoIterator<Item = &'a FileEntry>, mut write: impl FnMut(&[u8])) {
    write(LIST_HEAD);
    for file in files {
        write(&(file.path.len() as u64).to_le_bytes());
        write(file.path.as_bytes());
        write(&file.bytes.to_le_bytes());
        write(file.digest.as_bytes());
    }
}

fn read_entry(rest: &mut &[u8]) -> Option<FileEntry> {
    let len = u64::from_le_bytes(*rest.split_off(..8)?.as_array()?);
    let path = rest.split_off(..usize::try_from(len).ok()?)?;
    let path = str::from_utf8(path).ok()?.to_owned();
    let bytes = u64::from_le_bytes(*rest.split_off(..8)?.as_array()?);
    let digest: [u8; 32] = *rest.split_off(..32)?.as_array()?;
    Some(FileEntry {
        path,
        bytes,
        digest: blake3::Hash::from_bytes(digest).into(),
    })
}

/// Whether a path stays below the folder that it is relative to.
fn is_inside(path: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= 255;
    path.len() <= 4096 && !path.contains('\0') && path.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn two_lists_share_a_digest_only_if_they_are_the_same(
            a in prop::collection::btree_map("[ab/]{1,3}", "[ab]{0,2}", 0..3),
            b in prop::collection::btree_map("[ab/]{1,3}", "[ab]{0,2}", 0..3),
        ) {
            let digest = |files: &BTreeMap<String, String>| {
                let entries: Vec<FileEntry> = files
                    .iter()
                    .map(|(path, text)| FileEntry {
                        path: path.clone(),
                        bytes: text.len() as u64,
                        digest: Digest::of_bytes(text.as_bytes()),
                    })
                    .collect();
                artifact_digest(&entries)
            };
            prop_assert_eq!(digest(&a) == digest(&b), a == b);
        }

        #[test]
        fn a_list_hashes_to_its_name_and_is_read_as_it_was_written(
            paths in prop::collection::btree_set("[ab]{1,3}(/[ab]{1,2})?", 0..4),
        ) {
            let artifact = artifact(paths.iter().map(String::as_str));
            let list = artifact.to_list();
            prop_assert_eq!(Digest::of_bytes(&list), artifact.digest);
            prop_assert_eq!(Artifact::of_list(&list), Ok(artifact));
            prop_assert!(Artifact::of_list(&list[..list.len() - 1]).is_err());
        }
    }

    fn artifact<'a>(paths: impl Iterator<Item = &'a str>) -> Artifact {
        let files: Vec<FileEntry> = paths
            .map(|path| FileEntry {
                path: path.to_owned(),
                bytes: path.len() as u64,
                digest: Digest::of_bytes(path.as_bytes()),
            })
            .collect();
        Artifact {
            digest: artifact_digest(&files),
            bytes: files.iter().map(|file| file.bytes).sum(),
            files,
        }
    }

    #[test]
    fn a_list_that_leads_elsewhere_is_refused_in_words() {
        let refused = |paths: &[&str]| {
            let list = artifact(paths.iter().copied()).to_list();
            Artifact::of_list(&list).unwrap_err()
        };
        for path in [
            "../a",
            "/etc/passwd",
            "a/../../b",
            "a//b",
            "",
            "a/",
            "./a",
            "a\0b",
        ] {
            let told = refused(&[path]);
            assert!(told.ends_with("which leads out of it"), "{told}");
        }
        assert_eq!(refused(&["b", "a"]), "has `a` out of order");
        assert_eq!(refused(&["a", "a"]), "has `a` out of order");
        let mut endless = artifact(["a"].into_iter());
        endless.files[0].bytes = u64::MAX;
        endless.files.push(FileEntry {
            path: "b".to_owned(),
            ..endless.files[0].clone()
        });
        let told = Artifact::of_list(&endless.to_list()).unwrap_err();
        assert_eq!(told, "has more bytes than can be counted");
    }
}
