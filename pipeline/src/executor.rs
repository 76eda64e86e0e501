//! The door to whatever carries out stages.
//!
//! A run prepares orders and commits what came of them; between the two it knows nothing of
//! processes, signals, locks or machines. [`Processes`](crate::Processes) is the executor of one
//! machine, [`Slurm`](crate::Slurm) that of a cluster:
//!
//! - An order is plain data, so it can be written to a file and read on another machine.
//! - One question covers all jobs, because asking may be dear.
//! - Not knowing is an answer of its own. Only [`News::Ended`] means that a job is over; silence
//!   and [`News::Unknown`] mean that it may still be at work.
//! - A stop is a request. The job is over when the executor says so.
//! - A job may outlive its driver, and the next driver adopts it.

use std::{any::Any, path::PathBuf, sync::atomic::AtomicBool, time::Duration};

use tinylm_registry::{Digest, Holder, Home, KeyRecord, Life, Place};

use crate::{
    commit::Draft, error::StageError, event::Event, metrics::Metrics, order::Order,
    resources::Resources, settings::Device, usage::Usage,
};

pub trait Executor: Sync {
    /// Takes what only one may have at a time, waiting for whoever has it.
    /// Returns nothing once `claim.cancelled` is set. The claim lasts until it is dropped.
    fn claim(&self, claim: &Claim) -> Result<Option<Claimed>, StageError>;

    /// Finds the job that a dead driver left at work in this folder. The caller holds the claim
    /// on its key. `None` is a promise: nothing writes there any more.
    fn adopt(&self, work: &Place) -> Result<Option<Adopted>, StageError>;

    /// Starts a job, or puts it into a queue, and returns at once.
    fn submit(&self, job: &Job) -> Result<JobId, StageError>;

    /// Returns the news of these jobs, each job's in order; waits up to `patience` for some and
    /// may return early with none. Nobody is told twice.
    fn poll(&self, jobs: &[JobId], patience: Duration) -> Vec<(JobId, News)>;

    /// Whether jobs share the processors of this machine.
    fn is_here(&self) -> bool {
        true
    }

    /// Whether whoever holds a claim lives, as far as can be known through this executor.
    fn life(&self, holder: &Holder) -> Life {
        holder.life()
    }

    /// How long it may take until that is known.
    fn settle(&self) -> Duration {
        Duration::ZERO
    }

    /// Asks a job to stop. One that is over already is no error.
    fn stop(&self, job: &JobId, how: Stop);
}

/// A right that only one run may have at a time.
pub struct Claim<'a> {
    pub home: &'a Home,
    pub what: Exclusive<'a>,
    /// Who claims it, for those who have to wait.
    pub note: &'a str,
    /// The scheduler's job that it is in.
    pub job: Option<&'a str>,
    pub cancelled: &'a AtomicBool,
    /// Told who has it, again whenever that changes.
    pub on_wait: &'a dyn Fn(&str),
    /// Told in a sentence why it was taken from somebody of another machine.
    pub on_loss: &'a dyn Fn(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusive<'a> {
    /// The right to make what belongs to a key.
    Key(&'a Digest),
    /// The machine's device, for a heavy stage.
    Device(Device),
}

/// A claim that was granted; an executor with nothing to hold returns `Box::new(())`.
pub type Claimed = Box<dyn Any>;

/// One attempt at a stage, ready to be carried out.
#[derive(Debug, Clone)]
pub struct Job {
    pub order: Order,
    /// The key record that it is to become. Its execution names this attempt among all.
    pub draft: Draft,
    pub resources: Resources,
    /// It takes little, and asks for nothing.
    pub is_light: bool,
    pub home: Home,
    /// The folder of all attempts at this recipe, absolute: [`Executor::adopt`] looks here.
    pub work: PathBuf,
    /// The folder of this attempt, inside of that.
    pub folder: Place,
    /// Takes what the stage prints.
    pub log: Place,
    /// Those that it comes with.
    pub together: Option<Together>,
}

/// Jobs that are submitted at one time, so that a scheduler can be asked once for all of them.
#[derive(Debug, Clone)]
pub struct Together {
    /// The same for all of them, and for no others.
    pub name: String,
    /// How many there are at most.
    pub n: usize,
    /// How many are to be at work at one time.
    pub at_once: usize,
}

/// An executor's own name for a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub String);

/// A job that another driver submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    pub job: JobId,
    pub execution_id: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It is at work: its time-out counts from here.
    Running,
    Said(Event),
    /// Nothing could be found out, for this reason. The job may be well.
    Unknown(String),
    Ended(End, Usage),
}

/// The end of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    Finished(Metrics),
    /// It finished, and what it made is committed where it ran.
    Committed(Box<KeyRecord>),
    /// The stage said why it failed.
    Failed(StageError),
    /// The stage said nothing; this is what the executor knows.
    Died(StageError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Stop at the next safe point.
    Gently,
    AtOnce,
}
