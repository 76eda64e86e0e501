//! Keys and values of the tokens seen so far, as panels that grow.
//!
//! Keys are a matrix with one output per position, values one with an input per
//! position, so attention is two more products by the kernels that do all others.

use crate::{config::ModelConfig, kernels::tile::LANES};

/// Room for `context` positions of every layer and key/value head.
pub(crate) struct Cache {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

/// Where things stand in a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Positions, padded to whole panels.
    pub(crate) n_positions: usize,
    pub(crate) d_head: usize,
    /// Width of a head padded to whole panels.
    pub(crate) d_padded: usize,
    n_kv_heads: usize,
}

impl Cache {
    pub(crate) fn new(config: &ModelConfig) -> Cache {
        let layout = Layout::new(config);
        let n = config.n_layers * config.n_kv_heads * layout.n_positions;
        Cache {
            keys: vec![0.0; n * layout.d_head],
            values: vec![0.0; n * layout.d_padded],
        }
    }
}

impl Cache {
    /// The memory of one.
    pub(crate) fn n_bytes(config: &ModelConfig) -> usize {
        let layout = Layout::new(config);
        let n = config.n_layers * config.n_kv_heads * layout.n_positions;
        4 * n * (layout.d_head + layout.d_padded)
    }
}

impl Layout {
    pub(crate) fn new(config: &ModelConfig) -> Layout {
        Layout {
            n_positions: config.context.next_multiple_of(LANES),
            d_head: config.d_head(),
            d_padded: config.d_head().next_multiple_of(LANES),
            n_kv_heads: config.n_kv_heads,
        }
    }

    /// Panel `i` holds positions `32 i ..`: `(d_head, 32)`.
    pub(crate) fn keys(&self, layer: usize, head: usize) -> usize {
        (layer * self.n_kv_heads + head) * self.n_positions * self.d_head
    }

    /// Panel `i` holds components `32 i ..`: `(n_positions, 32)`.
    pub(crate) fn values(&self, layer: usize, head: usize) -> usize {
        (layer * self.n_kv_heads + head) * self.n_positions * self.d_padded
    }

    /// Where component 0 of a key stands; the others follow at distances of 32.
    pub(crate) fn key(&self, layer: usize, head: usize, pos: usize) -> usize {
        self.keys(layer, head) + pos / LANES * self.d_head * LANES + pos % LANES
    }

    /// Where 32 components of a value stand.
    pub(crate) fn value(&self, layer: usize, head: usize, pos: usize, panel: usize) -> usize {
        self.values(layer, head) + (panel * self.n_positions + pos) * LANES
    }
}
