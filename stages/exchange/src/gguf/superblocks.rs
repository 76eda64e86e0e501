//! Blocks of 256 numbers in groups, each with a scale of a few bits (llama.cpp's K-quants).
//!
//! A group's scale is searched for: of some twenty, each refined by least squares, the one of the
//! smallest error, where large numbers weigh more. The layout is llama.cpp's; the search is ours, so
//! that the bytes are not those of its own converter.

use std::array;

use half::f16;

/// Numbers in a block.
pub(super) const N: usize = 256;
/// Numbers of a group that has a scale and a least number.
const AFFINE: usize = 32;
/// Numbers of a group that has a scale alone.
const SYMMETRIC: usize = 16;
/// Scales that are tried beside the one that the largest number gives.
const TRIES: i32 = 10;

/// A group's numbers are `scale * q - least`.
#[derive(Clone, Copy, Default)]
struct Affine {
    scale: f32,
    least: f32,
}

/// Appends a block of `q4_k`.
pub(super) fn q4_k(block: &[f32], out: &mut Vec<u8>) {
    let quants = affine(block, 15, out);
    put_nibbles(&quants, out);
}

/// Appends a block of `q5_k`: the fifth bits of all groups lie before the nibbles.
pub(super) fn q5_k(block: &[f32], out: &mut Vec<u8>) {
    let quants = affine(block, 31, out);
    let fifths = |at: usize| {
        (0..8).fold(0, |byte, group| {
            byte | (quants[group * AFFINE + at] >> 4) << group
        })
    };
    out.extend((0..AFFINE).map(fifths));
    put_nibbles(&quants, out);
}

/// Two neighbouring groups share bytes.
fn put_nibbles(quants: &[u8; N], out: &mut Vec<u8>) {
    for pair in quants.chunks_exact(2 * AFFINE) {
        let (low, high) = pair.split_at(AFFINE);
        out.extend(low.iter().zip(high).map(|(low, high)| low & 15 | high << 4));
    }
}

/// Appends the scales of a block and returns its integers, of 0 to `most`.
fn affine(block: &[f32], most: u8, out: &mut Vec<u8>) -> [u8; N] {
    let groups: [Affine; N / AFFINE] =
        array::from_fn(|idx| Affine::of(&block[idx * AFFINE..][..AFFINE], most));
    let (scale, scales) = sixes(groups.map(|group| group.scale));
    let (least, leasts) = sixes(groups.map(|group| group.least));
    out.extend(scale.to_le_bytes());
    out.extend(least.to_le_bytes());
    out.extend(packed(scales, leasts));
    array::from_fn(|at| {
        let scale = scale.to_f32() * f32::from(scales[at / AFFINE]);
        let least = least.to_f32() * f32::from(leasts[at / AFFINE]);
        nearest((block[at] + least) * inverse(scale), most)
    })
}

/// Eight numbers of none below zero, as a common factor and six bits each.
fn sixes(numbers: [f32; 8]) -> (f16, [u8; 8]) {
    let factor = f16::from_f32(numbers.into_iter().fold(0.0, f32::max) / 63.0);
    let inverse = inverse(factor.to_f32());
    (factor, numbers.map(|x| nearest(x * inverse, 63)))
}

/// Six bits of eight scales and eight least numbers, in twelve bytes.
fn packed(scales: [u8; 8], leasts: [u8; 8]) -> [u8; 12] {
    array::from_fn(|at| match at {
        0..4 => scales[at] | (scales[at + 4] >> 4) << 6,
        4..8 => leasts[at - 4] | (leasts[at] >> 4) << 6,
        _ => scales[at - 4] & 15 | (leasts[at - 4] & 15) << 4,
    })
}

impl Affine {
    fn of(group: &[f32], most: u8) -> Self {
        let least = group.iter().copied().fold(0.0, f32::min);
        let range = group.iter().copied().fold(0.0, f32::max) - least;
        if range == 0.0 {
            return Self::default();
        }
        let tried = (-TRIES..=TRIES).map(|step| {
            let per_one = (f32::from(most) + 0.1 * step as f32) / range;
            Self::fitted(group, |x| nearest((x - least) * per_one, most))
        });
        let error = |found: &Self| found.error(group, most);
        let best = tried.min_by(|a, b| error(a).total_cmp(&error(b)));
        best.unwrap_or_default()
    }

    /// Least squares for integers that are given.
    fn fitted(group: &[f32], quant: impl Fn(f32) -> u8) -> Self {
        let weigh = weigher(group);
        let [mut n, mut q1, mut q2, mut x1, mut xq] = [0.0_f32; 5];
        for &x in group {
            let (w, q) = (weigh(x), f32::from(quant(x)));
            n += w;
            q1 += w * q;
            q2 += w * q * q;
            x1 += w * x;
            xq += w * x * q;
        }
        let determinant = n * q2 - q1 * q1;
        let least = (q1 * xq - q2 * x1) * inverse(determinant);
        match least > 0.0 {
            true => Self {
                scale: ((n * xq - q1 * x1) * inverse(determinant)).max(0.0),
                least,
            },
            // No number of a file is below zero there.
            false => Self {
                scale: (xq * inverse(q2)).max(0.0),
                least: 0.0,
            },
        }
    }

    fn error(self, group: &[f32], most: u8) -> f32 {
        let weigh = weigher(group);
        let inverse = inverse(self.scale);
        let off = |x: f32| {
            self.scale * f32::from(nearest((x + self.least) * inverse, most)) - self.least - x
        };
        group.iter().map(|&x| weigh(x) * off(x).powi(2)).sum()
    }
}

/// Returns how much a number's error counts.
fn weigher(group: &[f32]) -> impl Fn(f32) -> f32 {
    let mean: f32 = group.iter().map(|x| x * x).sum::<f32>() / group.len() as f32;
    let usual = mean.sqrt();
    move |x| usual + x.abs()
}

fn nearest(x: f32, most: u8) -> u8 {
    (x + 0.5).clamp(0.0, f32::from(most)) as u8
}

/// Appends a block of `q6_k`.
pub(super) fn q6_k(block: &[f32], out: &mut Vec<u8>) {
    const N_GROUPS: usize = N / SYMMETRIC;
    let scales: [f32; N_GROUPS] =
        array::from_fn(|idx| symmetric(&block[idx * SYMMETRIC..][..SYMMETRIC]));
    let largest = scales.iter().copied().fold(0.0_f32, |a, b| a.max(b.abs()));
    let factor = f16::from_f32(largest / 127.0);
    let per_factor = inverse(factor.to_f32());
    let eights = scales.map(|scale| (scale * per_factor).round().clamp(-127.0, 127.0) as i8);
    let quants: [u8; N] = array::from_fn(|at| {
        let scale = factor.to_f32() * f32::from(eights[at / SYMMETRIC]);
        nearest(block[at] * inverse(scale) + 32.0, 63)
    });
    for half in quants.chunks_exact(N / 2) {
        let pairs = |from: usize| (0..64).map(move |at| half[from + at] & 15);
        let low = pairs(0).zip(pairs(64)).map(|(low, high)| low | high << 4);
        out.extend(low);
    }
    for half in quants.chunks_exact(N / 2) {
        let two = |at: usize, strip: usize| (half[strip * 32 + at] >> 4) << (2 * strip);
        out.extend((0..32).map(|at| (0..4).fold(0, |byte, strip| byte | two(at, strip))));
    }
    out.extend(eights.map(i8::cast_unsigned));
    out.extend(factor.to_le_bytes());
}

/// Returns the scale of a group whose integers are -32 to 31.
fn symmetric(group: &[f32]) -> f32 {
    let larger = |a: f32, &b: &f32| if b.abs() > a.abs() { b } else { a };
    let largest = group.iter().fold(0.0, larger);
    if largest == 0.0 {
        return 0.0;
    }
    let tried = (-TRIES..=TRIES).map(|step| {
        let per_one = -(32.0 + 0.1 * step as f32) / largest;
        let (mut xq, mut q2) = (0.0_f32, 0.0_f32);
        for &x in group {
            let q = (x * per_one).round().clamp(-32.0, 31.0);
            // Errors weigh by their number's square.
            xq += x * x * x * q;
            q2 += x * x * q * q;
        }
        (xq * inverse(q2), xq * xq * inverse(q2))
    });
    let best = tried.max_by(|a, b| a.1.total_cmp(&b.1));
    best.map_or(0.0, |(scale, _)| scale)
}

/// One over a number; of zero, zero.
pub(super) fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}
