//! One stage of one run, on its own thread: whether it is fresh, and if not, making it.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    thread,
    time::{Duration, Instant},
};

use tinylm_registry::{Digest, Fetched, KeyRecord, names};

use crate::{
    attempt::{Attempt, Made},
    context::{Kept, Resolve, Sources, recipe},
    error::StageError,
    executor::{Adopted, Claim, Claimed, Exclusive, Stop},
    fetching::Fetching,
    follow::Follow,
    metrics::Metrics,
    observe::{Arrived, Execution, Happened, Outcome, Settled},
    recipe::{Entry, changes, explanation, key},
    runner::Runner,
    settings::Device,
    wish::Wish,
    work::Work,
};

/// The longest pause before a stage is tried again.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Worker<'a> {
    pub(crate) work: Work<'a>,
    /// Whether an earlier attempt may have read bytes that were not what its key said.
    pub(crate) was_misled: bool,
}

impl Worker<'_> {
    pub(crate) fn carry_out(&self) -> Settled {
        // Whatever happens here is told: a loop that waits for a dead thread would wait for ever.
        let carried_out = panic::catch_unwind(AssertUnwindSafe(|| self.try_carry_out()))
            .unwrap_or_else(|panic| Err(panicked(&*panic)));
        carried_out.unwrap_or_else(|error| {
            let outcome = if error.cancelled {
                Outcome::Cancelled
            } else {
                Outcome::Failed(error)
            };
            Settled::without_artifact(&self.work.stage.name, outcome)
        })
    }

    fn try_carry_out(&self) -> Result<Settled, StageError> {
        let context = self.work.runner.context;
        let sources = self.sources()?;
        let keyed = self.work.keyed();
        let recipe = recipe(self.work.stage, &keyed, &sources);
        let key = key(&recipe);
        if let Kept::Whole(record) = self.kept(&key)? {
            return Ok(self.hit(key, &record));
        }
        let _key = self.claim(Exclusive::Key(&key))?;
        // Whoever had the claim may have made it meanwhile.
        let kept = self.kept(&key)?;
        let is_damaged = matches!(kept, Kept::Damaged(_));
        let (kept, arrived) = self.fetched(&key, kept)?;
        if let Kept::Whole(record) = kept {
            return Ok(Settled {
                healed: is_damaged,
                arrived,
                ..self.hit(key, &record)
            });
        }
        let _device = self.claim_device()?;
        let mut left = self
            .work
            .runner
            .executor
            .adopt(&context.home.work_dir(&key))?;
        if self.is_forced() || self.was_misled {
            if let Some(left) = left.take() {
                self.end(left);
            }
            self.work.forget_checkpoints(&key)?;
        }
        let explanation = explanation(&recipe);
        let why = self.why(&kept, &explanation);
        let begun = Instant::now();
        let made = self.make(key, &sources, &explanation, &why, left)?;
        Ok(Settled {
            key: Some(key),
            artifact: Some(made.artifact),
            artifact_bytes: made.bytes,
            execution_id: Some(made.execution_id),
            metrics: made.metrics,
            // Not the time in which it waited for others.
            seconds: begun.elapsed().as_secs_f64(),
            why,
            healed: is_damaged,
            ..Settled::without_artifact(&self.work.stage.name, Outcome::Made)
        })
    }

    fn sources(&self) -> Result<Sources, StageError> {
        if let Some(part) = self.work.part {
            return Ok(Sources::of_part(part));
        }
        self.tell_what_is_asked()?;
        let Runner {
            context, options, ..
        } = self.work.runner;
        context.sources(self.work.stage, options.resolve)
    }

    /// Says what this stage is about to ask the outside, which may take long.
    fn tell_what_is_asked(&self) -> Result<(), StageError> {
        let context = self.work.runner.context;
        if context.outside.offline || self.work.runner.options.resolve != Resolve::IfNew {
            return Ok(());
        }
        for remote in context.unpinned(self.work.stage)? {
            self.work.runner.observer.see(&Happened::Asking {
                stage: &self.work.stage.name,
                source: &remote.id,
            });
        }
        Ok(())
    }

    /// Returns what the store has, unless the stage is forced.
    fn kept(&self, key: &Digest) -> Result<Kept, StageError> {
        if self.is_forced() {
            return Ok(Kept::Nothing);
        }
        self.work.runner.context.kept(key)
    }

    /// Asks the remote store before a miss. What it has that is not sound is a miss, and so is all
    /// that it has while it cannot be reached; that it lets us not in is an error.
    fn fetched(
        &self,
        key: &Digest,
        kept: Kept,
    ) -> Result<(Kept, Option<Box<Arrived>>), StageError> {
        let store = &self.work.runner.context.store;
        let Some(from) = store.remote_address() else {
            return Ok((kept, None));
        };
        if self.is_forced() || matches!(kept, Kept::Whole(_)) {
            return Ok((kept, None));
        }
        match store.fetch(key, &Fetching::new(&self.work, from)) {
            Fetched::Whole { record, bytes } => {
                if let Some(pusher) = &self.work.runner.context.pusher {
                    pusher.know(key);
                }
                let arrived = Arrived {
                    from: from.to_owned(),
                    bytes,
                    record: (*record).clone(),
                };
                Ok((Kept::Whole(record), Some(Box::new(arrived))))
            }
            Fetched::Nothing => Ok((kept, None)),
            Fetched::Refused(why) => Ok(match kept {
                Kept::Damaged(what) => (Kept::Damaged(format!("{what}; {why}")), None),
                _ => (Kept::Refused(why), None),
            }),
            Fetched::Forbidden(why) => Err(forbidden(from, why)),
            Fetched::Unreachable(why) => {
                let message = format!("{from} cannot be asked ({why}): going on without it");
                self.work.runner.observer.see(&Happened::Warned {
                    stage: &self.work.stage.name,
                    message: &message,
                });
                Ok((kept, None))
            }
            Fetched::Stopped => Err(StageError::cancelled()),
        }
    }

    fn is_forced(&self) -> bool {
        // A part's name begins with its stage's.
        let name = self.work.stage.name.split('/').next();
        name.is_some_and(|name| {
            self.work
                .runner
                .options
                .force
                .iter()
                .any(|forced| forced == name)
        })
    }

    fn hit(&self, key: Digest, record: &KeyRecord) -> Settled {
        if let Some(pusher) = &self.work.runner.context.pusher {
            pusher.offer(&key);
        }
        let is_ours = record.run_id == self.work.runner.options.run_id;
        self.work.runner.see_kept(record);
        Settled {
            key: Some(key),
            artifact: Some(record.artifact),
            artifact_bytes: record.artifact_bytes,
            execution_id: Some(record.execution_id.clone()),
            made_by: (!is_ours).then(|| record.run_name.clone()),
            metrics: Metrics(record.metrics.clone()),
            ..Settled::without_artifact(&self.work.stage.name, Outcome::Hit)
        }
    }

    /// Waits for the device of a heavy stage. One that is yet to be found is tried while nobody else computes on it:
    /// a card that is full would look like one that computes wrong.
    fn claim_device(&self) -> Result<Option<Claimed>, StageError> {
        let Work { runner, stage, .. } = &self.work;
        let device = &runner.options.device;
        if stage.kind.on_device && device.is_open() && !self.work.is_shared() {
            let held = self.claim(Exclusive::Device(Device::CUDA))?;
            device.look(|message| {
                runner.observer.see(&Happened::Warned {
                    stage: &stage.name,
                    message,
                });
            });
            if stage.kind.heavy && self.work.device() == Device::CUDA {
                return Ok(Some(held));
            }
        }
        match stage.kind.heavy {
            true => self.claim(Exclusive::Device(self.work.device())).map(Some),
            false => Ok(None),
        }
    }

    /// Waits for a claim, saying who has it.
    fn claim(&self, what: Exclusive) -> Result<Claimed, StageError> {
        let Work { runner, stage, .. } = &self.work;
        let note = format!(
            "`{}` of run {} (process {})",
            stage.name,
            runner.options.run_name,
            std::process::id()
        );
        let on_wait = |holder: &str| {
            runner.observer.see(&Happened::Waiting {
                stage: &stage.name,
                holder,
            });
        };
        let on_loss = |message: String| {
            runner.observer.see(&Happened::Warned {
                stage: &stage.name,
                message: &message,
            });
        };
        let claim = Claim {
            home: &runner.context.home,
            what,
            note: &note,
            job: runner.options.job.as_deref(),
            cancelled: &runner.interrupt.asked,
            on_wait: &on_wait,
            on_loss: &on_loss,
        };
        let claimed = runner.executor.claim(&claim)?;
        claimed.ok_or_else(StageError::cancelled)
    }

    /// Ends a job that a dead driver left and that this run cannot use.
    fn end(&self, left: Adopted) {
        self.work.runner.executor.stop(&left.job, Stop::AtOnce);
        let follow = Follow::new(self.work.desk, left.job, None);
        // Its last word does not count, and a wish to stop finds it stopped already.
        let _ = follow.until_over(&|| Wish::GoOn, &mut |_| {});
    }

    fn why(&self, kept: &Kept, now: &[Entry]) -> Vec<String> {
        if self.is_forced() {
            return vec!["forced".to_owned()];
        }
        if let Some(loss) = kept.loss() {
            return vec![loss];
        }
        if self.work.part.is_some() {
            return vec!["a part that was not there".to_owned()];
        }
        let Some(last) = (self.work.runner.history)(&self.work.stage.name) else {
            return vec!["never run".to_owned()];
        };
        let differences = changes(&last, now, true);
        if differences.is_empty() {
            return vec!["not finished before".to_owned()];
        }
        differences.iter().map(ToString::to_string).collect()
    }

    /// Makes the artifact, trying again as often as the stage allows. A job that is at work
    /// already is the first attempt.
    fn make(
        &self,
        key: Digest,
        sources: &Sources,
        recipe: &[Entry],
        why: &[String],
        left: Option<Adopted>,
    ) -> Result<Made, StageError> {
        let stage = self.work.stage;
        let in_parts = (stage.kind.is_in_parts)(&stage.with);
        let (mut id, mut job) = match left {
            Some(left) => (left.execution_id, Some(left.job)),
            None => (names::new_id(), None),
        };
        let mut n = 1;
        loop {
            let attempt = Attempt {
                work: &self.work,
                sources,
                execution: Execution {
                    id,
                    stage: self.work.stage.name.clone(),
                    kind: self.work.stage.kind.name,
                    key,
                    recipe: recipe.to_vec(),
                    attempt: n,
                    threads: self.work.n_threads,
                    device: self.work.device(),
                    why: why.to_vec(),
                },
            };
            if in_parts {
                let was_misled = self.was_misled;
                return attempt.conduct(&|work| Worker { work, was_misled }.carry_out());
            }
            let again = |error: &StageError| self.pause_after(n, error);
            match attempt.carry_out(job.take(), &again)? {
                (Ok(made), _) => return Ok(made),
                (Err(error), None) => return Err(error),
                (Err(_), Some(pause)) => self.pause(pause)?,
            }
            id = names::new_id();
            n += 1;
        }
    }

    /// Returns how long to wait before another attempt; nothing where this was the last.
    fn pause_after(&self, attempt: u32, error: &StageError) -> Option<Duration> {
        let is_last = attempt > self.work.stage.retries || error.cancelled || error.is_final;
        (!is_last).then(|| back_off(attempt))
    }

    /// Waits before another try, unless the run is being stopped.
    fn pause(&self, time: Duration) -> Result<(), StageError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.work.wish() != Wish::GoOn {
                return Err(StageError::cancelled());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// 1, 2, 4, ... seconds.
fn back_off(attempt: u32) -> Duration {
    let seconds = 1_u64 << attempt.saturating_sub(1).min(6);
    Duration::from_secs(seconds).min(BACK_OFF_MAX)
}

/// Making anew for hours what a team has, because a token has run out, would be no service.
fn forbidden(from: &str, why: String) -> StageError {
    StageError::new(format!("the remote store {from} lets us not in"))
        .cause(why)
        .help(
            "look at the credentials (`tinylm doctor` asks too), which must allow to list as well: \
             else what is absent is forbidden; `TINYLM_REMOTE=none` goes on without it",
        )
}

/// A bug in this program, told as the failure of the stage that it was working for.
fn panicked(panic: &(dyn Any + Send)) -> StageError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    StageError::new("the thread that looks after this stage panicked, which is a bug in tinylm")
        .cause(text.unwrap_or_else(|| "it left no message".to_owned()))
        .help("what other stages made is kept; run the same command again, and report this")
        .is_final()
}
