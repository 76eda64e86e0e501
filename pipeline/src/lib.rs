//! The experiment file, the graph, freshness, and running stages.
//!
//! Data flows one way: experiment file -> spec -> graph -> plan -> run -> events.
//! This crate knows what a stage is (the [`Stage`] trait) and not one of them.

pub mod event;
pub mod io;
pub mod settings;
pub mod spec;
pub mod stage;
pub mod testing;

pub use event::Event;
pub use io::{Input, LocalFile, StageIo};
pub use settings::{LocalPath, NoSettings, SettingError, Settings};
pub use stage::{At, Kind, Metrics, Outside, Pin, Remote, Role, Roles, Stage, StageError};
