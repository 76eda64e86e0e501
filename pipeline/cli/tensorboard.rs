//! `watch: { tensorboard: FOLDER }`: the run's numbers written for TensorBoard as they are recorded.
//!
//! A training must not end because somebody's picture of it cannot be drawn. So the first fault ends
//! the writing alone, and is told of when the run has ended.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use tinylm_pipeline::{Change, Mirror};
use tinylm_registry::{MetricRow, Registry};
use tinylm_reports::{Error, tensorboard::Events};

use crate::project::now_ms;

/// What went wrong, if anything did.
pub(crate) type Fault = Arc<OnceLock<String>>;

/// The files of a run, a folder a stage.
pub(crate) struct Board {
    folder: PathBuf,
    open: HashMap<String, Events>,
    fault: Fault,
}

impl Board {
    /// Returns what writes a run's files, and where it leaves word of a fault.
    pub(crate) fn new(folder: &Path, run_name: &str) -> (Self, Fault) {
        let fault = Fault::default();
        let board = Self {
            folder: folder.join(run_name),
            open: HashMap::new(),
            fault: Arc::clone(&fault),
        };
        (board, fault)
    }

    fn note(&mut self, done: Result<(), String>) {
        if let Err(why) = done {
            self.open.clear();
            // Only the first says why.
            self.fault.set(why).ok();
        }
    }

    /// Does something with the files of an execution, unless there are none.
    fn with(&mut self, execution_id: &str, tell: impl FnOnce(&mut Events) -> io::Result<()>) {
        let told = self.open.get_mut(execution_id).map_or(Ok(()), tell);
        let folder = self.folder.display();
        let told = told.map_err(|error| format!("`{folder}`: {error}"));
        self.note(told);
    }

    fn begin(&mut self, registry: &Registry, execution_id: &str, stage: &str) -> Result<(), Error> {
        if self.fault.get().is_none() {
            let folder = self.folder.join(stage);
            let events = Events::of(registry, execution_id, &folder, now_ms())?;
            self.open.insert(execution_id.to_owned(), events);
        }
        Ok(())
    }
}

impl Mirror for Board {
    fn wrote(&mut self, rows: &[MetricRow]) {
        for row in rows {
            self.with(&row.execution_id, |events| {
                events.number(&row.name, row.step, row.value, row.at)
            });
        }
        let flushed = self.open.values_mut().try_for_each(Events::flush);
        let folder = self.folder.display();
        let flushed = flushed.map_err(|error| format!("`{folder}`: {error}"));
        self.note(flushed);
    }

    fn changed(&mut self, registry: &Registry, change: &Change) {
        match change {
            Change::Began {
                execution_id,
                stage,
            } => {
                let begun = self.begin(registry, execution_id, stage);
                self.note(begun.map_err(|error| error.to_string()));
            }
            Change::Cut {
                execution_id,
                after_step,
            } => {
                if let Some(events) = self.open.get_mut(execution_id) {
                    let cut = events.cut(registry, execution_id, *after_step, now_ms());
                    self.note(cut.map_err(|error| error.to_string()));
                }
            }
            Change::Sampled {
                execution_id,
                step,
                prompt,
                text,
            } => self.with(execution_id, |events| {
                events.sample(*step, prompt, text, now_ms())
            }),
            Change::Ended { execution_id } => {
                self.with(execution_id, Events::flush);
                self.open.remove(execution_id);
            }
        }
    }
}
