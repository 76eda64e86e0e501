//! Rows times a matrix in panels, shared out among the threads of a pass.

use std::ops::Range;

use super::{pass::Pass, scratch::DEPTH_BLOCK, slab::Slab, team::Member, weights::Linear};
use crate::{
    config::ReadPrecision,
    kernels::{
        int8,
        tile::{LANES, TILE_ROWS, Tile},
        tiles,
    },
};

/// Rows to be multiplied, in the elements the kernels read.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    start: *const u32,
    stride: usize,
    numbers: Numbers,
}

/// The numbers that rows are made of, which decide how they are multiplied.
#[derive(Clone, Copy, PartialEq)]
enum Numbers {
    F32,
    /// bf16 in pairs.
    Pairs,
    /// f32 that are bf16, for panels to be widened.
    Rounded,
}

/// Every function here is run by all threads at once.
///
/// # Safety
///
/// Between two barriers a thread writes only rows or columns of its own.
impl Pass<'_> {
    /// Makes rows ready to be multiplied and waits until all are.
    pub(crate) unsafe fn operand(
        &self,
        member: &Member<'_>,
        source: &Slab<f32>,
        stride: usize,
        rows: Range<usize>,
    ) -> Operand {
        if self.model.weights.precision != ReadPrecision::Bf16 {
            member.barrier();
            return Operand {
                start: source.at(rows.start * stride).cast(),
                stride,
                numbers: Numbers::F32,
            };
        }
        let (numbers, packed_stride) = match rows.len() >= self.model.tiles.widen_from {
            true => (Numbers::Rounded, stride),
            false => (Numbers::Pairs, stride / 2),
        };
        for row in member.part(rows.len()) {
            // SAFETY: rows are this thread's.
            unsafe {
                let from = source.part((rows.start + row) * stride, stride);
                let to = self.packed.part(row * packed_stride, packed_stride);
                match numbers {
                    Numbers::Pairs => tiles::to_pairs(from, to),
                    _ => tiles::round(from, to),
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
    pub(crate) unsafe fn linear(
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
                match self.is_widened(input, n_rows) {
                    true => self.panel_widened(member, linear, panel_idx, input, to),
                    false => self.panel(linear, panel_idx, input, to),
                }
            }
        }
    }

    /// Whether panels are made f32 first. Of int8 that changes no bit: the kernel widens as well.
    fn is_widened(&self, input: Operand, n_rows: usize) -> bool {
        match self.model.weights.precision {
            ReadPrecision::Int8 => n_rows > int8::MOST_ROWS,
            _ => input.numbers == Numbers::Rounded,
        }
    }

    /// Rows times one panel.
    unsafe fn panel(&self, linear: &Linear, panel_idx: usize, input: Operand, to: Rows) {
        let panel = self.model.weights.panel(linear, panel_idx);
        let (kernel, block, block_len) = match self.model.weights.precision {
            ReadPrecision::F32 => (self.model.tiles.f32, DEPTH_BLOCK, DEPTH_BLOCK * LANES),
            ReadPrecision::Bf16 => (
                self.model.tiles.bf16,
                DEPTH_BLOCK / 2,
                DEPTH_BLOCK / 2 * LANES,
            ),
            ReadPrecision::Int8 => (
                self.model.tiles.int8,
                DEPTH_BLOCK,
                int8::panel_len(DEPTH_BLOCK),
            ),
        };
        for (idx, from) in (0..linear.depth).step_by(block).enumerate() {
            let depth = block.min(linear.depth - from);
            let panel = panel.wrapping_add(idx * block_len);
            // SAFETY: the caller's promise, for a part of the depth.
            unsafe { to.tiles(kernel, panel, input, from, depth) };
        }
    }

    /// Rows times one panel, a block of which is made f32 at a time.
    unsafe fn panel_widened(
        &self,
        member: &Member<'_>,
        linear: &Linear,
        panel_idx: usize,
        input: Operand,
        to: Rows,
    ) {
        let mut panel = self.model.weights.panel(linear, panel_idx);
        let is_int8 = self.model.weights.precision == ReadPrecision::Int8;
        let n_in = if is_int8 {
            linear.depth
        } else {
            2 * linear.depth
        };
        for from in (0..n_in).step_by(DEPTH_BLOCK) {
            let n = DEPTH_BLOCK.min(n_in - from);
            let len = match is_int8 {
                true => int8::panel_len(n),
                false => n / 2 * LANES,
            };
            // SAFETY: blocks of a panel follow each other, and `private` has a place for each
            // thread; the rest is the caller's promise.
            unsafe {
                let block = std::slice::from_raw_parts(panel, len);
                let widened = self
                    .private
                    .part(member.idx * self.model.sizes.private(), n * LANES);
                match is_int8 {
                    true => int8::widen(block, widened),
                    false => tiles::widen(block, widened),
                }
                to.tiles(
                    self.model.tiles.f32,
                    widened.as_ptr().cast(),
                    input,
                    from,
                    n,
                );
            }
            panel = panel.wrapping_add(len);
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
    /// Each row keeps the promises that [`Tiles`](crate::kernels::tiles::Tiles) asks for.
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
pub(crate) fn grid(
    member: &Member<'_>,
    n_panels: usize,
    n_rows: usize,
) -> (Range<usize>, Range<usize>) {
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
