//! Writes the happenings of a run into the registry.
//!
//! An observer like the console, with a thread of its own: stages never wait for the
//! disk, and numbers are written by the batch, so that recording costs training
//! nothing that can be measured. History is not the truth of freshness: when writing
//! fails, the run goes on, and says at its end that it was not recorded.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::json;
use tinylm_registry::{
    Error, Finished, KeyRecord, Level, MetricRow, Millis, NewExecution, Outcome as Recorded,
    Progress, Registry, StageRecord, Status,
};

use crate::{
    clock::now_ms,
    error::StageError,
    event::Event,
    load::Load,
    observe::{Arrived, Execution, Happened, Observer, Outcome, Settled},
    recipe::Entry,
    secrets::Secrets,
    spec::Experiment,
    threads,
    using::Using,
};

/// The longest a number waits to be written: what a crash may lose of a curve.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// More rows than this are written at once.
const ROWS_MAX: usize = 4096;

type Write = Box<dyn FnOnce(&Registry, &mut Option<Box<dyn Mirror>>) -> Result<(), Error> + Send>;

enum Message {
    Metric(MetricRow),
    Progress(Progress),
    Using(String, Millis, Using),
    /// A stage that was there: a run that finds all there has little else to say, and says it at once.
    Hit(StageRecord),
    Write(Write),
    /// A write that has nothing to do with what waits to be written.
    Aside(Write),
}

/// Somebody who writes down elsewhere what the registry holds, as it changes.
///
/// Not an [`Observer`]: it begins with what is recorded already, a dead attempt's curve among it, and
/// only here is it known what that is.
pub trait Mirror: Send {
    /// Rows have been written.
    fn wrote(&mut self, rows: &[MetricRow]);
    /// Something else has been.
    fn changed(&mut self, registry: &Registry, change: &Change);
}

/// A change of what is recorded of an execution.
#[derive(Debug)]
pub enum Change {
    /// It began, perhaps with the numbers of one that it goes on with.
    Began { execution_id: String, stage: String },
    Cut {
        execution_id: String,
        after_step: u64,
    },
    Sampled {
        execution_id: String,
        step: Option<u64>,
        prompt: String,
        text: String,
    },
    /// No more will come of it.
    Ended { execution_id: String },
}

/// An observer that records one run.
pub struct Recorder {
    run_id: String,
    stages: Vec<StageRecord>,
    sender: Mutex<Option<mpsc::Sender<Message>>>,
    thread: JoinHandle<Option<Error>>,
}

impl Recorder {
    /// Starts recording a run that is in the registry already.
    pub fn start(
        registry: Registry,
        run_id: &str,
        experiment: &Experiment,
        mirror: Option<Box<dyn Mirror>>,
    ) -> Result<Self, StageError> {
        let (sender, receiver) = mpsc::channel();
        let stages = stage_records(run_id, experiment);
        let pending = stages.clone();
        let write = move || {
            let first = registry.upsert_stages(&pending).err();
            first.or(write_all(&registry, &receiver, mirror))
        };
        let thread = threads::spawn(write).map_err(|error| StageError::no_thread(&error))?;
        Ok(Self {
            run_id: run_id.to_owned(),
            stages,
            sender: Mutex::new(Some(sender)),
            thread,
        })
    }

    /// Writes what is left and the run's end; returns what went wrong first, if anything did.
    pub fn finish(self, status: Status) -> Option<Error> {
        let run_id = self.run_id.clone();
        self.write(move |registry| registry.set_run_status(&run_id, status, Some(now_ms())));
        self.sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.thread.join().unwrap_or(None)
    }

    fn write(&self, write: impl FnOnce(&Registry) -> Result<(), Error> + Send + 'static) {
        self.send(Message::Write(Box::new(|registry, _| write(registry))));
    }

    /// Tells the mirror, after all that was sent before is written.
    fn tell(&self, change: Change) {
        self.send(Message::Write(Box::new(move |registry, mirror| {
            if let Some(mirror) = mirror {
                mirror.changed(registry, &change);
            }
            Ok(())
        })));
    }

    fn send(&self, message: Message) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref() {
            // A writer that has given up is told of by `finish`.
            sender.send(message).ok();
        }
    }

    fn stage(&self, name: &str) -> StageRecord {
        let found = self.stages.iter().find(|stage| stage.name == name);
        found.cloned().unwrap_or_default()
    }

    /// Says of a stage that has not begun what it waits for; a part of one that has says nothing of the whole.
    fn waits(&self, stage: &str, holder: &str) {
        let row = StageRecord {
            reason: Some(format!("waiting for {holder}")),
            ..self.stage(stage)
        };
        self.write(move |registry| {
            let stages = registry.stages(&row.run_id)?;
            let now = stages.iter().find(|stage| stage.name == row.name);
            match now.map(|now| now.outcome) {
                Some(Recorded::Pending) => registry.set_stage_outcome(&row),
                _ => Ok(()),
            }
        });
    }

    fn started(&self, execution: &Execution) {
        let row = StageRecord {
            outcome: Recorded::Running,
            key: Some(execution.key),
            execution_id: Some(execution.id.clone()),
            reason: Some(execution.why.join("; ")),
            ..self.stage(&execution.stage)
        };
        let new = NewExecution {
            id: execution.id.clone(),
            run_id: self.run_id.clone(),
            stage: execution.stage.clone(),
            key: execution.key.to_string(),
            kind: execution.kind.to_owned(),
            attempt: execution.attempt,
            started_at: now_ms(),
            device: execution.device.to_string(),
            threads: u32::try_from(execution.threads).ok(),
            recipe: recipe_text(&execution.recipe),
        };
        let (key, is_part) = (execution.key, execution.is_part());
        self.write(move |registry| {
            // Numbers hang on the execution: one that goes on from a dead one's checkpoint
            // begins with its curve, and cuts what it is about to make again.
            let dead = registry.unfinished_execution(&key)?;
            // One that another driver began goes on under its own name, with all it has.
            let is_adopted = dead.as_ref() == Some(&new.id);
            registry.insert_execution(&new)?;
            if let Some(dead) = dead.filter(|_| !is_adopted) {
                registry.copy_metrics(&dead, &new.id)?;
            }
            // What is part of a stage is no stage of the run.
            match is_part {
                true => Ok(()),
                false => registry.upsert_stage(&row),
            }
        });
        self.tell(Change::Began {
            execution_id: execution.id.clone(),
            stage: execution.stage.clone(),
        });
    }

    fn said(&self, stage: &str, execution_id: &str, event: &Event) {
        let execution_id = execution_id.to_owned();
        match event.clone() {
            Event::Metric {
                name,
                step,
                value,
                at,
            } => self.send(Message::Metric(MetricRow {
                execution_id,
                name,
                step,
                value,
                at,
            })),
            Event::CutMetrics { after_step } => {
                let id = execution_id.clone();
                self.write(move |registry| registry.cut_metrics_after(&id, after_step));
                self.tell(Change::Cut {
                    execution_id,
                    after_step,
                });
            }
            Event::Sample { step, prompt, text } => {
                let (id, row) = (execution_id.clone(), (step, prompt.clone(), text.clone()));
                self.write(move |registry| registry.append_samples(&id, &[row], now_ms()));
                self.tell(Change::Sampled {
                    execution_id,
                    step,
                    prompt,
                    text,
                });
            }
            Event::Info { message } | Event::Note { message } => {
                self.event(stage, Level::Info, message)
            }
            Event::Warning { message } => self.event(stage, Level::Warning, message),
            Event::Progress {
                done,
                total,
                unit,
                note,
            } => self.send(Message::Progress(Progress {
                execution_id,
                done,
                total,
                unit,
                note,
                from_done: done,
                from_at: now_ms(),
                at: now_ms(),
                ..Progress::default()
            })),
            Event::Using {
                cpu_seconds,
                memory_bytes,
            } => {
                let using = Using {
                    cpu_seconds,
                    memory_bytes,
                };
                self.send(Message::Using(execution_id, now_ms(), using));
            }
            Event::Placed { place } => {
                self.write(move |registry| registry.set_place(&execution_id, &place));
            }
            Event::Origin { .. } | Event::Finished { .. } | Event::Failed { .. } => {}
        }
    }

    fn event(&self, stage: &str, level: Level, message: String) {
        let (run_id, stage) = (self.run_id.clone(), stage.to_owned());
        self.write(move |registry| {
            registry.append_event(&run_id, Some(&stage), level, &message, now_ms())
        });
    }

    fn ended(&self, execution: &Execution, end: Finished, metrics: &[(String, f64)]) {
        let id = execution.id.clone();
        let at = now_ms();
        for (name, value) in metrics {
            self.send(Message::Metric(MetricRow {
                execution_id: id.clone(),
                name: name.clone(),
                step: None,
                value: *value,
                at,
            }));
        }
        let execution_id = id.clone();
        self.write(move |registry| registry.finish_execution(&id, &end));
        self.tell(Change::Ended { execution_id });
    }

    /// Writes down what nobody saw of an execution: its end, or that there was one. What another run that is
    /// at work has made will be written down by that.
    fn kept(&self, record: &KeyRecord) {
        let (record, run_id) = (record.clone(), self.run_id.clone());
        let write = move |registry: &Registry| {
            let is_done = |execution: Option<tinylm_registry::Execution>| {
                execution.is_some_and(|execution| execution.status == Status::Done)
            };
            if is_done(registry.execution(&record.execution_id)?) {
                return Ok(());
            }
            registry.catch_up(&record.run_id)?;
            let known = registry.execution(&record.execution_id)?;
            let status = match &known {
                Some(execution) => execution.status,
                None => match registry.run(&record.run_id) {
                    Ok(run) => run.status,
                    Err(Error::UnknownRun { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                },
            };
            let may_yet_tell = status == Status::Running && record.run_id != run_id;
            if status == Status::Done || may_yet_tell {
                return Ok(());
            }
            if known.is_none() {
                insert_by(registry, &record)?;
            }
            finish_by(registry, &record)
        };
        self.send(Message::Aside(Box::new(move |registry, _| write(registry))));
    }

    /// Writes down an execution that this home knows only from the record that came with its
    /// artifact: its final numbers are there, its curve is not.
    fn arrived(&self, stage: &str, arrived: &Arrived) {
        let message = format!("fetched {} bytes from {}", arrived.bytes, arrived.from);
        self.event(stage, Level::Info, message);
        let record = arrived.record.clone();
        self.write(move |registry| know_execution(registry, &record));
    }

    fn settled(&self, settled: &Settled) {
        let outcome = match settled.outcome {
            Outcome::Hit => Recorded::Hit,
            Outcome::Made => Recorded::Made,
            Outcome::Failed(_) => Recorded::Failed,
            Outcome::Skipped(_) => Recorded::Skipped,
            Outcome::Cancelled => Recorded::Cancelled,
        };
        let reason = match &settled.outcome {
            Outcome::Hit => match (&settled.made_by, &settled.arrived) {
                (Some(run), Some(arrived)) => Some(format!("{run}, fetched from {}", arrived.from)),
                (None, Some(arrived)) => Some(format!("fetched from {}", arrived.from)),
                (made_by, None) => made_by.clone(),
            },
            Outcome::Skipped(because) => Some(because.clone()),
            Outcome::Failed(error) => Some(error.message.clone()),
            Outcome::Made | Outcome::Cancelled => Some(settled.why.join("; ")),
        };
        let row = StageRecord {
            outcome,
            key: settled.key,
            execution_id: settled.execution_id.clone(),
            artifact: settled.artifact,
            reason,
            ..self.stage(&settled.stage)
        };
        if let Outcome::Failed(error) = &settled.outcome {
            let cause = error
                .cause
                .as_ref()
                .map_or(String::new(), |cause| format!(": {cause}"));
            self.event(
                &settled.stage,
                Level::Error,
                format!("{}{cause}", error.message),
            );
        }
        if let Some(arrived) = &settled.arrived {
            self.arrived(&settled.stage, arrived);
        }
        if outcome == Recorded::Hit {
            self.send(Message::Hit(row));
            return;
        }
        // The key and execution of a failed attempt were written when it started.
        let keeps_attempt = settled.key.is_none();
        self.write(move |registry| {
            if keeps_attempt {
                return registry.set_stage_outcome(&row);
            }
            registry.upsert_stage(&row)
        });
    }
}

/// Writes down the end of an execution as its key record has it.
/// Writes down an execution that nothing is known of but the record that came with its artifact: its final
/// numbers are there, its curves are not.
pub fn know_execution(registry: &Registry, record: &KeyRecord) -> Result<(), Error> {
    if registry.execution(&record.execution_id)?.is_some() {
        return Ok(());
    }
    insert_by(registry, record)?;
    finish_by(registry, record)
}

fn insert_by(registry: &Registry, record: &KeyRecord) -> Result<(), Error> {
    let took = Duration::try_from_secs_f64(record.seconds).unwrap_or_default();
    let took = Millis::try_from(took.as_millis()).unwrap_or(0);
    registry.insert_execution(&NewExecution {
        id: record.execution_id.clone(),
        run_id: record.run_id.clone(),
        stage: record.stage.clone(),
        key: record.key.to_string(),
        kind: record.kind.clone(),
        attempt: 1,
        started_at: record.made_at.saturating_sub(took),
        device: record.device.clone(),
        threads: None,
        recipe: recipe_text(&record.recipe),
    })
}

fn finish_by(registry: &Registry, record: &KeyRecord) -> Result<(), Error> {
    let row = |(name, value): &(String, f64)| MetricRow {
        execution_id: record.execution_id.clone(),
        name: name.clone(),
        step: None,
        value: *value,
        at: record.made_at,
    };
    let rows: Vec<MetricRow> = record.metrics.iter().map(row).collect();
    registry.append_metrics(&rows)?;
    let end = Finished {
        status: Status::Done,
        ended_at: record.made_at,
        cpu_seconds: None,
        peak_memory_bytes: None,
        artifact: Some(record.artifact),
        origin: record.origin.as_ref().map(ToString::to_string),
        error: None,
    };
    registry.finish_execution(&record.execution_id, &end)
}

impl Observer for Recorder {
    fn see(&self, happened: &Happened) {
        match happened {
            Happened::Waiting { stage, holder } => self.waits(stage, holder),
            Happened::Asking { .. } => {}
            Happened::Started(execution) => self.started(execution),
            Happened::Said {
                stage,
                execution_id,
                event,
            } => self.said(stage, execution_id, event),
            Happened::Ended {
                execution,
                result,
                usage,
                metrics,
                origin,
                ..
            } => {
                let end = Finished {
                    status: match result {
                        Ok(_) => Status::Done,
                        Err(error) if error.cancelled => Status::Cancelled,
                        Err(_) => Status::Failed,
                    },
                    ended_at: now_ms(),
                    cpu_seconds: Some(usage.cpu_seconds),
                    peak_memory_bytes: Some(usage.peak_memory_bytes),
                    artifact: result.as_ref().ok().copied(),
                    origin: origin.map(ToString::to_string),
                    error: result.as_ref().err().map(ToString::to_string),
                };
                self.ended(execution, end, &metrics.0);
            }
            Happened::Warned { stage, message } => {
                self.event(stage, Level::Warning, (*message).to_owned());
            }
            Happened::Fetching { .. } => {}
            Happened::Kept(record) => self.kept(record),
            Happened::Settled(settled) => self.settled(settled),
        }
    }
}

/// Numbers that wait to be written together.
#[derive(Default)]
struct Waiting {
    rows: Vec<MetricRow>,
    hits: Vec<StageRecord>,
    /// The last word of each execution, and whether it is news.
    progress: HashMap<String, (Progress, bool)>,
    loads: HashMap<String, Load>,
    oldest: Option<Instant>,
}

impl Waiting {
    /// Returns what is not to wait, and whether all that waits is to be written before it.
    fn add(&mut self, message: Message) -> Option<(Write, bool)> {
        match message {
            Message::Write(write) => return Some((write, true)),
            Message::Aside(write) => return Some((write, false)),
            Message::Hit(row) => self.hits.push(row),
            Message::Metric(row) => self.rows.push(row),
            Message::Progress(new) => {
                let first = || (new.clone(), true);
                let id = new.execution_id.clone();
                let (known, is_news) = self.progress.entry(id).or_insert_with(first);
                *known = Progress {
                    from_done: known.from_done,
                    from_at: known.from_at,
                    cpu_seconds: known.cpu_seconds,
                    memory_bytes: known.memory_bytes,
                    ..new
                };
                *is_news = true;
            }
            Message::Using(execution_id, at, using) => self.add_using(execution_id, at, using),
        }
        self.oldest.get_or_insert_with(Instant::now);
        None
    }

    fn add_using(&mut self, execution_id: String, at: Millis, using: Using) {
        if let Some((known, is_news)) = self.progress.get_mut(&execution_id) {
            known.cpu_seconds = Some(using.cpu_seconds);
            known.memory_bytes = Some(using.memory_bytes);
            *is_news = true;
        }
        if let Some(load) = self.loads.get_mut(&execution_id) {
            let points = load.hear(&execution_id, at, using);
            self.rows.extend(points.into_iter().flatten());
        } else {
            self.loads.insert(execution_id, Load::new(at, using));
        }
    }

    fn patience(&self) -> Duration {
        let left = |at: Instant| FLUSH_EVERY.saturating_sub(at.elapsed());
        self.oldest.map_or(FLUSH_EVERY, left)
    }

    fn is_due(&self) -> bool {
        self.rows.len() >= ROWS_MAX || self.oldest.is_some_and(|at| at.elapsed() >= FLUSH_EVERY)
    }

    fn write(
        &mut self,
        registry: &Registry,
        mirror: &mut Option<Box<dyn Mirror>>,
    ) -> Result<(), Error> {
        self.oldest = None;
        if !self.hits.is_empty() {
            registry.upsert_stages(&self.hits)?;
            self.hits.clear();
        }
        registry.append_metrics(&self.rows)?;
        if let Some(mirror) = mirror {
            mirror.wrote(&self.rows);
        }
        self.rows.clear();
        let news: Vec<&mut (Progress, bool)> =
            self.progress.values_mut().filter(|one| one.1).collect();
        if news.is_empty() {
            return Ok(());
        }
        registry.set_progress(news.into_iter().map(|(progress, is_news)| {
            *is_news = false;
            &*progress
        }))
    }
}

/// Writes until every sender is gone; the first error ends the writing.
fn write_all(
    registry: &Registry,
    receiver: &mpsc::Receiver<Message>,
    mut mirror: Option<Box<dyn Mirror>>,
) -> Option<Error> {
    let mut waiting = Waiting::default();
    loop {
        let message = receiver.recv_timeout(waiting.patience());
        let is_over = matches!(message, Err(mpsc::RecvTimeoutError::Disconnected));
        let write = message.ok().and_then(|message| waiting.add(message));
        // A write may cut or close the curve that the waiting rows belong to.
        let is_behind = write.as_ref().is_some_and(|(_, is_behind)| *is_behind);
        if (is_over || waiting.is_due() || is_behind)
            && let Err(error) = waiting.write(registry, &mut mirror)
        {
            return Some(error);
        }
        if let Some(Err(error)) = write.map(|(write, _)| write(registry, &mut mirror)) {
            return Some(error);
        }
        if is_over {
            return None;
        }
    }
}

fn stage_records(run_id: &str, experiment: &Experiment) -> Vec<StageRecord> {
    let numbered = (0..).zip(&experiment.stages);
    numbered
        .map(|(position, stage)| {
            let inputs = stage.inputs.iter();
            let settings = stage.with.to_string();
            let inputs: serde_json::Map<String, serde_json::Value> = inputs
                .map(|(role, names)| (role.clone(), json!(names)))
                .collect();
            StageRecord {
                run_id: run_id.to_owned(),
                name: stage.name.clone(),
                position,
                kind: stage.kind.name.to_owned(),
                inputs: serde_json::Value::Object(inputs).to_string(),
                settings: Secrets::of(&settings).mask(&settings),
                ..StageRecord::default()
            }
        })
        .collect()
}

fn recipe_text(recipe: &[Entry]) -> String {
    let lines = recipe.iter();
    lines
        .map(|(path, value)| format!("{path} = {value}\n"))
        .collect()
}
