//! Processes that share a training, as threads of this one: the bits are those of one.

use std::{
    ops::Range,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use super::*;
use crate::reduction::{Part, join_parts};

/// One that follows, as the one that decides sees it.
#[derive(Debug)]
struct Follower {
    orders: Sender<Told>,
    sums: Sender<Part>,
    parts: Receiver<Vec<Part>>,
    thread: Option<JoinHandle<()>>,
}

/// Processes that share a training with this one.
#[derive(Debug)]
pub(super) struct Sharing {
    followers: Vec<Follower>,
    begin: fn() -> CpuEngine,
    settings: TrainSettings,
    n_wanted: usize,
    /// The step in whose middle the others are lost.
    lost_at: Option<u64>,
    step: u64,
}

impl Sharing {
    fn new(n_wanted: usize, settings: &TrainSettings, begin: fn() -> CpuEngine) -> Sharing {
        Sharing {
            followers: Vec::new(),
            begin,
            settings: settings.clone(),
            n_wanted,
            lost_at: None,
            step: 0,
        }
    }

    fn start(&mut self, weights: &Tensors, optimizer: &Tensors) {
        for rank in 1..self.n_wanted {
            let (orders, heard) = channel();
            let (sums, summed) = channel();
            let (told, parts) = channel();
            let state = Told::State {
                weights: weights.clone(),
                optimizer: optimizer.clone(),
            };
            orders.send(state).unwrap();
            let (settings, begin) = (self.settings.clone(), self.begin);
            let mut leader = Seen {
                share: (rank, self.n_wanted),
                heard,
                summed,
                told,
            };
            let follow_it = move || {
                let (_folder, shards) = shards();
                // One that is lost hears nothing more, which is an error that nobody hears of.
                let _ = follow(&mut begin(), &shards, &settings, &mut leader);
            };
            self.followers.push(Follower {
                orders,
                sums,
                parts,
                thread: Some(thread::spawn(follow_it)),
            });
        }
    }

    fn tell(&self, told: &Told) {
        for follower in &self.followers {
            let _ = follower.orders.send(told.clone());
        }
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        self.tell(&Told::End);
        for follower in &mut self.followers {
            follower.thread.take().map(JoinHandle::join);
        }
    }
}

impl Reduction for Sharing {
    fn begin(&mut self, engine: &mut dyn Engine, order: Order) -> Result<(), ReductionError> {
        if self.followers.is_empty() {
            self.start(&engine.weights()?, &engine.optimizer()?);
        }
        self.step = order.step;
        self.tell(&Told::Step(order));
        Ok(())
    }

    fn ours(&self, n_leaves: usize) -> Range<usize> {
        crate::tree::ours(n_leaves, 0, self.n_wanted)
    }

    fn combine(&mut self, n_leaves: usize, mut parts: Vec<Part>) -> Result<Part, ReductionError> {
        if self.lost_at == Some(self.step) {
            (self.lost_at, self.n_wanted) = (None, 1);
            self.followers.clear();
            return Err(ReductionError::Lost("process 2 is gone".to_owned()));
        }
        for follower in &self.followers {
            parts.extend(follower.parts.recv().unwrap());
        }
        let sum = join_parts(n_leaves, parts).unwrap();
        for follower in &self.followers {
            follower.sums.send(sum.clone()).unwrap();
        }
        Ok(sum)
    }

    fn decide(&mut self, update: Option<&Update>) {
        self.tell(&update.map_or(Told::Discard, |update| Told::Update(*update)));
    }
}

/// The one that decides, as one that follows sees it.
struct Seen {
    share: (usize, usize),
    heard: Receiver<Told>,
    summed: Receiver<Part>,
    told: Sender<Vec<Part>>,
}

fn gone<E>(_: E) -> ReductionError {
    ReductionError::Lost("gone".to_owned())
}

impl Leader for Seen {
    fn next(&mut self) -> Result<Told, ReductionError> {
        self.heard.recv().map_err(gone)
    }

    fn ours(&self, n_leaves: usize) -> Range<usize> {
        crate::tree::ours(n_leaves, self.share.0, self.share.1)
    }

    fn combine(&mut self, _: usize, parts: Vec<Part>) -> Result<Part, ReductionError> {
        self.told.send(parts).map_err(gone)?;
        self.summed.recv().map_err(gone)
    }
}

/// Steps of seven rows in five leaves, some of two rows that are computed one by one.
pub(super) fn divided() -> TrainSettings {
    let mut settings = settings();
    (
        settings.batches.batch,
        settings.leaves,
        settings.micro_batch,
    ) = (7, 5, Some(1));
    (settings.schedule.lr, settings.clip) = (0.01, 0.5);
    settings
}

fn adamw() -> CpuEngine {
    transformer(Optimizer::Adamw, 1)
}

fn muon() -> CpuEngine {
    transformer(Optimizer::Muon, 2)
}

fn adapted() -> CpuEngine {
    with_adapter(Optimizer::Adamw, 1)
}

#[test]
fn any_number_of_processes_makes_the_same_bits() {
    for begin in [adamw, muon, adapted] {
        let alone = Story::new(divided()).finish_with(begin());
        for n_ranks in [2, 3, 5, 8] {
            let mut story = Story::new(divided());
            story.sharing = Some(Sharing::new(n_ranks, &divided(), begin));
            assert_same(&story.finish_with(begin()), &alone);
        }
    }
}

#[test]
fn leaves_are_a_sum_of_the_same_gradients_in_another_order() {
    let divided = divided();
    let whole = TrainSettings {
        leaves: 0,
        ..divided.clone()
    };
    let loss = |settings| {
        let (trained, _) = Story::new(settings).finish_with(adamw());
        trained.report.best.unwrap().validation_loss
    };
    let (divided, whole) = (loss(divided), loss(whole));
    assert!((divided - whole).abs() < 1e-4 * whole, "{divided} {whole}");
}

#[test]
fn a_step_in_whose_middle_the_others_are_lost_is_taken_again_and_nothing_else() {
    let alone = Story::new(divided()).finish_with(adamw());
    for lost_at in [0, 1, 3] {
        let mut story = Story::new(divided());
        let mut sharing = Sharing::new(3, &divided(), adamw);
        sharing.lost_at = Some(lost_at);
        story.sharing = Some(sharing);
        let shared = story.finish_with(adamw());
        let told = format!("process 2 is gone; step {} is taken again", lost_at + 1);
        assert_eq!(shared.1.warnings, [told]);
        assert_same(&shared, &alone);
    }
}

#[test]
fn a_step_that_is_left_out_is_left_out_by_all() {
    // Losses come to no less, and half of them are called spikes: no update is made of those.
    let mut settings = divided();
    (settings.on_spike, settings.spike_z) = (OnSpike::Skip, 1e-3);
    settings.length = Length::Steps(80);
    settings.schedule.lr = 1e-6;
    let alone = Story::new(settings.clone()).finish_with(adamw());
    assert!(alone.0.report.skipped_steps > 0);
    let mut story = Story::new(settings.clone());
    story.sharing = Some(Sharing::new(2, &settings, adamw));
    assert_same(&story.finish_with(adamw()), &alone);
}
