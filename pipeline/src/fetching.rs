//! A stage that waits for the remote store: who looks on is told how far it is, and may stop it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tinylm_registry::Watch;

use crate::{observe::Happened, wish::Wish, work::Work};

/// How often who looks on is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Fetching<'a> {
    work: &'a Work<'a>,
    from: &'a str,
    told: Mutex<Option<Instant>>,
}

impl<'a> Fetching<'a> {
    pub(crate) fn new(work: &'a Work<'a>, from: &'a str) -> Self {
        Self {
            work,
            from,
            told: Mutex::new(None),
        }
    }
}

impl Watch for Fetching<'_> {
    fn see(&self, done: u64, total: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < TELL_EVERY) && done < total {
            return;
        }
        *told = Some(Instant::now());
        drop(told);
        self.work.runner.observer.see(&Happened::Fetching {
            stage: &self.work.stage.name,
            from: self.from,
            done,
            total,
        });
    }

    fn is_stopped(&self) -> bool {
        self.work.wish() != Wish::GoOn
    }
}
