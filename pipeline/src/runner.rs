//! Runs an experiment: the scheduler's loop, and what is done for one stage.
//!
//! The loop only decides which stages may start; everything about one stage (its
//! key, its lock, its process, its artifact) happens on a thread of its own in
//! [`Worker`], and comes back as one [`Settled`]. A stage's artifact counts from the
//! moment its key record is written and not before, so there is no state in between
//! for a kill to leave behind.

use std::{
    any::Any,
    collections::{HashMap, HashSet},
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use tinylm_registry::{Condition, Digest, KeyRecord, Lock, Place, keys::write_key, names};

use crate::{
    child::{Attempt, Ended, Wish, end_orphans},
    context::{Context, Kept, Resolve, Sources, from_registry, recipe},
    error::StageError,
    event::Event,
    exec::Order,
    io::{Assignment, Input},
    metrics::Metrics,
    observe::{Execution, Happened, Observer, Outcome, Settled},
    plan::History,
    recipe::{Entry, changes, explanation, key},
    spec::{Experiment, StageSpec},
    sys::Usage,
};

/// The longest pause before a stage is tried again.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct RunOptions {
    pub run_id: String,
    pub run_name: String,
    pub host: String,
    /// The program that carries out stages: this binary.
    pub program: PathBuf,
    pub force: Vec<String>,
    pub n_jobs: usize,
    pub n_threads: usize,
    /// `cpu` or `cuda:N`.
    pub device: String,
    pub keep_going: bool,
    pub resolve: Resolve,
}

/// How the person at the terminal can stop a run.
#[derive(Debug, Default)]
pub struct Interrupt {
    /// Shared with what asks the outside.
    pub asked: Arc<AtomicBool>,
    pub insisted: AtomicBool,
}

/// One run of one experiment.
pub struct Runner<'a> {
    pub context: &'a Context,
    pub experiment: &'a Experiment,
    pub options: &'a RunOptions,
    pub observer: &'a dyn Observer,
    pub interrupt: &'a Interrupt,
    pub history: &'a History<'a>,
}

impl Runner<'_> {
    /// Runs every stage that is not fresh; returns how each came out, in the experiment's order.
    pub fn run(&self) -> Vec<Settled> {
        let stop = AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel();
        let mut settled: HashMap<&str, Settled> = HashMap::new();
        let mut started: HashSet<&str> = HashSet::new();
        thread::scope(|scope| {
            let mut running: Vec<&StageSpec> = Vec::new();
            loop {
                let ready = self.ready(&settled, &started, &stop);
                let n_free = self.options.n_jobs.max(1) - running.len();
                let starting = &ready[..ready.len().min(n_free)];
                running.extend(starting);
                let n_threads = self.options.n_threads / n_at_work(&running);
                for &stage in starting {
                    started.insert(&stage.name);
                    let worker = Worker {
                        runner: self,
                        stage,
                        stop: &stop,
                        n_threads: n_threads.max(1),
                        inputs: inputs(stage, &settled),
                        was_misled: was_misled(stage, &settled),
                    };
                    let sender = sender.clone();
                    let started = thread::Builder::new().spawn_scoped(scope, {
                        let sender = sender.clone();
                        move || {
                            // The receiver outlives every worker.
                            sender.send((stage, worker.carry_out())).ok();
                        }
                    });
                    if let Err(error) = started {
                        let failed = Outcome::Failed(StageError::no_thread(&error));
                        let settled = Settled::without_artifact(&stage.name, failed);
                        sender.send((stage, settled)).ok();
                    }
                }
                if running.is_empty() {
                    break;
                }
                // The senders outlive the loop, so this cannot fail.
                let Ok((stage, outcome)) = receiver.recv() else {
                    break;
                };
                running.retain(|one| one.name != stage.name);
                if matches!(outcome.outcome, Outcome::Failed(_)) && !self.options.keep_going {
                    stop.store(true, Ordering::Relaxed);
                }
                self.observer.see(&Happened::Settled(&outcome));
                settled.insert(&stage.name, outcome);
            }
        });
        self.context.remember();
        let stages = self.experiment.stages.iter();
        stages
            .map(|stage| match settled.remove(stage.name.as_str()) {
                Some(settled) => settled,
                None => self.left_out(stage, &stop),
            })
            .collect()
    }

    /// Returns the stages whose inputs are all there and that nobody has started.
    fn ready(
        &self,
        settled: &HashMap<&str, Settled>,
        started: &HashSet<&str>,
        stop: &AtomicBool,
    ) -> Vec<&StageSpec> {
        if stop.load(Ordering::Relaxed) || self.wish(stop) != Wish::GoOn {
            return Vec::new();
        }
        let is_good = |name: &String| {
            let found = settled.get(name.as_str());
            found.is_some_and(|settled| settled.outcome.is_good())
        };
        let stages = self.experiment.stages.iter();
        stages
            .filter(|stage| !started.contains(stage.name.as_str()))
            .filter(|stage| {
                stage
                    .inputs
                    .iter()
                    .flat_map(|(_, names)| names)
                    .all(is_good)
            })
            .collect()
    }

    /// A stage that was never started: something before it failed, or the run was stopped.
    fn left_out(&self, stage: &StageSpec, stop: &AtomicBool) -> Settled {
        let outcome = if self.interrupt.asked.load(Ordering::Relaxed) {
            Outcome::Cancelled
        } else if stop.load(Ordering::Relaxed) {
            Outcome::Skipped("an earlier stage failed".to_owned())
        } else {
            Outcome::Skipped("a stage that it reads failed".to_owned())
        };
        let settled = Settled::without_artifact(&stage.name, outcome);
        self.observer.see(&Happened::Settled(&settled));
        settled
    }

    fn wish(&self, stop: &AtomicBool) -> Wish {
        if self.interrupt.insisted.load(Ordering::Relaxed) {
            Wish::Kill
        } else if self.interrupt.asked.load(Ordering::Relaxed) || stop.load(Ordering::Relaxed) {
            Wish::Stop
        } else {
            Wish::GoOn
        }
    }
}

/// How many stages share the threads: heavy ones take turns at their device, so they count as one.
fn n_at_work(running: &[&StageSpec]) -> usize {
    let n_heavy = running.iter().filter(|stage| stage.kind.heavy).count();
    (running.len() - n_heavy + n_heavy.min(1)).max(1)
}

/// Returns the contents digests of what a stage reads, role by role.
fn inputs(stage: &StageSpec, settled: &HashMap<&str, Settled>) -> Vec<(String, Vec<Digest>)> {
    let artifact = |name: &String| settled.get(name.as_str()).and_then(|one| one.artifact);
    let roles = stage.inputs.iter();
    roles
        .map(|(role, names)| (role.clone(), names.iter().filter_map(artifact).collect()))
        .collect()
}

/// Returns whether something that a stage reads was damaged until this run made it anew.
fn was_misled(stage: &StageSpec, settled: &HashMap<&str, Settled>) -> bool {
    let mut names = stage.inputs.iter().flat_map(|(_, names)| names);
    names.any(|name| settled.get(name.as_str()).is_some_and(|one| one.healed))
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

/// One stage of one run, on its own thread.
struct Worker<'a> {
    runner: &'a Runner<'a>,
    stage: &'a StageSpec,
    stop: &'a AtomicBool,
    n_threads: usize,
    inputs: Vec<(String, Vec<Digest>)>,
    /// Whether an earlier attempt may have read bytes that were not what its key said.
    was_misled: bool,
}

/// What an attempt that worked leaves.
struct Made {
    artifact: Digest,
    bytes: u64,
    execution_id: String,
    metrics: Metrics,
}

impl Worker<'_> {
    fn carry_out(&self) -> Settled {
        let started = Instant::now();
        // Whatever happens here is told: a loop that waits for a dead thread would wait for ever.
        let carried_out = panic::catch_unwind(AssertUnwindSafe(|| self.try_carry_out()))
            .unwrap_or_else(|panic| Err(panicked(&*panic)));
        let mut settled = carried_out.unwrap_or_else(|error| {
            let outcome = if error.cancelled {
                Outcome::Cancelled
            } else {
                Outcome::Failed(error)
            };
            Settled::without_artifact(&self.stage.name, outcome)
        });
        settled.seconds = started.elapsed().as_secs_f64();
        settled
    }

    fn try_carry_out(&self) -> Result<Settled, StageError> {
        let context = self.runner.context;
        self.tell_what_is_asked()?;
        let sources = context.sources(self.stage, self.runner.options.resolve)?;
        let recipe = recipe(self.stage, &self.inputs, &sources);
        let key = key(&recipe);
        if let Kept::Whole(record) = self.kept(&key)? {
            return Ok(self.hit(key, &record));
        }
        let _key_lock = self.lock(&context.home.key_lock(&key))?;
        // Whoever held the lock may have made it meanwhile.
        let kept = match self.kept(&key)? {
            Kept::Whole(record) => return Ok(self.hit(key, &record)),
            kept => kept,
        };
        let _device_lock = match self.stage.kind.heavy {
            true => Some(self.lock(&context.home.device_lock(&self.runner.options.device))?),
            false => None,
        };
        end_orphans(&absolute(&context.home.work_dir(&key))?);
        if self.is_forced() || self.was_misled {
            self.forget_checkpoints(&key)?;
        }
        let explanation = explanation(&recipe);
        let why = self.why(&kept, &explanation);
        let made = self.make(key, &sources, &explanation, &why)?;
        Ok(Settled {
            key: Some(key),
            artifact: Some(made.artifact),
            artifact_bytes: made.bytes,
            execution_id: Some(made.execution_id),
            metrics: made.metrics,
            why,
            healed: matches!(kept, Kept::Damaged(_)),
            ..Settled::without_artifact(&self.stage.name, Outcome::Made)
        })
    }

    /// Says what this stage is about to ask the outside, which may take long.
    fn tell_what_is_asked(&self) -> Result<(), StageError> {
        let context = self.runner.context;
        if context.outside.offline || self.runner.options.resolve != Resolve::IfNew {
            return Ok(());
        }
        for remote in context.unpinned(self.stage)? {
            self.runner.observer.see(&Happened::Asking {
                stage: &self.stage.name,
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
        self.runner.context.kept(key)
    }

    fn is_forced(&self) -> bool {
        self.runner.options.force.contains(&self.stage.name)
    }

    fn hit(&self, key: Digest, record: &KeyRecord) -> Settled {
        let is_ours = record.run_id == self.runner.options.run_id;
        Settled {
            key: Some(key),
            artifact: Some(record.artifact),
            artifact_bytes: record.artifact_bytes,
            execution_id: Some(record.execution_id.clone()),
            made_by: (!is_ours).then(|| record.run_name.clone()),
            metrics: Metrics(record.metrics.clone()),
            ..Settled::without_artifact(&self.stage.name, Outcome::Hit)
        }
    }

    /// Waits for a lock, saying who holds it.
    fn lock(&self, path: &Place) -> Result<Lock, StageError> {
        let options = &self.runner.options;
        let note = format!(
            "`{}` of run {} (process {})",
            self.stage.name,
            options.run_name,
            std::process::id()
        );
        let on_wait = |holder: &str| {
            self.runner.observer.see(&Happened::Waiting {
                stage: &self.stage.name,
                holder,
            });
        };
        let lock = Lock::wait_exclusive(path, &note, &self.runner.interrupt.asked, on_wait);
        lock.map_err(|error| from_registry(&error))?
            .ok_or_else(StageError::cancelled)
    }

    fn why(&self, kept: &Kept, now: &[Entry]) -> Vec<String> {
        if self.is_forced() {
            return vec!["forced".to_owned()];
        }
        if let Some(loss) = kept.loss() {
            return vec![loss];
        }
        let Some(last) = (self.runner.history)(&self.stage.name) else {
            return vec!["never run".to_owned()];
        };
        let differences = changes(&last, now, true);
        if differences.is_empty() {
            return vec!["not finished before".to_owned()];
        }
        differences.iter().map(ToString::to_string).collect()
    }

    /// Makes the artifact, trying again as often as the stage allows.
    fn make(
        &self,
        key: Digest,
        sources: &Sources,
        recipe: &[Entry],
        why: &[String],
    ) -> Result<Made, StageError> {
        let mut attempt = 1;
        loop {
            let execution = Execution {
                id: names::new_id(),
                stage: self.stage.name.clone(),
                kind: self.stage.kind.name,
                key,
                recipe: recipe.to_vec(),
                attempt,
                threads: self.n_threads,
                device: self.runner.options.device.clone(),
                why: why.to_vec(),
            };
            let error = match self.attempt(&execution, sources)? {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            let is_last = attempt > self.stage.retries || error.cancelled || error.is_final;
            if is_last {
                return Err(error);
            }
            self.pause(back_off(attempt))?;
            attempt += 1;
        }
    }

    /// One attempt. The outer error is ours (no room for a folder), the inner one the stage's.
    fn attempt(
        &self,
        execution: &Execution,
        sources: &Sources,
    ) -> Result<Result<Made, StageError>, StageError> {
        let started = Instant::now();
        let folder = self.attempt_folder(execution)?;
        let order = Order {
            kind: self.stage.kind.name.to_owned(),
            settings: self.stage.with.clone(),
            watch: self.stage.watch.clone(),
            assignment: self.assignment(execution, sources, &folder)?,
        };
        let home = &self.runner.context.home;
        let log = home.log_path(&execution.id);
        let attempt = Attempt {
            program: &self.runner.options.program,
            order: &order,
            mark: format!(
                "{}:{}",
                absolute(&home.work_dir(&execution.key))?.display(),
                execution.id
            ),
            log: log.clone(),
            timeout: self.stage.timeout,
        };
        self.runner.observer.see(&Happened::Started(execution));
        let mut origin = None;
        let mut on_event = |event: Event| {
            if let Event::Origin { origin: told } = &event {
                origin = Some(told.clone());
            }
            self.runner.observer.see(&Happened::Said {
                stage: &self.stage.name,
                execution_id: &execution.id,
                event: &event,
            });
        };
        let ended = attempt.run(&|| self.runner.wish(self.stop), &mut on_event)?;
        let Ended { result, usage } = ended;
        let result = self.inputs_still_stand(&execution.key).and(result);
        let result = result.and_then(|metrics| {
            self.commit(
                execution,
                &folder,
                metrics,
                origin.clone(),
                started.elapsed(),
            )
        });
        self.clean_up(&folder, &log, result.is_ok(), &execution.key);
        self.tell_end(execution, &result, usage, origin.as_ref());
        Ok(result)
    }

    fn attempt_folder(&self, execution: &Execution) -> Result<Place, StageError> {
        let home = &self.runner.context.home;
        let folder = home.attempt_dir(&execution.key, &execution.id);
        for inner in [folder.below("out"), home.checkpoints_dir(&execution.key)] {
            inner
                .create_folder()
                .map_err(|error| from_registry(&error))?;
        }
        Ok(folder)
    }

    fn forget_checkpoints(&self, key: &Digest) -> Result<(), StageError> {
        let checkpoints = self.runner.context.home.checkpoints_dir(key);
        checkpoints
            .remove()
            .map_err(|error| from_registry(&error).is_final())
    }

    /// Looks once more at what the stage read, so that nothing is recorded, and nothing gone on
    /// with, that was made from anything but what the key says.
    fn inputs_still_stand(&self, key: &Digest) -> Result<(), StageError> {
        for ((_, names), (_, digests)) in self.stage.inputs.iter().zip(&self.inputs) {
            for (name, digest) in names.iter().zip(digests) {
                let condition = self.runner.context.store.condition(digest);
                let what = match condition.map_err(|error| from_registry(&error))? {
                    Condition::Whole(_) => continue,
                    Condition::Missing => "it is missing".to_owned(),
                    Condition::Damaged { path, what } => format!("`{}` {what}", path.display()),
                };
                self.forget_checkpoints(key)?;
                return Err(StageError::new(format!("what it read of `{name}` was changed meanwhile"))
                    .cause(what)
                    .help("find out what writes into the store, then run the same command again: what is damaged is made anew")
                    .is_final());
            }
        }
        Ok(())
    }

    fn assignment(
        &self,
        execution: &Execution,
        sources: &Sources,
        folder: &Place,
    ) -> Result<Assignment, StageError> {
        let mut inputs = Vec::new();
        for ((role, names), (_, digests)) in self.stage.inputs.iter().zip(&self.inputs) {
            for (name, digest) in names.iter().zip(digests) {
                inputs.push(Input {
                    role: role.clone(),
                    stage: name.clone(),
                    path: absolute(&self.runner.context.store.files(digest))?,
                    digest: digest.to_string(),
                });
            }
        }
        Ok(Assignment {
            inputs,
            local_files: sources.local_files.clone(),
            pins: sources.pins.clone(),
            out: absolute(&folder.join("out"))?,
            checkpoints: absolute(&self.runner.context.home.checkpoints_dir(&execution.key))?,
            seed: self.stage.seed,
            threads: self.n_threads,
            device: self.runner.options.device.clone(),
        })
    }

    /// Makes the outputs an artifact, and the artifact the answer to the key.
    fn commit(
        &self,
        execution: &Execution,
        folder: &Place,
        metrics: Metrics,
        origin: Option<Value>,
        elapsed: Duration,
    ) -> Result<Made, StageError> {
        let context = self.runner.context;
        let options = self.runner.options;
        let artifact = context
            .store
            .commit(&folder.below("out"))
            .map_err(|error| from_registry(&error))?;
        let record = KeyRecord {
            version: KeyRecord::VERSION,
            key: execution.key,
            kind: execution.kind.to_owned(),
            recipe: execution.recipe.clone(),
            artifact: artifact.digest,
            artifact_bytes: artifact.bytes,
            run_id: options.run_id.clone(),
            run_name: options.run_name.clone(),
            stage: execution.stage.clone(),
            execution_id: execution.id.clone(),
            made_at: now_ms(),
            seconds: elapsed.as_secs_f64(),
            host: options.host.clone(),
            device: options.device.clone(),
            origin,
            metrics: metrics.0.clone(),
        };
        write_key(&context.home, &record).map_err(|error| from_registry(&error))?;
        Ok(Made {
            artifact: artifact.digest,
            bytes: artifact.bytes,
            execution_id: execution.id.clone(),
            metrics,
        })
    }

    /// Removes what the attempt needed only while it ran. What cannot be removed is `gc`'s.
    fn clean_up(&self, folder: &Place, log: &Place, is_made: bool, key: &Digest) {
        if is_made {
            self.runner.context.home.work_dir(key).remove().ok();
        } else {
            folder.remove().ok();
        }
        if fs::metadata(log).is_ok_and(|log| log.len() == 0) {
            log.remove().ok();
        }
    }

    fn tell_end(
        &self,
        execution: &Execution,
        result: &Result<Made, StageError>,
        usage: Usage,
        origin: Option<&Value>,
    ) {
        let nothing = Metrics::default();
        let will_retry = result.as_ref().is_err_and(|error| {
            execution.attempt <= self.stage.retries && !error.cancelled && !error.is_final
        });
        self.runner.observer.see(&Happened::Ended {
            execution,
            result: result.as_ref().map(|made| made.artifact),
            usage,
            metrics: result.as_ref().map_or(&nothing, |made| &made.metrics),
            origin,
            retry_in_seconds: will_retry.then(|| back_off(execution.attempt).as_secs()),
        });
    }

    /// Waits before another try, unless the run is being stopped.
    fn pause(&self, time: Duration) -> Result<(), StageError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.runner.wish(self.stop) != Wish::GoOn {
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

fn absolute(path: &Path) -> Result<PathBuf, StageError> {
    std::path::absolute(path).map_err(|error| StageError::io(path, &error))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}
