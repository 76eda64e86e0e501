//! The place where stages at work hear of their jobs.
//!
//! Every stage has a thread, and each of them waits for news of one job; the executor is asked for
//! all of them at once by whichever thread comes first, so that there is no thread only for asking
//! and none that the others could wait for in vain.

use std::{
    collections::HashMap,
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::executor::{Executor, JobId, News};

/// The longest that wishes and time-outs go unheeded.
const PATIENCE: Duration = Duration::from_millis(50);

pub(crate) struct Desk<'a> {
    pub(crate) executor: &'a dyn Executor,
    state: Mutex<State>,
    /// Rung when news was sorted in, and when somebody else should ask.
    bell: Condvar,
}

#[derive(Default)]
struct State {
    /// Jobs that are followed, with news that nobody has fetched yet.
    jobs: HashMap<JobId, Vec<News>>,
    is_asking: bool,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(executor: &'a dyn Executor) -> Self {
        Self {
            executor,
            state: Mutex::default(),
            bell: Condvar::new(),
        }
    }

    /// Waits a moment for news of a job; returns none when there is none yet.
    pub(crate) fn news(&self, job: &JobId) -> Vec<News> {
        let mut state = self.state();
        if !state.jobs.contains_key(job) {
            state.jobs.insert(job.clone(), Vec::new());
        }
        if state.jobs[job].is_empty() && state.is_asking {
            state = self.wait(state);
        }
        if state.jobs[job].is_empty() && !state.is_asking {
            state.is_asking = true;
            let jobs: Vec<JobId> = state.jobs.keys().cloned().collect();
            drop(state);
            self.ask(&jobs);
            state = self.state();
        }
        state.jobs.get_mut(job).map(mem::take).unwrap_or_default()
    }

    /// Nobody follows this job any more.
    pub(crate) fn forget(&self, job: &JobId) {
        self.state().jobs.remove(job);
    }

    fn ask(&self, jobs: &[JobId]) {
        // Whatever happens to this thread, another one may ask after it.
        let _turn = Turn(self);
        let told = self.executor.poll(jobs, PATIENCE);
        let mut state = self.state();
        for (job, news) in told {
            state.jobs.entry(job).or_default().push(news);
        }
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let waited = self.bell.wait_timeout(state, PATIENCE);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread's turn to ask.
struct Turn<'d, 'a>(&'d Desk<'a>);

impl Drop for Turn<'_, '_> {
    fn drop(&mut self) {
        self.0.state().is_asking = false;
        self.0.bell.notify_all();
    }
}
