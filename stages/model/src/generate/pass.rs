//! One pass as all its threads see it: the model, the tokens, and every buffer.
//!
//! Its rows may be of several sequences. Only where a token stands and what it looks back at
//! depends on the sequence; products see rows.

use std::ops::Range;

use super::{cache::Cache, model::Packed, scratch::Scratch, slab::Slab};
use crate::engine::Score;

/// What is read of one sequence.
pub(crate) struct Part<'a> {
    pub(crate) cache: &'a mut Cache,
    /// The position of the first token.
    pub(crate) start: usize,
    pub(crate) tokens: &'a [u16],
}

/// Rows of a pass that are of one sequence.
pub(crate) struct Span {
    pub(crate) rows: Range<usize>,
    pub(crate) start: usize,
    pub(crate) keys: Slab<f32>,
    pub(crate) values: Slab<f32>,
}

impl Span {
    /// The position of a row.
    pub(crate) fn place(&self, row: usize) -> usize {
        self.start + row - self.rows.start
    }

    /// Which of these rows are its own.
    pub(crate) fn among(&self, rows: &Range<usize>) -> Range<usize> {
        self.rows.start.max(rows.start)..self.rows.end.min(rows.end)
    }
}

/// One pass while it runs, as all its threads see it.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Packed,
    pub(crate) tokens: Vec<u16>,
    pub(crate) spans: Vec<Span>,
    /// The rows whose logits are wanted.
    pub(crate) heads: Vec<usize>,
    pub(crate) x: Slab<f32>,
    pub(crate) normed: Slab<f32>,
    pub(crate) qkv: Slab<f32>,
    pub(crate) attended: Slab<f32>,
    pub(crate) gate: Slab<f32>,
    pub(crate) up: Slab<f32>,
    pub(crate) packed: Slab<u32>,
    pub(crate) private: Slab<f32>,
    pub(crate) logits: Slab<f32>,
    pub(crate) scores: Slab<Score>,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(model: &'a Packed, scratch: &mut Scratch, heads: Vec<usize>) -> Pass<'a> {
        Pass {
            model,
            tokens: Vec::new(),
            spans: Vec::new(),
            heads,
            x: Slab::new(&mut scratch.x),
            normed: Slab::new(&mut scratch.normed),
            qkv: Slab::new(&mut scratch.qkv),
            attended: Slab::new(&mut scratch.attended),
            gate: Slab::new(&mut scratch.gate),
            up: Slab::new(&mut scratch.up),
            packed: Slab::new(&mut scratch.packed),
            private: Slab::new(&mut scratch.private),
            logits: Slab::new(&mut scratch.logits),
            scores: Slab::new(&mut scratch.scores),
        }
    }

    /// The same of these tokens.
    pub(crate) fn of(mut self, parts: &mut [Part<'_>]) -> Pass<'a> {
        for part in parts {
            let first = self.tokens.len();
            self.tokens.extend_from_slice(part.tokens);
            self.spans.push(Span {
                rows: first..self.tokens.len(),
                start: part.start,
                keys: Slab::new(&mut part.cache.keys),
                values: Slab::new(&mut part.cache.values),
            });
        }
        self
    }
}
