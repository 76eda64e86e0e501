//! Making a stage in parts, in the process of its run.
//!
//! Each part goes through the same hands as a stage (claim, remote store, job, key record), so that
//! whatever holds for a stage that is killed, found, shared or lost holds for a part; here is only which are
//! missing, how many are at work at once, and what who looks on is told. That is one line for the whole
//! stage: what its parts say goes under its name, and their progress is a count of them.

use std::{
    io::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tinylm_registry::{Condition, Digest, KeyRecord, Place, names};

use crate::{
    attempt::{Attempt, Made},
    commit::Told,
    context::{Kept, Sources, recipe},
    error::{At, StageError},
    event::Event,
    executor::Together,
    io::LocalFile,
    metrics::Metrics,
    observe::{Happened, Observer, Outcome, Settled},
    outside::Outside,
    parts::{Collection, Conductor, Part, Whole},
    recipe::key,
    remote::Pin,
    runner::Runner,
    spec::StageSpec,
    threads,
    usage::Usage,
    wish::Wish,
    work::Work,
};

/// Carries out the work on one part as that on a stage.
type MakeOne<'a> = dyn Fn(Work) -> Settled + Sync + 'a;

impl Attempt<'_> {
    /// Has the parts made that are not there, and gathers their files.
    pub(crate) fn conduct(&self, make: &MakeOne) -> Result<Made, StageError> {
        let started = Instant::now();
        let folder = self.begin()?;
        let conducting = Conducting {
            attempt: self,
            make,
            keys: Mutex::new(Vec::new()),
            usage: Mutex::new(Usage::default()),
            n_made: AtomicUsize::new(0),
        };
        let result = conducting.gather(&folder, started);
        let usage = *lock(&conducting.usage);
        self.end(&folder, result, usage, None, &|_| None).0
    }
}

/// Longer than file systems that machines share remember what was not there.
const SEEN_WITHIN: Duration = Duration::from_secs(90);

/// So many parts are followed at one time where another machine carries them out. Each holds a lock, and many
/// systems let a process open a thousand files.
const TOGETHER_MAX: usize = 400;

/// The parts of one stage, while they are made.
struct Conducting<'a> {
    attempt: &'a Attempt<'a>,
    make: &'a MakeOne<'a>,
    /// Of all parts that were asked for.
    keys: Mutex<Vec<Digest>>,
    /// What those took that were made.
    usage: Mutex<Usage>,
    n_made: AtomicUsize,
}

impl Conducting<'_> {
    fn gather(&self, folder: &Place, started: Instant) -> Result<KeyRecord, StageError> {
        let stage = self.work().stage;
        let collection = (stage.kind.conduct)(&stage.with, self)?;
        let out = folder.below("out");
        write_own(&out, &collection)?;
        let mut parts = std::mem::take(&mut *lock(&self.keys));
        parts.sort_unstable();
        parts.dedup();
        self.say(Event::Note {
            message: format!(
                "{} parts, of which {} were made",
                parts.len(),
                self.n_made.load(Ordering::Relaxed)
            ),
        });
        let told = Told {
            metrics: collection.metrics,
            origin: None,
            took: started.elapsed(),
        };
        self.attempt.gather(folder, &collection.files, parts, told)
    }

    fn work(&self) -> &Work<'_> {
        self.attempt.work
    }

    fn say(&self, event: Event) {
        self.work().runner.observer.see(&Happened::Said {
            stage: &self.work().stage.name,
            execution_id: &self.attempt.execution.id,
            event: &event,
        });
    }

    fn spec(&self, part: &Part) -> Result<StageSpec, StageError> {
        let stage = self.work().stage;
        let mut kinds = stage.kind.parts.iter();
        let kind = kinds.find(|kind| kind.name == part.kind).ok_or_else(|| {
            let message = format!("`{}` has no parts of kind `{}`", stage.kind.name, part.kind);
            StageError::new(message).is_final()
        })?;
        let reads = part.reads.iter().map(|(role, digests)| {
            let names = vec![stage.name.clone(); digests.len()];
            (role.clone(), names)
        });
        Ok(StageSpec {
            name: format!("{}/{}", stage.name, part.name),
            kind: *kind,
            inputs: reads.collect(),
            with: part.settings.clone(),
            given: part.settings.clone(),
            watch: part.watch.clone(),
            ..stage.clone()
        })
    }

    fn key(spec: &StageSpec, part: &Part) -> Digest {
        let (inputs, sources) = (part.keyed(), Sources::of_part(part));
        key(&recipe(spec, &inputs, &sources))
    }

    fn is_forced(&self) -> bool {
        let force = &self.work().runner.options.force;
        force.contains(&self.work().stage.name)
    }

    fn find(&self, key: &Digest) -> Result<Option<Whole>, StageError> {
        if self.is_forced() {
            return Ok(None);
        }
        match self.work().runner.context.kept(key)? {
            Kept::Whole(record) => {
                self.work().runner.see_kept(&record);
                let metrics = Metrics(record.metrics.clone());
                Ok(Some(self.whole(&record.artifact, metrics)?))
            }
            _ => Ok(None),
        }
    }

    /// Another machine may have made it a moment ago, and a name that was looked for before goes on being
    /// absent here for a while.
    fn condition(&self, digest: &Digest) -> Result<Condition, StageError> {
        let Runner {
            context, executor, ..
        } = self.work().runner;
        let until = Instant::now() + SEEN_WITHIN;
        loop {
            let condition = context.store.condition(digest)?;
            let may_come = condition == Condition::Missing && !executor.is_here();
            if !may_come || Instant::now() >= until {
                return Ok(condition);
            }
            if self.work().wish() != Wish::GoOn {
                return Err(StageError::cancelled());
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    fn whole(&self, digest: &Digest, metrics: Metrics) -> Result<Whole, StageError> {
        let store = &self.work().runner.context.store;
        match self.condition(digest)? {
            Condition::Whole(manifest) => Ok(Whole {
                digest: *digest,
                path: crate::work::absolute(&store.files(digest))?,
                files: manifest.artifact().files,
                metrics,
            }),
            Condition::Missing | Condition::Damaged { .. } => {
                let message = format!("the artifact {digest} is not whole any more");
                Err(StageError::new(message)
                    .help("run the same command again: what is damaged is made anew"))
            }
        }
    }

    /// Makes one part on this thread, through a runner that tells the stage's observer.
    fn make_one(
        &self,
        spec: &StageSpec,
        part: &Part,
        n_threads: usize,
        together: Option<Together>,
    ) -> Result<Whole, StageError> {
        let work = self.work();
        let observer = OfPart { conducting: self };
        let runner = Runner {
            observer: &observer,
            ..*work.runner
        };
        let settled = (self.make)(Work {
            runner: &runner,
            desk: work.desk,
            stage: spec,
            stop: work.stop,
            n_threads,
            inputs: part.reads.clone(),
            part: Some(part),
            together,
        });
        let artifact = settled.artifact;
        match (settled.outcome, artifact) {
            (Outcome::Hit | Outcome::Made, Some(artifact)) => {
                self.whole(&artifact, settled.metrics)
            }
            (Outcome::Failed(mut error), _) => {
                error.message = format!("{}: {}", part.name, error.message);
                Err(error)
            }
            _ => Err(StageError::cancelled()),
        }
    }

    fn together(&self, n: usize) -> Together {
        Together {
            name: names::new_id(),
            n: n.min(TOGETHER_MAX),
            at_once: self.work().runner.options.n_jobs,
        }
    }

    fn tell_progress(&self, what: &str, done: usize, total: usize) {
        self.say(Event::Progress {
            done: done as u64,
            total: Some(total as u64),
            unit: "parts".to_owned(),
            note: Some(what.to_owned()),
        });
    }
}

impl Conductor for Conducting<'_> {
    fn inputs(&self, role: &str) -> Result<Vec<Whole>, StageError> {
        let inputs = self.work().inputs.iter();
        let of_role = inputs.filter(|(known, _)| known == role);
        of_role
            .flat_map(|(_, digests)| digests)
            .map(|digest| self.whole(digest, Metrics::default()))
            .collect()
    }

    fn local_files(&self, setting: &str) -> Vec<LocalFile> {
        let files = self.attempt.sources.local_files.iter();
        files
            .filter(|file| file.setting == setting)
            .cloned()
            .collect()
    }

    fn pin(&self, id: &str) -> Option<Pin> {
        let mut pins = self.attempt.sources.pins.iter();
        pins.find(|known| known.id == id)
            .map(|known| known.pin.clone())
    }

    fn outside(&self) -> &Outside {
        &self.work().runner.context.outside
    }

    fn kept(&self, part: &Part) -> Result<Option<Whole>, StageError> {
        let key = Self::key(&self.spec(part)?, part);
        self.find(&key)
    }

    fn make(&self, what: &str, parts: &[Part]) -> Result<Vec<Whole>, StageError> {
        let mut made: Vec<Option<Whole>> = Vec::with_capacity(parts.len());
        let mut missing = Vec::new();
        for (idx, part) in parts.iter().enumerate() {
            let spec = self.spec(part)?;
            let key = Self::key(&spec, part);
            lock(&self.keys).push(key);
            let found = self.find(&key)?;
            if found.is_none() {
                missing.push((idx, spec));
            }
            made.push(found);
        }
        let n_found = parts.len() - missing.len();
        self.tell_progress(what, n_found, parts.len());
        let runner = self.work().runner;
        let (n_at_once, together) = match runner.executor.is_here() {
            true => (self.at_once(), None),
            // There a scheduler sees to it how many are at work.
            false => (TOGETHER_MAX, Some(self.together(missing.len()))),
        };
        let n_at_once = n_at_once.clamp(1, missing.len().max(1));
        let n_threads = (self.work().n_threads / n_at_once).max(1);
        let (next, n_done) = (AtomicUsize::new(0), AtomicUsize::new(n_found));
        let (done, failed) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let make = || {
            while !failed.load(Ordering::Relaxed) {
                let Some((idx, spec)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                let result = match self.work().wish() {
                    Wish::GoOn => self.make_one(spec, &parts[*idx], n_threads, together.clone()),
                    _ => Err(StageError::cancelled()),
                };
                if result.is_err() {
                    failed.store(true, Ordering::Relaxed);
                } else {
                    let n_done = n_done.fetch_add(1, Ordering::Relaxed) + 1;
                    self.tell_progress(what, n_done, parts.len());
                }
                lock(&done).push((*idx, result));
            }
        };
        thread::scope(|scope| {
            for _ in 1..n_at_once {
                // Where the system has no thread left, there are fewer at once.
                threads::spawn_in(scope, make).ok();
            }
            make();
        });
        let mut results = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        // That one was stopped says less than why another failed.
        results.sort_by_key(|(idx, result)| match result {
            Err(error) => (error.cancelled, *idx),
            Ok(_) => (true, *idx),
        });
        for (idx, result) in results {
            made[idx] = Some(result?);
        }
        made.into_iter()
            .map(|one| one.ok_or_else(StageError::cancelled))
            .collect()
    }

    fn at_once(&self) -> usize {
        match self.work().runner.executor.is_here() {
            true => self.work().n_threads.max(1),
            false => 1,
        }
    }

    fn note(&self, message: &str) {
        self.say(Event::Note {
            message: message.to_owned(),
        });
    }

    fn warn(&self, message: &str) {
        self.say(Event::Warning {
            message: message.to_owned(),
        });
    }
}

/// Passes on what happens to a part as the stage's.
struct OfPart<'a> {
    conducting: &'a Conducting<'a>,
}

impl Observer for OfPart<'_> {
    fn see(&self, happened: &Happened) {
        let work = self.conducting.work();
        let stage = &work.stage.name;
        let observer = work.runner.observer;
        match happened {
            Happened::Said { event, .. } => match event {
                Event::Note { .. } | Event::Warning { .. } | Event::Info { .. } => {
                    self.conducting.say((*event).clone());
                }
                Event::Metric { .. } | Event::Placed { .. } => observer.see(happened),
                _ => {}
            },
            Happened::Waiting { holder, .. } => observer.see(&Happened::Waiting { stage, holder }),
            Happened::Warned { message, .. } => {
                observer.see(&Happened::Warned { stage, message });
            }
            Happened::Ended { result, usage, .. } => {
                lock(&self.conducting.usage).add(*usage);
                if result.is_ok() {
                    self.conducting.n_made.fetch_add(1, Ordering::Relaxed);
                }
                observer.see(happened);
            }
            Happened::Started(_) | Happened::Kept(_) => observer.see(happened),
            Happened::Asking { .. } | Happened::Fetching { .. } | Happened::Settled(_) => {}
        }
    }
}

fn write_own(out: &Place, collection: &Collection) -> Result<(), StageError> {
    for (name, bytes) in &collection.own {
        let place = out.below(name);
        let mut file = place.create_file()?;
        file.write_all(bytes).at(&place)?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
