//! A stage that is made in parts.
//!
//! Each part is a small stage of its own: a kind, settings, and a key record that outlives the run.
//! A part's key says what it reads by contents, as finely as its kind likes (a file of an artifact, a
//! slice of a file), so that a corpus which grows by a file costs that file's part and what has to be
//! compared with it. Which parts there are is decided by [`Stage::conduct`](crate::Stage::conduct), in the
//! process of the run, as answers come in; what it says at the end is the artifact: the parts' own files
//! under new names. So whoever reads a stage need not know whether it was made in parts.
//!
//! Not stages of the experiment: how many there are depends on bytes that are not there when the file is
//! read, and a person wants one line for `dedupe` and not four hundred.

use std::path::PathBuf;

use serde_json::Value;

// So that a kind need not know the store.
pub use tinylm_registry::{Digest, FileEntry, Link};

use crate::{error::StageError, io::LocalFile, metrics::Metrics, outside::Outside, remote::Pin};

/// One part, ready to be made.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its name within the stage, such as `sign-00012`; no part of the key.
    pub name: String,
    /// The name of one of the kinds that the stage's kind has parts of.
    pub kind: &'static str,
    /// In the key.
    pub settings: Value,
    /// Where in its inputs it reads, and how much memory it may take: not in the key.
    pub watch: Value,
    /// In the key: stands for every byte that it reads.
    pub of: Digest,
    /// The artifacts in which those bytes are, role by role. Not in the key, which is why a file may move
    /// from one to another.
    pub reads: Vec<(String, Vec<Digest>)>,
    /// Files of the user's own that it reads: in the key.
    pub local_files: Vec<LocalFile>,
}

impl Part {
    /// What stands in its key for its inputs.
    pub(crate) fn keyed(&self) -> Vec<(String, Vec<Digest>)> {
        vec![("of".to_owned(), vec![self.of])]
    }
}

/// An artifact that is there, with a look at its files.
#[derive(Debug, Clone)]
pub struct Whole {
    pub digest: Digest,
    pub path: PathBuf,
    /// Sorted by path.
    pub files: Vec<FileEntry>,
    /// Of a part, the numbers that it told.
    pub metrics: Metrics,
}

/// All that a kind sees of a run while its parts are made.
pub trait Conductor {
    /// Returns what fills a role of the stage, in order.
    fn inputs(&self, role: &str) -> Result<Vec<Whole>, StageError>;

    /// Returns the user's own files that a setting of the stage names.
    fn local_files(&self, setting: &str) -> Vec<LocalFile>;

    /// Returns what a source of the stage outside this machine was when it was pinned.
    fn pin(&self, id: &str) -> Option<Pin>;

    /// The outside, for what a pin does not say.
    fn outside(&self) -> &Outside;

    /// Returns a part that was made before.
    fn kept(&self, part: &Part) -> Result<Option<Whole>, StageError>;

    /// Makes those that are not there, several at once, and returns all in order. `what` is a word for
    /// whoever looks on.
    fn make(&self, what: &str, parts: &[Part]) -> Result<Vec<Whole>, StageError>;

    /// Returns how many parts may share the memory of a machine.
    fn at_once(&self) -> usize;

    /// Says what a person should see without asking.
    fn note(&self, message: &str);
    fn warn(&self, message: &str);
}

/// What the parts add up to.
#[derive(Debug, Default)]
pub struct Collection {
    pub files: Vec<Link>,
    /// Small files of its own, by name.
    pub own: Vec<(String, Vec<u8>)>,
    pub metrics: Metrics,
}
