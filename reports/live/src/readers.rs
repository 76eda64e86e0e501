//! Connections to the registry for whoever reads it, one at a time each.
//!
//! SQLite is asked from threads that may wait. Connections are kept, since opening one takes longer
//! than most questions, but only as long as the file they read is the one at the path: somebody may
//! have begun a home anew.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError},
};

use tinylm_registry::{Home, Registry};
use tokio::sync::Semaphore;

use crate::wrong::Wrong;

/// Questions that are asked at once. Each has a thread and three files, and cores are few.
const AT_ONCE: usize = 16;
/// Connections kept while nobody reads.
const IDLE_MAX: usize = 8;

pub(crate) struct Readers {
    home: Home,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Reader>>,
}

/// A connection, and the file that it was opened on.
pub(crate) struct Reader {
    pub(crate) registry: Registry,
    file: Option<(u64, u64)>,
}

impl Readers {
    pub(crate) fn new(home: Home) -> Readers {
        Readers {
            home,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            idle: Mutex::default(),
        }
    }

    /// Asks the registry something, beside whatever else goes on.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Registry) -> Result<T, Wrong> + Send + 'static,
    ) -> Result<T, Wrong> {
        let readers = Arc::clone(self);
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let asked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            readers.ask_now(question)
        });
        let asked = asked.await;
        asked.unwrap_or_else(|error| Err(Wrong::broken(error.to_string())))
    }

    fn ask_now<T>(&self, question: impl FnOnce(&Registry) -> Result<T, Wrong>) -> Result<T, Wrong> {
        let reader = self.take()?;
        let answer = question(&reader.registry);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(reader);
        }
        answer
    }

    fn take(&self) -> Result<Reader, Wrong> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|reader| self.is_current(reader));
        let known = idle.pop();
        drop(idle);
        match known {
            Some(reader) => Ok(reader),
            None => self.open()?.ok_or_else(Wrong::no_runs),
        }
    }

    /// Opens a connection of one's own; nothing while there is no registry.
    pub(crate) fn open(&self) -> Result<Option<Reader>, Wrong> {
        let file = self.file();
        let registry = Registry::open_to_read(&self.home)?;
        Ok(registry.map(|registry| Reader { registry, file }))
    }

    pub(crate) fn is_current(&self, reader: &Reader) -> bool {
        reader.file.is_some() && reader.file == self.file()
    }

    fn file(&self) -> Option<(u64, u64)> {
        let about = fs::metadata(self.home.registry_path()).ok()?;
        Some((about.dev(), about.ino()))
    }
}
