//! Stages as jobs of a Slurm cluster.
//!
//! The truth of a job is what it wrote itself: its key record and its last word. The scheduler is
//! asked only whether a job lives and, of one that died in silence, why; it forgets jobs after a
//! while, runs finished ones again and is away at times, so nothing else rests on it. A driver holds
//! nothing that its successor could not read from the job's folder: one that is killed has only
//! stopped looking on.
//!
//! A job that died of something that was not its own fault (a lost node, its time, its memory where
//! more may be asked for) is submitted again here, and the run hears a sentence of it. What the stage
//! said itself is the run's to decide.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tinylm_registry::{Digest, Holder, Home, Life, Place};

use crate::{
    claiming::claim_key,
    error::StageError,
    event::Event,
    executor::{Adopted, Claim, Claimed, Exclusive, Executor, Job, JobId, News, Stop},
};

mod array;
mod commands;
mod driver;
mod fate;
mod folder;
mod ledger;
mod node;
mod pool;
mod site;
mod tracked;

pub use array::exec_array;
pub use commands::version;
pub use driver::{
    is_driver_in_the_way, is_driver_job, is_earlier_start, queue_driver_again, submit_driver,
};
pub use node::exec_job;
pub use pool::exec_pool;
use site::Asked;
pub use site::Site;

use array::Arrays;
use commands::Row;
use folder::{JobFile, JobFolder, LIST_EVERY, Last, Submission, Wished};
use ledger::Ledger;
use pool::Pool;
use tracked::Tracked;

/// A pool carries out all that it is given at once, so of more light parts than this an array is made.
const POOL_PARTS_MAX: usize = 4;

/// Nobody's patience is a reason to ask a controller without a pause.
const ASK_EVERY_LEAST: Duration = Duration::from_secs(1);

/// Carries stages out as jobs.
pub struct Slurm {
    asked: Asked,
    ledger: Arc<Ledger>,
    jobs: Mutex<HashMap<JobId, Tracked>>,
    /// The pool of light stages, once there is one.
    pool: Mutex<Option<Pool>>,
    arrays: Arrays,
    /// Jobs of other drivers that the scheduler does not know: since when, and since which answer.
    gone: Mutex<HashMap<String, (Instant, u64)>>,
    /// What is to be said of keys whose last job ended without a word, once there is another.
    silent: Mutex<HashMap<Digest, String>>,
    /// The same of jobs.
    to_say: Mutex<HashMap<JobId, String>>,
}

impl Slurm {
    /// `program` is this binary, as the nodes find it unless the site says otherwise.
    pub fn new(program: PathBuf, site: Site) -> Result<Self, StageError> {
        commands::check()?;
        let ledger = Ledger::start(site.ask_every.0.max(ASK_EVERY_LEAST))?;
        Ok(Self {
            asked: Asked { site, program },
            ledger,
            jobs: Mutex::default(),
            pool: Mutex::default(),
            arrays: Arrays::default(),
            gone: Mutex::default(),
            silent: Mutex::default(),
            to_say: Mutex::default(),
        })
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Tracked>> {
        locked(&self.jobs)
    }

    /// Lays a light stage into the pool, and brings a new one where the last has closed.
    fn submit_to_pool(&self, tracked: &mut Tracked, home: &Home) -> Result<(), StageError> {
        let mut current = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = current.as_mut()
            && tracked.submit_to(pool)?
        {
            return Ok(());
        }
        let pool = current.insert(Pool::submit(home, &self.asked)?);
        match tracked.submit_to(pool)? {
            true => Ok(()),
            false => tracked.submit(&self.asked),
        }
    }

    /// The next light stage brings a new pool.
    fn forget_pool(&self, mark: &str) {
        let mut current = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|pool| pool.mark == mark) {
            *current = None;
        }
    }

    /// Whether a driver lives: one in a job, on a node that cannot be seen from here, is known to the
    /// scheduler. Once it is gone from answers that are a while apart, it is dead. Of another user's jobs
    /// nothing is known, since the scheduler is asked for one's own, and may tell of no others.
    fn life_of(&self, holder: &Holder) -> Life {
        let known = holder.life();
        let (Life::Unknown, Some(job)) = (known, &holder.job) else {
            return known;
        };
        if is_earlier_start(Some(job)) {
            return Life::Dead;
        }
        if !holder.is_of_this_user() {
            return known;
        }
        let answer = self.ledger.answer();
        let Some(Ok(rows)) = answer.rows.as_deref() else {
            return Life::Unknown;
        };
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.of_id(job).is_some_and(Row::is_alive) {
            gone.remove(job);
            return Life::Unknown;
        }
        let (since, first) = *gone
            .entry(job.clone())
            .or_insert((Instant::now(), answer.number));
        let is_settled = since.elapsed() >= self.asked.site.settle.0 && answer.number > first;
        if is_settled {
            Life::Dead
        } else {
            Life::Unknown
        }
    }

    /// The same, and says so where another machine's driver loses its claim by it.
    fn judge(&self, holder: &Holder, claim: &Claim) -> Life {
        let life = self.life_of(holder);
        if is_earlier_start(holder.job.as_deref()) {
            return life;
        }
        if let (Life::Dead, Life::Unknown, Some(job)) = (life, holder.life(), &holder.job) {
            (claim.on_loss)(format!(
                "its claim was held by {} in job {job} on {}, which the scheduler says is no more: it is taken over",
                holder.note, holder.host
            ));
        }
        life
    }

    /// Returns whether what was left in a folder may still be at work, or has done its work. Whoever
    /// left it is dead, so an answer from any time since this executor began tells.
    fn is_of_use(
        &self,
        folder: &JobFolder,
        file: &JobFile,
    ) -> Result<Option<Submission>, StageError> {
        let Some(submission) = folder.last_submission()? else {
            return Ok(None);
        };
        let mark = submission.mark(&file.draft.execution_id);
        let begun = Instant::now();
        let n_reports = folder.n_reports()?;
        loop {
            if folder.n_reports()? != n_reports {
                // Whatever the scheduler says, it speaks.
                return Ok(Some(submission));
            }
            match folder.last_word(submission.number)? {
                Some(Last::Committed(_)) => return Ok(Some(submission)),
                Some(_) => return Ok(None),
                None => {}
            }
            let is_settled = begun.elapsed() >= self.asked.site.settle.0;
            match self.ledger.answer().rows.as_deref() {
                Some(Err(_)) => return Ok(Some(submission)),
                Some(Ok(rows)) if rows.of_mark(&mark).is_some_and(Row::is_alive) => {
                    return Ok(Some(submission));
                }
                Some(Ok(_)) if is_settled => return Ok(None),
                Some(Ok(_)) | None => thread::sleep(LIST_EVERY),
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to be said of a job that was there and is gone, if it left no word itself.
fn silent_end(folder: &JobFolder) -> Result<Option<String>, StageError> {
    let Some(submission) = folder.last_submission()? else {
        return Ok(None);
    };
    let (Some(id), None) = (&submission.id, folder.last_word(submission.number)?) else {
        return Ok(None);
    };
    let from = match folder.saved().is_empty() {
        true => "its beginning",
        false => "its last checkpoint",
    };
    Ok(Some(format!(
        "its job {id} ended without a word while no run looked; made anew from {from}"
    )))
}

impl Drop for Slurm {
    fn drop(&mut self) {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pool.as_ref() {
            pool.dismiss();
        }
    }
}

impl Executor for Slurm {
    fn is_here(&self) -> bool {
        false
    }

    fn life(&self, holder: &Holder) -> Life {
        self.life_of(holder)
    }

    fn settle(&self) -> Duration {
        self.asked.site.settle.0 + self.asked.site.ask_every.0 * 2
    }

    fn claim(&self, claim: &Claim) -> Result<Option<Claimed>, StageError> {
        match claim.what {
            Exclusive::Key(key) => {
                let claimed = claim_key(claim, key, &|holder| self.judge(holder, claim))?;
                Ok(claimed.map(|claimed| Box::new(claimed) as Claimed))
            }
            // Each job has the node's devices that it asked for.
            Exclusive::Device(_) => Ok(Some(Box::new(()))),
        }
    }

    fn adopt(&self, work: &Place) -> Result<Option<Adopted>, StageError> {
        for place in work.list()? {
            let folder = JobFolder::new(place);
            if !folder.is_one() {
                continue;
            }
            let file = folder.job()?;
            if let Some(submission) = self.is_of_use(&folder, &file)? {
                let execution_id = file.draft.execution_id.clone();
                let job = JobId(execution_id.clone());
                self.jobs()
                    .insert(job.clone(), Tracked::adopted(folder, file, submission));
                return Ok(Some(Adopted { job, execution_id }));
            }
            if let Some(message) = silent_end(&folder)? {
                locked(&self.silent).insert(file.draft.key, message);
            }
            folder.place().remove()?;
        }
        Ok(None)
    }

    fn submit(&self, job: &Job) -> Result<JobId, StageError> {
        let id = JobId(job.draft.execution_id.clone());
        let folder = JobFolder::new(job.folder.clone());
        let file = JobFile {
            order: job.order.clone(),
            draft: job.draft.clone(),
            resources: job.resources.clone().or(&self.asked.site.resources),
        };
        folder.prepare(&file)?;
        let mut tracked = Tracked::new(folder, file);
        let is_for_pool = job.is_light && self.asked.site.linger.0 > Duration::ZERO;
        let pool_max = if is_for_pool { POOL_PARTS_MAX } else { 1 };
        let together = job.together.as_ref();
        match together.filter(|together| together.n > pool_max) {
            Some(together) => {
                self.arrays
                    .submit(&job.home, &mut tracked, together, &self.asked)?;
            }
            None if is_for_pool => self.submit_to_pool(&mut tracked, &job.home)?,
            None => tracked.submit(&self.asked)?,
        }
        if let Some(message) = locked(&self.silent).remove(&job.draft.key) {
            locked(&self.to_say).insert(id.clone(), message);
        }
        self.jobs().insert(id.clone(), tracked);
        Ok(id)
    }

    fn poll(&self, jobs: &[JobId], patience: Duration) -> Vec<(JobId, News)> {
        thread::sleep(patience);
        let answer = self.ledger.answer();
        let mut all = self.jobs();
        let mut told = Vec::new();
        for id in jobs {
            let Some(tracked) = all.get_mut(id) else {
                continue;
            };
            if let Some(message) = locked(&self.to_say).remove(id) {
                told.push((id.clone(), News::Said(Event::Warning { message })));
            }
            let news = tracked.news(&answer, &self.asked);
            if let Some(lost) = tracked.lost_pool() {
                self.forget_pool(&lost);
            }
            if news.iter().any(|news| matches!(news, News::Ended(..))) {
                all.remove(id);
            }
            told.extend(news.into_iter().map(|news| (id.clone(), news)));
        }
        told
    }

    fn stop(&self, id: &JobId, how: Stop) {
        let wish = match how {
            Stop::Gently => Wished::Stop,
            Stop::AtOnce => Wished::StopNow,
        };
        let job = self
            .jobs()
            .get_mut(id)
            .and_then(|tracked| tracked.stop(wish));
        if let Some(job) = job {
            commands::scancel(&job, how == Stop::Gently);
        }
    }
}

/// Returns whether a job may be at work in a folder of attempts, as far as the folder says: nothing
/// may then be started there by anybody who cannot ask the scheduler.
pub(crate) fn left_in(work: &Place) -> Result<Option<String>, StageError> {
    for place in work.list()? {
        let folder = JobFolder::new(place);
        if !folder.is_one() {
            continue;
        }
        if let Some(submission) = folder.last_submission()?
            && folder.last_word(submission.number)?.is_none()
        {
            return Ok(Some(
                submission
                    .id
                    .unwrap_or_else(|| "of an unknown number".to_owned()),
            ));
        }
    }
    Ok(None)
}
