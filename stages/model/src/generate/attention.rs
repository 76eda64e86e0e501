//! Attention of a pass: keys and values go into the cache, and each row looks at those before it.

use std::ops::Range;

use super::{
    pass::{Pass, Span},
    team::Member,
};
use crate::{
    config::Positions,
    kernels::{
        rows::{rotate_head, softmax},
        tile::{LANES, TILE_ROWS, Tile},
    },
};

/// Every function here is run by all threads at once.
///
/// # Safety
///
/// Between two barriers a thread writes only heads of its own.
impl Pass<'_> {
    /// Turns queries and keys by their positions, and puts keys and values in the cache.
    pub(crate) unsafe fn remember(&self, member: &Member<'_>, layer: usize) {
        let c = &self.model.weights.config;
        let (d, layout) = (c.d_head(), &self.model.sizes.layout);
        let n_group = c.n_heads / c.n_kv_heads;
        for kv_head in member.part(c.n_kv_heads) {
            let rows = self
                .spans
                .iter()
                .flat_map(|span| span.rows.clone().map(move |row| (span, row)));
            for (span, row) in rows {
                let pos = span.place(row);
                // SAFETY: key/value heads, and with them their queries, are this thread's.
                unsafe {
                    let at = row * self.model.sizes.qkv;
                    if c.positions == Positions::Rope {
                        for head in kv_head * n_group..(kv_head + 1) * n_group {
                            self.turn(self.qkv.part(at + head * d, d), pos);
                        }
                        self.turn(self.qkv.part(at + c.d_model + kv_head * d, d), pos);
                    }
                    let key = self.qkv.part(at + c.d_model + kv_head * d, d);
                    let first = layout.key(layer, kv_head, pos);
                    for (i, x) in key.iter().enumerate() {
                        span.keys.at(first + i * LANES).write(*x);
                    }
                    let value = self.qkv.part(at + c.d_model + c.d_kv() + kv_head * d, d);
                    for (panel, chunk) in value.chunks(LANES).enumerate() {
                        let place = layout.value(layer, kv_head, pos, panel);
                        span.values.part(place, chunk.len()).copy_from_slice(chunk);
                    }
                }
            }
        }
    }

    /// Turns a head by its position.
    fn turn(&self, head: &mut [f32], pos: usize) {
        let angles = &self.model.weights.positions[pos * head.len()..][..head.len()];
        rotate_head(head, angles, 1.0);
    }

    /// Attention of this thread's heads, a tile of rows at a time.
    pub(crate) unsafe fn attend(&self, member: &Member<'_>, layer: usize) {
        let c = &self.model.weights.config;
        let tiles = self.spans.iter().flat_map(|span| {
            let firsts = span.rows.clone().step_by(TILE_ROWS);
            firsts.map(move |first| (span, first..span.rows.end.min(first + TILE_ROWS)))
        });
        for (idx, (span, rows)) in tiles.enumerate() {
            for head in 0..c.n_heads {
                // Later rows see more keys; dealing heads in turn keeps the shares even.
                if (idx * c.n_heads + head) % member.n == member.idx {
                    // SAFETY: these rows of this head are this thread's.
                    unsafe { self.attend_tile(member, layer, head, (span, rows.clone())) };
                }
            }
        }
    }

    unsafe fn attend_tile(
        &self,
        member: &Member<'_>,
        layer: usize,
        head: usize,
        (span, rows): (&Span, Range<usize>),
    ) {
        let c = &self.model.weights.config;
        let (d, layout) = (c.d_head(), &self.model.sizes.layout);
        let kv_head = head / (c.n_heads / c.n_kv_heads);
        let n_keys = span.place(rows.end);
        let scores_stride = layout.n_positions;
        // SAFETY: `private` has a place for each thread; the cache is read only here.
        let (scores, out) = unsafe {
            let private = self.private.part(
                member.idx * self.model.sizes.private(),
                self.model.sizes.private(),
            );
            private.split_at_mut(TILE_ROWS * scores_stride)
        };
        let keys = span.keys.at(layout.keys(layer, kv_head));
        for panel in 0..n_keys.div_ceil(LANES) {
            let tile = Tile {
                depth: d,
                rows: self
                    .qkv
                    .at(rows.start * self.model.sizes.qkv + head * d)
                    .cast(),
                row_stride: self.model.sizes.qkv,
                n_rows: rows.len(),
                panel: keys.wrapping_add(panel * d * LANES).cast(),
                out: scores[panel * LANES..].as_mut_ptr(),
                out_stride: scores_stride,
                add: false,
            };
            // SAFETY: a head has `d` elements, a panel of keys `d * LANES`, and the scores
            // have room for whole panels.
            unsafe { (self.model.tiles.f32)(tile) };
        }
        for (i, scores) in scores
            .chunks_exact_mut(scores_stride)
            .take(rows.len())
            .enumerate()
        {
            let n_seen = span.place(rows.start) + i + 1;
            softmax(&mut scores[..n_seen], 1.0 / (d as f32).sqrt());
            scores[n_seen..n_keys].fill(0.0);
        }
        for panel in 0..layout.d_padded / LANES {
            let tile = Tile {
                depth: n_keys,
                rows: scores.as_ptr().cast(),
                row_stride: scores_stride,
                n_rows: rows.len(),
                panel: span
                    .values
                    .at(layout.value(layer, kv_head, 0, panel))
                    .cast(),
                out: out[panel * LANES..].as_mut_ptr(),
                out_stride: layout.d_padded,
                add: false,
            };
            // SAFETY: scores and a panel of values have an element per key.
            unsafe { (self.model.tiles.f32)(tile) };
        }
        for (row, out) in rows.zip(out.chunks_exact(layout.d_padded)) {
            // SAFETY: these rows of this head are this thread's.
            unsafe { self.attended.part(row * self.model.sizes.d + head * d, d) }
                .copy_from_slice(&out[..d]);
        }
    }
}
