//! Cross-entropy on rows of logits, with its gradient in place; and how well targets were predicted.

use rayon::prelude::*;

use super::simd::{lane_max, lane_sum};
use super::{exp, simd};
use crate::engine::Score;

/// Rows of one task.
const ROWS: usize = 4;

/// Writes each row's loss times its weight; with `gradient` the row becomes the loss's gradient.
/// `smoothing` moves that much of the target's probability to all tokens alike.
pub(crate) fn cross_entropy(
    logits: &mut [f32],
    targets: &[u16],
    weights: &[f32],
    smoothing: f32,
    losses: &mut [f32],
    gradient: bool,
) {
    let n_vocab = logits.len() / targets.len();
    logits
        .par_chunks_mut(ROWS * n_vocab)
        .zip(targets.par_chunks(ROWS).zip(weights.par_chunks(ROWS)))
        .zip(losses.par_chunks_mut(ROWS))
        .for_each(|((logits, (targets, weights)), losses)| {
            for (i, row) in logits.chunks_exact_mut(n_vocab).enumerate() {
                let target = usize::from(targets[i]);
                losses[i] = row_loss(row, target, weights[i], smoothing, gradient);
            }
        });
}

simd! {
    fn row_loss(row: &mut [f32], target: usize, weight: f32, smoothing: f32, gradient: bool) -> f32 {
        let n = row.len() as f32;
        let max = lane_max(row);
        let at_target = row[target];
        let mean = if smoothing > 0.0 { lane_sum(row.len(), |j| row[j]) / n } else { 0.0 };
        for x in row.iter_mut() {
            *x = exp(*x - max);
        }
        let sum = lane_sum(row.len(), |j| row[j]);
        let log_sum = max + sum.ln();
        if gradient {
            let (scale, everywhere) = (weight / sum, weight * smoothing / n);
            for x in row.iter_mut() {
                *x = *x * scale - everywhere;
            }
            row[target] -= weight * (1.0 - smoothing);
        }
        weight * (log_sum - (1.0 - smoothing) * at_target - smoothing * mean)
    }
}

/// Writes each row's score.
pub(crate) fn scores(logits: &[f32], targets: &[u16], out: &mut [Score]) {
    let n_vocab = logits.len() / targets.len();
    logits
        .par_chunks(n_vocab)
        .zip(targets)
        .zip(out)
        .with_min_len(ROWS)
        .for_each(|((row, &target), out)| {
            let at_target = row[usize::from(target)];
            let n_above = row.iter().filter(|&&x| x > at_target).count();
            *out = Score {
                nll: log_sum_exp(row) - at_target,
                rank: n_above.min(255) as u8,
            };
        });
}

simd! {
    fn log_sum_exp(row: &[f32]) -> f32 {
        let max = lane_max(row);
        max + lane_sum(row.len(), |j| exp(row[j] - max)).ln()
    }
}
