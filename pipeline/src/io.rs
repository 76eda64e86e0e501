//! Everything that a running stage sees of the world.
//!
//! Inputs as folders, one folder to write to, one folder that outlives the attempt,
//! the seed, the threads, the way to tell what is going on and the way to hear that
//! it should stop. Nothing here knows whether a child process, a test or something
//! else is on the other side of `events`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tinylm_registry::{Digest, hash_file};

use crate::{
    clock::now_ms,
    error::{At, StageError, tellable},
    event::Event,
    outside::Outside,
    remote::Pin,
    settings::Device,
    using::Using,
};

/// The longest a progress bar stands still while work goes on.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How often a stage tells what it takes.
const USAGE_EVERY: Duration = Duration::from_secs(1);

/// One input artifact: a folder that must not be written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub role: String,
    /// The name of the stage that made it.
    pub stage: String,
    pub path: PathBuf,
    pub digest: String,
}

/// A file of the user's own that a setting names, with the digest that is in the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalFile {
    /// The setting that names it: `path`, `pretrained.path`, `files.0`.
    pub setting: String,
    /// Its name in the key and in an artifact: its base name, its path inside the folder,
    /// or its path below a glob's last folder without a wildcard.
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
    pub digest: String,
}

impl LocalFile {
    /// Returns the bytes of the file, if they are those in the key.
    pub fn read(&self) -> Result<Vec<u8>, StageError> {
        let bytes = fs::read(&self.path).at(&self.path)?;
        self.expect(Digest::of_bytes(&bytes))?;
        Ok(bytes)
    }

    /// Refuses the file, or a copy of it, if its bytes are not those in the key.
    pub fn check(&self, path: &Path) -> Result<(), StageError> {
        self.expect(hash_file(path)?.0)
    }

    fn expect(&self, found: Digest) -> Result<(), StageError> {
        if found.to_string() == self.digest {
            return Ok(());
        }
        let message = format!("`{}` changed while it was read", self.path.display());
        let help = "run the same command again once it is at rest";
        Err(StageError::new(message).help(help).is_final())
    }
}

/// A remote with its pin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pinned {
    pub id: String,
    pub pin: Pin,
}

/// The givens of one attempt; plain data, so that it can cross to a child process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    pub inputs: Vec<Input>,
    pub local_files: Vec<LocalFile>,
    pub pins: Vec<Pinned>,
    /// Empty at the start; what is in it at the end is the artifact.
    pub out: PathBuf,
    /// Kept for a later attempt at the same recipe.
    pub checkpoints: PathBuf,
    pub seed: u64,
    pub threads: usize,
    pub device: Device,
    #[serde(default)]
    pub ranks: Ranks,
}

/// The processes that share a stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranks {
    /// On each machine; none is one.
    pub each: usize,
    /// Machines of a scheduler's job; none is this one.
    pub nodes: usize,
    /// Of a process that follows another.
    pub follows: Option<Follows>,
}

/// The process that decides, and the place among those that follow it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Follows {
    pub rank: usize,
    /// Where it listens; whichever of them answers and knows the secret.
    pub addresses: Vec<String>,
    /// 64 hex digits that only the processes of one stage share.
    pub secret: String,
}

impl Ranks {
    /// How many processes there are in all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.each.max(1) * self.nodes.max(1)
    }
}

/// Starts a process of a stage.
pub type Starter<'a> = dyn Fn(Follows) -> Result<Child, StageError> + Sync + 'a;

pub struct StageIo<'a> {
    assignment: &'a Assignment,
    starter: Option<&'a Starter<'a>>,
    outside: &'a Outside,
    cancel: &'a AtomicBool,
    events: &'a (dyn Fn(Event) + Sync),
    last_progress: Mutex<Option<Instant>>,
    last_usage: Mutex<Option<Instant>>,
}

impl<'a> StageIo<'a> {
    pub fn new(
        assignment: &'a Assignment,
        outside: &'a Outside,
        cancel: &'a AtomicBool,
        events: &'a (dyn Fn(Event) + Sync),
    ) -> Self {
        Self {
            assignment,
            starter: None,
            outside,
            cancel,
            events,
            last_progress: Mutex::new(None),
            last_usage: Mutex::new(None),
        }
    }

    /// Lets the stage start processes that share its work.
    #[must_use]
    pub fn with_starter(mut self, starter: &'a Starter<'a>) -> Self {
        self.starter = Some(starter);
        self
    }

    pub fn ranks(&self) -> &'a Ranks {
        &self.assignment.ranks
    }

    /// Starts a process that carries out the same order as one that follows.
    pub fn start_rank(&self, follows: Follows) -> Result<Child, StageError> {
        match self.starter {
            Some(start) => start(follows),
            None => Err(StageError::new("nothing here starts other processes")),
        }
    }

    /// Returns the inputs of a role in the order they were written; empty when it has none.
    pub fn inputs(&self, role: &str) -> Vec<&'a Input> {
        let inputs = self.assignment.inputs.iter();
        inputs.filter(|input| input.role == role).collect()
    }

    /// Returns the one input of a required role.
    pub fn input(&self, role: &str) -> Result<&'a Input, StageError> {
        self.optional_input(role)
            .ok_or_else(|| StageError::new(format!("nothing fills the role `{role}`")).is_final())
    }

    pub fn optional_input(&self, role: &str) -> Option<&'a Input> {
        self.inputs(role).first().copied()
    }

    /// Returns every input of every role, in order.
    pub fn all_inputs(&self) -> &'a [Input] {
        &self.assignment.inputs
    }

    /// Returns the files that a path setting names, sorted by name.
    pub fn local_files(&self, setting: &str) -> Vec<&'a LocalFile> {
        let files = self.assignment.local_files.iter();
        files.filter(|file| file.setting == setting).collect()
    }

    /// Returns what a remote was pinned to.
    pub fn pin(&self, id: &str) -> Option<&'a Pin> {
        let found = self.assignment.pins.iter().find(|pinned| pinned.id == id);
        found.map(|pinned| &pinned.pin)
    }

    pub fn out(&self) -> &'a Path {
        &self.assignment.out
    }

    pub fn checkpoints(&self) -> &'a Path {
        &self.assignment.checkpoints
    }

    pub fn seed(&self) -> u64 {
        self.assignment.seed
    }

    pub fn threads(&self) -> usize {
        self.assignment.threads
    }

    pub fn device(&self) -> Device {
        self.assignment.device
    }

    pub fn outside(&self) -> &'a Outside {
        self.outside
    }

    /// Whether the stage should stop at its next safe point.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// The flag itself, for work that is handed to other threads.
    pub fn cancel_flag(&self) -> &'a AtomicBool {
        self.cancel
    }

    /// Tells how far the work is; also where a cancelled stage stops. Cheap enough for every row.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: &str) -> Result<(), StageError> {
        self.progress_note(done, total, unit, None)
    }

    /// `progress` with a word on what is being done.
    pub fn progress_note(
        &self,
        done: u64,
        total: Option<u64>,
        unit: &str,
        note: Option<&str>,
    ) -> Result<(), StageError> {
        if self.is_cancelled() {
            return Err(StageError::cancelled());
        }
        if self.progress_is_due(total == Some(done)) {
            (self.events)(Event::Progress {
                done,
                total,
                unit: unit.to_owned(),
                note: note.map(str::to_owned),
            });
            self.tell_usage();
        }
        Ok(())
    }

    fn tell_usage(&self) {
        if let Ok(mut told) = self.last_usage.lock()
            && told.is_none_or(|at| at.elapsed() >= USAGE_EVERY)
        {
            *told = Some(Instant::now());
            let Using {
                cpu_seconds,
                memory_bytes,
            } = Using::now();
            (self.events)(Event::Using {
                cpu_seconds,
                memory_bytes,
            });
        }
    }

    fn progress_is_due(&self, last: bool) -> bool {
        // A poisoned lock means that a thread of this stage panicked; it is reported elsewhere.
        let Ok(mut shown) = self.last_progress.lock() else {
            return false;
        };
        let due = last || shown.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY);
        if due {
            *shown = Some(Instant::now());
        }
        due
    }

    pub fn metric(&self, name: &str, step: u64, value: f64) {
        (self.events)(Event::Metric {
            name: name.to_owned(),
            step: Some(step),
            value,
            at: now_ms(),
        });
    }

    /// Drops recorded points after `step`, which this attempt makes again.
    pub fn cut_metrics(&self, after_step: u64) {
        (self.events)(Event::CutMetrics { after_step });
    }

    pub fn sample(&self, step: Option<u64>, prompt: &str, text: &str) {
        (self.events)(Event::Sample {
            step,
            prompt: prompt.to_owned(),
            text: text.to_owned(),
        });
    }

    pub fn info(&self, message: impl Into<String>) {
        (self.events)(Event::Info {
            message: message.into(),
        });
    }

    /// Says what a person should see without asking.
    pub fn note(&self, message: impl Into<String>) {
        (self.events)(Event::Note {
            message: message.into(),
        });
    }

    pub fn warn(&self, message: impl Into<String>) {
        (self.events)(Event::Warning {
            message: tellable(message.into()),
        });
    }

    /// Records where the bytes came from.
    pub fn origin(&self, origin: Value) {
        (self.events)(Event::Origin { origin });
    }
}
