//! Where everything stands in a remote.
//!
//! | object | holds | is named by |
//! | --- | --- | --- |
//! | `v1/keys/ab/cdef...` | a key record | the key |
//! | `v1/lists/ab/cdef...` | the list of an artifact's files | the artifact's digest, which is the list's own |
//! | `v1/blobs/ab/cdef...` | one file | its digest |
//! | `v1/packs/ab/cdef...-N` | small files of one artifact, end to end | the artifact's digest |
//! | `v1/runs/NAME` | which keys a run is of | the run's name |
//! | `v1/histories/abcdef...` | what is remembered of a run | its digest |
//!
//! What is in which pack follows from the list alone, so packs need no index that could lie.

use object_store::path::Path;
use tinylm_registry::{Artifact, Digest};

/// Files up to this size are packed: a request costs as much as some hundred kilobytes.
const SMALL: u64 = 256 << 10;

/// A pack ends before it would be larger.
const PACK_MAX: u64 = 32 << 20;

/// An object and the files in it, by their place in the artifact's list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    pub(crate) path: String,
    pub(crate) files: Vec<usize>,
    pub(crate) bytes: u64,
}

pub(crate) fn key(key: &Digest) -> String {
    fan_out("keys", key)
}

pub(crate) fn list(artifact: &Digest) -> String {
    fan_out("lists", artifact)
}

pub(crate) fn blob(digest: &Digest) -> String {
    fan_out("blobs", digest)
}

fn fan_out(sort: &str, digest: &Digest) -> String {
    let hex = digest.to_string();
    let (first, rest) = hex.split_at(2);
    format!("v1/{sort}/{first}/{rest}")
}

/// The path of an object below the remote's own.
pub(crate) fn path_below(prefix: &str, inside: &str) -> Path {
    match prefix {
        "" => Path::from(inside),
        prefix => Path::from(format!("{prefix}/{inside}")),
    }
}

/// The objects that hold an artifact's files; empty files are in none.
pub(crate) fn objects(artifact: &Artifact) -> Vec<Object> {
    let files = artifact.files.iter().enumerate();
    let files = files.filter(|(_, file)| file.bytes > 0);
    let (small, large): (Vec<_>, Vec<_>) = files.partition(|(_, file)| file.bytes <= SMALL);
    // One small file alone may be somebody else's too, as a blob.
    let (small, large) = match small.len() {
        1 => (Vec::new(), [small, large].concat()),
        _ => (small, large),
    };
    let mut packs: Vec<Object> = Vec::new();
    for (idx, file) in small {
        match packs.last_mut() {
            Some(pack) if pack.bytes + file.bytes <= PACK_MAX => {
                pack.files.push(idx);
                pack.bytes += file.bytes;
            }
            _ => packs.push(Object {
                path: format!("{}-{}", fan_out("packs", &artifact.digest), packs.len()),
                files: vec![idx],
                bytes: file.bytes,
            }),
        }
    }
    packs.extend(large.into_iter().map(|(idx, file)| Object {
        path: blob(&file.digest),
        files: vec![idx],
        bytes: file.bytes,
    }));
    packs
}

#[cfg(test)]
mod tests {
    use tinylm_registry::FileEntry;

    use super::*;

    fn artifact(sizes: &[u64]) -> Artifact {
        let files = sizes.iter().enumerate().map(|(n, bytes)| FileEntry {
            path: format!("{n:06}"),
            bytes: *bytes,
            digest: Digest::of_bytes(&n.to_le_bytes()),
        });
        Artifact {
            digest: Digest::of_bytes(b"artifact"),
            bytes: sizes.iter().sum(),
            files: files.collect(),
        }
    }

    fn shape(sizes: &[u64]) -> Vec<(char, usize, u64)> {
        let objects = objects(&artifact(sizes));
        let shape = objects.iter().map(|object| {
            let sort = object.path.chars().nth(3).unwrap();
            (sort, object.files.len(), object.bytes)
        });
        shape.collect()
    }

    #[test]
    fn small_files_share_packs_and_large_ones_stand_alone() {
        assert_eq!(shape(&[]), []);
        assert_eq!(shape(&[0]), []);
        assert_eq!(shape(&[5]), [('b', 1, 5)]);
        assert_eq!(shape(&[5, 0, 7]), [('p', 2, 12)]);
        assert_eq!(shape(&[5, SMALL + 1]), [('b', 1, 5), ('b', 1, SMALL + 1)]);
        assert_eq!(
            shape(&[5, SMALL + 1, 7]),
            [('p', 2, 12), ('b', 1, SMALL + 1)]
        );
        let many = vec![SMALL; 200];
        assert_eq!(shape(&many), [('p', 128, PACK_MAX), ('p', 72, 72 * SMALL)]);
    }
}
