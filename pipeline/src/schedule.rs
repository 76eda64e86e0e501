//! The scheduler's loop: it only decides which stages may start.
//!
//! Each stage that starts comes back as one [`Settled`]. A stage's artifact counts from the moment
//! its key record is written and not before, so there is no state in between for a kill to leave
//! behind.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use tinylm_registry::Digest;

use crate::{
    desk::Desk,
    error::StageError,
    observe::{Happened, Outcome, Settled},
    runner::Runner,
    settings::Device,
    spec::StageSpec,
    threads,
    wish::Wish,
    work::Work,
    worker::Worker,
};

impl Runner<'_> {
    /// Runs every stage that is not fresh; returns how each came out, in the experiment's order.
    pub fn run(&self) -> Vec<Settled> {
        let stop = AtomicBool::new(false);
        let desk = Desk::new(self.executor);
        let (sender, receiver) = mpsc::channel();
        let mut settled: HashMap<&str, Settled> = HashMap::new();
        let mut started: HashSet<&str> = HashSet::new();
        thread::scope(|scope| {
            let mut running: Vec<&StageSpec> = Vec::new();
            loop {
                let ready = self.ready(&settled, &started, &stop);
                let n_free = self.options.n_jobs.max(1) - running.len();
                let starting = &ready[..ready.len().min(n_free)];
                running.extend(starting);
                let n_threads =
                    self.options.n_threads / n_at_work(&running, self.options.device.known());
                for &stage in starting {
                    started.insert(&stage.name);
                    let worker = Worker {
                        work: Work {
                            runner: self,
                            desk: &desk,
                            stage,
                            stop: &stop,
                            n_threads: n_threads.max(1),
                            inputs: inputs(stage, &settled),
                            part: None,
                            together: None,
                        },
                        was_misled: was_misled(stage, &settled),
                    };
                    let sender = sender.clone();
                    let started = threads::spawn_in(scope, {
                        let sender = sender.clone();
                        move || {
                            // The receiver outlives every worker.
                            sender.send((stage, worker.carry_out())).ok();
                        }
                    });
                    if let Err(error) = started {
                        let failed = Outcome::Failed(StageError::no_thread(&error));
                        let settled = Settled::without_artifact(&stage.name, failed);
                        sender.send((stage, settled)).ok();
                    }
                }
                if running.is_empty() {
                    break;
                }
                // The senders outlive the loop, so this cannot fail.
                let Ok((stage, outcome)) = receiver.recv() else {
                    break;
                };
                running.retain(|one| one.name != stage.name);
                if matches!(outcome.outcome, Outcome::Failed(_)) && !self.options.keep_going {
                    stop.store(true, Ordering::Relaxed);
                }
                self.observer.see(&Happened::Settled(&outcome));
                settled.insert(&stage.name, outcome);
            }
        });
        self.context.remember();
        let stages = self.experiment.stages.iter();
        stages
            .map(|stage| match settled.remove(stage.name.as_str()) {
                Some(settled) => settled,
                None => self.left_out(stage, &stop),
            })
            .collect()
    }

    /// Returns the stages whose inputs are all there and that nobody has started.
    fn ready(
        &self,
        settled: &HashMap<&str, Settled>,
        started: &HashSet<&str>,
        stop: &AtomicBool,
    ) -> Vec<&StageSpec> {
        if stop.load(Ordering::Relaxed) || self.interrupt.wish(stop) != Wish::GoOn {
            return Vec::new();
        }
        let is_good = |name: &str| {
            let found = settled.get(name);
            found.is_some_and(|settled| settled.outcome.is_good())
        };
        let stages = self.experiment.stages.iter();
        stages
            .filter(|stage| !started.contains(stage.name.as_str()))
            .filter(|stage| stage.reads().all(is_good))
            .collect()
    }

    /// A stage that was never started: something before it failed, or the run was stopped.
    fn left_out(&self, stage: &StageSpec, stop: &AtomicBool) -> Settled {
        let outcome = if self.interrupt.asked.load(Ordering::Relaxed) {
            Outcome::Cancelled
        } else if stop.load(Ordering::Relaxed) {
            Outcome::Skipped("an earlier stage failed".to_owned())
        } else {
            Outcome::Skipped("a stage that it reads failed".to_owned())
        };
        let settled = Settled::without_artifact(&stage.name, outcome);
        self.observer.see(&Happened::Settled(&settled));
        settled
    }
}

/// How many stages share the threads: heavy ones take turns at their device, so those of one count as one.
fn n_at_work(running: &[&StageSpec], asked: Device) -> usize {
    let heavy = running.iter().filter(|stage| stage.kind.heavy);
    let devices: Vec<Device> = heavy.map(|stage| stage.kind.device(asked)).collect();
    let n_devices = devices.iter().collect::<HashSet<_>>().len();
    (running.len() - devices.len() + n_devices).max(1)
}

/// Returns the contents digests of what a stage reads, role by role.
fn inputs(stage: &StageSpec, settled: &HashMap<&str, Settled>) -> Vec<(String, Vec<Digest>)> {
    let artifact = |name: &String| settled.get(name.as_str()).and_then(|one| one.artifact);
    let roles = stage.inputs.iter();
    roles
        .map(|(role, names)| (role.clone(), names.iter().filter_map(artifact).collect()))
        .collect()
}

/// Returns whether something that a stage reads was damaged until this run made it anew.
fn was_misled(stage: &StageSpec, settled: &HashMap<&str, Settled>) -> bool {
    let mut names = stage.reads();
    names.any(|name| settled.get(name).is_some_and(|one| one.healed))
}
