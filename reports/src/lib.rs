//! The registry's records, told to people.
//!
//! A [`Report`] is one run and a [`Comparison`] is several; both are plain values, read once.
//! [`sections`] makes of either the one list of what is told, and [`terminal`], [`html`] and
//! [`markdown`] print that list; [`data`] writes the values themselves for programs. A printer cannot
//! ask the registry anything, so what one of them shows, all of them could.
//!
//! This crate knows what was recorded, not how it came to be; it prints nothing and reads neither
//! the clock nor the environment.

pub mod block;
mod card;
mod comparison;
mod curve;
pub mod data;
mod error;
pub mod fit;
mod headline;
pub mod html;
mod listing;
pub mod markdown;
mod metric;
mod number;
mod parts;
mod phrases;
mod places;
mod points;
mod random;
mod read;
mod report;
pub mod sections;
mod sources;
mod statistics;
pub mod tensorboard;
pub mod terminal;
mod text;

pub use card::{Card, card};
pub use comparison::{
    Comparison, CurveRow, DocumentDifference, Effect, Group, MetricRow, Noise, SampleRow,
    SeedDifference, Selection, SettingRow, SharedStage, Sort, Spread, Unit, Unpaired,
    check_metrics, compare, losses, recipe, seeds,
};
pub use curve::{Axis, Curve, Point};
pub use error::Error;
pub use listing::{Listing, columns, listing};
pub use metric::Better;
pub use number::{amount, bytes, counted, duration, number, thousands, with_error};
pub use points::{csv, write_csv, write_parquet};
pub use read::{Fineness, ReportOptions, Tail, read, read_all, window};
pub use report::{Cost, Final, Report, Sample, Stage};
pub use statistics::Estimate;
pub use text::{clean, clean_lines, is_hidden, width, wrapped};

#[cfg(test)]
mod testing;
