//! One pass as all its threads see it: the model, the tokens, and every buffer.

use super::{cache::Cache, model::Model, scratch::Scratch, slab::Slab};
use crate::engine::Score;

/// One pass while it runs, as all its threads see it.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Model,
    pub(crate) tokens: &'a [u16],
    pub(crate) start: usize,
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
    pub(crate) keys: Slab<f32>,
    pub(crate) values: Slab<f32>,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(model: &'a Model, scratch: &mut Scratch, cache: &mut Cache) -> Pass<'a> {
        Pass {
            model,
            tokens: &[],
            start: 0,
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
            keys: Slab::new(&mut cache.keys),
            values: Slab::new(&mut cache.values),
        }
    }

    pub(crate) fn of(self, tokens: &'a [u16], start: usize) -> Pass<'a> {
        Pass {
            tokens,
            start,
            ..self
        }
    }
}
