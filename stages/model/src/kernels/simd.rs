//! One loop, compiled for each instruction set; and the small pieces loops are made of.
//!
//! Multiplication and addition are never contracted into one rounding, and sums run in
//! sixteen lanes whatever the vector width, so element-wise results do not depend on the
//! instruction set.

use super::math::exp;

/// Rows handled by one task. Fixed, never derived from the number of threads.
pub(crate) const ROWS: usize = 32;

/// Numbers handled by one task where rows do not matter.
pub(crate) const CHUNK: usize = 1 << 14;

const LANES: usize = 16;

/// Declares a function whose body is compiled for AVX-512, for AVX2 and as it is, and
/// which calls the best of them that this CPU has.
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $type),*) $(-> $ret)? {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $ret)? {
                    body($($arg),*)
                }
                match $crate::kernels::level::level() {
                    $crate::kernels::level::Level::Plain => {}
                    // SAFETY: the level says that this CPU has these instructions.
                    $crate::kernels::level::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above; both remaining levels include AVX-512.
                    _ => return unsafe { avx512($($arg),*) },
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use simd;

/// The sum of `f(0..n)` in sixteen lanes that are added pairwise at the end.
#[inline(always)]
pub(crate) fn lane_sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = n / LANES * LANES;
    let mut at = 0;
    while at < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(at + lane);
        }
        at += LANES;
    }
    for i in whole..n {
        lanes[i - whole] += f(i);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
pub(crate) fn lane_max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (max, &x) in lanes.iter_mut().zip(chunk) {
            *max = if x > *max { x } else { *max };
        }
    }
    let rest = chunks.remainder().iter();
    lanes
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

simd! {
    /// Returns the scalar product of two slices of one length.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
        let n = a.len().min(b.len());
        let (a, b) = (&a[..n], &b[..n]);
        lane_sum(n, |i| a[i] * b[i])
    }
}

simd! {
    /// Returns the largest number, minus infinity when there is none.
    pub(crate) fn max(x: &[f32]) -> f32 {
        lane_max(x)
    }
}

simd! {
    /// Turns each number into `exp(x * scale - shift)` and returns their sum.
    pub(crate) fn exp_into(x: &mut [f32], scale: f32, shift: f32) -> f32 {
        for x in x.iter_mut() {
            *x = exp(*x * scale - shift);
        }
        lane_sum(x.len(), |i| x[i])
    }
}

simd! {
    /// `out += factor * x`.
    pub(crate) fn add_scaled(out: &mut [f32], factor: f32, x: &[f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out += factor * x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_any_length_count_every_number_once() {
        for n in 0..70usize {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let expected = (n * n.saturating_sub(1) / 2) as f32;
            assert_eq!(dot(&x, &vec![1.0; n]), expected);
            if n > 0 {
                assert_eq!(max(&x), (n - 1) as f32);
            }
        }
    }
}
