//! One stage made by itself, from artifacts that are given.
//!
//! A run decides what its stages read by making that first. Whoever holds what was made once against what is
//! made now gives each stage what it read then, so that one that comes out otherwise spoils no other's comparison.

use std::sync::atomic::AtomicBool;

use tinylm_registry::Digest;

use crate::{
    desk::Desk,
    observe::{Happened, Settled},
    runner::Runner,
    spec::StageSpec,
    work::Work,
    worker::Worker,
};

impl Runner<'_> {
    /// Makes a stage of the experiment, or finds it made. `inputs` are the contents of its roles, in their order.
    pub fn run_one(&self, stage: &StageSpec, inputs: Vec<(String, Vec<Digest>)>) -> Settled {
        let stop = AtomicBool::new(false);
        let desk = Desk::new(self.executor);
        let worker = Worker {
            work: Work {
                runner: self,
                desk: &desk,
                stage,
                stop: &stop,
                n_threads: self.options.n_threads.max(1),
                inputs,
                part: None,
                together: None,
            },
            was_misled: false,
        };
        let settled = worker.carry_out();
        self.observer.see(&Happened::Settled(&settled));
        self.context.remember();
        settled
    }
}
