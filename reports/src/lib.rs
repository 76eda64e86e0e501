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
mod number;
mod read;
mod report;
mod sources;
pub mod tables;
pub mod terminal;

pub use comparison::{Comparison, CurveRow, Effect, MetricRow, SampleRow, Selection, SettingRow, SharedStage, Sort, compare};
pub use curve::{Axis, Curve, Point};
pub use error::Error;
pub use read::{ReadOptions, read, read_all};
pub use report::{Better, Cost, Event, Execution, Final, Host, Note, Report, Run, Sample, Setting, Stage};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod dump {
    use crate::{testing::*, terminal::{self, TerminalOptions}, compare, Selection};
    #[test]
    fn dump() {
        let colour = std::env::var("C").is_ok();
        let width = std::env::var("W").ok().and_then(|w| w.parse().ok()).unwrap_or(80);
        let options = TerminalOptions { width, colour, ..Default::default() };
        let all = |runs| terminal::comparison(&compare(runs, &Selection::default()).unwrap(), &options);
        let out = [
            terminal::report(&dialogue(), &options),
            terminal::report(&shakespeare_diverging(), &options),
            all(vec![dialogue(), dialogue_slower()]),
            all(vec![dialogue(), dialogue_slower(), shakespeare_diverging()]),
            terminal::report(&hostile(), &options),
        ].join("\n========\n");
        std::fs::write("/tmp/dump.txt", out).unwrap();
    }
}
