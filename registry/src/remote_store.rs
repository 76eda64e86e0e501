//! Another store of the same artifacts, which stands behind this home's two doors.
//!
//! Before a miss the store asks it for the key; after a commit the store gives it what was made.
//! Whatever comes is read and held against its digest before it counts, so a remote can be slow,
//! empty, wrong or hostile and cost no more than the making of what it did not have.

use std::{error, fmt, path::Path};

use crate::{Artifact, Digest, KeyRecord};

/// Why a remote could not do what it was asked.
pub type RemoteError = Box<dyn error::Error + Send + Sync>;

/// Whoever stands behind the doors. Called from several threads.
pub trait RemoteStore: fmt::Debug + Send + Sync {
    /// The artifact made for `key`, if one is known.
    fn read_key(&self, key: &Digest) -> Result<Option<KeyRecord>, RemoteError>;

    /// Writes the files of an artifact into the empty folder `into`; returns whether it has them.
    fn read_artifact(&self, digest: &Digest, into: &Path) -> Result<bool, RemoteError>;

    /// Takes the files of an artifact, which stand in the folder `files`.
    fn write_artifact(&self, artifact: &Artifact, files: &Path) -> Result<(), RemoteError>;

    /// Takes a record, after the artifact that it speaks of.
    fn write_key(&self, record: &KeyRecord) -> Result<(), RemoteError>;
}

/// Nobody stands behind the doors: it has nothing and keeps nothing.
#[derive(Debug)]
pub struct NoRemoteStore;

impl RemoteStore for NoRemoteStore {
    fn read_key(&self, _key: &Digest) -> Result<Option<KeyRecord>, RemoteError> {
        Ok(None)
    }

    fn read_artifact(&self, _digest: &Digest, _into: &Path) -> Result<bool, RemoteError> {
        Ok(false)
    }

    fn write_artifact(&self, _artifact: &Artifact, _files: &Path) -> Result<(), RemoteError> {
        Ok(())
    }

    fn write_key(&self, _record: &KeyRecord) -> Result<(), RemoteError> {
        Ok(())
    }
}
