//! Functions of one number, and tables of positions: what training and generation compute alike.
//!
//! They have neither branches nor look-ups, so that loops over them vectorise in whatever
//! instruction set `simd!` compiles the loop for. A slope that is not used costs nothing.

/// e^x within about two units in the last place for -87 <= x <= 88, and clamped outside.
/// Free of branches and table look-ups, so that loops over it vectorise.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to a whole number, left in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has few bits, so that its product with a small whole number is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let t = x * std::f32::consts::LOG2_E + ROUND;
    let n = t - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    p * f32::from_bits(t.to_bits().wrapping_add(127) << 23)
}

/// Value and slope of `x * sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> (f32, f32) {
    let s = 1.0 / (1.0 + exp(-x));
    (x * s, s + x * s * (1.0 - s))
}

/// Value and slope of GELU in its tanh form, which is `x * sigmoid(2u)`.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> (f32, f32) {
    const TWICE_ROOT: f32 = 1.595_769; // 2 sqrt(2 / pi)
    const CUBIC: f32 = 0.044_715;
    let s = 1.0 / (1.0 + exp(-TWICE_ROOT * x * (1.0 + CUBIC * x * x)));
    let slope = s + x * s * (1.0 - s) * TWICE_ROOT * (1.0 + 3.0 * CUBIC * x * x);
    (x * s, slope)
}

/// Value and slope of the exact GELU, `x * Phi(x)`.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> (f32, f32) {
    // erf by Abramowitz and Stegun 7.1.26: within 1.5e-7.
    const P: f32 = 0.327_591_1;
    const A: [f32; 5] = [
        0.254_829_6,
        -0.284_496_72,
        1.421_413_8,
        -1.453_152,
        1.061_405_4,
    ];
    const ROOT_TWO_PI: f32 = 0.398_942_3; // one over sqrt(2 pi)
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + P * z);
    let bell = exp(-0.5 * x * x);
    let tail = t * (A[0] + t * (A[1] + t * (A[2] + t * (A[3] + t * A[4])))) * bell;
    let phi = if x >= 0.0 {
        1.0 - 0.5 * tail
    } else {
        0.5 * tail
    };
    (x * phi, phi + x * ROOT_TWO_PI * bell)
}

/// Rows of sines and cosines for positions up to `n`: `(n, width)`.
pub fn sinusoids(n: usize, width: usize) -> Vec<f32> {
    let mut out = vec![0.0; n * width];
    for (p, row) in out.chunks_exact_mut(width).enumerate() {
        for (i, pair) in row.chunks_exact_mut(2).enumerate() {
            let angle = p as f64 / 10_000f64.powf(2.0 * i as f64 / width as f64);
            (pair[0], pair[1]) = (angle.sin() as f32, angle.cos() as f32);
        }
    }
    out
}

/// Cosines, then sines, of the rotation at each position up to `n`: `(n, d_head)`. Pairs behind the first
/// `d_turned / 2` stay as they are.
pub fn rotations(n: usize, d_head: usize, d_turned: usize, theta: f32) -> Vec<f32> {
    let half = d_head / 2;
    let mut out = vec![0.0; n * d_head];
    for (p, row) in out.chunks_exact_mut(d_head).enumerate() {
        for i in 0..half {
            let per_position = match 2 * i < d_turned {
                true => f64::from(theta).powf(2.0 * i as f64 / d_turned as f64),
                false => f64::INFINITY,
            };
            let angle = p as f64 / per_position;
            (row[i], row[half + i]) = (angle.cos() as f32, angle.sin() as f32);
        }
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_real_one() {
        let mut x = -86.9f32;
        while x < 87.9 {
            let relative = (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs();
            assert!(relative < 3e-7, "exp({x}) is off by {relative}");
            x += 0.0137;
        }
        assert!(exp(-1000.0) > 0.0 && exp(-1000.0) < 1e-37);
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
}
