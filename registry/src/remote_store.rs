//! Another store of the same artifacts, which stands behind this home's two doors.
//!
//! Before a miss the store asks it for the key; after a commit the store gives it what was made.
//! Whatever comes is read and held against its digest before it counts, so a remote can be slow,
//! empty, wrong or hostile and cost no more than the making of what it did not have.

use std::fmt;

use crate::{Artifact, Digest, KeyRecord, Place};

/// Why a remote did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteError {
    /// What it has is not what it should be: as good as nothing.
    Wrong(String),
    /// It does not let us in, which no waiting changes.
    Forbidden(String),
    /// It cannot be reached, told this once. What is asked later finds it [`RemoteError::Away`].
    Unreachable(String),
    Away,
    /// The fault is here: a full disk, a file that changed.
    Here(String),
    /// Whoever waited wants no more.
    Stopped,
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(what) | Self::Forbidden(what) | Self::Unreachable(what) => {
                f.write_str(what)
            }
            Self::Here(what) => f.write_str(what),
            Self::Away => f.write_str("it cannot be reached"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for RemoteError {}

/// Whoever waits while bytes are on their way. Asked several times a second.
pub trait Watch: Sync {
    fn see(&self, done: u64, total: u64);
    fn is_stopped(&self) -> bool;
}

/// Whoever waits for as long as it takes.
#[derive(Debug, Clone, Copy)]
pub struct Patient;

impl Watch for Patient {
    fn see(&self, _done: u64, _total: u64) {}

    fn is_stopped(&self) -> bool {
        false
    }
}

/// Whoever stands behind the doors. Called from several threads.
pub trait RemoteStore: fmt::Debug + Send + Sync {
    /// Its address as it may be shown; none where nobody is there.
    fn address(&self) -> Option<&str>;

    /// The artifact made for `key`, if one is known.
    fn read_key(&self, key: &Digest, watch: &dyn Watch) -> Result<Option<KeyRecord>, RemoteError>;

    /// Writes the files of a record's artifact into the empty folder `into`, and never more bytes
    /// than the record says.
    fn read_artifact(
        &self,
        record: &KeyRecord,
        into: &Place,
        watch: &dyn Watch,
    ) -> Result<(), RemoteError>;

    /// Takes the files of an artifact, which stand in the folder `files`; returns the bytes that had
    /// to be sent.
    fn write_artifact(
        &self,
        artifact: &Artifact,
        files: &Place,
        watch: &dyn Watch,
    ) -> Result<u64, RemoteError>;

    /// Takes a record, after the artifact that it speaks of.
    fn write_key(&self, record: &KeyRecord, watch: &dyn Watch) -> Result<(), RemoteError>;
}

/// Nobody stands behind the doors: it has nothing and keeps nothing.
#[derive(Debug)]
pub struct NoRemoteStore;

impl RemoteStore for NoRemoteStore {
    fn address(&self) -> Option<&str> {
        None
    }

    fn read_key(&self, _: &Digest, _: &dyn Watch) -> Result<Option<KeyRecord>, RemoteError> {
        Ok(None)
    }

    fn read_artifact(&self, _: &KeyRecord, _: &Place, _: &dyn Watch) -> Result<(), RemoteError> {
        Err(RemoteError::Wrong("is missing".to_owned()))
    }

    fn write_artifact(&self, _: &Artifact, _: &Place, _: &dyn Watch) -> Result<u64, RemoteError> {
        Ok(0)
    }

    fn write_key(&self, _: &KeyRecord, _: &dyn Watch) -> Result<(), RemoteError> {
        Ok(())
    }
}
