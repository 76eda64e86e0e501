//! The experiment file, the graph, freshness, and running stages.
//!
//! Data flows one way: experiment file -> spec -> graph -> plan -> run -> events.
//! This crate knows what a stage is (the [`Stage`] trait) and not one of them.

mod child;
pub mod context;
mod copy;
mod error;
pub mod event;
pub mod exec;
pub mod io;
pub mod kind;
mod local;
pub mod lockfile;
mod metrics;
pub mod observe;
mod outside;
pub mod plan;
pub mod recipe;
pub mod recorder;
mod remote;
mod role;
pub mod runner;
pub mod spec;
mod stage;
pub mod sys;
pub mod testing;

pub use context::{Context, Resolve};
pub use copy::{copy_file, end_at_fault};
pub use error::{At, StageError};
pub use event::Event;
pub use io::{Input, LocalFile, StageIo};
pub use kind::Kind;
pub use metrics::Metrics;
pub use observe::{Happened, Observer, Outcome, Settled};
pub use outside::Outside;
pub use recorder::Recorder;
pub use remote::{Pin, Remote};
pub use role::{Role, Roles};
pub use runner::{Interrupt, RunOptions, Runner};
pub use stage::Stage;
pub use tinylm_settings::{
    self as settings, LocalPath, NoSettings, SettingError, Settings, choices, settings,
};
