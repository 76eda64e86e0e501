//! The happenings of a run, as the console and the registry's recorder see it.

use serde_json::Value;
use tinylm_registry::{Digest, KeyRecord};

use crate::{error::StageError, event::Event, metrics::Metrics, recipe::Entry, usage::Usage};

/// Somebody who is told what happens. Called from several threads.
pub trait Observer: Sync {
    fn see(&self, happened: &Happened);
}

/// One thing that happened.
#[derive(Debug)]
pub enum Happened<'a> {
    /// A stage waits for somebody else's work.
    Waiting { stage: &'a str, holder: &'a str },
    /// The outside is asked what a source of a stage is now, which may mean to read it whole.
    Asking { stage: &'a str, source: &'a str },
    /// What a stage would make comes from the remote store, `done` bytes of `total` so far.
    Fetching {
        stage: &'a str,
        from: &'a str,
        done: u64,
        total: u64,
    },
    /// What is not the stage's own and yet to be known of it: the remote store failed, which is told once; a
    /// claim was taken over.
    Warned { stage: &'a str, message: &'a str },
    /// An attempt at a stage begins.
    Started(&'a Execution),
    /// A running stage said something.
    Said {
        stage: &'a str,
        execution_id: &'a str,
        event: &'a Event,
    },
    /// An attempt ended; `retry_in_seconds` when another one follows.
    Ended {
        execution: &'a Execution,
        result: Result<Digest, &'a StageError>,
        usage: Usage,
        metrics: &'a Metrics,
        /// Where the bytes came from, as far as the stage told.
        origin: Option<&'a Value>,
        retry_in_seconds: Option<u64>,
    },
    /// What was begun here is made already, perhaps while nobody looked on: by a job that outlived its
    /// driver, or by a run that was killed before it could say so.
    Kept(&'a KeyRecord),
    /// Nothing more will happen to this stage in this run.
    Settled(&'a Settled),
}

/// One attempt at carrying out a recipe.
#[derive(Debug, Clone)]
pub struct Execution {
    pub id: String,
    pub stage: String,
    pub kind: &'static str,
    pub key: Digest,
    pub recipe: Vec<Entry>,
    pub attempt: u32,
    pub threads: usize,
    pub device: crate::settings::Device,
    /// Why the stage was not fresh.
    pub why: Vec<String>,
}

impl Execution {
    /// Whether it is of a part of a stage, whose name then begins with the stage's.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.stage.contains('/')
    }
}

/// How a stage came out of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    pub stage: String,
    pub outcome: Outcome,
    pub key: Option<Digest>,
    pub artifact: Option<Digest>,
    pub artifact_bytes: u64,
    /// The execution that made the artifact, in this run or an earlier one.
    pub execution_id: Option<String>,
    /// Whether what stood in the store under its key was damaged.
    pub healed: bool,
    /// The run that made it, where it is an earlier one.
    pub made_by: Option<String>,
    /// Where it came from, if it was not here.
    pub arrived: Option<Box<Arrived>>,
    pub seconds: f64,
    pub why: Vec<String>,
    pub metrics: Metrics,
}

/// An artifact that came from a remote store.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrived {
    /// The remote's address as it may be shown.
    pub from: String,
    /// What had to come.
    pub bytes: u64,
    /// Who made it, in words that this home's history may not know.
    pub record: KeyRecord,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Hit,
    Made,
    Failed(StageError),
    /// Something it reads failed, or the run stopped before its turn.
    Skipped(String),
    Cancelled,
}

impl Outcome {
    /// The word that the registry keeps and listings show.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Made => "made",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    /// Its place in a count of outcomes: what was made first, what was left undone last.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Made => 0,
            Self::Hit => 1,
            Self::Failed(_) => 2,
            Self::Skipped(_) => 3,
            Self::Cancelled => 4,
        }
    }

    /// Whether the stage's artifact is there to be read.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Hit | Self::Made)
    }
}

impl Settled {
    /// A stage with nothing to show for it.
    pub(crate) fn without_artifact(stage: &str, outcome: Outcome) -> Self {
        Self {
            stage: stage.to_owned(),
            outcome,
            key: None,
            artifact: None,
            artifact_bytes: 0,
            execution_id: None,
            healed: false,
            made_by: None,
            arrived: None,
            seconds: 0.0,
            why: Vec::new(),
            metrics: Metrics::default(),
        }
    }
}
