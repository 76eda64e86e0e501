//! Cross-entropy on rows of logits, with its gradient in place; and how well targets were predicted.

use rayon::prelude::*;

use super::math::exp;
use super::simd::{lane_max, lane_sum, simd};
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
        .for_each(|((row, &target), out)| *out = score(row, target));
}

/// Returns how well a row of logits predicted its target.
pub(crate) fn score(row: &[f32], target: u16) -> Score {
    let at_target = row[usize::from(target)];
    let n_above = row.iter().filter(|&&x| x > at_target).count();
    Score {
        nll: log_sum_exp(row) - at_target,
        rank: n_above.min(255) as u8,
    }
}

simd! {
    fn log_sum_exp(row: &[f32]) -> f32 {
        let max = lane_max(row);
        max + lane_sum(row.len(), |j| exp(row[j] - max)).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::matmul::testing::numbers;

    const WIDTH: usize = 45;

    /// The loss of one row as the definition says, in f64.
    fn defined(logits: &[f64], target: usize, weight: f64, smoothing: f64) -> f64 {
        let log_sum = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
        let mean = logits.iter().sum::<f64>() / logits.len() as f64;
        weight * (log_sum - (1.0 - smoothing) * logits[target] - smoothing * mean)
    }

    #[test]
    fn cross_entropy_and_its_gradient_are_right() {
        let targets = [0, 44, 7, 7, 30, 16];
        let weights = [1.0, 1.0, 0.0, 1.0, 2.0, 1.0];
        let scaled = numbers(targets.len() * WIDTH, 1)
            .into_iter()
            .map(|x| 9.0 * x);
        let logits: Vec<f32> = scaled.collect();
        for smoothing in [0.0, 0.1] {
            let (mut d, mut losses) = (logits.clone(), [0.0; 6]);
            cross_entropy(&mut d, &targets, &weights, smoothing, &mut losses, true);
            for (i, row) in logits.chunks(WIDTH).enumerate() {
                let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
                let (target, weight) = (usize::from(targets[i]), f64::from(weights[i]));
                let loss = |row: &[f64]| defined(row, target, weight, f64::from(smoothing));
                assert!((f64::from(losses[i]) - loss(&row)).abs() < 2e-5);
                for j in 0..WIDTH {
                    let at = |step: f64| {
                        let mut moved = row.clone();
                        moved[j] += step;
                        loss(&moved)
                    };
                    let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                    let off = (f64::from(d[i * WIDTH + j]) - slope).abs();
                    assert!(off < 1e-6, "row {i}, {j}: {} for {slope}", d[i * WIDTH + j]);
                }
            }
        }
    }

    #[test]
    fn a_score_is_the_loss_and_how_many_tokens_were_likelier() {
        let mut logits = numbers(3 * WIDTH, 2);
        logits[WIDTH + 9] = 5.0;
        let mut found = [Score::default(); 3];
        scores(&logits, &[0, 9, 44], &mut found);
        for (i, row) in logits.chunks(WIDTH).enumerate() {
            let target = [0, 9, 44][i];
            let above = row.iter().filter(|&&x| x > row[target]).count();
            let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            let off = f64::from(found[i].nll) - defined(&row, target, 1.0, 0.0);
            assert!(
                off.abs() < 1e-5 && usize::from(found[i].rank) == above,
                "{i}"
            );
        }
        assert_eq!(found[1].rank, 0);
    }
}
