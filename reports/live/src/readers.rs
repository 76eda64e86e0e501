//! Connections to the registry for whoever reads it, one at a time each.
//!
//! SQLite is asked from threads that may wait. Connections are kept, since opening one takes longer
//! than most questions.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tinylm_registry::Registry;

use crate::wrong::Wrong;

/// Connections kept while nobody reads.
const IDLE_MAX: usize = 8;

pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Registry>>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf) -> Readers {
        Readers {
            path,
            idle: Mutex::default(),
        }
    }

    /// Asks the registry something, beside whatever else goes on.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Registry) -> Result<T, Wrong> + Send + 'static,
    ) -> Result<T, Wrong> {
        let readers = Arc::clone(self);
        let asked = tokio::task::spawn_blocking(move || readers.ask_now(question)).await;
        asked.unwrap_or_else(|error| Err(Wrong::broken(error.to_string())))
    }

    fn ask_now<T>(&self, question: impl FnOnce(&Registry) -> Result<T, Wrong>) -> Result<T, Wrong> {
        let registry = self.take()?;
        let answer = question(&registry);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(registry);
        }
        answer
    }

    fn take(&self) -> Result<Registry, Wrong> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        match idle {
            Some(registry) => Ok(registry),
            None => self.open()?.ok_or_else(Wrong::no_runs),
        }
    }

    /// Opens a connection of one's own; nothing while there is no registry.
    pub(crate) fn open(&self) -> Result<Option<Registry>, Wrong> {
        Ok(Registry::open_to_read(&self.path)?)
    }
}
