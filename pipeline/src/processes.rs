//! Stages as child processes of this one: the executor of a single machine.
//!
//! A process rather than a thread, so that a stage that runs out of memory takes nothing with it,
//! a stop is a signal, and cpu time and peak memory are the kernel's own figures for this stage
//! alone. Claims are locks on files. A child dies with its parent; the little that may outlive it
//! is ended, never adopted.

use std::{
    collections::{HashMap, VecDeque},
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tinylm_registry::{Holder, Lock, Place};
use tinylm_settings::Device;

use crate::{
    claiming::claim_key,
    error::StageError,
    executor::{Adopted, Claim, Claimed, End, Exclusive, Executor, Job, JobId, News, Stop},
    slurm, sys, threads,
    usage::Usage,
    work::absolute,
};

pub(crate) mod child;
mod orphans;

/// Starts `PROGRAM exec-stage` for every job.
pub struct Processes {
    program: PathBuf,
    board: Arc<Board>,
}

/// The jobs that are at work, and the news that nobody has fetched yet.
#[derive(Default)]
struct Board {
    jobs: Mutex<HashMap<JobId, Entry>>,
    told: Condvar,
}

struct Entry {
    pid: u32,
    news: VecDeque<News>,
}

impl Processes {
    /// `program` is this binary, or another that knows the same stages.
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            board: Arc::default(),
        }
    }
}

impl Executor for Processes {
    fn claim(&self, claim: &Claim) -> Result<Option<Claimed>, StageError> {
        let device = match claim.what {
            Exclusive::Key(key) => {
                let claimed = claim_key(claim, key, &Holder::life)?;
                return Ok(claimed.map(|claimed| Box::new(claimed) as Claimed));
            }
            Exclusive::Device(device) => device,
        };
        // All take GPUs in one order, so nobody waits for one that waits for him. What the system thinks the best GPU
        // is mostly NVIDIA's first, where there is one.
        let mut locks = Vec::new();
        let also = (device == Device::Gpu).then_some(Device::CUDA);
        for one in also.into_iter().chain(device.each()) {
            let place = claim.home.device_lock(&one.to_string());
            match Lock::wait_exclusive(&place, claim.note, claim.cancelled, claim.on_wait)? {
                Some(lock) => locks.push(lock),
                None => return Ok(None),
            }
        }
        Ok(Some(Box::new(locks)))
    }

    /// The events of a dead driver's child went to a pipe that is gone, so there is nothing to adopt.
    fn adopt(&self, work: &Place) -> Result<Option<Adopted>, StageError> {
        if let Some(job) = slurm::left_in(work)? {
            return Err(StageError::new(format!("the Slurm job {job} may be at work on it"))
                .help("go on with `--executor slurm`, which asks; or cancel it, and force the stage")
                .is_final());
        }
        orphans::end(&absolute(work)?);
        Ok(None)
    }

    fn submit(&self, job: &Job) -> Result<JobId, StageError> {
        let id = JobId(job.draft.execution_id.clone());
        let (started, is_started) = mpsc::sync_channel(1);
        let (program, board) = (self.program.clone(), Arc::clone(&self.board));
        let (job, name) = (job.clone(), id.clone());
        // The kernel ties a child's life to the thread that started it: that one waits for it too.
        let look_after = move || {
            let child = match child::start(&program, &job) {
                Ok(child) => child,
                Err(error) => return drop(started.send(Err(error))),
            };
            board.enter(name.clone(), child.pid);
            // Sent before anything is told of the job, and the receiver waits for it.
            started.send(Ok(())).ok();
            let pid = child.pid;
            let mut on_event = |event| board.tell(&name, News::Said(event));
            // Whatever happens here is told: a follower would wait for a dead thread for ever.
            let listen = AssertUnwindSafe(|| child.listen(&job.log, &mut on_event));
            let (end, usage) = panic::catch_unwind(listen).unwrap_or_else(|_| deaf(pid));
            board.tell(&name, News::Ended(end, usage));
        };
        threads::spawn(look_after).map_err(|error| StageError::no_thread(&error))?;
        let gone = |_| StageError::new("the thread that starts the stage's process is gone");
        is_started.recv().map_err(gone)?.map(|()| id)
    }

    fn poll(&self, jobs: &[JobId], patience: Duration) -> Vec<(JobId, News)> {
        let until = Instant::now() + patience;
        let mut board = self.board.jobs();
        loop {
            let news = fetch(&mut board, jobs);
            let left = until.saturating_duration_since(Instant::now());
            if !news.is_empty() || left.is_zero() {
                return news;
            }
            let (woken, timeout) = self
                .board
                .told
                .wait_timeout(board, left)
                .unwrap_or_else(PoisonError::into_inner);
            board = woken;
            if !timeout.timed_out() {
                // Perhaps of a job that was not asked about: then the asker's list is old.
                return fetch(&mut board, jobs);
            }
        }
    }

    fn stop(&self, job: &JobId, how: Stop) {
        let signal = match how {
            Stop::Gently => Signal::TERM,
            Stop::AtOnce => Signal::KILL,
        };
        if let Some(entry) = self.board.jobs().get(job) {
            sys::signal_group(entry.pid, signal);
        }
    }
}

/// The end of a job that nobody listens to any more.
fn deaf(pid: u32) -> (End, Usage) {
    sys::signal_group(pid, Signal::KILL);
    let message = "the thread that listens to its process panicked, which is a bug in tinylm";
    (End::Died(StageError::new(message)), Usage::default())
}

/// Takes the news of these jobs; one that has ended leaves the board.
fn fetch(board: &mut HashMap<JobId, Entry>, jobs: &[JobId]) -> Vec<(JobId, News)> {
    let mut fetched = Vec::new();
    for job in jobs {
        let Some(entry) = board.get_mut(job) else {
            continue;
        };
        let news: Vec<News> = entry.news.drain(..).collect();
        if matches!(news.last(), Some(News::Ended(..))) {
            board.remove(job);
        }
        fetched.extend(news.into_iter().map(|news| (job.clone(), news)));
    }
    fetched
}

impl Board {
    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, job: JobId, pid: u32) {
        let news = VecDeque::from([News::Running]);
        self.jobs().insert(job, Entry { pid, news });
        self.told.notify_all();
    }

    fn tell(&self, job: &JobId, news: News) {
        if let Some(entry) = self.jobs().get_mut(job) {
            entry.news.push_back(news);
        }
        self.told.notify_all();
    }
}
