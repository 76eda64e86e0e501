//! Sizes that count as one.
//!
//! Two runs of one size and one number of steps differ by some tokens, because rows are not full.

/// Returns values that differ, smallest first; a percent is no difference.
pub(super) fn levels(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup_by(|value, before| is_same(*value, *before));
    values
}

pub(super) fn is_same(value: f64, other: f64) -> bool {
    (value / other - 1.0).abs() < 0.01
}
