//! How much of all bodies together may be in memory, and how many large ones are understood at once.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Most bytes of all requests that are being read.
const OF_ALL: usize = 64 << 20;
/// Large bodies that are understood at once.
const AT_ONCE: usize = 2;

/// What all bodies share.
pub struct Bodies {
    pub(super) bytes: Arc<Semaphore>,
    pub(super) large: Semaphore,
}

impl Default for Bodies {
    fn default() -> Bodies {
        Bodies {
            bytes: Arc::new(Semaphore::new(OF_ALL)),
            large: Semaphore::new(AT_ONCE),
        }
    }
}
