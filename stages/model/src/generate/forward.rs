//! One pass of a few tokens through the model, by all threads of a team together.
//!
//! Every thread runs the same function from embedding to logits and takes its part of
//! each operation; barriers stand where one needs what the others wrote. Prompts and
//! single tokens go the same way and differ in the number of rows only.

use std::ops::Range;

use super::{
    cache::{Cache, Layout},
    kernels::{Affine, Kernels, LANES, TILE_ROWS, Tile},
    team::{Member, Team},
    weights::{Block, Linear, NormWeights, Weights},
};
use crate::{
    config::{Norm, NormAt, Positions, Precision},
    engine::Score,
};

/// Most tokens of one pass; longer prompts take several.
pub(crate) const PASS_ROWS: usize = 264;

/// Inputs of a panel that stay in the first-level cache while many rows pass over them.
const DEPTH_BLOCK: usize = 256;

/// What passes leave behind and reuse.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The residual stream, `(rows, D)`.
    x: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// Rows rounded to bf16, in pairs or still f32.
    packed: Vec<u32>,
    /// What each thread needs for itself.
    private: Vec<f32>,
    pub(crate) logits: Vec<f32>,
    scores: Vec<Score>,
}

impl Scratch {
    fn make_room(&mut self, sizes: &Sizes, rows: usize, head_rows: usize, n_threads: usize) {
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
    d: usize,
    qkv: usize,
    ff: usize,
    pub(crate) vocab: usize,
    layout: Layout,
}

impl Sizes {
    pub(crate) fn new(weights: &Weights, layout: Layout) -> Sizes {
        let c = &weights.config;
        let padded = |n: usize| n.next_multiple_of(LANES);
        Sizes {
            d: padded(c.d_model),
            qkv: padded(c.d_model + 2 * c.d_kv()),
            ff: padded(c.d_ff),
            vocab: padded(c.vocab_size),
            layout,
        }
    }

    /// Scores of a tile's rows, then their output; or a widened block of a panel.
    fn private(&self) -> usize {
        let attention = TILE_ROWS * (self.layout.n_positions + self.layout.d_padded);
        attention.max(DEPTH_BLOCK * LANES)
    }
}

/// What all passes of one model share.
pub(crate) struct Machine<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) kernels: Kernels,
    pub(crate) sizes: &'a Sizes,
    pub(crate) team: &'a mut Team,
    pub(crate) scratch: &'a mut Scratch,
}

impl Machine<'_> {
    /// Runs `tokens` from position `start` on and leaves the logits of the rows
    /// `heads` (counted in this pass) in the scratch, one after the other.
    ///
    /// The caller has checked the ids and that the cache has room.
    pub(crate) fn pass(
        &mut self,
        cache: &mut Cache,
        tokens: &[u16],
        start: usize,
        heads: Range<usize>,
    ) {
        let n_threads = self.team.n_threads();
        self.scratch
            .make_room(self.sizes, tokens.len(), heads.len(), n_threads);
        let pass = Pass::new(self.weights, self.kernels, self.sizes, self.scratch, cache)
            .of(tokens, start);
        self.team.run(|member| {
            // SAFETY: each thread writes only its own part of each slab between two
            // barriers, and reads of others' parts stand behind a barrier.
            unsafe {
                pass.blocks(member);
                pass.head(member, heads.clone());
            }
        });
    }

    /// Scores the targets of the rows `heads` of the pass before.
    pub(crate) fn score(
        &mut self,
        cache: &mut Cache,
        heads: Range<usize>,
        targets: &[u16],
    ) -> &[Score] {
        assert_eq!(heads.len(), targets.len());
        let n_threads = self.team.n_threads();
        self.scratch
            .make_room(self.sizes, heads.end, heads.len(), n_threads);
        let pass = Pass::new(self.weights, self.kernels, self.sizes, self.scratch, cache);
        self.team.run(|member| {
            // SAFETY: as in `pass`.
            unsafe {
                pass.head(member, heads.clone());
                member.barrier();
                pass.scores(member, targets);
            }
        });
        &self.scratch.scores[..targets.len()]
    }
}

/// A buffer that all threads see; who may touch which part is the caller's business.
struct Slab<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: a plain address; every use is unsafe and says why it may.
unsafe impl<T: Send> Sync for Slab<T> {}

impl<T> Slab<T> {
    fn new(data: &mut [T]) -> Slab<T> {
        Slab {
            start: data.as_mut_ptr(),
            len: data.len(),
        }
    }

    fn at(&self, offset: usize) -> *mut T {
        assert!(offset <= self.len);
        self.start.wrapping_add(offset)
    }

    /// # Safety
    ///
    /// Nobody else may write this part, nor read it while it is written.
    #[expect(
        clippy::mut_from_ref,
        reason = "threads take disjoint parts of one buffer"
    )]
    unsafe fn part(&self, offset: usize, len: usize) -> &mut [T] {
        assert!(offset + len <= self.len);
        // SAFETY: inside the buffer, and the caller promises that it is alone there.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}

/// Rows to be multiplied, in the elements the kernels read.
#[derive(Clone, Copy)]
struct Operand {
    start: *const u32,
    stride: usize,
    numbers: Numbers,
}

/// What rows are made of, and so how they are multiplied.
#[derive(Clone, Copy, PartialEq)]
enum Numbers {
    F32,
    /// bf16 in pairs.
    Pairs,
    /// f32 that are bf16, for panels to be widened.
    Rounded,
}

struct Pass<'a> {
    w: &'a Weights,
    kernels: Kernels,
    sizes: &'a Sizes,
    tokens: &'a [u16],
    start: usize,
    x: Slab<f32>,
    normed: Slab<f32>,
    qkv: Slab<f32>,
    attended: Slab<f32>,
    gate: Slab<f32>,
    up: Slab<f32>,
    packed: Slab<u32>,
    private: Slab<f32>,
    logits: Slab<f32>,
    scores: Slab<Score>,
    keys: Slab<f32>,
    values: Slab<f32>,
}

impl<'a> Pass<'a> {
    fn new(
        w: &'a Weights,
        kernels: Kernels,
        sizes: &'a Sizes,
        scratch: &mut Scratch,
        cache: &mut Cache,
    ) -> Pass<'a> {
        Pass {
            w,
            kernels,
            sizes,
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

    fn of(self, tokens: &'a [u16], start: usize) -> Pass<'a> {
        Pass {
            tokens,
            start,
            ..self
        }
    }
}

/// Every function here is run by all threads at once.
///
/// # Safety
///
/// Between two barriers a thread writes only rows, columns or heads of its own.
impl Pass<'_> {
    unsafe fn blocks(&self, member: &Member<'_>) {
        // SAFETY: see the type.
        unsafe {
            self.embed(member);
            for (idx, block) in self.w.blocks.iter().enumerate() {
                self.attention(member, idx, block);
                self.mlp(member, block);
            }
        }
    }

    unsafe fn embed(&self, member: &Member<'_>) {
        let c = &self.w.config;
        let d = c.d_model;
        for row in member.part(self.tokens.len()) {
            // SAFETY: rows are this thread's.
            let x = unsafe { self.x.part(row * self.sizes.d, d) };
            let token = usize::from(self.tokens[row]);
            let embedding = &self.w.embed[token * d..][..d];
            for (x, e) in x.iter_mut().zip(embedding) {
                *x = e * c.embed_scale;
            }
            if c.positions != Positions::Rope {
                let position = &self.w.positions[(self.start + row) * d..][..d];
                for (x, p) in x.iter_mut().zip(position) {
                    *x += p;
                }
            }
        }
    }

    /// `x += proj(attention(norm(x)))`, or `x = norm(x + proj(attention(x)))`.
    unsafe fn attention(&self, member: &Member<'_>, layer: usize, block: &Block) {
        let n = self.tokens.len();
        // SAFETY: see the type; barriers part what threads divide differently.
        unsafe {
            let input = self.branch_input(member, &block.norm1);
            self.linear(
                member,
                &block.qkv,
                input,
                n,
                &self.qkv,
                self.sizes.qkv,
                false,
            );
            member.barrier();
            self.remember(member, layer);
            member.barrier();
            self.attend(member, layer);
            member.barrier();
            let input = self.operand(member, &self.attended, self.sizes.d, 0..n);
            self.linear(member, &block.proj, input, n, &self.x, self.sizes.d, true);
            member.barrier();
            self.branch_end(member, &block.norm1);
        }
    }

    unsafe fn mlp(&self, member: &Member<'_>, block: &Block) {
        let n = self.tokens.len();
        let ff = self.sizes.ff;
        // SAFETY: as in `attention`; the two linears divide their columns alike.
        unsafe {
            let input = self.branch_input(member, &block.norm2);
            if let Some(gate) = &block.gate {
                self.linear(member, gate, input, n, &self.gate, ff, false);
            }
            self.linear(member, &block.up, input, n, &self.up, ff, false);
            self.activate(member, block);
            member.barrier();
            let input = self.operand(member, &self.up, ff, 0..n);
            self.linear(member, &block.down, input, n, &self.x, self.sizes.d, true);
            member.barrier();
            self.branch_end(member, &block.norm2);
        }
    }

    /// What a branch reads: the stream, normed before with `norm_at: pre`.
    unsafe fn branch_input(&self, member: &Member<'_>, norm: &NormWeights) -> Operand {
        let rows = 0..self.tokens.len();
        // SAFETY: norm and operand divide rows alike.
        unsafe {
            match self.w.config.norm_at {
                NormAt::Pre => {
                    self.norm(member, norm, rows.clone());
                    self.operand(member, &self.normed, self.sizes.d, rows)
                }
                NormAt::Post => self.operand(member, &self.x, self.sizes.d, rows),
            }
        }
    }

    /// The norm behind a branch with `norm_at: post`.
    unsafe fn branch_end(&self, member: &Member<'_>, norm: &NormWeights) {
        if self.w.config.norm_at == NormAt::Pre {
            return;
        }
        let d = self.w.config.d_model;
        // SAFETY: rows are this thread's in both loops.
        unsafe {
            self.norm(member, norm, 0..self.tokens.len());
            for row in member.part(self.tokens.len()) {
                let normed = self.normed.part(row * self.sizes.d, d);
                self.x.part(row * self.sizes.d, d).copy_from_slice(normed);
            }
        }
        member.barrier();
    }

    /// Writes the norm of this thread's share of the rows.
    unsafe fn norm(&self, member: &Member<'_>, norm: &NormWeights, rows: Range<usize>) {
        let c = &self.w.config;
        let affine = Affine {
            weight: &norm.weight,
            bias: norm.bias.as_deref(),
        };
        for row in member.part(rows.len()) {
            let offset = (rows.start + row) * self.sizes.d;
            // SAFETY: rows are this thread's.
            unsafe {
                let x = self.x.part(offset, c.d_model);
                let out = self.normed.part(offset, c.d_model);
                match c.norm {
                    Norm::Layer => (self.kernels.layer_norm)(x, out, &affine, c.norm_eps),
                    Norm::Rms => (self.kernels.rms_norm)(x, out, &affine, c.norm_eps),
                }
            }
        }
    }

    /// Makes rows ready to be multiplied and waits until all are.
    unsafe fn operand(
        &self,
        member: &Member<'_>,
        source: &Slab<f32>,
        stride: usize,
        rows: Range<usize>,
    ) -> Operand {
        if self.w.precision == Precision::F32 {
            member.barrier();
            return Operand {
                start: source.at(rows.start * stride).cast(),
                stride,
                numbers: Numbers::F32,
            };
        }
        let (numbers, packed_stride) = match rows.len() >= self.kernels.widen_from {
            true => (Numbers::Rounded, stride),
            false => (Numbers::Pairs, stride / 2),
        };
        for row in member.part(rows.len()) {
            // SAFETY: rows are this thread's.
            unsafe {
                let from = source.part((rows.start + row) * stride, stride);
                let to = self.packed.part(row * packed_stride, packed_stride);
                match numbers {
                    Numbers::Pairs => (self.kernels.to_bf16)(from, to),
                    _ => (self.kernels.round)(from, to),
                }
            }
        }
        member.barrier();
        Operand {
            start: self.packed.at(0),
            stride: packed_stride,
            numbers,
        }
    }

    /// `out (+)= input weight^T + bias` in the part of the panels and rows that is this thread's.
    #[expect(
        clippy::too_many_arguments,
        reason = "a matrix product has that many sides"
    )]
    unsafe fn linear(
        &self,
        member: &Member<'_>,
        linear: &Linear,
        input: Operand,
        n_rows: usize,
        out: &Slab<f32>,
        out_stride: usize,
        add: bool,
    ) {
        let (panels, rows) = grid(member, linear.n_panels, n_rows);
        if rows.is_empty() {
            return;
        }
        assert!(n_rows * out_stride <= out.len);
        for panel_idx in panels {
            let at = panel_idx * LANES;
            let mut add = add;
            if let Some(bias) = &linear.bias {
                let bias = &bias[at..][..LANES];
                for row in rows.clone() {
                    // SAFETY: this panel's columns of these rows are this thread's.
                    let out = unsafe { out.part(row * out_stride + at, LANES) };
                    for (out, bias) in out.iter_mut().zip(bias) {
                        *out = if add { *out + bias } else { *bias };
                    }
                }
                add = true;
            }
            let to = Rows {
                start: out.at(at),
                stride: out_stride,
                rows: rows.clone(),
                add,
            };
            // SAFETY: the operand has a row for each of `rows`, as deep as the panel, and
            // the output was checked above.
            unsafe {
                match input.numbers {
                    Numbers::Rounded => self.panel_widened(member, linear, panel_idx, input, to),
                    _ => self.panel(linear, panel_idx, input, to),
                }
            }
        }
    }

    /// Rows times one panel.
    unsafe fn panel(&self, linear: &Linear, panel_idx: usize, input: Operand, to: Rows) {
        let panel = self.w.panel(linear, panel_idx);
        let kernel = match input.numbers {
            Numbers::Pairs => self.kernels.tile_bf16,
            _ => self.kernels.tile_f32,
        };
        let block = if to.rows.len() > TILE_ROWS {
            DEPTH_BLOCK
        } else {
            linear.depth
        };
        for from in (0..linear.depth).step_by(block) {
            let depth = block.min(linear.depth - from);
            // SAFETY: the caller's promise, for a part of the depth.
            unsafe { to.tiles(kernel, panel.wrapping_add(from * LANES), input, from, depth) };
        }
    }

    /// Rows times one panel of bf16 pairs, a block of which is widened at a time.
    unsafe fn panel_widened(
        &self,
        member: &Member<'_>,
        linear: &Linear,
        panel_idx: usize,
        input: Operand,
        to: Rows,
    ) {
        let panel = self.w.panel(linear, panel_idx);
        for from in (0..linear.depth).step_by(DEPTH_BLOCK / 2) {
            let n = (DEPTH_BLOCK / 2).min(linear.depth - from);
            // SAFETY: a panel has `depth * LANES` elements, and `private` has a place for
            // each thread; the rest is the caller's promise.
            unsafe {
                let pairs = std::slice::from_raw_parts(panel.add(from * LANES), n * LANES);
                let widened = self
                    .private
                    .part(member.idx * self.sizes.private(), 2 * n * LANES);
                (self.kernels.widen)(pairs, widened);
                to.tiles(
                    self.kernels.tile_f32,
                    widened.as_ptr().cast(),
                    input,
                    2 * from,
                    2 * n,
                );
            }
        }
    }

    /// Activates what this thread's `linear` of the same shape wrote.
    unsafe fn activate(&self, member: &Member<'_>, block: &Block) {
        let (panels, rows) = grid(member, block.up.n_panels, self.tokens.len());
        for row in rows {
            let from = row * self.sizes.ff + panels.start * LANES;
            let len = panels.len() * LANES;
            // SAFETY: the part that `linear` gave this thread.
            unsafe {
                let up = self.up.part(from, len);
                match block.gate {
                    Some(_) => (self.kernels.gate)(self.gate.part(from, len), up),
                    None => (self.kernels.activate)(up, self.w.config.activation),
                }
            }
        }
    }

    /// Turns queries and keys by their positions, and puts keys and values in the cache.
    unsafe fn remember(&self, member: &Member<'_>, layer: usize) {
        let c = &self.w.config;
        let (d, layout) = (c.d_head(), &self.sizes.layout);
        let n_group = c.n_heads / c.n_kv_heads;
        for kv_head in member.part(c.n_kv_heads) {
            for row in 0..self.tokens.len() {
                let pos = self.start + row;
                // SAFETY: key/value heads, and with them their queries, are this thread's.
                unsafe {
                    let at = row * self.sizes.qkv;
                    if c.positions == Positions::Rope {
                        for head in kv_head * n_group..(kv_head + 1) * n_group {
                            self.turn(self.qkv.part(at + head * d, d), pos);
                        }
                        self.turn(self.qkv.part(at + c.d_model + kv_head * d, d), pos);
                    }
                    let key = self.qkv.part(at + c.d_model + kv_head * d, d);
                    let first = layout.key(layer, kv_head, pos);
                    for (i, x) in key.iter().enumerate() {
                        self.keys.at(first + i * LANES).write(*x);
                    }
                    let value = self.qkv.part(at + c.d_model + c.d_kv() + kv_head * d, d);
                    for (panel, chunk) in value.chunks(LANES).enumerate() {
                        let place = layout.value(layer, kv_head, pos, panel);
                        self.values.part(place, chunk.len()).copy_from_slice(chunk);
                    }
                }
            }
        }
    }

    /// Rotates the pairs `(i, i + d / 2)` of a head.
    fn turn(&self, head: &mut [f32], pos: usize) {
        let d = head.len();
        let (cos, sin) = self.w.positions[pos * d..][..d].split_at(d / 2);
        let (first, second) = head.split_at_mut(d / 2);
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }

    /// Attention of this thread's heads, a tile of rows at a time.
    unsafe fn attend(&self, member: &Member<'_>, layer: usize) {
        let c = &self.w.config;
        let n = self.tokens.len();
        for (block, first) in (0..n).step_by(TILE_ROWS).enumerate() {
            for head in 0..c.n_heads {
                // Later rows see more keys; dealing heads in turn keeps the shares even.
                if (block * c.n_heads + head) % member.n == member.idx {
                    // SAFETY: these rows of this head are this thread's.
                    unsafe {
                        self.attend_tile(member, layer, head, first..n.min(first + TILE_ROWS))
                    };
                }
            }
        }
    }

    unsafe fn attend_tile(
        &self,
        member: &Member<'_>,
        layer: usize,
        head: usize,
        rows: Range<usize>,
    ) {
        let c = &self.w.config;
        let (d, layout) = (c.d_head(), &self.sizes.layout);
        let kv_head = head / (c.n_heads / c.n_kv_heads);
        let n_keys = self.start + rows.end;
        let scores_stride = layout.n_positions;
        // SAFETY: `private` has a place for each thread; the cache is read only here.
        let (scores, out) = unsafe {
            let private = self
                .private
                .part(member.idx * self.sizes.private(), self.sizes.private());
            private.split_at_mut(TILE_ROWS * scores_stride)
        };
        let keys = self.keys.at(layout.keys(layer, kv_head));
        for panel in 0..n_keys.div_ceil(LANES) {
            let tile = Tile {
                depth: d,
                rows: self.qkv.at(rows.start * self.sizes.qkv + head * d).cast(),
                row_stride: self.sizes.qkv,
                n_rows: rows.len(),
                panel: keys.wrapping_add(panel * d * LANES).cast(),
                out: scores[panel * LANES..].as_mut_ptr(),
                out_stride: scores_stride,
                add: false,
            };
            // SAFETY: a head has `d` elements, a panel of keys `d * LANES`, and the scores
            // have room for whole panels.
            unsafe { (self.kernels.tile_f32)(tile) };
        }
        for (i, scores) in scores
            .chunks_exact_mut(scores_stride)
            .take(rows.len())
            .enumerate()
        {
            let n_seen = self.start + rows.start + i + 1;
            // SAFETY: the table is one that this CPU supports.
            unsafe { (self.kernels.softmax)(&mut scores[..n_seen], 1.0 / (d as f32).sqrt()) };
            scores[n_seen..n_keys].fill(0.0);
        }
        for panel in 0..layout.d_padded / LANES {
            let tile = Tile {
                depth: n_keys,
                rows: scores.as_ptr().cast(),
                row_stride: scores_stride,
                n_rows: rows.len(),
                panel: self
                    .values
                    .at(layout.value(layer, kv_head, 0, panel))
                    .cast(),
                out: out[panel * LANES..].as_mut_ptr(),
                out_stride: layout.d_padded,
                add: false,
            };
            // SAFETY: scores and a panel of values have an element per key.
            unsafe { (self.kernels.tile_f32)(tile) };
        }
        for (row, out) in rows.zip(out.chunks_exact(layout.d_padded)) {
            // SAFETY: these rows of this head are this thread's.
            unsafe { self.attended.part(row * self.sizes.d + head * d, d) }
                .copy_from_slice(&out[..d]);
        }
    }

    /// Logits of some rows, one after the other.
    unsafe fn head(&self, member: &Member<'_>, rows: Range<usize>) {
        if rows.is_empty() {
            return;
        }
        let n = rows.len();
        // SAFETY: see the type.
        unsafe {
            let input = match &self.w.norm {
                Some(norm) => {
                    self.norm(member, norm, rows.clone());
                    self.operand(member, &self.normed, self.sizes.d, rows)
                }
                None => self.operand(member, &self.x, self.sizes.d, rows),
            };
            self.linear(
                member,
                &self.w.head,
                input,
                n,
                &self.logits,
                self.sizes.vocab,
                false,
            );
        }
    }

    unsafe fn scores(&self, member: &Member<'_>, targets: &[u16]) {
        for row in member.part(targets.len()) {
            // SAFETY: rows are this thread's.
            unsafe {
                let logits = self
                    .logits
                    .part(row * self.sizes.vocab, self.w.config.vocab_size);
                let target = logits[usize::from(targets[row])];
                let nll = (self.kernels.log_sum_exp)(logits) - target;
                let rank = logits.iter().filter(|&&logit| logit > target).count();
                self.scores.part(row, 1)[0] = Score {
                    nll,
                    rank: u8::try_from(rank).unwrap_or(u8::MAX),
                };
            }
        }
    }
}

/// Where a product goes: 32 columns of some rows.
struct Rows {
    /// Of row 0, which need not be among the rows.
    start: *mut f32,
    stride: usize,
    rows: Range<usize>,
    add: bool,
}

impl Rows {
    /// Adds the product with a part of a panel, `from` elements into each row.
    ///
    /// # Safety
    ///
    /// What a kernel demands, for every row.
    unsafe fn tiles(
        &self,
        kernel: unsafe fn(Tile),
        panel: *const u32,
        input: Operand,
        from: usize,
        depth: usize,
    ) {
        for row in self.rows.clone().step_by(TILE_ROWS) {
            let tile = Tile {
                depth,
                rows: input.start.wrapping_add(row * input.stride + from),
                row_stride: input.stride,
                n_rows: TILE_ROWS.min(self.rows.end - row),
                panel,
                out: self.start.wrapping_add(row * self.stride),
                out_stride: self.stride,
                add: self.add || from > 0,
            };
            // SAFETY: the caller's promise.
            unsafe { kernel(tile) };
        }
    }
}

/// A thread's part of a product: some panels for all rows, or all panels for some rows,
/// whichever leaves the slowest thread less to do.
fn grid(member: &Member<'_>, n_panels: usize, n_rows: usize) -> (Range<usize>, Range<usize>) {
    let n_tiles = n_rows.div_ceil(TILE_ROWS);
    let by_panels = n_panels.div_ceil(member.n) * n_tiles;
    let by_rows = n_tiles.div_ceil(member.n) * n_panels;
    if by_panels <= by_rows {
        return (member.part(n_panels), 0..n_rows);
    }
    let tiles = member.part(n_tiles);
    let end = n_rows.min(tiles.end * TILE_ROWS);
    (0..n_panels, (tiles.start * TILE_ROWS).min(end)..end)
}
