//! Matrix products on AVX-512, in f32 and with bf16 operands.
//!
//! Both operands are first copied ("packed") into panels: `MR` rows of `a`, or `NR` columns of
//! `b`, with all numbers that are needed together next to each other. A panel's unit is 32
//! bits: one f32, or two bf16 numbers that follow each other along `k`, which is what
//! `vdpbf16ps` multiplies. The inner loop keeps a tile of `MR x NR` sums in registers.
//!
//! Numbers of `a` are broadcast one by one, so its rows may lie side by side or one after the
//! other in a panel; where a row's numbers are contiguous, the latter is a straight copy.
//!
//! Operands are packed a few megabytes at a time and used while the caches hold them. Small
//! blocks of tiles are the tasks. Each tile is computed by one task and sums along `k` in
//! order, so the result does not depend on the number of threads.

use std::{
    arch::x86_64::*,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use rayon::prelude::*;

use super::{
    level::{Level, level},
    scratch::{Line, Scratch},
    shared::Shared,
    view::View,
};
use crate::config::Precision;

const MR: usize = 12;
const NR: usize = 32;
/// Units along `k` per pass: a panel of `b` is then `DEPTH * NR * 4` bytes, 16 KB, so that the L1
/// cache has room for what streams past.
const DEPTH: usize = 128;
/// Tiles of one task: 96 rows by 128 columns.
const TASK_ROWS: usize = 8 * MR;
const TASK_COLS: usize = 4 * NR;
/// The share of an operand that is packed at a time: 4 MB of `a` and 1 MB of `b`, which the caches hold while it is used.
const BLOCK_ROWS: usize = 172 * MR;
const BLOCK_COLS: usize = 16 * NR;
const BLOCK_DEPTH: usize = 4 * DEPTH;
/// Units along `k` that one packing task copies when rows are contiguous.
const PACK_DEPTH: usize = 16;
/// Panels that one packing task copies when `k` is contiguous.
const PACK_PANELS: usize = 4;
/// Rows that one packing task copies into panels that lie by rows.
const PACK_ROWS: usize = 4 * MR;

/// Buffers of packed operands that no product is using.
static FREE: Mutex<Vec<[Vec<Line>; 2]>> = Mutex::new(Vec::new());

/// Writes a `Unit` whose functions are compiled for these features, so that the loads and
/// sums it is made of become part of them.
macro_rules! unit {
    ($unit:ty, $numbers:literal, $features:literal, $load:ident, $load_rows:ident, $sum:ident) => {
        impl Unit for $unit {
            const NUMBERS: usize = $numbers;

            #[target_feature(enable = $features)]
            unsafe fn pack_along_k<const P: usize>(out: *mut u32, x: View, row: usize) {
                let depth = x.cols().div_ceil($numbers);
                let n_rows = P.min(x.rows() - row);
                for first in (0..depth).step_by(16) {
                    let n = x.cols() - first * $numbers;
                    for group in (0..P).step_by(16) {
                        let mut block = [_mm512_setzero_si512(); 16];
                        let n_here = n_rows.saturating_sub(group).min(16);
                        for (i, line) in block.iter_mut().enumerate().take(n_here) {
                            // SAFETY: the view is within its data.
                            *line = unsafe {
                                let at = (row + group + i) * x.strides().row + first * $numbers;
                                $load(x.as_ptr().add(at), n)
                            };
                        }
                        transpose(&mut block);
                        let width = mask(P - group);
                        for (unit, &line) in block.iter().enumerate().take(depth - first) {
                            // SAFETY: the caller's promise.
                            unsafe {
                                let at = out.add((first + unit) * P + group);
                                _mm512_mask_storeu_epi32(at.cast(), width, line);
                            }
                        }
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn pack_along_rows<const P: usize>(
                out: *mut u32,
                x: View,
                row: usize,
                depths: Range<usize>,
            ) {
                assert_eq!(x.strides().row, 1);
                let n_rows = P.min(x.rows() - row);
                for unit in depths {
                    let k = unit * $numbers;
                    for i in (0..P).step_by(16) {
                        let width = 16.min(P - i);
                        let here = mask(n_rows.saturating_sub(i).min(width));
                        // SAFETY: masked lanes are neither read nor written, the rest is within
                        // the view and the panel.
                        unsafe {
                            let first = x.as_ptr().wrapping_add(k * x.strides().col + row + i);
                            let has_second = $numbers == 2 && k + 1 < x.cols();
                            let second = has_second.then(|| first.wrapping_add(x.strides().col));
                            let units = $load_rows(first, second, here);
                            _mm512_mask_storeu_epi32(
                                out.add(unit * P + i).cast(),
                                mask(width),
                                units,
                            );
                        }
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn pack_row(out: *mut u32, row: *const f32, n: usize) {
                for first in (0..n.div_ceil($numbers)).step_by(16) {
                    let at = first / DEPTH * DEPTH * MR + first % DEPTH;
                    // SAFETY: the caller's promise; depths are padded to whole lines.
                    unsafe {
                        let k = first * $numbers;
                        _mm512_storeu_si512(out.add(at).cast(), $load(row.add(k), n - k));
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn tile<const BY_ROWS: bool>(
                depth: usize,
                a: *const u32,
                b: *const u32,
                out: *mut f32,
                stride: usize,
                size: (usize, usize),
                accumulate: bool,
            ) {
                // SAFETY: the caller's promise; masked lanes are neither read nor written.
                unsafe {
                    let sums = $sum::<BY_ROWS>(depth, a, b);
                    if size == (MR, NR) {
                        for (row, sums) in sums.iter().enumerate() {
                            for (half, &sum) in sums.iter().enumerate() {
                                let at = out.add(row * stride + 16 * half);
                                let sum = match accumulate {
                                    true => _mm512_add_ps(_mm512_loadu_ps(at), sum),
                                    false => sum,
                                };
                                _mm512_storeu_ps(at, sum);
                            }
                        }
                        return;
                    }
                    // Constant indices only, or the sums would live in memory.
                    for (row, sums) in sums.iter().enumerate() {
                        if row < size.0 {
                            for (half, &sum) in sums.iter().enumerate() {
                                let mask = mask(size.1.saturating_sub(16 * half));
                                let at = out.wrapping_add(row * stride + 16 * half);
                                let sum = match accumulate {
                                    true => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), sum),
                                    false => sum,
                                };
                                _mm512_mask_storeu_ps(at, mask, sum);
                            }
                        }
                    }
                }
            }
        }
    };
}

/// One of the ways to multiply.
trait Unit {
    /// Numbers along `k` in one unit.
    const NUMBERS: usize;

    /// Packs one panel of `P` rows of `x`, whose numbers along `k` are contiguous.
    ///
    /// # Safety
    /// The unit's instructions; `out` is valid for one panel.
    unsafe fn pack_along_k<const P: usize>(out: *mut u32, x: View, row: usize);

    /// Packs these depths of one panel; `x`'s rows are contiguous.
    ///
    /// # Safety
    /// As above.
    unsafe fn pack_along_rows<const P: usize>(
        out: *mut u32,
        x: View,
        row: usize,
        depths: Range<usize>,
    );

    /// Packs `n` contiguous numbers as one row of a panel of `a` that lies by rows.
    ///
    /// # Safety
    /// The unit's instructions; `row` is valid for `n` numbers, and `out`, the row's place in the
    /// panel's first `DEPTH` units, for those units of the panel.
    unsafe fn pack_row(out: *mut u32, row: *const f32, n: usize);

    /// Sums one tile over `depth` and stores the part of it that exists.
    ///
    /// # Safety
    /// The unit's instructions; `a` and `b` are valid for `depth` steps of their panels (at most
    /// `DEPTH` if `a` lies by rows), `b` on a cache line, and `out` is valid for `size`.
    unsafe fn tile<const BY_ROWS: bool>(
        depth: usize,
        a: *const u32,
        b: *const u32,
        out: *mut f32,
        stride: usize,
        size: (usize, usize),
        accumulate: bool,
    );
}

/// Products and sums in f32.
struct F32;
/// Operands rounded to bf16, products and sums in f32.
struct Rounded;
/// Pairs of bf16 operands, sums in f32.
struct Bf16;

unit!(
    F32,
    1,
    "avx512f,avx512bw,avx512dq,avx512vl",
    load_f32,
    load_f32_rows,
    sum_f32
);
unit!(
    Rounded,
    1,
    "avx512f,avx512bw,avx512dq,avx512vl",
    load_rounded,
    load_rounded_rows,
    sum_f32
);
unit!(
    Bf16,
    2,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16",
    load_bf16,
    load_bf16_rows,
    sum_bf16
);

/// Turns 16 rows of 16 units into its columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn transpose(rows: &mut [__m512i; 16]) {
    let mut t = [_mm512_setzero_si512(); 16];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for i in 0..4 {
        let (a, b, c, d) = (t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]);
        rows[4 * i] = _mm512_unpacklo_epi64(a, c);
        rows[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
        rows[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
        rows[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // Now each quarter of 128 bits holds a finished 4 x 4 block; put the blocks in their places.
    for i in 0..4 {
        let (a, b, c, d) = (rows[i], rows[4 + i], rows[8 + i], rows[12 + i]);
        let (ab_low, ab_high) = (
            _mm512_shuffle_i32x4::<0x88>(a, b),
            _mm512_shuffle_i32x4::<0xdd>(a, b),
        );
        let (cd_low, cd_high) = (
            _mm512_shuffle_i32x4::<0x88>(c, d),
            _mm512_shuffle_i32x4::<0xdd>(c, d),
        );
        t[i] = _mm512_shuffle_i32x4::<0x88>(ab_low, cd_low);
        t[4 + i] = _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high);
        t[8 + i] = _mm512_shuffle_i32x4::<0xdd>(ab_low, cd_low);
        t[12 + i] = _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high);
    }
    *rows = t;
}

/// Up to 16 units of one row, whose numbers along `k` are contiguous.
///
/// # Safety
/// `src` is valid for `n` numbers (all six loads: and the CPU has the features).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn load_f32(src: *const f32, n: usize) -> __m512i {
    // SAFETY: the caller's promise; masked lanes are not read.
    unsafe { _mm512_maskz_loadu_epi32(mask(n), src.cast()) }
}

/// One unit of up to 16 rows that are contiguous; `second` is where the second number along
/// `k` stands, for units of two, if there is one.
///
/// # Safety
/// `first` and `second` are valid where `mask` is set.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn load_f32_rows(first: *const f32, _: Option<*const f32>, mask: u16) -> __m512i {
    // SAFETY: the caller's promise; masked lanes are not read.
    unsafe { _mm512_maskz_loadu_epi32(mask, first.cast()) }
}

/// # Safety
/// As for `load_f32`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn load_rounded(src: *const f32, n: usize) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { round(load_f32(src, n)) }
}

/// # Safety
/// As for `load_f32_rows`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn load_rounded_rows(first: *const f32, _: Option<*const f32>, mask: u16) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { round(load_f32_rows(first, None, mask)) }
}

/// Rounds to the nearest bf16, ties to even.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn round(x: __m512i) -> __m512i {
    let odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(1));
    let up = _mm512_add_epi32(x, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    // Adding must not turn a number that is none into one.
    let number = _mm512_castsi512_ps(x);
    let none = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(number, number);
    let up = _mm512_mask_mov_epi32(up, none, x);
    _mm512_and_si512(up, _mm512_set1_epi32(0xffff_0000_u32 as i32))
}

/// # Safety
/// As for `load_f32`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn load_bf16(src: *const f32, n: usize) -> __m512i {
    // SAFETY: the caller's promise; masked lanes are not read, `wrapping_add` may leave the data.
    unsafe {
        let low = _mm512_maskz_loadu_ps(mask(n), src);
        let high = _mm512_maskz_loadu_ps(mask(n.saturating_sub(16)), src.wrapping_add(16));
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// # Safety
/// As for `load_f32_rows`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn load_bf16_rows(first: *const f32, second: Option<*const f32>, mask: u16) -> __m512i {
    // SAFETY: the caller's promise; both types are 512 bits of any value.
    unsafe {
        let low = _mm512_maskz_loadu_ps(mask, first);
        let high = match second {
            Some(second) => _mm512_maskz_loadu_ps(mask, second),
            None => _mm512_setzero_ps(),
        };
        // The conversion puts all of `low` below all of `high`; alternate them.
        let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        let order = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20,
            4, 19, 3, 18, 2, 17, 1, 16, 0,
        );
        _mm512_permutexvar_epi16(order, both)
    }
}

/// The sums of one tile.
///
/// # Safety
/// As for `Unit::tile`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn sum_f32<const BY_ROWS: bool>(
    depth: usize,
    a: *const u32,
    b: *const u32,
) -> [[__m512; 2]; MR] {
    let mut sums = [[_mm512_setzero_ps(); 2]; MR];
    let (mut a, mut b) = (a.cast::<f32>(), b.cast::<f32>());
    for _ in 0..depth {
        // SAFETY: the caller's promise.
        unsafe {
            let (b0, b1) = (_mm512_load_ps(b), _mm512_load_ps(b.add(16)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(if BY_ROWS { row * DEPTH } else { row }));
                sums[0] = _mm512_fmadd_ps(a, b0, sums[0]);
                sums[1] = _mm512_fmadd_ps(a, b1, sums[1]);
            }
            (a, b) = (a.add(if BY_ROWS { 1 } else { MR }), b.add(NR));
        }
    }
    sums
}

/// # Safety
/// As for `Unit::tile`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn sum_bf16<const BY_ROWS: bool>(
    depth: usize,
    a: *const u32,
    b: *const u32,
) -> [[__m512; 2]; MR] {
    let mut sums = [[_mm512_setzero_ps(); 2]; MR];
    let (mut a, mut b) = (a, b);
    for _ in 0..depth {
        // SAFETY: the caller's promise; both types are 512 bits of any value.
        unsafe {
            let b0 = _mm512_load_si512(b.cast());
            let b1 = _mm512_load_si512(b.add(16).cast());
            let b0 = std::mem::transmute::<__m512i, __m512bh>(b0);
            let b1 = std::mem::transmute::<__m512i, __m512bh>(b1);
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = a.add(if BY_ROWS { row * DEPTH } else { row });
                let a = _mm512_set1_epi32(a.cast::<i32>().read());
                let a = std::mem::transmute::<__m512i, __m512bh>(a);
                sums[0] = _mm512_dpbf16_ps(sums[0], a, b0);
                sums[1] = _mm512_dpbf16_ps(sums[1], a, b1);
            }
            (a, b) = (a.add(if BY_ROWS { 1 } else { MR }), b.add(NR));
        }
    }
    sums
}

/// Returns false where this CPU cannot, and for large products in f32: the `gemm` crate is a
/// few per cent faster there. It cannot round while it packs, and starts slower on small ones.
pub(super) fn multiply(
    out: &mut [f32],
    accumulate: bool,
    a: View,
    b: View,
    precision: Precision,
) -> bool {
    match (precision, level()) {
        (Precision::F32, _) | (_, Level::Plain | Level::Avx2) => return false,
        (Precision::Bf16, Level::Avx512) => multiply_as::<Rounded>(out, accumulate, a, b),
        (Precision::Bf16, Level::Avx512Bf16) => multiply_as::<Bf16>(out, accumulate, a, b),
    }
    true
}

/// # Safety
/// As for `matmul::multiply_local`.
pub(super) unsafe fn multiply_local(
    out: *mut f32,
    stride: usize,
    accumulate: bool,
    a: View,
    b: View,
    precision: Precision,
    scratch: &mut Scratch,
) -> bool {
    let panels = &mut scratch.panels;
    let multiply = match (precision, level()) {
        (_, Level::Plain | Level::Avx2) => return false,
        (Precision::F32, _) => multiply_local_as::<F32>,
        (Precision::Bf16, Level::Avx512) => multiply_local_as::<Rounded>,
        (Precision::Bf16, Level::Avx512Bf16) => multiply_local_as::<Bf16>,
    };
    // SAFETY: the caller's promise.
    unsafe { multiply(out, stride, accumulate, a, b, panels) };
    true
}

#[inline]
fn mask(n: usize) -> u16 {
    ((1u32 << n.min(16)) - 1) as u16
}

/// Lines that hold `rows` rows in panels of `P`.
fn n_lines<const P: usize>(rows: usize, depth: usize) -> usize {
    (rows.div_ceil(P) * depth * P).div_ceil(16)
}

fn at_least(lines: &mut Vec<Line>, n: usize) -> &mut [Line] {
    if lines.len() < n {
        lines.resize(n, Line::default());
    }
    &mut lines[..n]
}

fn multiply_as<U: Unit>(out: &mut [f32], accumulate: bool, a: View, b: View) {
    let (m, n, k) = (a.rows(), b.cols(), a.cols());
    assert!(out.len() >= m * n);
    let out = Shared(out.as_mut_ptr());
    let free = || FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let [mut a_lines, mut b_lines] = free().pop().unwrap_or_default();
    for rows in blocks(m, BLOCK_ROWS, MR) {
        for depths in blocks(k, BLOCK_DEPTH * U::NUMBERS, U::NUMBERS) {
            let a = a.part(rows.clone(), depths.clone());
            let depth = depths.len().div_ceil(U::NUMBERS);
            let a_depth = depth.next_multiple_of(DEPTH);
            let a_panels = at_least(&mut a_lines, n_lines::<MR>(rows.len(), a_depth));
            let by_rows = a.strides().col == 1;
            match by_rows {
                true => pack_by_rows::<U>(a_panels, a, a_depth),
                false => pack::<U, MR>(a_panels, a, a_depth),
            }
            let multiply = match by_rows {
                true => multiply_panels::<U, true>,
                false => multiply_panels::<U, false>,
            };
            for cols in blocks(n, BLOCK_COLS, NR) {
                let b = b.part(depths.clone(), cols.clone());
                let b_panels = at_least(&mut b_lines, n_lines::<NR>(cols.len(), depth));
                pack::<U, NR>(b_panels, b.t(), depth);
                let size = (rows.len(), cols.len(), depth);
                let accumulate = accumulate || depths.start > 0;
                // SAFETY: the block is within `out` (asserted), which is borrowed.
                unsafe {
                    let out = Shared(out.at(rows.start * n + cols.start));
                    multiply(out, n, accumulate, a_panels, b_panels, size);
                }
            }
        }
    }
    free().push([a_lines, b_lines]);
}

/// Cuts `0..n` into equal parts of at most about `most`, each but the last a multiple of `unit`.
fn blocks(n: usize, most: usize, unit: usize) -> impl Iterator<Item = Range<usize>> {
    let n_blocks = n.div_ceil(most).max(1);
    let size = n.div_ceil(n_blocks).next_multiple_of(unit);
    (0..n)
        .step_by(size)
        .map(move |from| from..n.min(from + size))
}

/// # Safety
/// `out` must be valid for `m` rows of `n` numbers, `stride` apart, and no other thread's meanwhile.
unsafe fn multiply_panels<U: Unit, const BY_ROWS: bool>(
    out: Shared<f32>,
    stride: usize,
    accumulate: bool,
    a_panels: &[Line],
    b_panels: &[Line],
    (m, n, depth): (usize, usize, usize),
) {
    let a_depth = depth.next_multiple_of(DEPTH);
    assert!(a_panels.len() >= n_lines::<MR>(m, a_depth));
    assert!(b_panels.len() >= n_lines::<NR>(n, depth));
    let n_across = n.div_ceil(TASK_COLS);
    let n_tasks = m.div_ceil(TASK_ROWS) * n_across;
    (0..n_tasks)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            // Neighbouring tasks share a block of `a`, which stays in the L2 cache.
            let (i0, j0) = (task / n_across * TASK_ROWS, task % n_across * TASK_COLS);
            let (i1, j1) = (m.min(i0 + TASK_ROWS), n.min(j0 + TASK_COLS));
            for k0 in (0..depth).step_by(DEPTH) {
                let len = DEPTH.min(depth - k0);
                for j in (j0..j1).step_by(NR) {
                    for i in (i0..i1).step_by(MR) {
                        let size = (MR.min(m - i), NR.min(n - j));
                        // SAFETY: the level has the instructions; panel offsets are within the lengths
                        // asserted above; `out` is the caller's promise, and no other task has this tile.
                        unsafe {
                            let a = a_panels.as_ptr().cast::<u32>().add(i * a_depth + k0 * MR);
                            let b = b_panels.as_ptr().cast::<u32>().add(j * depth + k0 * NR);
                            let at = out.at(i * stride + j);
                            U::tile::<BY_ROWS>(len, a, b, at, stride, size, accumulate || k0 > 0);
                        }
                    }
                }
            }
        });
}

/// # Safety
/// As for `matmul::multiply_local`, on a CPU with the unit's instructions.
unsafe fn multiply_local_as<U: Unit>(
    out: *mut f32,
    stride: usize,
    accumulate: bool,
    a: View,
    b: View,
    panels: &mut Vec<Line>,
) {
    let (m, n, k) = (a.rows(), b.cols(), a.cols());
    let depth = k.div_ceil(U::NUMBERS);
    let n_b = n_lines::<NR>(n, depth);
    let panels = at_least(panels, n_b + n_lines::<MR>(m, depth));
    let (b_panels, a_panels) = panels.split_at_mut(n_b);
    // SAFETY: the level has the instructions, the panels are large enough, and `out` is the caller's promise.
    unsafe {
        pack_panels::<U, MR>(a_panels.as_mut_ptr().cast(), a, depth, 0..m.div_ceil(MR));
        pack_panels::<U, NR>(
            b_panels.as_mut_ptr().cast(),
            b.t(),
            depth,
            0..n.div_ceil(NR),
        );
        for j in (0..n).step_by(NR) {
            for i in (0..m).step_by(MR) {
                let a = a_panels.as_ptr().cast::<u32>().add(i * depth);
                let b = b_panels.as_ptr().cast::<u32>().add(j * depth);
                let size = (MR.min(m - i), NR.min(n - j));
                U::tile::<false>(
                    depth,
                    a,
                    b,
                    out.add(i * stride + j),
                    stride,
                    size,
                    accumulate,
                );
            }
        }
    }
}

/// Packs the rows of `a`, whose numbers along `k` are contiguous, one after the other into panels
/// of `depth` units; each `DEPTH` of them lie together.
fn pack_by_rows<U: Unit>(panels: &mut [Line], a: View, depth: usize) {
    assert!(a.strides().col == 1 && depth.is_multiple_of(DEPTH));
    assert!(depth * U::NUMBERS >= a.cols() && panels.len() >= n_lines::<MR>(a.rows(), depth));
    let out = Shared(panels.as_mut_ptr().cast::<u32>());
    (0..a.rows().div_ceil(PACK_ROWS))
        .into_par_iter()
        .for_each(|group| {
            let first = group * PACK_ROWS;
            for i in first..a.rows().min(first + PACK_ROWS) {
                // SAFETY: the level has the instructions, the view is within its data, the panels
                // are large enough, and no other task has this row.
                unsafe {
                    let row = a.as_ptr().add(i * a.strides().row);
                    let out = out.at(i / MR * MR * depth + i % MR * DEPTH);
                    U::pack_row(out, row, a.cols());
                }
            }
        });
}

/// Packs all rows of `x` into panels of `P` rows and `panel_depth` units.
fn pack<U: Unit, const P: usize>(panels: &mut [Line], x: View, panel_depth: usize) {
    let depth = x.cols().div_ceil(U::NUMBERS);
    let n_panels = x.rows().div_ceil(P);
    assert!(panel_depth >= depth && panels.len() >= n_lines::<P>(x.rows(), panel_depth));
    let out = Shared(panels.as_mut_ptr().cast::<u32>());
    if x.strides().col == 1 {
        (0..n_panels.div_ceil(PACK_PANELS))
            .into_par_iter()
            .for_each(|group| {
                let first = group * PACK_PANELS;
                let last = n_panels.min(first + PACK_PANELS);
                // SAFETY: the panels are large enough, and no other task has these.
                unsafe { pack_panels::<U, P>(out.at(0), x, panel_depth, first..last) };
            });
    } else {
        // Rows are contiguous: reading a whole row of panels at one depth is a stream.
        (0..depth.div_ceil(PACK_DEPTH))
            .into_par_iter()
            .for_each(|block| {
                let first = block * PACK_DEPTH;
                let last = depth.min(first + PACK_DEPTH);
                for panel in 0..n_panels {
                    // SAFETY: as above; no other task has these depths.
                    unsafe {
                        U::pack_along_rows::<P>(
                            out.at(panel * panel_depth * P),
                            x,
                            panel * P,
                            first..last,
                        )
                    };
                }
            });
    }
}

/// # Safety
/// `out` must hold all panels of `x`; no other thread may touch these ones meanwhile.
unsafe fn pack_panels<U: Unit, const P: usize>(
    out: *mut u32,
    x: View,
    panel_depth: usize,
    panels: Range<usize>,
) {
    let depth = x.cols().div_ceil(U::NUMBERS);
    for panel in panels {
        // SAFETY: the caller's promise.
        unsafe {
            let out = out.add(panel * panel_depth * P);
            if x.strides().col == 1 {
                U::pack_along_k::<P>(out, x, panel * P);
            } else {
                U::pack_along_rows::<P>(out, x, panel * P, 0..depth);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skipped::skipped;

    /// The chosen units are tested with `matmul`; this one may not be chosen on this CPU.
    #[test]
    fn pairs_and_rounded_operands_give_the_same_products() {
        if !is_x86_feature_detected!("avx512bf16") {
            skipped("this CPU has no bf16 products");
            return;
        }
        for (m, n, k) in [(1, 1, 1), (13, 33, 7), (50, 70, 65), (100, 130, 1030)] {
            let number = |i: usize| ((i * 7919 % 1013) as f32 - 500.0) / 300.0;
            let a: Vec<f32> = (0..m * k).map(number).collect();
            let b: Vec<f32> = (0..n * k).map(|i| number(i + 5)).collect();
            for transposed in [false, true] {
                let a = if transposed {
                    View::new(&a, m).t()
                } else {
                    View::new(&a, k)
                };
                let b = if transposed {
                    View::new(&b, k).t()
                } else {
                    View::new(&b, n)
                };
                let (mut pairs, mut rounded) = (vec![0.5; m * n], vec![0.5; m * n]);
                multiply_as::<Bf16>(&mut pairs, transposed, a, b);
                multiply_as::<Rounded>(&mut rounded, transposed, a, b);
                for (pairs, rounded) in pairs.iter().zip(&rounded) {
                    let bound = 1e-5 * k as f32;
                    assert!(
                        (pairs - rounded).abs() < bound,
                        "{m} {n} {k}: {pairs} {rounded}"
                    );
                }
            }
        }
    }
}
