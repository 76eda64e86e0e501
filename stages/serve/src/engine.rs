//! The thread that runs the models: continuous batching over all answers that are under way.
//!
//! A pass feeds one token of every answer, and what room is left is given to prompts, the oldest
//! first, so that a long prompt delays nobody by more than a pass. What a prompt has in common with
//! something that was answered before is not read again. The bits of an answer depend neither on
//! what shares its passes nor on what was kept.

mod lane;
mod queue;
mod slot;
mod told;
mod wish;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread,
};

use tinylm_model::generate::Model;

use crate::served::Served;
use lane::Lane;
pub(crate) use told::{Ask, Counts, Token, Told};
pub(crate) use wish::Wish;

/// The exit code of a fault of ours.
const PANICKED: i32 = 101;

/// Hands questions to the thread.
#[derive(Clone)]
pub(crate) struct Engine {
    asks: mpsc::Sender<(usize, Ask)>,
    pub(crate) counts: Arc<Counts>,
}

impl Engine {
    pub(crate) fn start(models: &[Served], n_slots: usize, n_threads: usize) -> Engine {
        let (asks, receiver) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let models: Vec<Arc<Model>> = models.iter().map(|s| Arc::clone(&s.model)).collect();
        let counted = Arc::clone(&counts);
        // What reads on a GPU stays on the thread that made it.
        let lanes = move || {
            let lane =
                |model: &Arc<Model>| Lane::new(model, n_slots, n_threads, Arc::clone(&counted));
            models.iter().map(lane).collect()
        };
        thread::spawn(move || or_end(|| run(lanes(), &receiver), || process::exit(PANICKED)));
        Engine { asks, counts }
    }

    /// Puts a question in the queue of a model.
    pub(crate) fn ask(&self, model: usize, ask: Ask) {
        self.counts.n_waiting.fetch_add(1, Relaxed);
        // The thread ends with the last sender only.
        let _ = self.asks.send((model, ask));
    }
}

/// Runs until nobody can ask any more.
fn run(mut lanes: Vec<Lane>, asks: &mpsc::Receiver<(usize, Ask)>) {
    loop {
        if lanes.iter().all(Lane::is_idle) {
            match asks.recv() {
                Ok((model, ask)) => wait(&mut lanes, model, ask),
                Err(_) => return,
            }
        }
        while let Ok((model, ask)) = asks.try_recv() {
            wait(&mut lanes, model, ask);
        }
        let is_shared = lanes.iter().filter(|lane| !lane.is_idle()).count() > 1;
        let busy = lanes.iter_mut().filter(|lane| !lane.is_idle());
        // Models have equal shares of the time: a small one makes many steps to a large one's pass.
        if let Some(lane) = busy.min_by_key(|lane| lane.spent) {
            lane.step(is_shared);
        }
    }
}

/// Puts a question in a model's queue; one that was idle has no claim to the time that went by.
fn wait(lanes: &mut [Lane], model: usize, ask: Ask) {
    let busy = lanes.iter().filter(|lane| !lane.is_idle());
    let least = busy.map(|lane| lane.spent).min();
    let lane = &mut lanes[model];
    if lane.is_idle() {
        lane.spent = lane.spent.max(least.unwrap_or_default());
    }
    lane.wait(ask);
}

/// Ends all when something panics: a server whose models do not run would take questions and answer none.
fn or_end(run: impl FnOnce(), end: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_thread_that_runs_models_ends_all_and_nothing_else_does() {
        let (mut n_ended, mut n_run) = (0, 0);
        or_end(|| n_run += 1, || n_ended += 1);
        assert_eq!((n_run, n_ended), (1, 0));
        or_end(|| panic!("told by this test"), || n_ended += 1);
        assert_eq!(n_ended, 1);
    }
}
