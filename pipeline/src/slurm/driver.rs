//! A driver in a job of its own, for runs that outlive a terminal on a cluster's front door.
//!
//! It is the same command again, on a node. So it is followed, stopped and resumed like any other, and
//! where its node is lost the cluster starts it again: what was made is there, what still runs is
//! adopted. Before its time is up, or its node is wanted for another, it queues itself again and leaves its
//! jobs at work; it hears of that by SIGUSR1, or where a site has it so by SIGTERM. Any other SIGTERM is
//! somebody's `scancel`, and stops the run as it does anywhere.

use std::{env, path::Path};

use super::{
    commands::{self, Submitted, quoted},
    site::Site,
};
use crate::error::StageError;

/// Where the job that a driver is alone in says so to it; anybody's shell may be in a job.
const MARK: &str = "TINYLM_DRIVER_JOB";

/// Whether this process is the driver of a job of its own.
pub fn is_driver_job() -> bool {
    let marked = env::var(MARK).ok();
    marked.is_some() && marked == env::var("SLURM_JOB_ID").ok()
}

/// Whether a process in this job is an earlier start of the job that this driver has to itself: over, since the
/// scheduler has begun the next.
#[must_use]
pub fn is_earlier_start(job: Option<&str>) -> bool {
    is_driver_job() && job.is_some() && job == env::var("SLURM_JOB_ID").ok().as_deref()
}

/// Whether the node of this driver's job is wanted for another.
pub fn is_driver_in_the_way() -> bool {
    is_driver_job() && commands::is_preempted()
}

/// Puts the job of this driver back into the queue; returns whether the scheduler agreed.
pub fn queue_driver_again() -> bool {
    commands::requeue_self()
}

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
    flags.push(commands::early(
        site,
        site.driver.time.map(|time| time.from),
    ));
    flags.extend(site.options.iter().cloned());
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    let site = &Site {
        setup: format!("{}\nexport {MARK}=\"$SLURM_JOB_ID\"", site.setup),
        ..site.clone()
    };
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
