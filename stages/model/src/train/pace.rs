//! Clocks: how fast steps are, and how long ago the last checkpoint was.

use std::time::{Duration, Instant};

use super::{
    settings::{TrainSettings, WatchSettings},
    watcher::Watcher,
};
use crate::config::ModelConfig;

pub(super) struct Pace {
    started: Instant,
    saved: Instant,
    /// Time in steps, and tokens read, since the last log.
    busy: Duration,
    pub(super) tokens: u64,
}

impl Pace {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            saved: now,
            busy: Duration::ZERO,
            tokens: 0,
        }
    }

    pub(super) fn start(&mut self) {
        self.started = Instant::now();
    }

    pub(super) fn stop(&mut self) {
        self.busy += self.started.elapsed();
    }

    pub(super) fn saved(&mut self) {
        self.saved = Instant::now();
    }

    pub(super) fn checkpoint_is_due(&self, step: u64, watch: &WatchSettings) -> bool {
        let by_step = watch.checkpoint_every > 0 && step.is_multiple_of(watch.checkpoint_every);
        step > 0 && (by_step || self.saved.elapsed() >= watch.checkpoint_interval)
    }

    pub(super) fn log(
        &mut self,
        config: &ModelConfig,
        settings: &TrainSettings,
        step: u64,
        watcher: &mut dyn Watcher,
    ) {
        let per_second = self.tokens as f64 / self.busy.as_secs_f64().max(1e-9);
        watcher.metric("tokens_per_second", step, per_second);
        if let Some(peak) = settings.watch.flops_per_second {
            let flops = config.flops_per_token(settings.batches.context) as f64 * per_second;
            watcher.metric("peak_share", step, flops / peak);
        }
        (self.busy, self.tokens) = (Duration::ZERO, 0);
    }
}
