//! Products of a few rows with weights that stand in panels: what generation is made of.
//!
//! A *panel* holds 32 outputs of a matrix, its inputs following one another
//! (`panel[depth][32]`). A product then needs no sums across lanes and reads memory in one
//! straight line. It is the same loop for a prompt of many rows, for the single row of
//! decoding, and for attention, whose keys and values are kept as panels too.
//!
//! In bf16 a lane holds two inputs that follow one another, and so does each element of a row.
//! CPUs without products of bf16 pairs widen both to f32, slower but to the same sums. Many
//! rows are another matter: Intel's `vdpbf16ps` does half as many a cycle as two f32 products,
//! so there a block of a panel is widened once and multiplied in f32 (42M, prompts of 256
//! tokens, two threads: 3,665 tokens/s before, 4,861 after).
//!
//! These are not the training engine's panels: those are packed anew for each product, which is
//! right when weights change after each step and rows are many, and would double the memory
//! traffic of decoding, which is nothing but memory traffic.

use super::{
    int8,
    level::{Level, level_of_few_rows},
    math::{bf16_bits, bf16_pair},
    simd::simd,
    tile::{LANES, Tile, put},
};

#[cfg(target_arch = "x86_64")]
mod x86;

/// The products of one kernel set.
///
/// # Safety
///
/// A tile's pointers must be valid for what its sizes say: rows for
/// `(n_rows - 1) * row_stride + depth` reads, the panel for `depth * LANES` (of int8 for
/// [`int8::panel_len`] and at most [`int8::MOST_ROWS`] rows), and each of the
/// `n_rows` rows of `out` for `LANES` reads and writes that nobody else makes meanwhile.
/// The CPU must have the level's instructions.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    pub(crate) level: Level,
    pub(crate) f32: unsafe fn(Tile),
    pub(crate) bf16: unsafe fn(Tile),
    pub(crate) int8: unsafe fn(Tile),
    /// From how many rows on `bf16` is slower than widening and `f32`.
    pub(crate) widen_from: usize,
}

impl Tiles {
    /// Returns the fastest products for a few rows on this CPU.
    pub(crate) fn best() -> Tiles {
        Tiles::of(level_of_few_rows())
    }

    /// Returns those of every set of this CPU.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Tiles> {
        let levels = super::level::supported_levels();
        levels.into_iter().map(Tiles::of).collect()
    }

    fn of(level: Level) -> Tiles {
        let tiles = |f32, bf16, int8, widen_from| Tiles {
            level,
            f32,
            bf16,
            int8,
            widen_from,
        };
        match level {
            Level::Plain => tiles(tile_f32, tile_bf16, int8::tile, 3),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => tiles(x86::tile_f32_avx2, tile_bf16, x86::tile_int8_avx2, 3),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => tiles(x86::tile_f32_avx512, tile_bf16, x86::tile_int8_avx512, 3),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => {
                let widen_from = if super::level::is_amd() {
                    usize::MAX
                } else {
                    6
                };
                tiles(
                    x86::tile_f32_avx512,
                    x86::tile_bf16_avx512,
                    x86::tile_int8_avx512,
                    widen_from,
                )
            }
        }
    }
}

/// # Safety
///
/// See [`Tiles`].
unsafe fn tile_f32(tile: Tile) {
    // SAFETY: within what the caller promises.
    unsafe {
        let panel = std::slice::from_raw_parts(tile.panel.cast(), tile.depth);
        for r in 0..tile.n_rows {
            let row = tile.rows.add(r * tile.row_stride).cast();
            let out = &mut *tile.out.add(r * tile.out_stride).cast();
            row_f32(
                std::slice::from_raw_parts(row, tile.depth),
                panel,
                out,
                tile.add,
            );
        }
    }
}

/// # Safety
///
/// See [`Tiles`].
unsafe fn tile_bf16(tile: Tile) {
    // SAFETY: within what the caller promises.
    unsafe {
        let panel = std::slice::from_raw_parts(tile.panel.cast(), tile.depth);
        for r in 0..tile.n_rows {
            let row = tile.rows.add(r * tile.row_stride);
            let out = &mut *tile.out.add(r * tile.out_stride).cast();
            row_bf16(
                std::slice::from_raw_parts(row, tile.depth),
                panel,
                out,
                tile.add,
            );
        }
    }
}

simd! {
    fn row_f32(row: &[f32], panel: &[[f32; LANES]], out: &mut [f32; LANES], add: bool) {
        let mut sums = [0.0; LANES];
        for (&x, lanes) in row.iter().zip(panel) {
            for (sum, w) in sums.iter_mut().zip(lanes) {
                *sum += x * w;
            }
        }
        put(sums, out, add);
    }
}

simd! {
    fn row_bf16(row: &[u32], panel: &[[u32; LANES]], out: &mut [f32; LANES], add: bool) {
        let mut sums = [0.0; LANES];
        for (&pair, lanes) in row.iter().zip(panel) {
            let (x0, x1) = both(pair);
            for (sum, &w) in sums.iter_mut().zip(lanes) {
                let (w0, w1) = both(w);
                *sum += x0 * w0 + x1 * w1;
            }
        }
        put(sums, out, add);
    }
}

#[inline(always)]
fn both(pair: u32) -> (f32, f32) {
    let (low, high) = (pair << 16, pair & 0xffff_0000);
    (f32::from_bits(low), f32::from_bits(high))
}

simd! {
    /// Spreads bf16 pairs: 32 lanes of one element become two times 32 f32.
    pub(crate) fn widen(pairs: &[u32], out: &mut [f32]) {
        let pairs = pairs.as_chunks::<LANES>().0;
        let out = out.as_chunks_mut::<LANES>().0;
        for (pairs, [first, second]) in pairs.iter().zip(out.as_chunks_mut::<2>().0) {
            for lane in 0..LANES {
                (first[lane], second[lane]) = both(pairs[lane]);
            }
        }
    }
}

simd! {
    /// Rounds a row to bf16 and leaves it f32.
    pub(crate) fn round(x: &[f32], out: &mut [u32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = bf16_bits(*x) << 16;
        }
    }
}

simd! {
    /// Rounds a row to pairs of bf16.
    pub(crate) fn to_pairs(x: &[f32], out: &mut [u32]) {
        for (out, x) in out.iter_mut().zip(x.as_chunks::<2>().0) {
            *out = bf16_pair(x[0], x[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tile::TILE_ROWS;

    /// A number that looks random and is the same on every machine.
    fn noise(i: usize) -> f32 {
        let mut x = (i as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    #[test]
    fn every_cpu_computes_the_same_tile() {
        for tiles in Tiles::all() {
            for n_rows in 1..=TILE_ROWS {
                for add in [false, true] {
                    check_f32(&tiles, n_rows, 37, add);
                    check_bf16(&tiles, n_rows, 37, add);
                }
            }
        }
    }

    fn check_f32(tiles: &Tiles, n_rows: usize, depth: usize, add: bool) {
        let rows: Vec<f32> = (0..n_rows * 40).map(noise).collect();
        let panel: Vec<f32> = (0..depth * LANES).map(|i| noise(i + 7_000)).collect();
        let mut out: Vec<f32> = (0..n_rows * 33).map(|i| noise(i + 9_000)).collect();
        let before = out.clone();
        let tile = Tile {
            depth,
            rows: rows.as_ptr().cast(),
            row_stride: 40,
            n_rows,
            panel: panel.as_ptr().cast(),
            out: out.as_mut_ptr(),
            out_stride: 33,
            add,
        };
        // SAFETY: the vectors hold `n_rows` rows of these strides, the last one included.
        unsafe { (tiles.f32)(tile) };
        for r in 0..n_rows {
            for lane in 0..LANES {
                let start = if add {
                    f64::from(before[r * 33 + lane])
                } else {
                    0.0
                };
                let want = (0..depth).fold(start, |sum, i| {
                    sum + f64::from(rows[r * 40 + i]) * f64::from(panel[i * LANES + lane])
                });
                let found = f64::from(out[r * 33 + lane]);
                assert!(
                    (found - want).abs() < 1e-5,
                    "{}: {found} {want}",
                    tiles.level.name()
                );
            }
            assert_eq!(
                out[r * 33 + 32],
                before[r * 33 + 32],
                "wrote past the panel"
            );
        }
    }

    /// A residual stream is large in places: a sum is made before it is added, or each of its many
    /// products would be rounded to the precision of a large number.
    #[test]
    fn small_products_added_to_a_large_number_are_rounded_once() {
        let (depth, large) = (512, 30_000.0);
        let rows: Vec<f32> = (0..depth).map(noise).collect();
        let panel: Vec<f32> = (0..depth * LANES).map(|i| noise(i + 7_000)).collect();
        for tiles in Tiles::all() {
            let mut out = [large; LANES];
            let tile = Tile {
                depth,
                rows: rows.as_ptr().cast(),
                row_stride: depth,
                n_rows: 1,
                panel: panel.as_ptr().cast(),
                out: out.as_mut_ptr(),
                out_stride: LANES,
                add: true,
            };
            // SAFETY: the vectors hold a row and a panel of this depth.
            unsafe { (tiles.f32)(tile) };
            for (lane, found) in out.into_iter().enumerate() {
                let products =
                    (0..depth).map(|i| f64::from(rows[i]) * f64::from(panel[i * LANES + lane]));
                let want = f64::from(large) + products.sum::<f64>();
                // Half of the distance between two numbers of this size, and little more.
                assert!(
                    (f64::from(found) - want).abs() < 1.1e-3,
                    "{}",
                    tiles.level.name()
                );
            }
        }
    }

    fn check_bf16(tiles: &Tiles, n_rows: usize, depth: usize, add: bool) {
        let pair = |i: usize| bf16_pair(noise(2 * i), noise(2 * i + 1));
        let rows: Vec<u32> = (0..n_rows * 40).map(pair).collect();
        let panel: Vec<u32> = (0..depth * LANES).map(|i| pair(i + 7_000)).collect();
        let mut out = vec![0.5; n_rows * LANES];
        let tile = Tile {
            depth,
            rows: rows.as_ptr(),
            row_stride: 40,
            n_rows,
            panel: panel.as_ptr(),
            out: out.as_mut_ptr(),
            out_stride: LANES,
            add,
        };
        // SAFETY: the vectors hold `n_rows` rows of these strides, the last one included.
        unsafe { (tiles.bf16)(tile) };
        let half = |bits: u32| f64::from(f32::from_bits(bits << 16));
        for r in 0..n_rows {
            for lane in 0..LANES {
                let start = if add { 0.5 } else { 0.0 };
                let want = (0..depth).fold(start, |sum, i| {
                    let (x, w) = (rows[r * 40 + i], panel[i * LANES + lane]);
                    sum + half(x & 0xffff) * half(w & 0xffff) + half(x >> 16) * half(w >> 16)
                });
                let found = f64::from(out[r * LANES + lane]);
                assert!(
                    (found - want).abs() < 1e-4,
                    "{}: {found} {want}",
                    tiles.level.name()
                );
            }
        }
    }

    #[test]
    fn widening_and_rounding_agree_with_pairs() {
        let x: Vec<f32> = (0..6 * LANES).map(noise).collect();
        let pairs: Vec<u32> = (0..3 * LANES)
            .map(|i| {
                let at = i / LANES * 2 * LANES + i % LANES;
                bf16_pair(x[at], x[at + LANES])
            })
            .collect();
        let (mut widened, mut rounded) = (vec![0.0; x.len()], vec![0; x.len()]);
        widen(&pairs, &mut widened);
        round(&x, &mut rounded);
        let rounded: Vec<f32> = rounded.into_iter().map(f32::from_bits).collect();
        assert_eq!(widened, rounded);
        assert_ne!(widened, x);
    }
}
