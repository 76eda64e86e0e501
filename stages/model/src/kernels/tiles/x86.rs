//! Tiles in the instructions of x86 CPUs.

use std::arch::x86_64::*;

use crate::kernels::tile::{LANES, TILE_ROWS, Tile};

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
        for r in 0..R {
            let out = tile.out.add(r * tile.out_stride);
            if tile.add {
                sums[r][0] = _mm512_add_ps(_mm512_loadu_ps(out), sums[r][0]);
                sums[r][1] = _mm512_add_ps(_mm512_loadu_ps(out.add(16)), sums[r][1]);
            }
            _mm512_storeu_ps(out, sums[r][0]);
            _mm512_storeu_ps(out.add(16), sums[r][1]);
        }
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
            for r in 0..R {
                let x = *tile.rows.add(r * tile.row_stride + i);
                let x = as_bf16(_mm512_set1_epi32(x.cast_signed()));
                sums[r][0] = _mm512_dpbf16_ps(sums[r][0], x, w0);
                sums[r][1] = _mm512_dpbf16_ps(sums[r][1], x, w1);
            }
            panel = panel.add(LANES);
        }
        for r in 0..R {
            let out = tile.out.add(r * tile.out_stride);
            if tile.add {
                sums[r][0] = _mm512_add_ps(_mm512_loadu_ps(out), sums[r][0]);
                sums[r][1] = _mm512_add_ps(_mm512_loadu_ps(out.add(16)), sums[r][1]);
            }
            _mm512_storeu_ps(out, sums[r][0]);
            _mm512_storeu_ps(out.add(16), sums[r][1]);
        }
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
        for r in 0..R {
            for v in 0..V {
                let out = tile.out.add(r * tile.out_stride + from + 8 * v);
                if tile.add {
                    sums[r][v] = _mm256_add_ps(_mm256_loadu_ps(out), sums[r][v]);
                }
                _mm256_storeu_ps(out, sums[r][v]);
            }
        }
    }
}
