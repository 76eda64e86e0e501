//! The numbers of a file: plain ones, and blocks of small integers with a scale.
//!
//! The blocks are made as llama.cpp's own reference makes them, to the byte. Reading them again is
//! [`foreign`](crate::foreign)'s business.

use half::{bf16, f16};
use tinylm_settings::choices;

choices! {
    /// The numbers that weights are written as.
    pub enum Numbers {
        F32 = "f32",
        F16 = "f16",
        Bf16 = "bf16",
        /// Eight bits each, and a scale for 32 of them.
        Q8_0 = "q8_0",
        /// Four bits each, and a scale for 32 of them; the embedding and the head have eight.
        Q4_0 = "q4_0",
    }
}

/// Numbers in a block.
const BLOCK: usize = 32;

impl Numbers {
    /// The number that a tensor's header has.
    pub(super) fn sort(self) -> u32 {
        match self {
            Numbers::F32 => 0,
            Numbers::F16 => 1,
            Numbers::Q4_0 => 2,
            Numbers::Q8_0 => 8,
            Numbers::Bf16 => 30,
        }
    }

    /// The number that `general.file_type` has.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Numbers::F32 => 0,
            Numbers::F16 => 1,
            Numbers::Q4_0 => 2,
            Numbers::Q8_0 => 7,
            Numbers::Bf16 => 32,
        }
    }

    pub(super) fn is_quantised(self) -> bool {
        matches!(self, Numbers::Q8_0 | Numbers::Q4_0)
    }

    /// Returns what a tensor is written as, were its rows whole blocks. What is no matrix, and the
    /// table of positions, stays as it is.
    pub(super) fn wanted(self, name: &str, shape: &[usize]) -> Numbers {
        if shape.len() < 2 || name.starts_with("position_embd") {
            return Numbers::F32;
        }
        let is_outer = name.starts_with("token_embd") || name.starts_with("output");
        match self {
            Numbers::Q4_0 if is_outer => Numbers::Q8_0,
            numbers => numbers,
        }
    }

    /// Returns what a tensor is written as: rows that are no whole blocks are of halves.
    pub(super) fn of(self, name: &str, shape: &[usize]) -> Numbers {
        match self.wanted(name, shape) {
            wanted if wanted.is_quantised() && !shape[1].is_multiple_of(BLOCK) => Numbers::F16,
            wanted => wanted,
        }
    }

    /// The bytes of so many numbers.
    pub(super) fn n_bytes(self, n: usize) -> usize {
        match self {
            Numbers::F32 => 4 * n,
            Numbers::F16 | Numbers::Bf16 => 2 * n,
            Numbers::Q8_0 => n / BLOCK * (2 + BLOCK),
            Numbers::Q4_0 => n / BLOCK * (2 + BLOCK / 2),
        }
    }

    /// Appends numbers, of whole blocks.
    pub(super) fn put(self, numbers: &[f32], out: &mut Vec<u8>) {
        match self {
            Numbers::F32 => out.extend(numbers.iter().flat_map(|x| x.to_le_bytes())),
            Numbers::F16 => {
                out.extend(numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
            }
            Numbers::Bf16 => {
                out.extend(
                    numbers
                        .iter()
                        .flat_map(|x| bf16::from_f32(*x).to_le_bytes()),
                );
            }
            Numbers::Q8_0 => numbers
                .chunks_exact(BLOCK)
                .for_each(|block| q8_0(block, out)),
            Numbers::Q4_0 => numbers
                .chunks_exact(BLOCK)
                .for_each(|block| q4_0(block, out)),
        }
    }
}

/// One over a scale; of a block of zeros, zero.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn q8_0(block: &[f32], out: &mut Vec<u8>) {
    let largest = block
        .iter()
        .fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let scale = largest / 127.0;
    out.extend(f16::from_f32(scale).to_le_bytes());
    let inverse = inverse(scale);
    out.extend(
        block
            .iter()
            .map(|x| ((x * inverse).round() as i8).cast_unsigned()),
    );
}

/// The largest number, with its sign, becomes -8; the rest lies between that and 7.
fn q4_0(block: &[f32], out: &mut Vec<u8>) {
    let largest = block.iter().fold(
        0.0_f32,
        |largest, &x| {
            if x.abs() > largest.abs() { x } else { largest }
        },
    );
    let scale = largest / -8.0;
    out.extend(f16::from_f32(scale).to_le_bytes());
    let inverse = inverse(scale);
    let nibble = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    let (low, high) = block.split_at(BLOCK / 2);
    out.extend(
        low.iter()
            .zip(high)
            .map(|(&low, &high)| nibble(low) | nibble(high) << 4),
    );
}
