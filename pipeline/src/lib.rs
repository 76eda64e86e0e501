//! The experiment file, the graph, freshness, and running stages.
//!
//! Data flows one way: experiment file -> spec -> graph -> plan -> run -> events.
//! This crate knows what a stage is (the [`Stage`] trait) and not one of them.

mod child;
pub mod context;
pub mod event;
pub mod exec;
pub mod io;
mod local;
pub mod lockfile;
pub mod observe;
pub mod plan;
pub mod recipe;
pub mod recorder;
pub mod runner;
pub mod settings;
pub mod spec;
pub mod stage;
pub mod sys;
pub mod testing;

pub use context::{Context, Resolve};
pub use event::Event;
pub use io::{Input, LocalFile, StageIo};
pub use observe::{Happened, Observer, Outcome, Settled};
pub use recorder::Recorder;
pub use runner::{Interrupt, RunOptions, Runner};
pub use settings::{LocalPath, NoSettings, SettingError, Settings};
pub use stage::{
    At, Kind, Metrics, Outside, Pin, Remote, Role, Roles, Stage, StageError, copy_file,
    end_at_fault,
};
