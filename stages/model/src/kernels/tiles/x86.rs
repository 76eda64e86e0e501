//! Tiles in the instructions of x86 CPUs.

use std::arch::x86_64::*;

use crate::kernels::{
    int8::{GROUP, MOST_ROWS},
    tile::{LANES, TILE_ROWS, Tile},
};

/// Bytes between what is read and what is asked for meanwhile, where one row is multiplied and memory is
/// what is waited for: the CPU's own fetching ends at every page. 42M, one token after another, Xeon: int8
/// 577 tokens/s without, 790 with; bf16 435 and 520 (twice as far ahead); f32 gains nothing.
const AHEAD: usize = 1024;

/// Calls a kernel for as many rows as it is written for, then a smaller one for the rest.
macro_rules! by_rows {
    ($tile:ident, $kernel:ident, $($n:literal),+) => {{
        let mut tile = $tile;
        $(
            while tile.n_rows >= $n {
                // SAFETY: the caller's promise covers every row, and this CPU's features.
                unsafe { $kernel::<$n>(tile) };
                tile = tile.skip($n);
            }
        )+
    }};
}

/// Writes finished sums, or adds them: see [`put`](crate::kernels::tile::put).
///
/// # Safety
///
/// Each row of the tile's output is valid for `LANES` reads and writes.
#[inline]
#[expect(
    clippy::needless_range_loop,
    reason = "constant bounds keep sums in registers"
)]
#[target_feature(enable = "avx512f")]
unsafe fn put_avx512<const R: usize>(tile: Tile, sums: [[__m512; 2]; R]) {
    for r in 0..R {
        for half in 0..2 {
            // SAFETY: the caller's promise.
            unsafe {
                let out = tile.out.add(r * tile.out_stride + 16 * half);
                let sum = match tile.add {
                    true => _mm512_add_ps(_mm512_loadu_ps(out), sums[r][half]),
                    false => sums[r][half],
                };
                _mm512_storeu_ps(out, sum);
            }
        }
    }
}

/// The same of some of the columns, from one on.
///
/// # Safety
///
/// As above.
#[inline]
#[expect(
    clippy::needless_range_loop,
    reason = "constant bounds keep sums in registers"
)]
#[target_feature(enable = "avx2,fma")]
unsafe fn put_avx2<const R: usize, const V: usize>(
    tile: Tile,
    sums: [[__m256; V]; R],
    from: usize,
) {
    for r in 0..R {
        for v in 0..V {
            // SAFETY: the caller's promise.
            unsafe {
                let out = tile.out.add(r * tile.out_stride + from + 8 * v);
                let sum = match tile.add {
                    true => _mm256_add_ps(_mm256_loadu_ps(out), sums[r][v]),
                    false => sums[r][v],
                };
                _mm256_storeu_ps(out, sum);
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile_f32_avx512(tile: Tile) {
    const { assert!(TILE_ROWS == 12) };
    by_rows!(tile, rows_f32_avx512, 12, 8, 4, 2, 1);
}

#[expect(
    clippy::needless_range_loop,
    reason = "constant bounds keep sums in registers"
)]
#[target_feature(enable = "avx512f")]
unsafe fn rows_f32_avx512<const R: usize>(tile: Tile) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    let rows = tile.rows.cast::<f32>();
    // SAFETY: the caller promises these reads and writes.
    unsafe {
        let mut panel = tile.panel.cast::<f32>();
        for i in 0..tile.depth {
            let (w0, w1) = (_mm512_loadu_ps(panel), _mm512_loadu_ps(panel.add(16)));
            for r in 0..R {
                let x = _mm512_set1_ps(*rows.add(r * tile.row_stride + i));
                sums[r][0] = _mm512_fmadd_ps(x, w0, sums[r][0]);
                sums[r][1] = _mm512_fmadd_ps(x, w1, sums[r][1]);
            }
            panel = panel.add(LANES);
        }
        put_avx512(tile, sums);
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn tile_bf16_avx512(tile: Tile) {
    by_rows!(tile, rows_bf16_avx512, 12, 8, 4, 2, 1);
}

#[expect(
    clippy::needless_range_loop,
    reason = "constant bounds keep sums in registers"
)]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows_bf16_avx512<const R: usize>(tile: Tile) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: the caller promises these reads and writes; __m512bh is __m512i by another name.
    unsafe {
        let mut panel = tile.panel;
        for i in 0..tile.depth {
            let w0 = as_bf16(_mm512_loadu_si512(panel.cast()));
            let w1 = as_bf16(_mm512_loadu_si512(panel.add(16).cast()));
            if R == 1 {
                let ahead = panel.cast::<u8>().wrapping_add(2 * AHEAD);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64).cast());
            }
            for r in 0..R {
                let x = *tile.rows.add(r * tile.row_stride + i);
                let x = as_bf16(_mm512_set1_epi32(x.cast_signed()));
                sums[r][0] = _mm512_dpbf16_ps(sums[r][0], x, w0);
                sums[r][1] = _mm512_dpbf16_ps(sums[r][1], x, w1);
            }
            panel = panel.add(LANES);
        }
        put_avx512(tile, sums);
    }
}

#[inline(always)]
fn as_bf16(x: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(x) }
}

#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile_f32_avx2(tile: Tile) {
    // One row takes the whole panel at once: reading each half on its own would
    // halve what a fetched page gives. More rows do not fit the registers.
    if tile.n_rows == 1 {
        // SAFETY: the caller's promise.
        return unsafe { rows_f32_avx2::<1, 4>(tile, 0) };
    }
    for half in [0, 16] {
        let mut tile = tile;
        // SAFETY: the caller's promise covers every row and both halves.
        unsafe {
            while tile.n_rows >= 6 {
                rows_f32_avx2::<6, 2>(tile, half);
                tile = tile.skip(6);
            }
            while tile.n_rows >= 2 {
                rows_f32_avx2::<2, 2>(tile, half);
                tile = tile.skip(2);
            }
            if tile.n_rows == 1 {
                rows_f32_avx2::<1, 2>(tile, half);
            }
        }
    }
}

#[expect(
    clippy::needless_range_loop,
    reason = "constant bounds keep sums in registers"
)]
#[target_feature(enable = "avx2,fma")]
unsafe fn rows_f32_avx2<const R: usize, const V: usize>(tile: Tile, from: usize) {
    let mut sums = [[_mm256_setzero_ps(); V]; R];
    let rows = tile.rows.cast::<f32>();
    // SAFETY: the caller promises these reads and writes.
    unsafe {
        let panel = tile.panel.cast::<f32>().add(from);
        for i in 0..tile.depth {
            let mut w = [_mm256_setzero_ps(); V];
            for v in 0..V {
                w[v] = _mm256_loadu_ps(panel.add(i * LANES + 8 * v));
            }
            for r in 0..R {
                let x = _mm256_set1_ps(*rows.add(r * tile.row_stride + i));
                for v in 0..V {
                    sums[r][v] = _mm256_fmadd_ps(x, w[v], sums[r][v]);
                }
            }
        }
        put_avx2(tile, sums, from);
    }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile_int8_avx512(tile: Tile) {
    const { assert!(MOST_ROWS == 4) };
    by_rows!(tile, rows_int8_avx512, 4, 2, 1);
}

#[expect(
    clippy::needless_range_loop,
    reason = "constant bounds keep sums in registers"
)]
#[target_feature(enable = "avx512f")]
unsafe fn rows_int8_avx512<const R: usize>(tile: Tile) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    let rows = tile.rows.cast::<f32>();
    // SAFETY: the caller promises these reads and writes; a group is a line of scales, then a line
    // of bytes an input.
    unsafe {
        let mut panel = tile.panel.cast::<u8>();
        for from in (0..tile.depth).step_by(GROUP) {
            let scales = panel.cast::<f32>();
            let (s0, s1) = (_mm512_loadu_ps(scales), _mm512_loadu_ps(scales.add(16)));
            panel = panel.add(4 * LANES);
            for i in from..tile.depth.min(from + GROUP) {
                let w0 = _mm512_mul_ps(int8_avx512(panel), s0);
                let w1 = _mm512_mul_ps(int8_avx512(panel.add(16)), s1);
                _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(AHEAD).cast());
                for r in 0..R {
                    let x = _mm512_set1_ps(*rows.add(r * tile.row_stride + i));
                    sums[r][0] = _mm512_fmadd_ps(x, w0, sums[r][0]);
                    sums[r][1] = _mm512_fmadd_ps(x, w1, sums[r][1]);
                }
                panel = panel.add(LANES);
            }
        }
        put_avx512(tile, sums);
    }
}

/// # Safety
///
/// `bytes` is valid for 16 reads.
#[target_feature(enable = "avx512f")]
unsafe fn int8_avx512(bytes: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.cast()))) }
}

#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile_int8_avx2(tile: Tile) {
    by_rows!(tile, rows_int8_avx2, 2, 1);
}

#[expect(
    clippy::needless_range_loop,
    reason = "constant bounds keep sums in registers"
)]
#[target_feature(enable = "avx2,fma")]
unsafe fn rows_int8_avx2<const R: usize>(tile: Tile) {
    let mut sums = [[_mm256_setzero_ps(); 4]; R];
    let rows = tile.rows.cast::<f32>();
    // SAFETY: as in `rows_int8_avx512`.
    unsafe {
        let mut panel = tile.panel.cast::<u8>();
        for from in (0..tile.depth).step_by(GROUP) {
            let scales = panel.cast::<f32>();
            panel = panel.add(4 * LANES);
            for i in from..tile.depth.min(from + GROUP) {
                for v in 0..4 {
                    let bytes = _mm_loadl_epi64(panel.add(8 * v).cast());
                    let w = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
                    let w = _mm256_mul_ps(w, _mm256_loadu_ps(scales.add(8 * v)));
                    for r in 0..R {
                        let x = _mm256_set1_ps(*rows.add(r * tile.row_stride + i));
                        sums[r][v] = _mm256_fmadd_ps(x, w, sums[r][v]);
                    }
                }
                panel = panel.add(LANES);
            }
        }
        put_avx2(tile, sums, 0);
    }
}
