//! Where a training step spends its time, for the benchmark.
//!
//! Kernels are timed on the thread that drives the step, so kinds add up to wall-clock time.
//! Off until `start` is called, and then a relaxed load per kernel.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

static ON: AtomicBool = AtomicBool::new(false);
static TIMES: Mutex<BTreeMap<&'static str, Duration>> = Mutex::new(BTreeMap::new());

/// Starts measuring from zero.
pub fn start() {
    TIMES.lock().unwrap_or_else(PoisonError::into_inner).clear();
    ON.store(true, Ordering::Relaxed);
}

/// Stops measuring and returns the time of each kind of work.
pub fn stop() -> BTreeMap<&'static str, Duration> {
    ON.store(false, Ordering::Relaxed);
    std::mem::take(&mut TIMES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Measures until it is dropped.
pub(crate) struct Span(Option<(&'static str, Instant)>);

pub(crate) fn span(kind: &'static str) -> Span {
    Span(ON.load(Ordering::Relaxed).then(|| (kind, Instant::now())))
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some((kind, since)) = self.0 {
            let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
            *times.entry(kind).or_default() += since.elapsed();
        }
    }
}
