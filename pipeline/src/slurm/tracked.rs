//! One job as its driver sees it: what it has said, whether it lives, and what follows if not.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    commands::{self, Request, Row, Submitted},
    fate::{Death, Fate},
    folder::{JobFile, JobFolder, LIST_EVERY, Last, Line, Reader, Submission, Temporary, Wished},
    ledger::Answer,
    pool::{Entry, Pool},
    site::Asked,
};
use crate::{
    error::StageError,
    event::Event,
    executor::{End, News},
    usage::Usage,
};

pub(crate) struct Tracked {
    folder: JobFolder,
    file: JobFile,
    reader: Reader,
    submission: Submission,
    listed: Option<Instant>,
    /// When something was last heard of it.
    heard: Option<Instant>,
    /// The number of the scheduler's last answer that was looked at.
    looked_at: u64,
    gone_since: Option<Instant>,
    place: String,
    wish: Option<Wished>,
    /// The pool that it was in and that is dead.
    lost_pool: Option<String>,
    /// Its last word, where that alone does not say what follows.
    last: Option<Last>,
    /// As far as the job told.
    usage: Usage,
    /// What stood in the folder of checkpoints when it was submitted.
    saved: Vec<String>,
    /// The folder of the array that it was submitted with.
    array: Option<Arc<Temporary>>,
}

impl Tracked {
    pub(crate) fn new(folder: JobFolder, file: JobFile) -> Self {
        let submission = Submission {
            number: 0,
            resources: file.resources.clone(),
            pool: None,
            task: None,
            id: None,
        };
        Self::adopted(folder, file, submission)
    }

    /// A job that another driver submitted.
    pub(crate) fn adopted(folder: JobFolder, file: JobFile, submission: Submission) -> Self {
        // It may have been asked to stop by a driver that is gone; this one has no such wish.
        folder.forget_wishes().ok();
        Self {
            reader: Reader::new(folder.clone()),
            saved: Vec::new(),
            folder,
            file,
            submission,
            listed: None,
            heard: None,
            looked_at: 0,
            gone_since: None,
            place: String::new(),
            wish: None,
            lost_pool: None,
            last: None,
            usage: Usage::default(),
            array: None,
        }
    }

    /// Asks the scheduler for a job of its own. An answer that does not come is no failure: the job
    /// may be there.
    pub(crate) fn submit(&mut self, asked: &Asked) -> Result<(), StageError> {
        self.next_submission(None, None)?;
        let submitted = commands::sbatch(&Request {
            site: &asked.site,
            program: &asked.program,
            folder: self.folder.place(),
            submission: &self.submission,
            name: &format!("{}.{}", self.file.draft.stage, self.file.draft.run_name),
            mark: &self.mark(),
        });
        self.submitted(submitted)
    }

    /// Takes a task of an array, and writes down what is about to be asked.
    pub(crate) fn join(&mut self, mark: String) -> Result<Entry, StageError> {
        self.submission.task = Some(mark);
        self.begin_submission(None, None)?;
        Ok(Entry {
            folder: self.folder.place().to_path_buf(),
            submission: self.submission.number,
        })
    }

    pub(crate) fn keep(&mut self, array: Arc<Temporary>) {
        self.array = Some(array);
    }

    /// Its name without the part that it is of its stage.
    pub(crate) fn name_of_all(&self) -> String {
        let stage = self.file.draft.stage.split('/').next().unwrap_or_default();
        format!("{stage}.{}", self.file.draft.run_name)
    }

    pub(crate) fn flags(&self, asked: &Asked) -> Vec<String> {
        commands::flags_of(&asked.site, &self.submission.resources)
    }

    /// Takes the scheduler's answer.
    pub(crate) fn submitted(&mut self, submitted: Submitted) -> Result<(), StageError> {
        match submitted {
            Submitted::Job(id) => {
                self.folder.submitted(self.submission.number, &id)?;
                self.submission.id = Some(id);
            }
            Submitted::Unknown(why) => self.place = format!("not known to be submitted: {why}"),
            Submitted::Refused(why) => return Err(commands::refused(why)),
        }
        Ok(())
    }

    /// Lays it into a pool; returns whether the pool is there to take it.
    pub(crate) fn submit_to(&mut self, pool: &mut Pool) -> Result<bool, StageError> {
        self.next_submission(Some(pool.mark.clone()), pool.id.clone())?;
        pool.takes(self.folder.place(), self.submission.number)
    }

    fn next_submission(
        &mut self,
        pool: Option<String>,
        id: Option<String>,
    ) -> Result<(), StageError> {
        self.submission.task = None;
        self.begin_submission(pool, id)
    }

    /// Writes down what is about to be asked.
    fn begin_submission(
        &mut self,
        pool: Option<String>,
        id: Option<String>,
    ) -> Result<(), StageError> {
        self.submission.number += 1;
        self.submission.pool = pool;
        self.submission.id = id;
        self.saved = self.folder.saved();
        self.gone_since = None;
        self.last = None;
        self.folder.submit(&self.submission)
    }

    fn mark(&self) -> String {
        self.submission.mark(&self.file.draft.execution_id)
    }

    /// Returns the job's news: what it said, and what the scheduler's last answer means for it.
    pub(crate) fn news(&mut self, answer: &Answer, asked: &Asked) -> Vec<News> {
        let mut news = self.said(LIST_EVERY);
        if news.iter().any(|news| matches!(news, News::Ended(..))) {
            return news;
        }
        if self.submission.pool.is_some() && self.last.is_some() {
            // The pool goes on: its end would say nothing of this one.
            news.extend(self.over(None, asked));
            return news;
        }
        if answer.number == self.looked_at {
            return news;
        }
        self.looked_at = answer.number;
        match answer.rows.as_deref() {
            Some(Ok(rows)) => {
                let row = rows.of_mark(&self.mark()).cloned();
                news.extend(self.seen(row, asked));
            }
            Some(Err(why)) => news.push(self.unknown(why, asked)),
            None => {}
        }
        news
    }

    /// Nothing is known of it. Whoever insists that it stop does not have to wait for a controller that
    /// never comes back: the wish stands in the folder, and the next driver looks again.
    fn unknown(&mut self, why: &str, asked: &Asked) -> News {
        if self.wish != Some(Wished::StopNow) {
            return News::Unknown(why.to_owned());
        }
        let since = *self.gone_since.get_or_insert_with(Instant::now);
        match since.elapsed() >= asked.site.settle.0 {
            true => {
                // It may still begin, and would look for its task.
                if let Some(array) = self.array.take() {
                    std::mem::forget(array);
                }
                News::Ended(End::Died(StageError::cancelled()), self.usage)
            }
            false => News::Unknown(why.to_owned()),
        }
    }

    /// Reads what the job has written since.
    fn said(&mut self, every: Duration) -> Vec<News> {
        if self.listed.is_some_and(|at| at.elapsed() < every) {
            return Vec::new();
        }
        self.listed = Some(Instant::now());
        match self.reader.news() {
            Ok(lines) => {
                if !lines.is_empty() {
                    self.heard = self.listed;
                }
                let news = lines.into_iter().flat_map(|line| self.passed_on(line));
                news.collect()
            }
            Err(error) => vec![News::Unknown(error.to_string())],
        }
    }

    fn passed_on(&mut self, line: Line) -> Vec<News> {
        match line {
            Line::Began { node, job } => {
                let mut news = vec![News::Running];
                if let (None, Some(job)) = (&self.submission.id, &job) {
                    self.known_as(job);
                }
                if let Some(id) = self.submission.id.clone() {
                    news.extend(self.placed(format!("job {id} on {node}")));
                }
                news
            }
            Line::Said(event) => vec![News::Said(event)],
            Line::Ended {
                last: Last::Committed(record),
                usage,
            } => vec![News::Ended(End::Committed(record), usage)],
            Line::Ended {
                last: Last::Failed(error),
                usage,
            } => vec![News::Ended(End::Failed(error), usage)],
            // What these mean is decided once the scheduler says how it saw the end.
            Line::Ended { last, usage } => {
                self.last = Some(last);
                self.usage = usage;
                Vec::new()
            }
        }
    }

    /// The scheduler took it though its answer was lost.
    fn known_as(&mut self, job: &str) {
        self.submission.id = Some(job.to_owned());
        self.folder.submitted(self.submission.number, job).ok();
    }

    /// Says where the job is, if that is news.
    fn placed(&mut self, place: String) -> Option<News> {
        if place == self.place {
            return None;
        }
        self.place.clone_from(&place);
        Some(News::Said(Event::Placed { place }))
    }

    /// What the scheduler knows of the job.
    fn seen(&mut self, row: Option<Row>, asked: &Asked) -> Vec<News> {
        if let Some(row) = row.as_ref().filter(|row| row.is_alive()) {
            if self.waits_in_vain(row) {
                return vec![News::Ended(End::Died(StageError::cancelled()), self.usage)];
            }
            self.gone_since = None;
            return self.alive(row);
        }
        let mut since = *self.gone_since.get_or_insert_with(Instant::now);
        if let (None, Some(heard)) = (&row, self.heard) {
            // That the scheduler does not name it means nothing as long as it goes on speaking.
            since = since.max(heard);
        }
        // Whoever asked it to stop need not wait for words that make no difference.
        let settle = match self.wish {
            Some(_) => asked.site.settle.0.min(LIST_EVERY * 4),
            None => asked.site.settle.0,
        };
        if self.last.is_none() && since.elapsed() < settle {
            return Vec::new();
        }
        // It may have spoken since the scheduler was asked.
        let mut news = self.said(Duration::ZERO);
        if !news.iter().any(|news| matches!(news, News::Ended(..))) {
            news.extend(self.over(row, asked));
        }
        news
    }

    /// Whether it was asked to stop in a pool that has not begun. Nobody would hear the wish before
    /// the pool's turn comes, and then there is nothing left to do: a job whose folder has gone is none.
    fn waits_in_vain(&self, row: &Row) -> bool {
        let is_pooled = self.submission.pool.is_some();
        is_pooled && self.wish.is_some() && row.state == "PENDING"
    }

    fn alive(&mut self, row: &Row) -> Vec<News> {
        if self.submission.id.is_none() {
            self.known_as(&row.id);
        }
        let place = match (row.state.as_str(), row.reason.as_str()) {
            ("PENDING", "None") => format!("job {} waits in the queue", row.id),
            ("PENDING", reason) => format!("job {} waits in the queue ({reason})", row.id),
            ("RUNNING" | "COMPLETING", _) => format!("job {} on {}", row.id, row.node),
            (state, _) => format!("job {} on {}: {}", row.id, row.node, state.to_lowercase()),
        };
        self.placed(place).into_iter().collect()
    }

    /// The scheduler has let go of the job, and it did not do its work.
    fn over(&mut self, row: Option<Row>, asked: &Asked) -> Vec<News> {
        let last = self.last.take();
        if self.wish.is_some() {
            return vec![News::Ended(End::Died(StageError::cancelled()), self.usage)];
        }
        let tail = self.folder.output_tail();
        let death = match (last, row, &self.submission.id) {
            (Some(Last::OutOfMemory(error)), ..) => Death::OutOfMemory(Some(error)),
            (Some(Last::OutOfTime), ..) => Death::OutOfTime,
            (Some(Last::Taken), ..) => Death::taken_for_another(),
            (Some(Last::Died(error)), row, _) => {
                Death::of_its_own(error, row.as_ref().map(|row| row.state.as_str()))
            }
            (_, Some(row), _) => Death::of_state(&row.state, &tail),
            (_, None, None) => Death::NeverSubmitted,
            (_, None, Some(_)) => Death::Silent(format!("the scheduler has forgotten it; {tail}")),
        };
        if death == Death::Cancelled {
            let id = self.submission.id.clone().unwrap_or_default();
            let message = format!("its job {id} was cancelled, and not by this run");
            return vec![
                News::Said(Event::Warning { message }),
                News::Ended(End::Died(StageError::cancelled()), self.usage),
            ];
        }
        if self.submission.pool.is_some() && !matches!(death, Death::OfItself(_)) {
            // It says nothing of this stage: it may have been another's memory or time.
            self.lost_pool = self.submission.pool.take();
            let message =
                "the job that it shared was too small or has ended; submitted again alone";
            return vec![self.again(message.to_owned(), asked)];
        }
        let saved = self.folder.saved();
        let has_advanced = saved.iter().any(|saved| !self.saved.contains(saved));
        match death.fate(&self.submission, has_advanced) {
            Fate::Over(error) => vec![News::Ended(End::Died(error), self.usage)],
            Fate::Again(resources, message) => {
                self.submission.resources = resources;
                vec![self.again(message, asked)]
            }
        }
    }

    fn again(&mut self, message: String, asked: &Asked) -> News {
        match self.submit(asked) {
            Ok(()) => News::Said(Event::Warning { message }),
            Err(error) => News::Ended(End::Died(error), self.usage),
        }
    }

    /// The mark of a pool whose end it has seen, told once.
    pub(crate) fn lost_pool(&mut self) -> Option<String> {
        self.lost_pool.take()
    }

    /// Passes a wish on; returns the scheduler's name of the job, which may have to hear it too.
    pub(crate) fn stop(&mut self, wish: Wished) -> Option<String> {
        self.wish = Some(wish);
        self.folder.wish(wish).ok();
        // A pool has other stages too: there the wish in the folder has to do.
        let is_alone = self.submission.pool.is_none();
        self.submission.id.clone().filter(|_| is_alone)
    }
}
