//! A driver in a job of its own, for runs that outlive a terminal on a cluster's front door.
//!
//! It is the same command again, on a node. So it is followed, stopped and resumed like any other, and
//! where its node is lost the cluster starts it again: what was made is there, what still runs is
//! adopted.

use std::path::Path;

use super::{
    commands::{self, Submitted, quoted},
    site::Site,
};
use crate::error::StageError;

/// Submits a command line; returns the scheduler's name of the job.
pub fn submit_driver(
    site: &Site,
    program: &Path,
    words: &[String],
    folder: &Path,
    log: &Path,
) -> Result<String, StageError> {
    commands::check()?;
    let mut flags = commands::usual_flags("tinylm", "tinylm", log);
    flags.push(format!("--chdir={}", folder.display()));
    flags.extend(commands::asked(&site.driver));
    flags.extend(site.options.iter().cloned());
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    let script = commands::script(site, program, &words.join(" "));
    match commands::submit(&flags, &script) {
        Submitted::Job(id) => Ok(id),
        Submitted::Unknown(why) => Err(StageError::new(
            "it is not known whether the driver's job was submitted",
        )
        .cause(why)
        .help("look with `squeue --me`, and run the same command again if it is not there")),
        Submitted::Refused(why) => Err(StageError::new("the scheduler refuses the driver's job")
            .cause(why)
            .help("correct `options` and `driver` in the site file")),
    }
}
