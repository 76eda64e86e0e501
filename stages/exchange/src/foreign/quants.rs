//! Numbers of GGUF files, as f32: plain ones, and blocks of small integers with a scale.
//!
//! Blocks lie along a row. What each sort's numbers are is fixed by llama.cpp's files that
//! exist; a sort that is not read here is refused by its name, never guessed.

use half::{bf16, f16};

/// Appends the numbers of a block.
type ReadBlock = fn(&[u8], &mut Vec<f32>);

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sort {
    /// Numbers of a block, and its bytes.
    pub(super) n: usize,
    pub(super) n_bytes: usize,
    read: ReadBlock,
}

/// Returns the sort that a file calls by a number.
pub(crate) fn sort(number: u32) -> Result<Sort, String> {
    let (n, n_bytes, read): (_, _, ReadBlock) = match number {
        0 => (1, 4, f32s),      // F32
        1 => (1, 2, f16s),      // F16
        2 => (32, 18, q4_0),    // Q4_0
        3 => (32, 20, q4_1),    // Q4_1
        6 => (32, 22, q5_0),    // Q5_0
        7 => (32, 24, q5_1),    // Q5_1
        8 => (32, 34, q8_0),    // Q8_0
        12 => (256, 144, q4_k), // Q4_K
        13 => (256, 176, q5_k), // Q5_K
        14 => (256, 210, q6_k), // Q6_K
        30 => (1, 2, bf16s),    // BF16
        10 => return Err("Q2_K".to_owned()),
        11 => return Err("Q3_K".to_owned()),
        other => return Err(format!("sort {other}")),
    };
    Ok(Sort { n, n_bytes, read })
}

impl Sort {
    /// Returns the bytes of so many numbers in rows of `width`, where rows are whole blocks.
    pub(super) fn n_bytes_of(self, n: usize, width: usize) -> Option<usize> {
        if !width.is_multiple_of(self.n) {
            return None;
        }
        (n / self.n).checked_mul(self.n_bytes)
    }

    pub(crate) fn read(self, bytes: &[u8]) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(bytes.len() / self.n_bytes * self.n);
        for block in bytes.chunks_exact(self.n_bytes) {
            (self.read)(block, &mut numbers);
        }
        numbers
    }
}

fn f32s(block: &[u8], out: &mut Vec<f32>) {
    out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]]));
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn f16s(block: &[u8], out: &mut Vec<f32>) {
    out.push(half(block, 0));
}

fn bf16s(block: &[u8], out: &mut Vec<f32>) {
    out.push(bf16::from_le_bytes([block[0], block[1]]).to_f32());
}

/// Low halves of 16 bytes, then high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let low = bytes.iter().map(|byte| byte & 15);
    low.chain(bytes.iter().map(|byte| byte >> 4))
}

fn q4_0(block: &[u8], out: &mut Vec<f32>) {
    let scale = half(block, 0);
    out.extend(nibbles(&block[2..18]).map(|q| (f32::from(q) - 8.0) * scale));
}

fn q4_1(block: &[u8], out: &mut Vec<f32>) {
    let (scale, least) = (half(block, 0), half(block, 2));
    out.extend(nibbles(&block[4..20]).map(|q| f32::from(q) * scale + least));
}

/// Five bits each: a nibble, and a bit of the word before.
fn fives(bits: &[u8], bytes: &[u8]) -> impl Iterator<Item = u8> {
    let word = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    let bit = move |idx: u32| ((word >> idx) & 1) as u8;
    nibbles(bytes)
        .zip(0..)
        .map(move |(q, idx)| q | bit(idx) << 4)
}

fn q5_0(block: &[u8], out: &mut Vec<f32>) {
    let scale = half(block, 0);
    let numbers = fives(&block[2..6], &block[6..22]);
    out.extend(numbers.map(|q| (f32::from(q) - 16.0) * scale));
}

fn q5_1(block: &[u8], out: &mut Vec<f32>) {
    let (scale, least) = (half(block, 0), half(block, 2));
    let numbers = fives(&block[4..8], &block[8..24]);
    out.extend(numbers.map(|q| f32::from(q) * scale + least));
}

fn q8_0(block: &[u8], out: &mut Vec<f32>) {
    let scale = half(block, 0);
    out.extend(
        block[2..34]
            .iter()
            .map(|&q| f32::from(q.cast_signed()) * scale),
    );
}

/// The scale and the least number of group `idx` of eight, six bits each, packed into 12 bytes.
fn group(packed: &[u8], idx: usize) -> (f32, f32) {
    let (scale, least) = match idx {
        0..4 => (packed[idx] & 63, packed[idx + 4] & 63),
        _ => (
            (packed[idx + 4] & 15) | (packed[idx - 4] >> 6) << 4,
            (packed[idx + 4] >> 4) | (packed[idx] >> 6) << 4,
        ),
    };
    (f32::from(scale), f32::from(least))
}

/// Eight groups of 32 in pairs that share bytes; `high` has the fifth bits, one a group.
fn grouped(block: &[u8], high: Option<&[u8]>, quants: &[u8], out: &mut Vec<f32>) {
    let (scale, least) = (half(block, 0), half(block, 2));
    for idx in 0..8 {
        let (group_scale, group_least) = group(&block[4..16], idx);
        let (scale, least) = (scale * group_scale, least * group_least);
        let bytes = &quants[idx / 2 * 32..][..32];
        out.extend(bytes.iter().enumerate().map(|(at, byte)| {
            let q = if idx % 2 == 0 { byte & 15 } else { byte >> 4 };
            let fifth = high.map_or(0, |high| (high[at] >> idx & 1) << 4);
            scale * f32::from(q | fifth) - least
        }));
    }
}

fn q4_k(block: &[u8], out: &mut Vec<f32>) {
    grouped(block, None, &block[16..144], out);
}

fn q5_k(block: &[u8], out: &mut Vec<f32>) {
    grouped(block, Some(&block[16..48]), &block[48..176], out);
}

/// Two halves of 128, each in four strips of 32 that share their high bits' bytes.
fn q6_k(block: &[u8], out: &mut Vec<f32>) {
    let scale = half(block, 208);
    for part in 0..2 {
        let low = &block[part * 64..][..64];
        let high = &block[128 + part * 32..][..32];
        let scales = &block[192 + part * 8..][..8];
        for strip in 0..4 {
            for at in 0..32 {
                let byte = low[at + strip % 2 * 32];
                let q = if strip < 2 { byte & 15 } else { byte >> 4 };
                let q = q | (high[at] >> (2 * strip) & 3) << 4;
                let of_strip = f32::from(scales[strip * 2 + at / 16].cast_signed());
                out.push(scale * of_strip * (f32::from(q) - 32.0));
            }
        }
    }
}
