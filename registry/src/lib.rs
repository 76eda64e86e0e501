//! What tinylm remembers: bytes by digest, keys by recipe, runs by name.
//!
//! This crate knows digests, the artifact store, key records, kernel file locks and SQLite. It does
//! not know YAML, stage kinds or tensors, and it never prints, reads the environment or asks for
//! the time of day to record it: whoever records says when.
//!
//! Two kinds of truth live here and are kept apart on purpose. The *store* (artifacts and key
//! records) decides what is fresh; losing it costs a re-run. The *registry* (SQLite) is history;
//! losing it costs memories and retrains nothing.

mod artifact;
pub mod claims;
pub mod digest;
mod entry;
mod error;
mod file_system;
mod files;
pub mod gc;
mod history;
pub mod home;
mod index;
mod journal;
mod judge;
mod keeping;
pub mod keys;
pub mod load;
pub mod locks;
mod memory;
mod migrations;
pub mod names;
pub mod nearest;
mod passing;
mod place;
mod progress;
mod queries;
pub mod recorder;
mod records;
pub mod remote_store;
mod rows;
mod sql;
mod stat;
pub mod stat_cache;
pub mod stopping;
mod store;
pub mod where_filter;
mod words;

mod db;

pub use artifact::{Artifact, FileEntry};
pub use claims::{Claim, Claimant, Holder, Life};
pub use db::Registry;
pub use digest::{Digest, hash_file};
pub use error::Error;
pub use file_system::FileSystem;
pub use home::Home;
pub use judge::Judge;
pub use keeping::tag;
pub use keys::KeyRecord;
pub use locks::Lock;
pub use passing::Taken;
pub use place::Place;
pub use queries::{ALL_STEPS, Point, RunQuery, Series, Thinning};
pub use records::{Finished, MetricRow, NewExecution, StageRecord};
pub use remote_store::{Patient, RemoteError, RemoteStore, Watch};
pub use rows::{
    Event, Execution, LastStage, Metric, Note, Param, Progress, Run, RunSource, SampleRow, StageRow,
};
pub use stat_cache::StatCache;
pub use store::{Condition, Fetched, Link, Manifest, Store};
pub use where_filter::{Fact, Filter, FilterError};
pub use words::{Level, Outcome, Status};

/// Milliseconds since the Unix epoch, UTC.
pub type Millis = i64;
