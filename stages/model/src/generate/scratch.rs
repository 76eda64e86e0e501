//! Buffers that passes leave behind and reuse, and how wide they are.

use super::cache::Layout;
use crate::{
    config::ModelConfig,
    engine::Score,
    kernels::tile::{LANES, TILE_ROWS},
};

/// Inputs of a panel that stay in the first-level cache while many rows pass over them.
pub(crate) const DEPTH_BLOCK: usize = 256;

/// The buffers of a session's passes.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The residual stream, `(rows, D)`.
    pub(crate) x: Vec<f32>,
    pub(crate) normed: Vec<f32>,
    pub(crate) qkv: Vec<f32>,
    pub(crate) attended: Vec<f32>,
    pub(crate) gate: Vec<f32>,
    pub(crate) up: Vec<f32>,
    /// Rows rounded to bf16, in pairs or still f32.
    pub(crate) packed: Vec<u32>,
    /// A part for each thread alone.
    pub(crate) private: Vec<f32>,
    pub(crate) logits: Vec<f32>,
    pub(crate) scores: Vec<Score>,
}

impl Scratch {
    pub(crate) fn make_room(
        &mut self,
        sizes: &Sizes,
        rows: usize,
        head_rows: usize,
        n_threads: usize,
    ) {
        let grow = |v: &mut Vec<f32>, n: usize| {
            if v.len() < n {
                v.resize(n, 0.0);
            }
        };
        grow(&mut self.x, rows * sizes.d);
        grow(&mut self.normed, rows * sizes.d);
        grow(&mut self.attended, rows * sizes.d);
        grow(&mut self.qkv, rows * sizes.qkv);
        grow(&mut self.gate, rows * sizes.ff);
        grow(&mut self.up, rows * sizes.ff);
        grow(&mut self.private, n_threads * sizes.private());
        grow(&mut self.logits, head_rows * sizes.vocab);
        let n_packed = rows * sizes.d.max(sizes.ff);
        if self.packed.len() < n_packed {
            self.packed.resize(n_packed, 0);
        }
        if self.scores.len() < head_rows {
            self.scores.resize(head_rows, Score { nll: 0.0, rank: 0 });
        }
    }
}

/// Widths of rows, padded to whole panels so that a kernel may always write 32 lanes.
pub(crate) struct Sizes {
    pub(crate) d: usize,
    pub(crate) qkv: usize,
    pub(crate) ff: usize,
    pub(crate) vocab: usize,
    pub(crate) layout: Layout,
}

impl Sizes {
    pub(crate) fn new(c: &ModelConfig) -> Sizes {
        let padded = |n: usize| n.next_multiple_of(LANES);
        Sizes {
            d: padded(c.d_model),
            qkv: padded(c.d_model + 2 * c.d_kv()),
            ff: padded(c.d_ff),
            vocab: padded(c.vocab_size),
            layout: Layout::new(c),
        }
    }

    /// Scores of a tile's rows, then their output; or a widened block of a panel.
    pub(crate) fn private(&self) -> usize {
        let attention = TILE_ROWS * (self.layout.n_positions + self.layout.d_padded);
        attention.max(DEPTH_BLOCK * LANES)
    }
}
