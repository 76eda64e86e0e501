//! What parts are given: roles, files, a range of buckets.

use std::{ops::Range, path::Path};

use serde::{Deserialize, Serialize};
use tinylm_pipeline::{StageError, StageIo};

use crate::shared::{documents::Documents, partition::Places};

/// The roles in which parts have what `sign`, `same` and `propose` wrote.
pub(super) const SIGNED: &str = "signed";
pub(super) const SAME: &str = "same";
pub(super) const PROPOSED: &str = "proposed";

/// Settings of kinds that no experiment file names.
macro_rules! hidden {
    ($($name:ty),*) => {$(
        impl tinylm_pipeline::Settings for $name {
            const EXCLUSIVE: &'static [&'static [&'static str]] = &[];

            fn list() -> Vec<tinylm_pipeline::settings::Setting> {
                Vec::new()
            }
        }
    )*};
}
pub(super) use hidden;

/// A range of buckets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Buckets {
    pub(super) first: u32,
    pub(super) end: u32,
}

hidden!(Buckets);

impl Buckets {
    pub(super) fn range(&self) -> Range<u32> {
        self.first..self.end
    }
}

pub(super) fn open_files(files: &Places, io: &StageIo) -> Result<Documents, StageError> {
    let files = files.named(io).into_iter();
    Documents::of_files(files.map(|file| (file.path, file.place)))
}

pub(super) fn unnamed(path: &Path) -> StageError {
    let message = format!("`{}` speaks of parts that are not there", path.display());
    StageError::new(message).is_final()
}
