//! One run of one experiment: all that it is given.
//!
//! `schedule` decides which stages may start; everything about one stage (its key, its claim, its
//! job, its artifact) happens in `worker`, on a thread of its own.

use tinylm_registry::KeyRecord;

use crate::{
    context::{Context, Resolve},
    device::RunDevice,
    executor::Executor,
    observe::{Happened, Observer},
    plan::History,
    spec::Experiment,
    wish::Interrupt,
};

#[derive(Debug, Clone)]
pub struct RunOptions {
    pub run_id: String,
    pub run_name: String,
    pub host: String,
    /// The scheduler's job that this process is in.
    pub job: Option<String>,
    pub force: Vec<String>,
    pub n_jobs: usize,
    pub n_threads: usize,
    /// Where stages that can compute there do.
    pub device: RunDevice,
    pub keep_going: bool,
    pub resolve: Resolve,
}

/// One run of one experiment.
pub struct Runner<'a> {
    pub context: &'a Context,
    pub experiment: &'a Experiment,
    pub options: &'a RunOptions,
    pub executor: &'a dyn Executor,
    pub observer: &'a dyn Observer,
    pub interrupt: &'a Interrupt,
    pub history: &'a History<'a>,
}

impl Runner<'_> {
    /// Tells of an artifact that this run, or another one on this machine, has made: whether its history
    /// knows that is for whoever writes history to find out. Journals of other machines are theirs.
    pub(crate) fn see_kept(&self, record: &KeyRecord) {
        let is_ours = record.run_id == self.options.run_id;
        if is_ours || record.host == self.options.host {
            self.observer.see(&Happened::Kept(record));
        }
    }
}
