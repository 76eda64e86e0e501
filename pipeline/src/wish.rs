//! The wishes of the person at the terminal, and what follows from them for a stage.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// How the person at the terminal can stop a run.
#[derive(Debug, Default)]
pub struct Interrupt {
    /// Shared with what asks the outside.
    pub asked: Arc<AtomicBool>,
    pub insisted: AtomicBool,
}

/// Whether a stage should go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    GoOn,
    /// Stop at the next safe point.
    Stop,
    /// Asked twice: stop at once.
    Kill,
}

impl Interrupt {
    /// `stop` is set once another stage failed.
    pub(crate) fn wish(&self, stop: &AtomicBool) -> Wish {
        if self.insisted.load(Ordering::Relaxed) {
            Wish::Kill
        } else if self.asked.load(Ordering::Relaxed) || stop.load(Ordering::Relaxed) {
            Wish::Stop
        } else {
            Wish::GoOn
        }
    }
}
