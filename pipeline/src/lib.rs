//! The experiment file, the graph, freshness, and running stages.
//!
//! Data flows one way: experiment file -> spec -> graph -> plan -> run -> events.
//! This crate knows what a stage is (the [`Stage`] trait) and not one of them.

mod again;
pub mod apart;
mod attempt;
mod claiming;
mod clock;
mod commit;
mod conduct;
mod content;
pub mod context;
mod copy;
mod desk;
mod device;
mod error;
pub mod event;
pub mod exec;
pub mod executor;
mod fetching;
mod follow;
mod forecast;
pub mod io;
pub mod kind;
mod load;
mod local;
pub mod lockfile;
mod metrics;
pub mod observe;
mod order;
mod outside;
pub mod parts;
mod plain_file;
pub mod plan;
mod processes;
pub mod pushing;
pub mod recipe;
pub mod recorder;
mod remote;
pub mod resources;
mod role;
mod runner;
mod schedule;
pub mod secrets;
#[cfg(test)]
#[path = "../../tests/skipped/mod.rs"]
mod skipped;
pub mod slurm;
pub mod spec;
mod stage;
pub mod sys;
pub mod testing;
pub mod threads;
mod usage;
mod using;
mod wish;
mod work;
mod worker;

pub use clock::now_ms;
pub use content::Content;
pub use context::{Context, Resolve};
pub use copy::{copy_file, end_at_fault};
pub use device::{FoundDevice, RunDevice};
pub use error::{At, StageError};
pub use event::Event;
pub use executor::Executor;
pub use forecast::{Ahead, Course, Forecast, MemoryNeed, Part};
pub use io::{Follows, Input, LocalFile, Ranks, StageIo};
pub use kind::Kind;
pub use metrics::Metrics;
pub use observe::{Happened, Observer, Outcome, Settled};
pub use order::Order;
pub use outside::Outside;
pub use plain_file::{open_plain, read_plain};
pub use processes::Processes;
pub use recorder::{Change, Mirror, Recorder};
pub use remote::{Pin, Remote};
pub use role::{Role, Roles};
pub use runner::{RunOptions, Runner};
pub use slurm::{Site, Slurm};
pub use stage::{FindInput, Stage};
pub use tinylm_settings::{
    self as settings, Device, LocalPath, NoSettings, SettingError, Settings, choices, settings,
};
pub use usage::Usage;
pub use wish::Interrupt;
