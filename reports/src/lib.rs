//! What the registry recorded, told to people.
//!
//! A [`Report`] is one run and a [`Comparison`] is several; both are plain values, read once and
//! rendered by [`terminal`], [`html`] and [`tables`] (JSON, CSV, Markdown). A renderer cannot ask
//! the registry anything, so what one of them shows, all of them could.
//!
//! This crate knows what was recorded, not how it came to be; it prints nothing and reads neither
//! the clock nor the environment.

mod comparison;
mod curve;
mod error;
mod frame;
pub mod html;
mod metric;
mod number;
mod phrases;
mod read;
mod report;
mod sources;
pub mod tables;
pub mod terminal;
mod text;

pub use comparison::{
    Comparison, CurveRow, Effect, MetricRow, SampleRow, Selection, SettingRow, SharedStage, Sort,
    check_metrics, compare,
};
pub use curve::{Axis, Curve, Point};
pub use error::Error;
pub use metric::Better;
pub use number::number;
pub use read::{ReportOptions, read, read_all};
pub use report::{Cost, Event, Execution, Final, Host, Note, Report, Run, Sample, Setting, Stage};

#[cfg(test)]
mod testing;
