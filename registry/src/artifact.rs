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

/// The digest of a sorted list of files. Lengths stand before what they measure, so that no two
/// lists share an encoding.
pub(crate) fn artifact_digest<'a>(files: impl IntoIterator<Item = &'a FileEntry>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"tinylm artifact 1\n");
    for file in files {
        hasher.update(&(file.path.len() as u64).to_le_bytes());
        hasher.update(file.path.as_bytes());
        hasher.update(&file.bytes.to_le_bytes());
        hasher.update(file.digest.as_bytes());
    }
    hasher.finalize().into()
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
    }
}
