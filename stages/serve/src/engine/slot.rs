//! An answer that is under way.

use tinylm_model::generate::{Fed, Sequence};

use super::told::{Ask, Token, Told};
use crate::logprobs::Logprobs;

/// Rows of a prompt whose logits are held at once.
const TOLD_ROWS: usize = 32;

pub(super) struct Slot {
    ask: Ask,
    pub(super) sequence: Sequence,
    /// Prompt and answer.
    history: Vec<u16>,
    /// How many of them the next pass feeds.
    n_next: usize,
    n_generated: usize,
    is_over: bool,
}

impl Slot {
    /// Gives a question a sequence, of which what both begin with stays.
    pub(super) fn new(ask: Ask, mut sequence: Sequence) -> Slot {
        let n_cached = match ask.wish.is_prompt_told {
            true => 0,
            false => n_common(sequence.held(), &ask.prompt).min(ask.prompt.len() - 1),
        };
        sequence.truncate(n_cached);
        let _ = ask.reply.send(Told::Begun { n_cached });
        Slot {
            history: ask.prompt.to_vec(),
            ask,
            sequence,
            n_next: 0,
            n_generated: 0,
            is_over: false,
        }
    }

    /// Nobody listens any more, or all is said.
    pub(super) fn is_over(&self) -> bool {
        self.is_over || self.ask.reply.is_closed()
    }

    pub(super) fn n_generated(&self) -> usize {
        self.n_generated
    }

    /// Whether all but one token has been read.
    pub(super) fn is_decoding(&self) -> bool {
        self.sequence.held().len() + 1 == self.history.len()
    }

    /// Returns what the next pass is to read, at most `room` tokens.
    pub(super) fn fed(&mut self, room: usize) -> Fed<'_> {
        let n_held = self.sequence.held().len();
        let n_left = self.history.len() - n_held;
        let is_told = self.is_prompt_told();
        let most = if is_told { TOLD_ROWS } else { usize::MAX };
        self.n_next = n_left.min(room).min(most);
        let n_asked = match is_told {
            true => self.n_next,
            false => usize::from(self.n_next == n_left),
        };
        Fed {
            sequence: &mut self.sequence,
            tokens: &self.history[n_held..n_held + self.n_next],
            n_asked,
        }
    }

    fn is_prompt_told(&self) -> bool {
        self.ask.wish.is_prompt_told && self.n_generated == 0
    }

    /// Takes the logits that it asked for in the pass that has been.
    pub(super) fn take(&mut self, logits: &[&[f32]]) {
        let n_held = self.sequence.held().len();
        if self.is_prompt_told() {
            let first = n_held - self.n_next + 1;
            for (at, logits) in (first..self.history.len()).zip(logits) {
                let token = self.token(logits, self.history[at], false);
                self.tell(Told::Read(token));
            }
        }
        if n_held == self.history.len()
            && let Some(logits) = logits.last()
        {
            self.choose(logits);
        }
    }

    fn choose(&mut self, logits: &[f32]) {
        let wish = &self.ask.wish;
        if self.n_generated >= wish.n_max {
            self.is_over = true;
            return;
        }
        let n_prompt = self.history.len() - self.n_generated;
        let id = match wish.next(logits, &self.history, n_prompt) {
            Ok(id) => id,
            Err(error) => return self.end(Told::Failed(error.to_string())),
        };
        let is_stop = wish.stop.contains(&id);
        let token = self.token(logits, id, is_stop);
        self.history.push(id);
        self.n_generated += 1;
        self.is_over = is_stop || self.n_generated == self.ask.wish.n_max;
        self.tell(Told::Token(token));
    }

    fn token(&self, logits: &[f32], id: u16, is_stop: bool) -> Token {
        let n_top = self.ask.wish.n_top;
        let told = n_top.map(|n_top| Logprobs::of(logits, id, n_top));
        let Logprobs { logprob, top } = told.unwrap_or_default();
        Token {
            id,
            logprob,
            top,
            is_stop,
        }
    }

    /// Tells a last thing.
    pub(super) fn end(&mut self, told: Told) {
        self.is_over = true;
        self.tell(told);
    }

    fn tell(&self, told: Told) {
        // A client that has gone is noticed before the next pass.
        let _ = self.ask.reply.send(told);
    }
}

pub(super) fn n_common(a: &[u16], b: &[u16]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
