//! Following one job to its end: its events, the run's wishes, its time-out.
//!
//! An executor starts and stops; when to stop, and how long to wait for it, is decided here, so
//! that it is the same wherever a stage is carried out.

use std::time::{Duration, Instant};

use tinylm_registry::KeyRecord;

use crate::{
    desk::Desk,
    error::StageError,
    event::Event,
    executor::{End, JobId, News, Stop},
    metrics::Metrics,
    usage::Usage,
    wish::Wish,
};

/// How long a stage that was asked to stop may take to reach a safe point.
const GRACE: Duration = Duration::from_secs(60);

/// The same after a time-out: the work is given up anyway.
const TIMEOUT_GRACE: Duration = Duration::from_secs(5);

/// What a job that worked has left.
pub(crate) enum Done {
    /// Files that are to be committed.
    Outputs(Metrics),
    /// It has committed them itself.
    Committed(Box<KeyRecord>),
}

/// A job at work.
pub(crate) struct Follow<'a> {
    desk: &'a Desk<'a>,
    job: JobId,
    timeout: Option<Duration>,
    /// When it began to run.
    started: Option<Instant>,
    stopped: Stopped,
    kill_at: Option<Instant>,
    is_killed: bool,
    is_out_of_sight: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stopped {
    Not,
    Asked,
    TimedOut(Duration),
}

impl<'a> Follow<'a> {
    pub(crate) fn new(desk: &'a Desk<'a>, job: JobId, timeout: Option<Duration>) -> Self {
        Self {
            desk,
            job,
            timeout,
            started: None,
            stopped: Stopped::Not,
            kill_at: None,
            is_killed: false,
            is_out_of_sight: false,
        }
    }

    /// Passes events on, heeds wishes, and returns when the job is over.
    pub(crate) fn until_over(
        mut self,
        wish: &dyn Fn() -> Wish,
        on_event: &mut dyn FnMut(Event),
    ) -> (Result<Done, StageError>, Usage) {
        loop {
            for news in self.desk.news(&self.job) {
                match news {
                    News::Running => self.started = self.started.or_else(|| Some(Instant::now())),
                    News::Said(event) => on_event(event),
                    News::Unknown(why) => self.lose_sight(&why, on_event),
                    News::Ended(end, usage) => {
                        self.desk.forget(&self.job);
                        return (self.result(end), usage);
                    }
                }
            }
            self.heed(wish());
        }
    }

    /// Says once that nobody knows how the job is, and waits on: unknown is not dead.
    fn lose_sight(&mut self, why: &str, on_event: &mut dyn FnMut(Event)) {
        if !self.is_out_of_sight {
            self.is_out_of_sight = true;
            let message = format!("nobody knows at the moment whether it still runs: {why}");
            on_event(Event::Warning { message });
        }
    }

    fn heed(&mut self, wish: Wish) {
        let late = self.timeout.filter(|timeout| {
            let running = self.started.map(|started| started.elapsed());
            running.is_some_and(|running| running > *timeout)
        });
        if self.stopped == Stopped::Not && (wish != Wish::GoOn || late.is_some()) {
            self.stopped = late.map_or(Stopped::Asked, Stopped::TimedOut);
            let grace = if late.is_some() { TIMEOUT_GRACE } else { GRACE };
            self.kill_at = Some(Instant::now() + grace);
            self.desk.executor.stop(&self.job, Stop::Gently);
        }
        let grace_is_over = self.kill_at.is_some_and(|at| Instant::now() > at);
        if !self.is_killed && (wish == Wish::Kill || grace_is_over) {
            self.is_killed = true;
            self.desk.executor.stop(&self.job, Stop::AtOnce);
        }
    }

    fn result(&self, end: End) -> Result<Done, StageError> {
        match (end, self.stopped) {
            (End::Finished(metrics), _) => Ok(Done::Outputs(metrics)),
            (End::Committed(record), _) => Ok(Done::Committed(record)),
            (_, Stopped::TimedOut(after)) => Err(timed_out(after)),
            (End::Failed(error), _) => Err(error),
            (End::Died(_), Stopped::Asked) => Err(StageError::cancelled()),
            (End::Died(error), Stopped::Not) => Err(error),
        }
    }
}

fn timed_out(after: Duration) -> StageError {
    StageError::new(format!(
        "it did not finish within its `timeout` of {} s",
        after.as_secs_f64()
    ))
    .help("raise `timeout`, or set `retries`")
}
