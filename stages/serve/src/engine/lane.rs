//! One model with the answers it is giving, those that wait, and the sequences of those it has given.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tinylm_model::generate::{Fed, Model, Reader, Sequence};

use super::{
    queue::Queue,
    slot::{Slot, n_common},
    told::{Ask, Counts, Told},
};

/// How long a pass may take while another model waits for its own, and tokens that it reads at least.
const SHARE: Duration = Duration::from_millis(25);
const LEAST: usize = 16;

pub(super) struct Lane {
    /// The time that its passes have taken.
    pub(super) spent: Duration,
    /// What a token of the last pass took.
    per_token: Duration,
    reader: Reader,
    n_slots: usize,
    waiting: Queue,
    active: Vec<Slot>,
    /// Sequences that nobody uses, the one that was left last at the end.
    free: Vec<Sequence>,
    counts: Arc<Counts>,
}

impl Lane {
    pub(super) fn new(
        model: &Arc<Model>,
        n_slots: usize,
        n_threads: usize,
        counts: Arc<Counts>,
    ) -> Lane {
        Lane {
            spent: Duration::ZERO,
            per_token: SHARE / LEAST as u32,
            reader: Reader::new(Arc::clone(model), n_threads),
            n_slots,
            waiting: Queue::default(),
            active: Vec::new(),
            free: Vec::new(),
            counts,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.len() == 0 && self.active.is_empty()
    }

    pub(super) fn wait(&mut self, ask: Ask) {
        self.waiting.push(ask);
    }

    /// Frees places, fills them, and reads one pass.
    pub(super) fn step(&mut self, is_shared: bool) {
        self.leave();
        self.admit();
        if self.active.is_empty() {
            return;
        }
        let room = match is_shared {
            true => (SHARE.as_nanos() / self.per_token.as_nanos().max(1)) as usize,
            false => Reader::MOST,
        };
        // Nobody who has begun is left out.
        let room = room.max(LEAST).max(self.active.len()).min(Reader::MOST);
        let began = Instant::now();
        let n_fed = self.pass(room);
        let took = began.elapsed();
        self.spent += took;
        self.per_token = took / n_fed.max(1) as u32;
    }

    fn leave(&mut self) {
        for slot in self.active.extract_if(.., |slot| slot.is_over()) {
            self.counts.n_active.fetch_sub(1, Relaxed);
            self.free.push(slot.sequence);
        }
        let n_waiting = self.waiting.len();
        self.waiting.forget_gone();
        let n_gone = n_waiting - self.waiting.len();
        self.counts.n_waiting.fetch_sub(n_gone, Relaxed);
    }

    fn admit(&mut self) {
        while self.active.len() < self.n_slots
            && let Some(ask) = self.waiting.pop()
        {
            self.counts.n_waiting.fetch_sub(1, Relaxed);
            if ask.reply.is_closed() {
                continue;
            }
            let n_prompt = ask.prompt.len() as u64;
            let sequence = self.sequence_for(&ask.prompt);
            let slot = Slot::new(ask, sequence);
            let n_cached = slot.sequence.held().len() as u64;
            self.counts.n_active.fetch_add(1, Relaxed);
            self.counts.n_cached_tokens.fetch_add(n_cached, Relaxed);
            self.counts.n_prompt_tokens.fetch_add(n_prompt, Relaxed);
            self.active.push(slot);
        }
    }

    /// The free sequence that has most in common with a prompt, if it loses no more than it keeps:
    /// what all dialogues begin with is no reason to forget one. Otherwise a new one, or in want of
    /// room the one that was left longest ago.
    fn sequence_for(&mut self, prompt: &[u16]) -> Sequence {
        let known = self.free.iter().map(|free| n_common(free.held(), prompt));
        let best = known
            .enumerate()
            .max_by_key(|(idx, n)| (*n, usize::MAX - idx));
        if let Some((idx, n)) = best
            && 2 * n >= self.free[idx].held().len()
        {
            return self.free.remove(idx);
        }
        match self.free.len() + self.active.len() < self.n_slots {
            true => Sequence::new(self.reader.model()),
            false => self.free.remove(0),
        }
    }

    /// Reads as many tokens as there is room for, and says how many.
    fn pass(&mut self, n_most: usize) -> usize {
        let mut room = n_most;
        // Those that decode go first, a token each; the rest goes to prompts in their order.
        let (decoding, reading): (Vec<_>, Vec<_>) = self
            .active
            .iter_mut()
            .enumerate()
            .partition(|(_, slot)| slot.is_decoding());
        let (mut indices, mut fed) = (Vec::new(), Vec::<Fed<'_>>::new());
        for (idx, slot) in decoding.into_iter().chain(reading) {
            if room > 0 {
                let one = slot.fed(room);
                room -= one.tokens.len();
                indices.push((idx, one.n_asked));
                fed.push(one);
            }
        }
        self.counts.n_passes.fetch_add(1, Relaxed);
        let told = match self.reader.feed(&mut fed) {
            Ok(told) => told,
            Err(error) => {
                // Prompts are checked before they come here, so that this is a fault of ours.
                let failed = |slot: &mut Slot| slot.end(Told::Failed(error.to_string()));
                self.active.iter_mut().for_each(failed);
                return n_most;
            }
        };
        let mut told = told.as_slice();
        for (idx, n_asked) in indices {
            let (own, rest) = told.split_at(n_asked);
            told = rest;
            let slot = &mut self.active[idx];
            let n_before = slot.n_generated();
            slot.take(own);
            let n_new = (slot.n_generated() - n_before) as u64;
            self.counts.n_generated_tokens.fetch_add(n_new, Relaxed);
        }
        n_most - room
    }
}
