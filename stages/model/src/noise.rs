//! Random numbers as functions of where they are used, never of a generator's state.
//!
//! A draw depends on the seed, what it is for, the step, the row in the global batch and
//! its place in that row. So the same row draws the same dropout however the batch is cut
//! into micro-batches, on any number of threads, and a resumed run draws what an
//! uninterrupted one would have drawn.

use rayon::prelude::*;

use crate::engine::{Batch, Pass};

/// How often activations are dropped while training; 0 switches a place off.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Dropout {
    pub embedding: f32,
    pub attention: f32,
    pub residual: f32,
    pub mlp: f32,
}

impl Dropout {
    /// The same rate in all four places.
    pub fn everywhere(rate: f32) -> Self {
        Dropout {
            embedding: rate,
            attention: rate,
            residual: rate,
            mlp: rate,
        }
    }
}

/// Where in the model a number is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Embedding,
    Attention(usize),
    AfterAttention(usize),
    Mlp(usize),
    AfterMlp(usize),
}

impl Place {
    fn id(self) -> u64 {
        match self {
            Place::Embedding => 1,
            Place::Attention(layer) => 4 * layer as u64 + 8,
            Place::AfterAttention(layer) => 4 * layer as u64 + 9,
            Place::Mlp(layer) => 4 * layer as u64 + 10,
            Place::AfterMlp(layer) => 4 * layer as u64 + 11,
        }
    }
}

/// The dropout of one place in one pass: which columns of which row are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mask {
    pub(crate) key: u64,
    pub(crate) row_offset: u64,
    pub(crate) len: u64,
    /// A draw below this is dropped.
    pub(crate) below: u32,
    /// The factor of kept numbers.
    pub(crate) scale: f32,
}

impl Mask {
    /// Returns `None` where nothing is dropped.
    pub(crate) fn new(rate: f32, place: Place, pass: Pass, batch: &Batch) -> Option<Mask> {
        (rate > 0.0).then(|| Mask {
            key: mix(mix(mix(pass.seed) ^ pass.step) ^ place.id()),
            row_offset: batch.row_offset as u64,
            len: batch.len as u64,
            below: (f64::from(rate) * 4_294_967_296.0) as u32,
            scale: 1.0 / (1.0 - rate),
        })
    }

    /// The random numbers of one line: `token` counts through the batch (row after row),
    /// `lane` tells apart several lines of one token (its heads).
    #[inline(always)]
    pub(crate) fn line(&self, token: usize, lane: usize) -> Line {
        let (row, at) = (token as u64 / self.len, token as u64 % self.len);
        let key = mix(mix(self.key ^ (self.row_offset + row)) ^ (at << 32 | lane as u64));
        Line {
            low: key as u32,
            high: (key >> 32) as u32 | 1,
            below: self.below,
            scale: self.scale,
        }
    }
}

/// One line of a mask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    low: u32,
    high: u32,
    below: u32,
    scale: f32,
}

impl Line {
    /// Returns what the number in `column` is multiplied by: 0 or the mask's scale.
    /// A few integer operations without branches, so that loops over columns vectorise.
    #[inline(always)]
    pub(crate) fn factor(self, column: usize) -> f32 {
        let x = (column as u32).wrapping_mul(0x9e37_79b9) ^ self.low;
        let x = (x ^ (x >> 16)).wrapping_mul(self.high);
        let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        let x = x ^ (x >> 16);
        if x < self.below { 0.0 } else { self.scale }
    }
}

/// Fills `out` with numbers spread evenly between `-bound` and `bound`, a function of seed and name.
pub(crate) fn fill_uniform(out: &mut [f32], bound: f32, seed: u64, name: &str) {
    let key = key_of(seed, name);
    out.par_iter_mut().enumerate().for_each(|(i, out)| {
        let share = (mix(key ^ i as u64) >> 40) as f32 / (1u32 << 24) as f32;
        *out = bound * (2.0 * share - 1.0);
    });
}

fn key_of(seed: u64, name: &str) -> u64 {
    let name_key = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| mix(h ^ u64::from(b)));
    mix(mix(seed) ^ name_key)
}

/// Fills `out` with normal numbers of this deviation, a function of seed and name.
pub(crate) fn fill_normal(out: &mut [f32], deviation: f32, seed: u64, name: &str) {
    let key = key_of(seed, name);
    out.par_chunks_mut(1 << 12)
        .enumerate()
        .for_each(|(chunk, out)| {
            for (i, pair) in out.chunks_mut(2).enumerate() {
                let bits = mix(key ^ ((chunk << 11) + i) as u64);
                // The half keeps the logarithm's argument above zero.
                let u = ((bits >> 40) as f32 + 0.5) / (1u32 << 24) as f32;
                let turn = (bits & 0xff_ffff) as f32 / (1u32 << 24) as f32;
                let radius = deviation * (-2.0 * u.ln()).sqrt();
                let (sin, cos) = (std::f32::consts::TAU * turn).sin_cos();
                for (out, x) in pair.iter_mut().zip([cos, sin]) {
                    *out = radius * x;
                }
            }
        });
}

/// A bijection of 64 bits whose output bits each depend on every input bit (splitmix64).
#[inline(always)]
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(n_rows: usize, row_offset: usize) -> Batch {
        Batch {
            n_rows,
            len: 8,
            row_offset,
            ..Batch::default()
        }
    }

    const PASS: Pass = Pass { seed: 7, step: 3 };

    #[test]
    fn a_row_draws_the_same_wherever_the_batch_was_cut() {
        let whole = Mask::new(0.3, Place::Mlp(1), PASS, &batch(4, 0)).unwrap();
        let third = Mask::new(0.3, Place::Mlp(1), PASS, &batch(1, 2)).unwrap();
        for t in 0..8 {
            for column in 0..100 {
                let expected = whole.line(2 * 8 + t, 5).factor(column);
                assert_eq!(third.line(t, 5).factor(column), expected);
            }
        }
    }

    #[test]
    fn the_share_dropped_is_the_rate_and_lines_differ() {
        let mask = Mask::new(0.25, Place::Embedding, PASS, &batch(64, 0)).unwrap();
        let mut n_dropped = 0;
        for token in 0..512 {
            let line = mask.line(token, 0);
            n_dropped += (0..256).filter(|&c| line.factor(c) == 0.0).count();
        }
        let share = n_dropped as f64 / (512.0 * 256.0);
        assert!((share - 0.25).abs() < 0.006, "{share}");
        let draws = |token: usize, place| -> Vec<f32> {
            let mask = Mask::new(0.25, place, PASS, &batch(64, 0)).unwrap();
            (0..64).map(|c| mask.line(token, 0).factor(c)).collect()
        };
        assert_ne!(draws(0, Place::Embedding), draws(1, Place::Embedding));
        assert_ne!(draws(0, Place::Embedding), draws(0, Place::AfterMlp(0)));
    }

    #[test]
    fn normal_numbers_have_the_asked_spread() {
        let mut x = vec![0.0; 100_001];
        fill_normal(&mut x, 0.5, 1, "a");
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
        assert!(
            mean.abs() < 0.01 && (variance - 0.25).abs() < 0.01,
            "{mean} {variance}"
        );
        let mut y = vec![0.0; 100_001];
        fill_normal(&mut y, 0.5, 1, "b");
        assert_ne!(x, y);
    }
}
