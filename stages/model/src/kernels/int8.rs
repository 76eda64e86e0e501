//! Weights of eight bits: each group of 64 inputs of an output has a scale.
//!
//! A group's panel is a line of 32 scales, then a line of 32 bytes an input. Weights become f32
//! where they are read (`byte * scale`) and are multiplied like any f32, with rows that nobody has
//! rounded: so an int8 model is, to the bit, an f32 model of other weights, and what shares a pass
//! changes no bit. llama.cpp rounds rows to eight bits too, which saves arithmetic; decoding waits
//! for memory, and that is what a quarter of the bytes saves.

use super::{
    simd::simd,
    tile::{LANES, Tile, put},
};

/// Inputs that share a scale.
pub(crate) const GROUP: usize = 64;

/// Most rows that a kernel takes; for more it pays to make panels f32 once.
pub(crate) const MOST_ROWS: usize = 4;

/// Elements of the bytes of one input.
const LINE: usize = LANES / 4;

/// Elements of a panel of so many inputs.
pub(crate) const fn panel_len(n_in: usize) -> usize {
    n_in.div_ceil(GROUP) * LANES + n_in * LINE
}

/// Fills an empty panel with rows; lanes without a row stay zero.
pub(crate) fn fill(panel: &mut [u32], rows: &[f32], n_in: usize) {
    for (lane, row) in rows.chunks_exact(n_in).enumerate() {
        let mut at = 0;
        for group in row.chunks(GROUP) {
            let largest = group.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let scale = largest / 127.0;
            panel[at + lane] = scale.to_bits();
            let per_one = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            for (line, x) in group.iter().enumerate() {
                let q = (x * per_one).round().clamp(-127.0, 127.0) as i8;
                let byte = u32::from(q.cast_unsigned()) << (8 * (lane % 4));
                panel[at + LANES + line * LINE + lane / 4] |= byte;
            }
            at += panel_len(group.len());
        }
    }
}

fn byte(line: &[u32], lane: usize) -> f32 {
    let byte = (line[lane / 4] >> (8 * (lane % 4))) as u8;
    f32::from(byte.cast_signed())
}

simd! {
    /// Makes a panel f32, `(inputs, 32)`.
    pub(crate) fn widen(panel: &[u32], out: &mut [f32]) {
        let mut panel = panel;
        for out in out.chunks_mut(GROUP * LANES) {
            let (group, rest) = panel.split_at(panel_len(out.len() / LANES));
            let (scales, lines) = group.split_at(LANES);
            let lines = lines.as_chunks::<LINE>().0;
            for (out, line) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(lines) {
                for lane in 0..LANES {
                    out[lane] = byte(line, lane) * f32::from_bits(scales[lane]);
                }
            }
            panel = rest;
        }
    }
}

/// # Safety
///
/// See [`Tiles`](super::tiles::Tiles).
pub(super) unsafe fn tile(tile: Tile) {
    // SAFETY: within what the caller promises.
    unsafe {
        let panel = std::slice::from_raw_parts(tile.panel, panel_len(tile.depth));
        for r in 0..tile.n_rows {
            let row = tile.rows.add(r * tile.row_stride).cast();
            let row = std::slice::from_raw_parts(row, tile.depth);
            let out = &mut *tile.out.add(r * tile.out_stride).cast();
            times(row, panel, out, tile.add);
        }
    }
}

simd! {
    fn times(row: &[f32], panel: &[u32], out: &mut [f32; LANES], add: bool) {
        let (mut sums, mut panel) = ([0.0; LANES], panel);
        for xs in row.chunks(GROUP) {
            let (group, rest) = panel.split_at(panel_len(xs.len()));
            let (scales, lines) = group.split_at(LANES);
            for (x, line) in xs.iter().zip(lines.as_chunks::<LINE>().0) {
                for lane in 0..LANES {
                    sums[lane] += x * (byte(line, lane) * f32::from_bits(scales[lane]));
                }
            }
            panel = rest;
        }
        put(sums, out, add);
    }
}
