//! The artifact store: folders of files under the digest of their contents.
//!
//! An artifact's digest is blake3 over its sorted `(relative path, length, blake3)` list and nothing
//! else, so no time, host or path can make two equal artifacts differ. Beside the files, and outside
//! the digest, stands a manifest with each file's stat; a hit costs one small read and a handful of
//! stats. The manifest is a cache: contents are hashed again where a stat differs, and a lost
//! manifest is made anew from files that still add up to the folder's name.
//!
//! Nothing is ever written into an artifact that stands: it is made elsewhere and moved in whole by
//! one rename, under a lock on its digest, since two keys may make the same bytes at once.

use std::{
    collections::HashSet,
    fs,
    sync::{Arc, atomic::AtomicBool},
};

use serde::Serialize;

use crate::{
    Artifact, Digest, Error, Home, Lock, Place, files, home, names,
    remote_store::{NoRemoteStore, RemoteStore},
};

mod condition;
mod contents;
mod doors;
mod gather;
mod look;
mod manifest;
mod tree;

pub use self::{condition::Condition, doors::Fetched, gather::Link, manifest::Manifest};
use self::{
    condition::{damaged_or, difference},
    contents::read_contents,
    look::{Look, look},
    tree::scan,
};

/// The folder of an artifact's files, beside its manifest.
const FILES: &str = "files";

/// How much the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub n_artifacts: u64,
    pub bytes: u64,
}

/// The artifacts of one home.
#[derive(Debug, Clone)]
pub struct Store {
    home: Home,
    remote: Arc<dyn RemoteStore>,
}

impl Store {
    #[must_use]
    pub fn new(home: Home) -> Self {
        Store::behind(home, Arc::new(NoRemoteStore))
    }

    /// A store that asks `remote` before a miss and gives it what was made.
    #[must_use]
    pub fn behind(home: Home, remote: Arc<dyn RemoteStore>) -> Self {
        Store { home, remote }
    }

    /// Moves the folder `out` into the store and returns what it has become.
    ///
    /// Until the last rename, `out` stays where it is, so a full disk loses no work. If the artifact
    /// is there already and whole, it is kept and `out` removed.
    pub fn commit(&self, out: &Place) -> Result<Artifact, Error> {
        // A link's target is not ours to flush, to change the rights of, or to move.
        out.reach()?;
        let manifest = read_contents(&scan(out)?, true)?;
        self.place(out, &manifest)?;
        Ok(manifest.artifact())
    }

    /// Moves a folder that has been read to where its digest says.
    fn place(&self, out: &Place, manifest: &Manifest) -> Result<(), Error> {
        let digest = &manifest.digest;
        let never = AtomicBool::new(false);
        let lock_path = self.home.artifact_lock(digest);
        let _lock = Lock::wait_exclusive(&lock_path, "committing", &never, |_| {})?;
        if let Condition::Whole(_) = self.condition(digest)? {
            return out.remove();
        }
        let target = self.home.artifact_dir(digest);
        target.parent().create_folder()?;
        let staged = self.new_staged();
        let placed = assemble(&staged, out, manifest).and_then(|()| self.settle(&staged, digest));
        placed.inspect_err(|_| put_back(&staged, out))?;
        target.parent().sync_folder()
    }

    /// Moves an assembled artifact in. The lock keeps other processes of this machine away; one of
    /// another machine may have been quicker, and then its artifact stays if it is whole.
    fn settle(&self, staged: &Place, digest: &Digest) -> Result<(), Error> {
        let target = self.home.artifact_dir(digest);
        let Err(error) = staged.move_to(&target) else {
            return Ok(());
        };
        // Not by whether it is there: this machine may remember that it was not.
        match self.condition(digest)? {
            Condition::Whole(_) => staged.remove(),
            Condition::Missing => Err(error),
            Condition::Damaged { .. } => {
                self.discard(digest)?;
                staged.move_to(&target)
            }
        }
    }

    /// Tells whether an artifact can be used, reading files only where their stat has changed.
    pub fn condition(&self, digest: &Digest) -> Result<Condition, Error> {
        let root = self.home.artifact_dir(digest);
        let known = Manifest::read(&root, digest);
        // Another machine may have made it since it was looked for.
        let known = known.or_else(|| match root.is_found() {
            Ok(true) => Manifest::read(&root, digest),
            _ => None,
        });
        let Some(manifest) = known else {
            return self.reread(digest);
        };
        let files = root.join(FILES);
        match look(&files, &manifest) {
            Ok(Look::Same) => Ok(Condition::Whole(manifest)),
            Ok(Look::Reread(refreshed)) => {
                self.refresh(&refreshed);
                Ok(Condition::Whole(refreshed))
            }
            Ok(Look::Damaged { path, what }) => Ok(Condition::Damaged { path, what }),
            Err(error) => damaged_or(error, &files),
        }
    }

    /// Tells whether an artifact can be used, reading every byte: this finds silent rot.
    ///
    /// An artifact found damaged no longer counts as looked at, so that the next hit reads it too, finds
    /// the same and has it made anew.
    pub fn verify(&self, digest: &Digest) -> Result<Condition, Error> {
        let condition = self.reread(digest)?;
        if let Condition::Damaged { .. } = condition {
            self.distrust(digest);
        }
        Ok(condition)
    }

    fn reread(&self, digest: &Digest) -> Result<Condition, Error> {
        let root = self.home.artifact_dir(digest);
        let files = root.join(FILES);
        match fs::symlink_metadata(&root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Condition::Missing);
            }
            metadata => metadata.map_err(|error| Error::io("read", &root, error))?,
        };
        let manifest = match scan(&files).and_then(|tree| read_contents(&tree, false)) {
            Ok(manifest) => manifest,
            Err(error) => return damaged_or(error, &files),
        };
        if manifest.digest == *digest {
            self.refresh(&manifest);
            return Ok(Condition::Whole(manifest));
        }
        let known = Manifest::read(&root, digest);
        Ok(difference(&files, known.as_ref(), &manifest))
    }

    /// Writes down that no stat vouches for any file of an artifact any more. A home that cannot be
    /// written to cannot heal either.
    fn distrust(&self, digest: &Digest) {
        let root = self.home.artifact_dir(digest);
        // Without a manifest every byte is read each time anyway.
        let Some(mut manifest) = Manifest::read(&root, digest) else {
            return;
        };
        manifest.distrust();
        let _ = manifest.write(&root, true);
    }

    /// The digests of all artifacts, whole or not.
    pub fn list(&self) -> Result<Vec<Digest>, Error> {
        let mut digests = Vec::new();
        for folder in self.home.artifacts().list()? {
            let paths = folder.list()?;
            digests.extend(paths.iter().filter_map(|path| home::digest_at(path, "")));
        }
        Ok(digests)
    }

    /// The bytes that one artifact takes, by its manifest where there is one.
    #[must_use]
    pub fn bytes(&self, digest: &Digest) -> u64 {
        let root = self.home.artifact_dir(digest);
        Manifest::read(&root, digest).map_or_else(
            || files::folder_bytes(&root.join(FILES)),
            |manifest| manifest.bytes,
        )
    }

    /// How much there is in all; a file that several artifacts share counts once.
    pub fn usage(&self) -> Result<Usage, Error> {
        let digests = self.list()?;
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for digest in &digests {
            let root = self.home.artifact_dir(digest);
            bytes += match Manifest::read(&root, digest) {
                Some(manifest) => manifest.bytes_of_new(&mut seen),
                None => files::folder_bytes(&root.join(FILES)),
            };
        }
        Ok(Usage {
            n_artifacts: digests.len() as u64,
            bytes,
        })
    }

    /// Removes an artifact; no reader sees it half gone under its name.
    pub fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let never = AtomicBool::new(false);
        let lock_path = self.home.artifact_lock(digest);
        let _lock = Lock::wait_exclusive(&lock_path, "removing", &never, |_| {})?;
        self.discard(digest)
    }

    /// Where the files of an artifact stand.
    #[must_use]
    pub fn files(&self, digest: &Digest) -> Place {
        self.home.artifact_files(digest)
    }

    /// Takes what stands at a digest out of sight with one rename, then deletes it.
    fn discard(&self, digest: &Digest) -> Result<(), Error> {
        let root = self.home.artifact_dir(digest);
        if fs::symlink_metadata(&root).is_err() {
            return Ok(());
        }
        let trash = self.new_staged();
        root.move_to(&trash)?;
        trash.remove()
    }

    fn new_staged(&self) -> Place {
        let name = names::unique();
        self.home.staging().below(name)
    }

    /// Keeps what was learnt; a home that cannot be written to learns it again next time.
    fn refresh(&self, manifest: &Manifest) {
        let root = self.home.artifact_dir(&manifest.digest);
        let _ = manifest.write(&root, false);
    }
}

/// Puts an artifact together beside the store; all that needs room comes before the move.
fn assemble(staged: &Place, out: &Place, manifest: &Manifest) -> Result<(), Error> {
    manifest.write(staged, true)?;
    out.move_to(&staged.below(FILES))?;
    staged.sync_folder()
}

/// Undoes [`assemble`] as far as it came. Files that cannot go back stay where they are.
fn put_back(staged: &Place, out: &Place) {
    let files = staged.below(FILES);
    if !files.exists() || files.move_to(out).is_ok() {
        let _ = staged.remove();
    }
}

#[cfg(test)]
mod tests;
