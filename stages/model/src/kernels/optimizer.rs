//! One pass over a tensor and its moments: AdamW, Muon, and the norm they are clipped by.

use rayon::prelude::*;

use super::matmul::matmul;
use super::simd::{CHUNK, lane_sum, simd};
use super::view::View;
use crate::config::Precision;

/// The sum of squares, in f64 across chunks.
pub(crate) fn sum_squares(x: &[f32]) -> f64 {
    let parts: Vec<f64> = x
        .par_chunks(CHUNK)
        .map(|x| f64::from(chunk_squares(x)))
        .collect();
    parts.iter().sum()
}

simd! {
    fn chunk_squares(x: &[f32]) -> f32 {
        lane_sum(x.len(), |i| x[i] * x[i])
    }
}

/// AdamW's numbers for one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamStep {
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) eps: f32,
    /// Learning rate, divided by the first moment's bias correction.
    pub(crate) lr: f32,
    /// One over the second moment's bias correction.
    pub(crate) correction2: f32,
    /// The factor of a weight: 1 - learning rate x decay.
    pub(crate) keep: f32,
    /// The factor of a gradient: clipping and averaging.
    pub(crate) scale: f32,
}

pub(crate) fn adam(step: AdamStep, weight: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    weight
        .par_chunks_mut(CHUNK)
        .zip(grad.par_chunks(CHUNK))
        .zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)))
        .for_each(|((weight, grad), (m, v))| adam_chunk(step, weight, grad, m, v));
}

simd! {
    fn adam_chunk(step: AdamStep, weight: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
        for ((weight, &grad), (m, v)) in weight.iter_mut().zip(grad).zip(m.iter_mut().zip(v)) {
            let grad = grad * step.scale;
            *m = step.beta1 * *m + (1.0 - step.beta1) * grad;
            *v = step.beta2 * *v + (1.0 - step.beta2) * grad * grad;
            *weight = *weight * step.keep - step.lr * *m / ((*v * step.correction2).sqrt() + step.eps);
        }
    }
}

/// Muon's numbers for one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MuonStep {
    pub(crate) momentum: f32,
    pub(crate) lr: f32,
    pub(crate) keep: f32,
    pub(crate) scale: f32,
}

/// Moves a matrix along its momentum made orthogonal, which changes all directions alike.
/// The step is as large as AdamW's usual one (a root mean square of 0.2), so one learning
/// rate and decay serve both.
pub(crate) fn muon(
    step: MuonStep,
    weight: &mut [f32],
    grad: &mut [f32],
    m: &mut [f32],
    cols: usize,
) {
    let rows = weight.len() / cols;
    grad.par_chunks_mut(CHUNK)
        .zip(m.par_chunks_mut(CHUNK))
        .for_each(|(grad, m)| momentum_chunk(grad, m, step.momentum, step.scale));
    let direction = orthogonal(grad, rows, cols);
    let lr = step.lr * 0.2 * (rows.max(cols) as f32).sqrt();
    weight
        .par_chunks_mut(CHUNK)
        .zip(direction.par_chunks(CHUNK))
        .for_each(|(weight, direction)| {
            for (weight, direction) in weight.iter_mut().zip(direction) {
                *weight = *weight * step.keep - lr * direction;
            }
        });
}

simd! {
    /// Nesterov momentum: the gradient becomes one step of looking ahead.
    fn momentum_chunk(grad: &mut [f32], m: &mut [f32], momentum: f32, scale: f32) {
        for (grad, m) in grad.iter_mut().zip(m) {
            let g = *grad * scale;
            *m = momentum * *m + (1.0 - momentum) * g;
            *grad = momentum * *m + (1.0 - momentum) * g;
        }
    }
}

/// The nearest matrix whose singular values are all about one (five Newton-Schulz steps).
fn orthogonal(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    const STEPS: usize = 5;
    const A: f32 = 3.4445;
    const B: f32 = -4.7750;
    const C: f32 = 2.0315;
    // The Gram matrix of the shorter side is the cheaper one.
    let tall = rows > cols;
    let n = rows.min(cols);
    let inverse = 1.0 / (sum_squares(x).sqrt() as f32 + 1e-7);
    let mut x: Vec<f32> = x.iter().map(|x| x * inverse).collect();
    let (mut gram, mut squared, mut next) =
        (vec![0.0; n * n], vec![0.0; n * n], vec![0.0; x.len()]);
    for _ in 0..STEPS {
        let view = View::new(&x, cols);
        let (left, right) = if tall {
            (view.t(), view)
        } else {
            (view, view.t())
        };
        matmul(&mut gram, false, left, right, Precision::F32);
        matmul(
            &mut squared,
            false,
            View::new(&gram, n),
            View::new(&gram, n),
            Precision::F32,
        );
        for (gram, squared) in gram.iter_mut().zip(&squared) {
            *gram = B * *gram + C * squared;
        }
        let polynomial = View::new(&gram, n);
        let (left, right) = if tall {
            (view, polynomial)
        } else {
            (polynomial, view)
        };
        matmul(&mut next, false, left, right, Precision::F32);
        for (next, x) in next.iter_mut().zip(&x) {
            *next += A * x;
        }
        std::mem::swap(&mut x, &mut next);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orthogonal_matrix_has_rows_of_about_unit_length() {
        for (rows, cols) in [(6, 20), (20, 6)] {
            let x: Vec<f32> = (0..rows * cols)
                .map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0)
                .collect();
            let y = orthogonal(&x, rows, cols);
            let y = View::new(&y, cols);
            let n = rows.min(cols);
            let mut gram = vec![0.0; n * n];
            let (left, right) = if rows > cols { (y.t(), y) } else { (y, y.t()) };
            matmul(&mut gram, false, left, right, Precision::F32);
            for i in 0..n {
                for j in 0..n {
                    let expected = if i == j { 1.0 } else { 0.0 };
                    assert!(
                        (gram[i * n + j] - expected).abs() < 0.6,
                        "{i} {j}: {}",
                        gram[i * n + j]
                    );
                }
            }
        }
    }

    #[test]
    fn adam_moves_by_the_learning_rate_at_first() {
        let step = AdamStep {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            lr: 0.01 / 0.1,
            correction2: 1.0 / 0.001,
            keep: 1.0,
            scale: 0.5,
        };
        let (mut w, mut m, mut v) = (vec![1.0, -2.0], vec![0.0; 2], vec![0.0; 2]);
        adam(step, &mut w, &[4.0, -0.01], &mut m, &mut v);
        assert!(
            (w[0] - 0.99).abs() < 1e-5 && (w[1] + 1.99).abs() < 1e-5,
            "{w:?}"
        );
    }
}
