//! The threads of one stage, as many as it was given.

use rayon::{ThreadPool, ThreadPoolBuilder};
use tinylm_pipeline::{StageError, StageIo};

/// Returns a pool of the stage's own, so that a test and a child process obey `--threads` alike.
pub(crate) fn pool(io: &StageIo) -> Result<ThreadPool, StageError> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(io.threads().max(1))
        .build();
    pool.map_err(|error| StageError::new("threads cannot be started").cause(error))
}
