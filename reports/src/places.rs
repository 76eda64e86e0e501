//! Where a live page tells more of a thing: addresses below its root.

use crate::{
    curve::Curve,
    report::{Report, Stage},
};

pub(crate) fn run(name: &str) -> String {
    format!("run/{name}")
}

pub(crate) fn stage(report: &Report, stage: &Stage) -> String {
    format!("{}/{}", run(&report.run.name), stage.row.name)
}

/// The stage that recorded a curve.
pub(crate) fn curve(report: &Report, curve: &Curve) -> String {
    format!("{}/{}", run(&report.run.name), curve.stage)
}
