//! The places of a download's files, before they are whole and after.

use std::path::{Path, PathBuf};

use tinylm_pipeline::{StageError, StageIo};

use super::{sample::Sampler, settings::DownloadSettings, unpack};
use crate::shared::files::{remove, safe_name};

/// Where files arrive, and where they stand while they are not whole.
pub(super) struct Arrivals<'a> {
    pub(super) io: &'a StageIo<'a>,
    pub(super) settings: &'a DownloadSettings,
}

impl<'a> Arrivals<'a> {
    pub(super) fn new(
        settings: &'a DownloadSettings,
        io: &'a StageIo<'a>,
    ) -> Result<Self, StageError> {
        Ok(Self { io, settings })
    }

    /// Returns where a file may grow before it is whole.
    pub(super) fn partial(&self, identity: &str) -> PathBuf {
        let digest = blake3::hash(identity.as_bytes()).to_hex();
        self.io
            .checkpoints()
            .join(format!("{}.part", &digest[..32]))
    }

    /// Puts a whole file, which is moved, into the artifact under a name that somebody else chose.
    pub(super) fn put(
        &self,
        whole: &Path,
        name: &str,
        sampler: &mut Sampler,
    ) -> Result<(), StageError> {
        self.put_as(whole, &safe_name(name)?, sampler)
    }

    /// The same under a name that cannot lead out of its folder: opened where it is an archive.
    pub(super) fn put_as(
        &self,
        whole: &Path,
        name: &str,
        sampler: &mut Sampler,
    ) -> Result<(), StageError> {
        let mut limits = unpack::Limits::new(self.settings.opened_bytes_max);
        if self.settings.open && unpack::is_packed(name) {
            unpack::open(whole, name, self.io, &mut limits, sampler)?;
            return remove(whole);
        }
        sampler.place(whole, &self.io.out().join(name))
    }
}
