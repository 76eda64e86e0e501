//! Work on one row or one number at a time: norms, activations, look-ups, rotations.

use rayon::prelude::*;

use super::math::{gelu, gelu_tanh, silu};
use super::simd::{CHUNK, ROWS, add_scaled, exp_into, lane_sum, max, simd};
use crate::config::{Activation, Norm};
use crate::noise::Mask;

/// Numbers that a norm's backward pass needs of each row: its mean, and one over its spread.
pub(crate) const NORM_STATS: usize = 2;

/// `y = norm(x) * gain + bias`, row by row; `bias` may be empty.
pub(crate) fn norm(
    kind: Norm,
    eps: f32,
    x: &[f32],
    gain: &[f32],
    bias: &[f32],
    y: &mut [f32],
    stats: &mut [f32],
) {
    let width = gain.len();
    y.par_chunks_mut(ROWS * width)
        .zip(stats.par_chunks_mut(ROWS * NORM_STATS))
        .zip(x.par_chunks(ROWS * width))
        .for_each(|((y, stats), x)| norm_rows(kind, eps, x, gain, bias, y, stats));
}

simd! {
    fn norm_rows(
        kind: Norm, eps: f32, x: &[f32], gain: &[f32], bias: &[f32], y: &mut [f32], stats: &mut [f32],
    ) {
        let width = gain.len();
        let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(stats.chunks_exact_mut(NORM_STATS));
        for ((x, y), stats) in rows {
            let mean = match kind {
                Norm::Layer => lane_sum(width, |j| x[j]) / width as f32,
                Norm::Rms => 0.0,
            };
            let variance = lane_sum(width, |j| (x[j] - mean) * (x[j] - mean)) / width as f32;
            let inverse = 1.0 / (variance + eps).sqrt();
            for j in 0..width {
                y[j] = (x[j] - mean) * inverse * gain[j];
            }
            for (y, bias) in y.iter_mut().zip(bias) {
                *y += bias;
            }
            stats.copy_from_slice(&[mean, inverse]);
        }
    }
}

/// `norm` of one row, for a pass without gradients.
pub(crate) fn norm_row(kind: Norm, eps: f32, x: &[f32], gain: &[f32], bias: &[f32], y: &mut [f32]) {
    norm_rows(kind, eps, x, gain, bias, y, &mut [0.0; NORM_STATS]);
}

/// Where a gradient goes: a new buffer of any content, or one that already holds some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Set,
    Add,
}

/// The gradients of `norm`; `d_gain` and (unless empty) `d_bias` are added to.
#[expect(
    clippy::too_many_arguments,
    reason = "the gradient of a function of six arguments"
)]
pub(crate) fn norm_backward(
    kind: Norm,
    x: &[f32],
    gain: &[f32],
    stats: &[f32],
    d_y: &[f32],
    d_x: &mut [f32],
    write: Write,
    d_gain: &mut [f32],
    d_bias: &mut [f32],
) {
    let width = gain.len();
    let parts: Vec<Vec<f32>> = d_x
        .par_chunks_mut(ROWS * width)
        .zip(stats.par_chunks(ROWS * NORM_STATS))
        .zip(x.par_chunks(ROWS * width).zip(d_y.par_chunks(ROWS * width)))
        .map(|((d_x, stats), (x, d_y))| {
            let mut part = vec![0.0; 2 * width];
            norm_backward_rows(kind, x, gain, stats, d_y, (d_x, write), &mut part);
            part
        })
        .collect();
    for part in parts {
        let (gains, biases) = part.split_at(width);
        add(d_gain, gains);
        add(d_bias, biases);
    }
}

simd! {
    fn norm_backward_rows(
        kind: Norm, x: &[f32], gain: &[f32], stats: &[f32], d_y: &[f32], to: (&mut [f32], Write),
        part: &mut [f32],
    ) {
        let width = gain.len();
        let (d_x, write) = to;
        let (d_gain, d_bias) = part.split_at_mut(width);
        let rows = x.chunks_exact(width).zip(d_y.chunks_exact(width)).zip(d_x.chunks_exact_mut(width));
        for (((x, d_y), d_x), stats) in rows.zip(stats.chunks_exact(NORM_STATS)) {
            let (mean, inverse) = (stats[0], stats[1]);
            let shift = match kind {
                Norm::Layer => lane_sum(width, |j| d_y[j] * gain[j]) / width as f32,
                Norm::Rms => 0.0,
            };
            let along = lane_sum(width, |j| d_y[j] * gain[j] * (x[j] - mean)) * inverse / width as f32;
            for j in 0..width {
                let normed = (x[j] - mean) * inverse;
                d_gain[j] += d_y[j] * normed;
                d_bias[j] += d_y[j];
                let d = inverse * (d_y[j] * gain[j] - shift - normed * along);
                d_x[j] = if write == Write::Add { d_x[j] + d } else { d };
            }
        }
    }
}

simd! {
    /// `out += x`, as far as both go.
    fn add(out: &mut [f32], x: &[f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out += x;
        }
    }
}

/// `out += x` over all threads.
pub(crate) fn add_all(out: &mut [f32], x: &[f32]) {
    out.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(out, x)| add(out, x));
}

/// Adds the sums of `x`'s columns to `out`.
pub(crate) fn add_column_sums(out: &mut [f32], x: &[f32]) {
    let width = out.len();
    let parts: Vec<Vec<f32>> = x
        .par_chunks(ROWS * width)
        .map(|x| {
            let mut part = vec![0.0; width];
            x.chunks_exact(width).for_each(|row| add(&mut part, row));
            part
        })
        .collect();
    parts.iter().for_each(|part| add(out, part));
}

/// Starts a product that is going to be added to: each row is the bias (empty: zero).
pub(crate) fn fill_rows(out: &mut [f32], width: usize, bias: &[f32]) {
    out.par_chunks_mut(ROWS * width).for_each(|out| {
        for row in out.chunks_exact_mut(width) {
            if bias.is_empty() {
                row.fill(0.0);
            } else {
                row.copy_from_slice(bias);
            }
        }
    });
}

/// `out = bias + residual`, the start of a product without dropout.
pub(crate) fn fill_residual(out: &mut [f32], width: usize, bias: &[f32], residual: &[f32]) {
    out.par_chunks_mut(ROWS * width)
        .zip(residual.par_chunks(ROWS * width))
        .for_each(|(out, residual)| {
            out.copy_from_slice(residual);
            if !bias.is_empty() {
                out.chunks_exact_mut(width).for_each(|row| add(row, bias));
            }
        });
}

/// `y = residual + dropout(y)`.
pub(crate) fn drop_and_add(y: &mut [f32], width: usize, mask: &Mask, residual: &[f32]) {
    y.par_chunks_mut(ROWS * width)
        .zip(residual.par_chunks(ROWS * width))
        .enumerate()
        .for_each(|(chunk, (y, residual))| {
            drop_rows(y, width, chunk * ROWS, mask);
            add(y, residual);
        });
}

/// Applies a mask in place: a pass forward, or a gradient backward.
pub(crate) fn drop_all(x: &mut [f32], width: usize, mask: &Mask) {
    x.par_chunks_mut(ROWS * width)
        .enumerate()
        .for_each(|(chunk, x)| drop_rows(x, width, chunk * ROWS, mask));
}

/// `out = x` with a mask applied.
pub(crate) fn copy_dropped(out: &mut [f32], x: &[f32], width: usize, mask: &Mask) {
    out.par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width))
        .enumerate()
        .for_each(|(chunk, (out, x))| {
            out.copy_from_slice(x);
            drop_rows(out, width, chunk * ROWS, mask);
        });
}

simd! {
    fn drop_rows(x: &mut [f32], width: usize, first: usize, mask: &Mask) {
        for (i, row) in x.chunks_exact_mut(width).enumerate() {
            let line = mask.line(first + i, 0);
            for (column, x) in row.iter_mut().enumerate() {
                *x *= line.factor(column);
            }
        }
    }
}

/// `y = dropout(act(h))`.
pub(crate) fn activate(
    activation: Activation,
    h: &[f32],
    y: &mut [f32],
    width: usize,
    mask: Option<&Mask>,
) {
    y.par_chunks_mut(ROWS * width)
        .zip(h.par_chunks(ROWS * width))
        .enumerate()
        .for_each(|(chunk, (y, h))| {
            activate_rows(activation, h, y);
            if let Some(mask) = mask {
                drop_rows(y, width, chunk * ROWS, mask);
            }
        });
}

simd! {
    fn activate_rows(activation: Activation, h: &[f32], y: &mut [f32]) {
        match activation {
            Activation::GeluTanh => each(h, y, |x| gelu_tanh(x).0),
            Activation::Gelu => each(h, y, |x| gelu(x).0),
            Activation::Relu => each(h, y, |x| if x > 0.0 { x } else { 0.0 }),
            Activation::Silu | Activation::Swiglu => each(h, y, |x| silu(x).0),
        }
    }
}

simd! {
    /// `x = act(x)`, for a pass without gradients.
    pub(crate) fn activate_in_place(activation: Activation, x: &mut [f32]) {
        match activation {
            Activation::GeluTanh => each_in_place(x, |x| gelu_tanh(x).0),
            Activation::Gelu => each_in_place(x, |x| gelu(x).0),
            Activation::Relu => each_in_place(x, |x| if x > 0.0 { x } else { 0.0 }),
            Activation::Silu | Activation::Swiglu => each_in_place(x, |x| silu(x).0),
        }
    }
}

/// `d = act'(h) * dropout(d)` in place, and the sums of `d`'s columns are added to `d_bias` (unless empty).
pub(crate) fn activate_backward(
    activation: Activation,
    h: &[f32],
    d: &mut [f32],
    width: usize,
    mask: Option<&Mask>,
    d_bias: &mut [f32],
) {
    let wants_bias = !d_bias.is_empty();
    let parts: Vec<Vec<f32>> = d
        .par_chunks_mut(ROWS * width)
        .zip(h.par_chunks(ROWS * width))
        .enumerate()
        .map(|(chunk, (d, h))| {
            if let Some(mask) = mask {
                drop_rows(d, width, chunk * ROWS, mask);
            }
            activate_backward_rows(activation, h, d);
            let mut part = Vec::new();
            if wants_bias {
                part.resize(width, 0.0);
                d.chunks_exact(width).for_each(|row| add(&mut part, row));
            }
            part
        })
        .collect();
    parts.iter().for_each(|part| add(d_bias, part));
}

simd! {
    fn activate_backward_rows(activation: Activation, h: &[f32], d: &mut [f32]) {
        match activation {
            Activation::GeluTanh => scale(h, d, |x| gelu_tanh(x).1),
            Activation::Gelu => scale(h, d, |x| gelu(x).1),
            Activation::Relu => scale(h, d, |x| if x > 0.0 { 1.0 } else { 0.0 }),
            Activation::Silu | Activation::Swiglu => scale(h, d, |x| silu(x).1),
        }
    }
}

#[inline(always)]
fn each(h: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    for (y, &h) in y.iter_mut().zip(h) {
        *y = f(h);
    }
}

#[inline(always)]
fn each_in_place(x: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in x {
        *x = f(*x);
    }
}

#[inline(always)]
fn scale(h: &[f32], d: &mut [f32], f: impl Fn(f32) -> f32) {
    for (d, &h) in d.iter_mut().zip(h) {
        *d *= f(h);
    }
}

/// `y = dropout(silu(gate) * up)`.
pub(crate) fn gate(gate: &[f32], up: &[f32], y: &mut [f32], width: usize, mask: Option<&Mask>) {
    y.par_chunks_mut(ROWS * width)
        .zip(
            gate.par_chunks(ROWS * width)
                .zip(up.par_chunks(ROWS * width)),
        )
        .enumerate()
        .for_each(|(chunk, (y, (gate, up)))| {
            gate_rows(gate, up, y);
            if let Some(mask) = mask {
                drop_rows(y, width, chunk * ROWS, mask);
            }
        });
}

simd! {
    fn gate_rows(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            *y = silu(gate).0 * up;
        }
    }
}

simd! {
    /// `up = silu(gate) * up`, for a pass without gradients.
    pub(crate) fn gate_in_place(gate: &[f32], up: &mut [f32]) {
        for (up, &gate) in up.iter_mut().zip(gate) {
            *up *= silu(gate).0;
        }
    }
}

/// Replaces scores by their probabilities after multiplying by `factor`.
pub(crate) fn softmax(scores: &mut [f32], factor: f32) {
    let shift = max(scores) * factor;
    let inverse = 1.0 / exp_into(scores, factor, shift);
    multiply(scores, inverse);
}

simd! {
    /// `x *= factor`.
    fn multiply(x: &mut [f32], factor: f32) {
        each_in_place(x, |x| x * factor);
    }
}

/// Turns the gradient of `gate`'s result, in `d_up`, into that of `up`, and sets `d_gate`.
pub(crate) fn gate_backward(
    gate: &[f32],
    up: &[f32],
    d_gate: &mut [f32],
    d_up: &mut [f32],
    width: usize,
    mask: Option<&Mask>,
) {
    d_up.par_chunks_mut(ROWS * width)
        .zip(d_gate.par_chunks_mut(ROWS * width))
        .zip(
            gate.par_chunks(ROWS * width)
                .zip(up.par_chunks(ROWS * width)),
        )
        .enumerate()
        .for_each(|(chunk, ((d_up, d_gate), (gate, up)))| {
            if let Some(mask) = mask {
                drop_rows(d_up, width, chunk * ROWS, mask);
            }
            gate_backward_rows(gate, up, d_gate, d_up);
        });
}

simd! {
    fn gate_backward_rows(gate: &[f32], up: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
        let rows = gate.iter().zip(up).zip(d_gate.iter_mut().zip(d_up));
        for ((&gate, &up), (d_gate, d_up)) in rows {
            let (y, slope) = silu(gate);
            *d_gate = *d_up * up * slope;
            *d_up *= y;
        }
    }
}

/// `out[i] = table[tokens[i]] * factor + positions[at[i]]`; no positions where empty.
pub(crate) fn embed(
    out: &mut [f32],
    width: usize,
    (table, tokens, factor): (&[f32], &[u16], f32),
    (positions, at): (&[f32], &[u16]),
) {
    out.par_chunks_mut(ROWS * width)
        .enumerate()
        .for_each(|(chunk, out)| {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let i = chunk * ROWS + i;
                let row = &table[usize::from(tokens[i]) * width..][..width];
                each(row, out, |x| x * factor);
                if !positions.is_empty() {
                    add(out, &positions[usize::from(at[i]) * width..][..width]);
                }
            }
        });
}

/// `d_table[rows[i]] += factor * d[i]`. Columns are shared out, so that each sum runs in order.
pub(crate) fn scatter(d_table: &mut [f32], d: &[f32], width: usize, rows: &[u16], factor: f32) {
    // A thousand short additions are not worth waking another thread for.
    for (d, &row) in d.chunks_exact(width).zip(rows) {
        add_scaled(&mut d_table[usize::from(row) * width..][..width], factor, d);
    }
}

/// Rotates the first `n_heads` heads of each row of `x` by its position, or back.
pub(crate) fn rotate(
    x: &mut [f32],
    width: usize,
    (n_heads, d_head): (usize, usize),
    (table, at): (&[f32], &[u16]),
    back: bool,
) {
    x.par_chunks_mut(ROWS * width)
        .enumerate()
        .for_each(|(chunk, x)| {
            for (i, row) in x.chunks_exact_mut(width).enumerate() {
                let position = usize::from(at[chunk * ROWS + i]);
                let angles = &table[position * d_head..][..d_head];
                for head in row[..n_heads * d_head].chunks_exact_mut(d_head) {
                    rotate_head(head, angles, if back { -1.0 } else { 1.0 });
                }
            }
        });
}

simd! {
    /// Rotates one head by these cosines and sines, or back with a sign of -1.
    pub(crate) fn rotate_head(x: &mut [f32], angles: &[f32], sign: f32) {
        let half = x.len() / 2;
        let (low, high) = x.split_at_mut(half);
        let (cos, sin) = angles.split_at(half);
        for i in 0..half {
            let (a, b, sin) = (low[i], high[i], sign * sin[i]);
            low[i] = a * cos[i] - b * sin;
            high[i] = b * cos[i] + a * sin;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{math::rotations, matmul::testing::numbers};

    /// The slope against a central difference, and the value against f64.
    fn check(activation: Activation, exact: impl Fn(f64) -> f64) {
        let h: Vec<f32> = (-80..=80).map(|i| i as f32 * 0.11 + 0.003).collect();
        let mut y = vec![0.0; h.len()];
        activate(activation, &h, &mut y, h.len(), None);
        let mut d = vec![1.0; h.len()];
        activate_backward(activation, &h, &mut d, h.len(), None, &mut []);
        for i in 0..h.len() {
            let x = f64::from(h[i]);
            assert!(
                (f64::from(y[i]) - exact(x)).abs() < 1e-6,
                "{activation:?}({x})"
            );
            let slope = (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5;
            assert!(
                (f64::from(d[i]) - slope).abs() < 2e-6,
                "slope of {activation:?} at {x}"
            );
        }
    }

    #[test]
    fn activations_and_their_slopes_are_right() {
        let root = (2.0 / std::f64::consts::PI).sqrt();
        check(Activation::GeluTanh, |x| {
            0.5 * x * (1.0 + (root * (x + 0.044715 * x.powi(3))).tanh())
        });
        check(Activation::Relu, |x| x.max(0.0));
        check(Activation::Silu, |x| x / (1.0 + (-x).exp()));
        // Simpson's rule for the normal distribution.
        check(Activation::Gelu, |x| {
            let bell = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let (n, h) = (2000, x / 2000.0);
            let inner: f64 = (1..n)
                .map(|i| bell(i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 })
                .sum();
            x * (0.5 + h / 3.0 * (bell(0.0) + inner + bell(x)))
        });
    }

    /// Rows of a norm in f64.
    fn normed(kind: Norm, eps: f64, x: &[f64], gain: &[f32], bias: &[f32]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = match kind {
            Norm::Layer => x.iter().sum::<f64>() / n,
            Norm::Rms => 0.0,
        };
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let scale = |(j, x): (usize, &f64)| {
            let bias = bias.get(j).copied().unwrap_or(0.0);
            (x - mean) / (variance + eps).sqrt() * f64::from(gain[j]) + f64::from(bias)
        };
        x.iter().enumerate().map(scale).collect()
    }

    #[test]
    fn norms_and_their_slopes_are_right() {
        const WIDTH: usize = 37;
        // More rows than one task has.
        let n_rows = ROWS + 5;
        let (gain, bias) = (numbers(WIDTH, 1), numbers(WIDTH, 2));
        let (x, d_y) = (numbers(n_rows * WIDTH, 3), numbers(n_rows * WIDTH, 4));
        for (kind, bias) in [(Norm::Layer, &bias[..]), (Norm::Rms, &[])] {
            let (mut y, mut stats) = (x.clone(), vec![0.0; n_rows * NORM_STATS]);
            norm(kind, 1e-5, &x, &gain, bias, &mut y, &mut stats);
            let (mut d_x, mut d_gain) = (vec![1.0; x.len()], vec![0.0; WIDTH]);
            let mut d_bias = vec![0.0; bias.len()];
            let add = Write::Add;
            norm_backward(
                kind,
                &x,
                &gain,
                &stats,
                &d_y,
                &mut d_x,
                add,
                &mut d_gain,
                &mut d_bias,
            );
            let mut slopes_of_gain = vec![0.0; WIDTH];
            for row in 0..n_rows {
                let at = row * WIDTH..(row + 1) * WIDTH;
                let exact: Vec<f64> = x[at.clone()].iter().map(|&x| f64::from(x)).collect();
                let d_y = &d_y[at.clone()];
                let expected = normed(kind, 1e-5, &exact, &gain, bias);
                for (j, expected) in expected.iter().enumerate() {
                    assert!((f64::from(y[at.start + j]) - expected).abs() < 1e-5);
                    let scaled = expected - bias.get(j).map_or(0.0, |&bias| f64::from(bias));
                    slopes_of_gain[j] += f64::from(d_y[j]) * scaled / f64::from(gain[j]);
                    let moved = |step: f64| -> f64 {
                        let mut x = exact.clone();
                        x[j] += step;
                        let y = normed(kind, 1e-5, &x, &gain, bias);
                        y.iter().zip(d_y).map(|(y, &d)| y * f64::from(d)).sum()
                    };
                    let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    let found = f64::from(d_x[at.start + j]) - 1.0;
                    assert!(
                        (found - slope).abs() < 2e-5,
                        "{kind:?}: {found} for {slope}"
                    );
                }
            }
            for (found, expected) in d_gain.iter().zip(slopes_of_gain) {
                assert!((f64::from(*found) - expected).abs() < 1e-4, "{kind:?}");
            }
            for (j, found) in d_bias.iter().enumerate() {
                let column = d_y.iter().skip(j).step_by(WIDTH);
                let expected: f64 = column.map(|&d| f64::from(d)).sum();
                assert!((f64::from(*found) - expected).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn rotating_back_undoes_rotating() {
        let x: Vec<f32> = (0..3 * 20).map(|i| i as f32 * 0.1 - 2.0).collect();
        let (table, at) = (rotations(10, 8, 8, 100.0), [0, 9, 4]);
        let mut y = x.clone();
        rotate(&mut y, 20, (2, 8), (&table, &at), false);
        assert_eq!(y[..20], x[..20], "position 0 is not turned");
        assert_ne!(y[20..36], x[20..36]);
        assert_eq!(y[36..40], x[36..40], "what is no head is not turned");
        rotate(&mut y, 20, (2, 8), (&table, &at), true);
        assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-5));
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
        for (activation, want) in reference {
            let (mut found, mut copied) = (x.clone(), vec![0.0; x.len()]);
            activate_in_place(activation, &mut found);
            activate_rows(activation, &x, &mut copied);
            assert_eq!(found, copied, "{activation:?}");
            for (x, found) in x.iter().zip(found) {
                let want = want(f64::from(*x));
                let error = (f64::from(found) - want).abs();
                assert!(error < 2e-6, "{activation:?}({x}): {found} {want}");
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
        let mut scores: Vec<f32> = numbers(45, 1).iter().map(|x| x * 1e4).collect();
        softmax(&mut scores, 1.0);
        assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
