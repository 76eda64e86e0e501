//! The manifest beside an artifact's files: what each held and looked like when it was last read.
//!
//! It is a cache. One that is lost, torn, of another version or of another artifact counts as none,
//! and is made anew from the files.

use std::{collections::HashSet, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    Artifact, Digest, Error, FileEntry, Place,
    artifact::artifact_digest,
    stat::{Stat, now_ns},
};

const VERSION: u32 = 1;

/// The name of the file.
pub(super) const MANIFEST: &str = "manifest.json";

/// The files of an artifact, and their stats when they were last read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    pub digest: Digest,
    pub bytes: u64,
    pub(super) files: Vec<Known>,
    pub(super) folders: Vec<KnownFolder>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    #[serde(flatten)]
    pub(super) entry: FileEntry,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
    pub(super) inode: u64,
    /// Whether the stat above vouches for the contents.
    pub(super) settled: bool,
}

/// A folder changes its mtime when a name comes or goes. Not its ctime: that a rename changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct KnownFolder {
    pub(super) path: String,
    pub(super) mtime_ns: i64,
    pub(super) inode: u64,
    pub(super) settled: bool,
}

impl Manifest {
    pub(super) fn new(files: Vec<Known>, folders: Vec<KnownFolder>) -> Self {
        Manifest {
            version: VERSION,
            digest: artifact_digest(files.iter().map(|known| &known.entry)),
            bytes: files.iter().map(|known| known.entry.bytes).sum(),
            files,
            folders,
        }
    }

    /// The manifest of the artifact in the folder `root`, if there is a sound one.
    pub(super) fn read(root: &Path, digest: &Digest) -> Option<Self> {
        let bytes = fs::read(root.join(MANIFEST)).ok()?;
        let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
        (manifest.version == VERSION && manifest.digest == *digest).then_some(manifest)
    }

    pub(super) fn write(&self, root: &Place, flush: bool) -> Result<(), Error> {
        let path = root.below(MANIFEST);
        let json =
            serde_json::to_vec(self).map_err(|error| Error::io("write", &path, error.into()))?;
        match flush {
            true => path.write_atomic(&json),
            false => path.replace(&json),
        }
    }

    /// Lets no stat vouch for any file any more.
    pub(super) fn distrust(&mut self) {
        for file in &mut self.files {
            file.settled = false;
        }
        for folder in &mut self.folders {
            folder.settled = false;
        }
    }

    /// The files, sorted by path.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &FileEntry> {
        self.files.iter().map(|known| &known.entry)
    }

    /// The bytes of those files that are not in `seen` yet, by their inodes, which are put there.
    pub(super) fn bytes_of_new(&self, seen: &mut HashSet<u64>) -> u64 {
        let new = self.files.iter().filter(|file| seen.insert(file.inode));
        new.map(|file| file.entry.bytes).sum()
    }

    #[must_use]
    pub fn artifact(&self) -> Artifact {
        Artifact {
            digest: self.digest,
            bytes: self.bytes,
            files: self.files().cloned().collect(),
        }
    }
}

impl Known {
    pub(super) fn new(entry: FileEntry, stat: Stat, read_at_ns: i64) -> Self {
        Known {
            entry,
            mtime_ns: stat.mtime_ns,
            ctime_ns: stat.ctime_ns,
            inode: stat.inode,
            settled: stat.was_settled(read_at_ns),
        }
    }

    pub(super) fn stat(&self) -> Stat {
        Stat {
            bytes: self.entry.bytes,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            inode: self.inode,
        }
    }
}

impl KnownFolder {
    pub(super) fn new(path: &str, stat: Stat) -> Self {
        KnownFolder {
            path: path.to_owned(),
            mtime_ns: stat.mtime_ns,
            inode: stat.inode,
            settled: stat.was_settled(now_ns()),
        }
    }

    pub(super) fn is_as(&self, stat: Stat) -> bool {
        self.settled && (self.mtime_ns, self.inode) == (stat.mtime_ns, stat.inode)
    }
}
