//! Exponential and logarithm that give the same bits on every machine.
//!
//! The standard library asks the platform's own, and two of those differ in the last bit, which a
//! minimizer carries into the digits that are printed. These use nothing but sums, products and
//! quotients, which IEEE 754 fixes. They are right to about 15 digits.

use std::f64::consts::{LN_2, SQRT_2};

/// The upper bits of ln 2, so that a multiple of it is exact, and the rest.
const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// Returns e to the power of `x`; beyond ±700 what it is there.
pub(super) fn exp(x: f64) -> f64 {
    const TERMS: u32 = 14;
    let x = x.clamp(-700.0, 700.0);
    let n_doublings = (x / LN_2).round();
    let rest = x - n_doublings * LN_2_HIGH - n_doublings * LN_2_LOW;
    let mut sum = 1.0;
    for n in (1..TERMS).rev() {
        sum = 1.0 + rest / f64::from(n) * sum;
    }
    sum * f64::from_bits(((1023 + n_doublings as i64) as u64) << 52)
}

/// Returns the natural logarithm of a number that is positive, finite and not subnormal.
pub(super) fn ln(x: f64) -> f64 {
    const TERMS: u32 = 12;
    let bits = x.to_bits();
    let mut n_doublings = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut fraction = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if fraction > SQRT_2 {
        fraction /= 2.0;
        n_doublings += 1;
    }
    let ratio = (fraction - 1.0) / (fraction + 1.0);
    let square = ratio * ratio;
    let mut sum = 0.0;
    for n in (0..TERMS).rev() {
        sum = sum * square + 1.0 / f64::from(2 * n + 1);
    }
    let n_doublings = n_doublings as f64;
    n_doublings * LN_2_HIGH + (2.0 * ratio * sum + n_doublings * LN_2_LOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_agree_with_the_platforms_to_fourteen_digits() {
        for idx in -2_000..2_000 {
            let x = f64::from(idx) * 0.3137;
            let error = exp(x) / x.clamp(-700.0, 700.0).exp() - 1.0;
            assert!(error.abs() < 1e-14, "exp({x}) is off by {error:e}");
            let y = exp(x * 0.5);
            assert!(
                (ln(y) - y.ln()).abs() < 1e-14 * (1.0 + y.ln().abs()),
                "ln({y})"
            );
        }
        assert_eq!((exp(0.0), ln(1.0)), (1.0, 0.0));
    }
}
