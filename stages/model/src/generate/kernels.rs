//! The arithmetic of generation, once for each kind of CPU, chosen when the program runs.
//!
//! Everything large is one operation: a few rows times one *panel*. A panel holds 32
//! outputs of a matrix, its inputs following one another (`panel[depth][32]`), so the
//! product needs no sums across lanes, reads memory in one straight line, and is the
//! same loop for a prompt of many rows, for the single row of decoding, and for
//! attention, whose keys and values are kept as panels too.
//!
//! In bf16 a lane holds two inputs that follow one another, and so does each element
//! of a row. CPUs without bf16 products widen both to f32, slower but to the same sums.
//! Many rows are another matter: Intel's `vdpbf16ps` does half as many a cycle as two
//! f32 products, so there a block of a panel is widened once and multiplied in f32
//! (42M, prompts of 256 tokens, two threads: 3,665 tokens/s before, 4,861 after).
//!
//! Not the training engine's kernels: those repack their weights on each call, which
//! is right when weights change after each step and rows are many, and would double
//! the memory traffic of decoding, which is nothing but memory traffic.

use crate::config::Activation;

/// Outputs in one panel.
pub(crate) const LANES: usize = 32;

/// Most rows one call of a tile kernel takes.
pub(crate) const TILE_ROWS: usize = 12;

/// A few rows times one panel: `out[r][lane] (+)= sum over i of rows[r][i] * panel[i][lane]`.
///
/// Elements are 32 bits wide: one f32, or two bf16 of which the first is the lower half.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) depth: usize,
    pub(crate) rows: *const u32,
    pub(crate) row_stride: usize,
    pub(crate) n_rows: usize,
    pub(crate) panel: *const u32,
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
    pub(crate) add: bool,
}

impl Tile {
    /// The part of this tile that starts `n` rows later.
    fn skip(self, n: usize) -> Tile {
        Tile {
            rows: self.rows.wrapping_add(n * self.row_stride),
            out: self.out.wrapping_add(n * self.out_stride),
            n_rows: self.n_rows - n,
            ..self
        }
    }
}

/// The operations for one kind of CPU.
///
/// # Safety
///
/// A tile's pointers must be valid for what its sizes say: rows for
/// `(n_rows - 1) * row_stride + depth` reads, the panel for `depth * LANES`, `out` for
/// `(n_rows - 1) * out_stride + LANES` reads and writes nobody else makes meanwhile.
/// `supported` must have returned the table: its functions use what that CPU has.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    pub(crate) name: &'static str,
    pub(crate) tile_f32: unsafe fn(Tile),
    pub(crate) tile_bf16: unsafe fn(Tile),
    /// From how many rows on `tile_bf16` is slower than widening and `tile_f32`.
    pub(crate) widen_from: usize,
    /// Spreads bf16 pairs: 32 lanes of one element become two times 32 f32.
    pub(crate) widen: unsafe fn(&[u32], &mut [f32]),
    /// Rounds a row to bf16 and leaves it f32.
    pub(crate) round: unsafe fn(&[f32], &mut [u32]),
    /// Replaces scores by their probabilities after multiplying by the scale.
    pub(crate) softmax: unsafe fn(&mut [f32], f32),
    /// Writes the normalised first argument to the second.
    pub(crate) layer_norm: unsafe fn(&[f32], &mut [f32], &Affine<'_>, f32),
    pub(crate) rms_norm: unsafe fn(&[f32], &mut [f32], &Affine<'_>, f32),
    pub(crate) activate: unsafe fn(&mut [f32], Activation),
    /// Multiplies the activated gate into the second argument.
    pub(crate) gate: unsafe fn(&[f32], &mut [f32]),
    /// Rounds a row to pairs of bf16.
    pub(crate) to_bf16: unsafe fn(&[f32], &mut [u32]),
    /// Returns the logarithm of the summed exponentials.
    pub(crate) log_sum_exp: unsafe fn(&[f32]) -> f32,
}

/// What a norm multiplies by and adds.
pub(crate) struct Affine<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
}

impl Kernels {
    /// Returns the fastest table this CPU can run.
    pub(crate) fn best() -> Kernels {
        Kernels::supported().swap_remove(0)
    }

    /// Returns every table this CPU can run, the fastest first.
    pub(crate) fn supported() -> Vec<Kernels> {
        let mut tables = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx512 && avx2 && is_x86_feature_detected!("avx512bf16") {
                tables.push(Kernels {
                    name: "avx512bf16",
                    tile_bf16: x86::tile_bf16_avx512,
                    widen_from: if x86::is_amd() { usize::MAX } else { 6 },
                    ..avx512::TABLE
                });
            }
            if avx512 && avx2 {
                tables.push(avx512::TABLE);
            }
            if avx2 {
                tables.push(avx2::TABLE);
            }
        }
        tables.push(plain::TABLE);
        tables
    }
}

/// Rounds to the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() {
        (bits >> 16) | 0x40
    } else {
        rounded
    }
}

/// Returns two bf16 in one element, the first in the lower half.
#[inline(always)]
pub(crate) fn bf16_pair(first: f32, second: f32) -> u32 {
    bf16_bits(first) | (bf16_bits(second) << 16)
}

/// One set of functions per CPU, all compiled from the bodies below: `#[inline(always)]`
/// puts a body inside a function that may use the CPU's instructions.
macro_rules! table {
    ($module:ident, $name:literal, $(#[$feature:meta])*, $tile_f32:path) => {
        mod $module {
            use super::{Activation, Affine, Kernels, Tile, body};

            pub(super) const TABLE: Kernels = Kernels {
                name: $name,
                tile_f32: $tile_f32,
                tile_bf16,
                widen_from: 3,
                widen,
                round,
                softmax,
                layer_norm,
                rms_norm,
                activate,
                gate,
                to_bf16,
                log_sum_exp,
            };

            $(#[$feature])*
            unsafe fn tile_bf16(tile: Tile) {
                // SAFETY: the caller's promise is the body's.
                unsafe { body::tile_bf16(tile) }
            }
            $(#[$feature])*
            unsafe fn widen(pairs: &[u32], out: &mut [f32]) {
                body::widen(pairs, out);
            }
            $(#[$feature])*
            unsafe fn round(x: &[f32], out: &mut [u32]) {
                body::round(x, out);
            }
            $(#[$feature])*
            unsafe fn softmax(scores: &mut [f32], scale: f32) {
                body::softmax(scores, scale);
            }
            $(#[$feature])*
            unsafe fn layer_norm(x: &[f32], out: &mut [f32], affine: &Affine<'_>, eps: f32) {
                body::layer_norm(x, out, affine, eps);
            }
            $(#[$feature])*
            unsafe fn rms_norm(x: &[f32], out: &mut [f32], affine: &Affine<'_>, eps: f32) {
                body::rms_norm(x, out, affine, eps);
            }
            $(#[$feature])*
            unsafe fn activate(x: &mut [f32], activation: Activation) {
                body::activate(x, activation);
            }
            $(#[$feature])*
            unsafe fn gate(gate: &[f32], up: &mut [f32]) {
                body::gate(gate, up);
            }
            $(#[$feature])*
            unsafe fn to_bf16(x: &[f32], out: &mut [u32]) {
                body::to_bf16(x, out);
            }
            $(#[$feature])*
            unsafe fn log_sum_exp(x: &[f32]) -> f32 {
                body::log_sum_exp(x)
            }
        }
    };
}

table!(plain, "plain", , body::tile_f32);
#[cfg(target_arch = "x86_64")]
table!(avx2, "avx2", #[target_feature(enable = "avx2,fma")], super::x86::tile_f32_avx2);
#[cfg(target_arch = "x86_64")]
table!(
    avx512,
    "avx512",
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")],
    super::x86::tile_f32_avx512
);

mod body {
    use super::{Activation, Affine, LANES, Tile, bf16_bits, bf16_pair};

    /// Sums are kept in this many lanes, whatever the CPU: f32 sums depend on their order.
    const WIDTH: usize = 16;

    #[inline(always)]
    pub(super) unsafe fn tile_f32(tile: Tile) {
        for r in 0..tile.n_rows {
            // SAFETY: within what the caller promises of `rows`, `panel` and `out`.
            unsafe {
                let row = tile.rows.add(r * tile.row_stride).cast::<f32>();
                let out = tile.out.add(r * tile.out_stride).cast::<[f32; LANES]>();
                let mut sums = if tile.add { out.read() } else { [0.0; LANES] };
                for i in 0..tile.depth {
                    let lanes = &*tile.panel.add(i * LANES).cast::<[f32; LANES]>();
                    let x = *row.add(i);
                    for (sum, lane) in sums.iter_mut().zip(lanes) {
                        *sum += x * lane;
                    }
                }
                out.write(sums);
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn tile_bf16(tile: Tile) {
        for r in 0..tile.n_rows {
            // SAFETY: within what the caller promises of `rows`, `panel` and `out`.
            unsafe {
                let row = tile.rows.add(r * tile.row_stride);
                let out = tile.out.add(r * tile.out_stride).cast::<[f32; LANES]>();
                let mut sums = if tile.add { out.read() } else { [0.0; LANES] };
                for i in 0..tile.depth {
                    let lanes = &*tile.panel.add(i * LANES).cast::<[u32; LANES]>();
                    let (x0, x1) = both(*row.add(i));
                    for (sum, lane) in sums.iter_mut().zip(lanes) {
                        let (w0, w1) = both(*lane);
                        *sum += x0 * w0 + x1 * w1;
                    }
                }
                out.write(sums);
            }
        }
    }

    #[inline(always)]
    fn both(pair: u32) -> (f32, f32) {
        (
            f32::from_bits(pair << 16),
            f32::from_bits(pair & 0xffff_0000),
        )
    }

    #[inline(always)]
    pub(super) fn widen(pairs: &[u32], out: &mut [f32]) {
        let pairs = pairs.as_chunks::<LANES>().0;
        let out = out.as_chunks_mut::<LANES>().0;
        for (pairs, [first, second]) in pairs.iter().zip(out.as_chunks_mut::<2>().0) {
            for lane in 0..LANES {
                (first[lane], second[lane]) = both(pairs[lane]);
            }
        }
    }

    #[inline(always)]
    pub(super) fn round(x: &[f32], out: &mut [u32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = bf16_bits(*x) << 16;
        }
    }

    /// Returns e^x within 2 units in the last place, without a branch, so that it vectorises.
    #[inline(always)]
    fn exp(x: f32) -> f32 {
        // Adding this constant rounds to the nearest integer and leaves it in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let x = x.clamp(-87.3, 88.3);
        let t = x * std::f32::consts::LOG2_E + ROUND;
        let n = t - ROUND;
        let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
        let p = 1.987_569_2e-4;
        let p = p * r + 1.398_199_9e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 1.666_666_5e-1;
        let p = p * r + 0.5;
        let e = p * r * r + r + 1.0;
        e * f32::from_bits((t.to_bits() << 23).wrapping_add(127 << 23))
    }

    /// Sums `f` over the elements in a fixed order.
    #[inline(always)]
    fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
        let mut sums = [0.0; WIDTH];
        let chunks = x.chunks_exact(WIDTH);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum += f(*x);
            }
        }
        sums.iter().sum::<f32>() + rest.iter().map(|&x| f(x)).sum::<f32>()
    }

    #[inline(always)]
    fn max(x: &[f32]) -> f32 {
        let mut maxima = [f32::NEG_INFINITY; WIDTH];
        let chunks = x.chunks_exact(WIDTH);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (max, &x) in maxima.iter_mut().zip(chunk) {
                *max = if x > *max { x } else { *max };
            }
        }
        maxima
            .iter()
            .chain(rest)
            .fold(f32::NEG_INFINITY, |a, &b| a.max(b))
    }

    #[inline(always)]
    pub(super) fn softmax(scores: &mut [f32], scale: f32) {
        let shift = max(scores) * scale;
        for x in scores.iter_mut() {
            *x = exp(*x * scale - shift);
        }
        let inverse = 1.0 / sum(scores, |x| x);
        for x in scores.iter_mut() {
            *x *= inverse;
        }
    }

    #[inline(always)]
    pub(super) fn log_sum_exp(x: &[f32]) -> f32 {
        let shift = max(x);
        shift + sum(x, |x| exp(x - shift)).ln()
    }

    #[inline(always)]
    pub(super) fn layer_norm(x: &[f32], out: &mut [f32], affine: &Affine<'_>, eps: f32) {
        let n = x.len() as f32;
        let mean = sum(x, |x| x) / n;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
        scale(x, out, affine, mean, 1.0 / (variance + eps).sqrt());
    }

    #[inline(always)]
    pub(super) fn rms_norm(x: &[f32], out: &mut [f32], affine: &Affine<'_>, eps: f32) {
        let mean_square = sum(x, |x| x * x) / x.len() as f32;
        scale(x, out, affine, 0.0, 1.0 / (mean_square + eps).sqrt());
    }

    #[inline(always)]
    fn scale(x: &[f32], out: &mut [f32], affine: &Affine<'_>, mean: f32, factor: f32) {
        for ((out, x), weight) in out.iter_mut().zip(x).zip(affine.weight) {
            *out = (x - mean) * factor * weight;
        }
        if let Some(bias) = affine.bias {
            for (out, bias) in out.iter_mut().zip(bias) {
                *out += bias;
            }
        }
    }

    #[inline(always)]
    pub(super) fn activate(x: &mut [f32], activation: Activation) {
        match activation {
            Activation::Relu => x.iter_mut().for_each(|x| *x = x.max(0.0)),
            Activation::Silu | Activation::Swiglu => x.iter_mut().for_each(|x| *x = silu(*x)),
            Activation::Gelu => x.iter_mut().for_each(|x| *x = gelu(*x)),
            Activation::GeluTanh => x.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
        }
    }

    #[inline(always)]
    pub(super) fn gate(gate: &[f32], up: &mut [f32]) {
        for (up, &gate) in up.iter_mut().zip(gate) {
            *up *= silu(gate);
        }
    }

    #[inline(always)]
    pub(super) fn to_bf16(x: &[f32], out: &mut [u32]) {
        for (out, x) in out.iter_mut().zip(x.as_chunks::<2>().0) {
            *out = bf16_pair(x[0], x[1]);
        }
    }

    #[inline(always)]
    fn silu(x: f32) -> f32 {
        x / (1.0 + exp(-x))
    }

    #[inline(always)]
    fn gelu_tanh(x: f32) -> f32 {
        // (1 + tanh(u)) / 2 is the logistic function of 2u.
        let u = 0.797_884_6 * (x + 0.044_715 * x * x * x);
        x / (1.0 + exp(-2.0 * u))
    }

    /// With the error function of Abramowitz and Stegun, 7.1.26: off by 1.5e-7 at most.
    #[inline(always)]
    fn gelu(x: f32) -> f32 {
        let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let t = 1.0 / (1.0 + 0.327_591_1 * z);
        let p = 1.061_405_4 * t - 1.453_152_1;
        let p = p * t + 1.421_413_8;
        let p = p * t - 0.284_496_72;
        let p = p * t + 0.254_829_6;
        let erf = (1.0 - p * t * exp(-z * z)).copysign(x);
        0.5 * x * (1.0 + erf)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, TILE_ROWS, Tile};

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
            if tile.add {
                for r in 0..R {
                    let out = tile.out.add(r * tile.out_stride);
                    sums[r] = [_mm512_loadu_ps(out), _mm512_loadu_ps(out.add(16))];
                }
            }
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
            if tile.add {
                for r in 0..R {
                    let out = tile.out.add(r * tile.out_stride);
                    sums[r] = [_mm512_loadu_ps(out), _mm512_loadu_ps(out.add(16))];
                }
            }
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
                _mm512_storeu_ps(out, sums[r][0]);
                _mm512_storeu_ps(out.add(16), sums[r][1]);
            }
        }
    }

    /// Returns whether bf16 products are those of AMD's cores.
    pub(super) fn is_amd() -> bool {
        let id = __cpuid(0);
        [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
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
            if tile.add {
                for r in 0..R {
                    for v in 0..V {
                        sums[r][v] =
                            _mm256_loadu_ps(tile.out.add(r * tile.out_stride + from + 8 * v));
                    }
                }
            }
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
                    _mm256_storeu_ps(tile.out.add(r * tile.out_stride + from + 8 * v), sums[r][v]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that looks random and is the same on every machine.
    fn noise(i: usize) -> f32 {
        let mut x = (i as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    #[test]
    fn every_cpu_computes_the_same_tile() {
        for kernels in Kernels::supported() {
            for n_rows in 1..=TILE_ROWS {
                for add in [false, true] {
                    check_f32(&kernels, n_rows, 37, add);
                    check_bf16(&kernels, n_rows, 37, add);
                }
            }
        }
    }

    fn check_f32(kernels: &Kernels, n_rows: usize, depth: usize, add: bool) {
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
        unsafe { (kernels.tile_f32)(tile) };
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
                    kernels.name
                );
            }
            assert_eq!(
                out[r * 33 + 32],
                before[r * 33 + 32],
                "wrote past the panel"
            );
        }
    }

    fn check_bf16(kernels: &Kernels, n_rows: usize, depth: usize, add: bool) {
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
        unsafe { (kernels.tile_bf16)(tile) };
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
                    kernels.name
                );
            }
        }
    }

    #[test]
    fn rounding_to_bf16_takes_the_nearest_and_ties_to_even() {
        for (x, bits) in [
            (1.0, 0x3f80),
            (1.0 + 1.0 / 256.0, 0x3f80),
            (1.0 + 3.0 / 256.0, 0x3f82),
            (-0.0, 0x8000),
            (f32::INFINITY, 0x7f80),
        ] {
            assert_eq!(bf16_bits(x), bits, "{x}");
        }
        assert!(f32::from_bits(bf16_bits(f32::NAN) << 16).is_nan());
    }

    #[test]
    fn widening_and_rounding_agree_with_pairs() {
        for kernels in Kernels::supported() {
            let x: Vec<f32> = (0..6 * LANES).map(noise).collect();
            let pairs: Vec<u32> = (0..3 * LANES)
                .map(|i| {
                    let at = i / LANES * 2 * LANES + i % LANES;
                    bf16_pair(x[at], x[at + LANES])
                })
                .collect();
            let (mut widened, mut rounded) = (vec![0.0; x.len()], vec![0; x.len()]);
            // SAFETY: the table is one this CPU supports.
            unsafe {
                (kernels.widen)(&pairs, &mut widened);
                (kernels.round)(&x, &mut rounded);
            }
            let rounded: Vec<f32> = rounded.into_iter().map(f32::from_bits).collect();
            assert_eq!(widened, rounded);
            assert_ne!(widened, x);
        }
    }

    #[test]
    fn functions_are_those_of_the_textbook() {
        let x: Vec<f32> = (-400..400).map(|i| i as f32 / 40.0).collect();
        type Function = fn(f64) -> f64;
        let reference: [(Activation, Function); 4] = [
            (Activation::Relu, |x| x.max(0.0)),
            (Activation::Silu, |x| x / (1.0 + (-x).exp())),
            (Activation::GeluTanh, |x| {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }),
            (Activation::Gelu, |x| x * normal_below(x)),
        ];
        for kernels in Kernels::supported() {
            for (activation, want) in reference {
                let mut found = x.clone();
                // SAFETY: the table is one this CPU supports.
                unsafe { (kernels.activate)(&mut found, activation) };
                for (x, found) in x.iter().zip(found) {
                    let want = want(f64::from(*x));
                    let error = (f64::from(found) - want).abs();
                    assert!(
                        error < 2e-6,
                        "{} {activation:?}({x}): {found} {want}",
                        kernels.name
                    );
                }
            }
        }
    }

    /// The normal distribution function, summed by Simpson's rule.
    fn normal_below(x: f64) -> f64 {
        let n = 2_000;
        let h = x / f64::from(n);
        let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let inner: f64 = (1..n)
            .map(|i| density(f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 })
            .sum();
        0.5 + (density(0.0) + inner + density(x)) * h / 3.0
    }

    #[test]
    fn softmax_sums_to_one_even_for_huge_scores() {
        for kernels in Kernels::supported() {
            let mut scores: Vec<f32> = (0..45).map(|i| noise(i) * 1e4).collect();
            // SAFETY: the table is one this CPU supports.
            unsafe { (kernels.softmax)(&mut scores, 1.0) };
            assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }
}
