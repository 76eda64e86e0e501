//! The settings of `download`.

use serde_json::Value;
use tinylm_pipeline::{LocalPath, Outside, StageError, settings};

use crate::shared::{
    hub::{Repo, RepoKind},
    net::{Limits, Net},
    partition::Partition,
};

/// Of the whole as of its parts.
pub(super) const REVISION: u32 = 1;

settings! {
    /// Where the data is.
    #[exclusive("hub", "url", "kaggle", "path", "rows")]
    pub struct DownloadSettings {
        /// A repository on the Hugging Face hub: `owner/name`.
        pub hub: Option<String> = None,
        /// Whether `hub` names a dataset or a model.
        pub repo: RepoKind = RepoKind::Dataset,
        /// A branch, tag or commit of the repository.
        pub revision: String = "main".to_owned(),
        /// Globs of the files to take from `hub` or `path`; without any, all that look like data.
        pub files: Vec<String> = Vec::new(),
        /// An address on the web; `{env.NAME}` in it is a variable of the environment: a secret.
        pub url: Option<String> = None,
        /// The digest that the bytes behind `url` must have.
        pub sha256: Option<String> = None,
        /// The same as a blake3 digest.
        pub blake3: Option<String> = None,
        /// A dataset on Kaggle, `owner/name`; your own key is needed.
        pub kaggle: Option<String> = None,
        /// A file, folder or glob on this machine.
        pub path: Option<LocalPath> = None,
        /// The files of `path` or `hub` are brought in parts of about so many bytes (`4GB`), and those that are here
        /// already are not; larger ones of JSON lines are cut into files of that size.
        pub partition: Option<Partition> = None => neutral None,
        /// The data itself, one row an item.
        pub rows: Option<Vec<Value>> = None,
        /// Stop after so many rows, where the format allows.
        pub max_samples: Option<u64> = None,
        /// Whether `.gz`, `.bz2`, `.xz`, `.zst`, `.zip` and `.tar` files are opened.
        pub open: bool = true,
        /// A download whose length nobody promised is refused past this many bytes.
        pub bytes_max: u64 = 64 << 30 => neutral 64_u64 << 30,
        /// An archive that would grow past this many bytes is refused.
        pub opened_bytes_max: u64 = 64 << 30,
    }
}

impl DownloadSettings {
    pub(super) fn n_sources(&self) -> usize {
        let given = [
            self.hub.is_some(),
            self.url.is_some(),
            self.kaggle.is_some(),
            self.path.is_some(),
            self.rows.is_some(),
        ];
        given.iter().filter(|given| **given).count()
    }

    /// Returns the way outside, on which no more comes than these settings allow.
    pub(super) fn net(&self, outside: &Outside) -> Result<Net, StageError> {
        let limits = Limits {
            bytes: self.bytes_max,
            ..Limits::default()
        };
        Net::with_limits(outside, limits)
    }

    pub(super) fn repo(&self) -> Option<Repo> {
        Some(Repo {
            kind: self.repo,
            name: self.hub.clone()?,
            revision: self.revision.clone(),
            files: self.files.clone(),
        })
    }
}
