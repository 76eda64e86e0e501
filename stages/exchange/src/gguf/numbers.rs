//! The numbers of a file: plain ones, and blocks of small integers with a scale.
//!
//! Blocks of 32 are made as llama.cpp's own reference makes them, to the byte; those of 256 are
//! [`superblocks`]. Reading them again is
//! [`foreign`](crate::foreign)'s business.

use half::{bf16, f16};
use tinylm_settings::choices;

use super::superblocks::{self, inverse, q4_k, q5_k, q6_k};

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
        /// Six bits and a little: groups of 16 in blocks of 256.
        Q6K = "q6_k",
        /// Five bits and a half; the embedding and the head are `q6_k`.
        Q5K = "q5_k",
        /// Four bits and a half; the embedding and the head are `q6_k`.
        Q4K = "q4_k",
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
            Numbers::Q4K => 12,
            Numbers::Q5K => 13,
            Numbers::Q6K => 14,
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
            Numbers::Q4K => 14,
            Numbers::Q5K => 16,
            Numbers::Q6K => 18,
            Numbers::Bf16 => 32,
        }
    }

    pub(super) fn is_quantised(self) -> bool {
        self.block() > 1
    }

    /// How many numbers make a block.
    fn block(self) -> usize {
        match self {
            Numbers::F32 | Numbers::F16 | Numbers::Bf16 => 1,
            Numbers::Q8_0 | Numbers::Q4_0 => BLOCK,
            Numbers::Q6K | Numbers::Q5K | Numbers::Q4K => superblocks::N,
        }
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
            Numbers::Q5K | Numbers::Q4K if is_outer => Numbers::Q6K,
            numbers => numbers,
        }
    }

    /// Returns what a tensor is written as: rows that are no whole blocks have smaller blocks of
    /// more bits, or none.
    pub(super) fn of(self, name: &str, shape: &[usize]) -> Numbers {
        let wanted = self.wanted(name, shape);
        let fits = |numbers: &Numbers| {
            shape
                .last()
                .is_none_or(|row| row.is_multiple_of(numbers.block()))
        };
        let mut choices = [wanted, Numbers::Q8_0].into_iter();
        choices.find(fits).unwrap_or(Numbers::F16)
    }

    /// The bytes of so many numbers.
    pub(super) fn n_bytes(self, n: usize) -> usize {
        let of_block = match self {
            Numbers::F32 => 4,
            Numbers::F16 | Numbers::Bf16 => 2,
            Numbers::Q8_0 => 2 + BLOCK,
            Numbers::Q4_0 => 2 + BLOCK / 2,
            Numbers::Q4K => 144,
            Numbers::Q5K => 176,
            Numbers::Q6K => 210,
        };
        n / self.block() * of_block
    }

    /// Appends numbers, of whole blocks.
    pub(super) fn put(self, numbers: &[f32], out: &mut Vec<u8>) {
        let put_block: fn(&[f32], &mut Vec<u8>) = match self {
            Numbers::F32 => |one, out| out.extend(one[0].to_le_bytes()),
            Numbers::F16 => |one, out| out.extend(f16::from_f32(one[0]).to_le_bytes()),
            Numbers::Bf16 => |one, out| out.extend(bf16::from_f32(one[0]).to_le_bytes()),
            Numbers::Q8_0 => q8_0,
            Numbers::Q4_0 => q4_0,
            Numbers::Q6K => q6_k,
            Numbers::Q5K => q5_k,
            Numbers::Q4K => q4_k,
        };
        for block in numbers.chunks_exact(self.block()) {
            put_block(block, out);
        }
    }
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
