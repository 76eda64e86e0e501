//! What the emulator makes of the words of tensor cores, against their definitions.
//!
//! An emulator and kernels with the same wrong idea of where a lane's numbers lie would agree with each other and
//! with no card. So the places are written here once more, as NVIDIA's manual of PTX numbers them, and a kernel
//! that knows nothing of them hands words on.

use std::collections::BTreeSet;

use super::rounding::{numbers, rounded};
use super::*;
use crate::dfdx_engine::tests::distance;
use crate::gpu::kernels::{is_tensor, names};
use crate::gpu::launcher::{Arg, Numbers};
use crate::gpu::memory::Device as Memory;
use crate::gpu::product::KEPT;
use crate::ops::Result;

/// In place of a kernel that has the same arguments: does one thing with the words of each lane.
const PROBE: &str = "KERNEL gate(float* out, const float* in, const float*, Mask, int what) {
  u32 lane = threadIdx.x, words[10];
  for (int i = 0; i < 10; ++i) words[i] = bits_of(in[10 * lane + i]);
  float sums[4] = {};
  for (int i = 0; i < 4; ++i) sums[i] = of_bits(words[6 + i]);
  u32 a[4] = {words[0], words[1], words[2], words[3]}, b[2] = {words[4], words[5]};
  if (what == 0 || (what == 1 && lane < 16)) mma(sums, a, b);
  if (what == 2) for (int i = 0; i < 4; ++i) sums[i] = of_bits(pack(in[10 * lane + i], in[10 * lane + i + 1]));
  if (what == 3) read_four(sums, in + 1);
  for (int i = 0; i < 4; ++i) out[4 * lane + i] = sums[i];
}
KERNEL gate_as_it_was(";
const MULTIPLY: i32 = 0;
const MULTIPLY_BY_HALF_A_WARP: i32 = 1;
const PACK: i32 = 2;
const READ_ASIDE: i32 = 3;

/// Each lane's ten words, and the four that it ends with.
fn probe(what: i32, words: &[u32]) -> Result<Vec<f32>> {
    let library = faulty("elements.cu", "KERNEL gate(", PROBE);
    let device = Memory::new(Box::new(Emulated::new(library, 0)));
    let (out, words) = (device.floats(4 * 32)?, device.upload(Numbers::U32(words))?);
    let ends = [Arg::At(0), Arg::Dropped(KEPT), Arg::Int(what)];
    let args = [&[out.at(), words.at()], &ends[..]].concat();
    device.launch("gate", [1, 1, 1], 32, 0, &args)?;
    device.floats_of(&out, 4 * 32)
}

/// Row and column of the numbers of a lane: `i` counts them through its words.
fn place_in_a(lane: usize, i: usize) -> (usize, usize) {
    let row = lane / 4 + if matches!(i, 0 | 1 | 4 | 5) { 0 } else { 8 };
    (row, lane % 4 * 2 + i % 2 + if i < 4 { 0 } else { 8 })
}

fn place_in_b(lane: usize, i: usize) -> (usize, usize) {
    (lane % 4 * 2 + i % 2 + if i < 2 { 0 } else { 8 }, lane / 4)
}

fn place_in_c(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + if i < 2 { 0 } else { 8 }, lane % 4 * 2 + i % 2)
}

fn word(low: f64, high: f64) -> u32 {
    let [low, high] = [low, high].map(|x| u32::from(half::bf16::from_f64(x).to_bits()));
    low | high << 16
}

#[test]
fn a_warp_multiplies_what_the_definition_says_its_lanes_hold() {
    if !is_emulated() {
        return;
    }
    let of = |n, seed| -> Vec<f64> {
        numbers(n, seed)
            .iter()
            .map(|&x| rounded(x.into()))
            .collect()
    };
    let (a, b, c) = (of(16 * 16, 1), of(16 * 8, 2), of(16 * 8, 3));
    let [at_a, at_b, at_c] = [(&a, 16), (&b, 8), (&c, 8)]
        .map(|(x, width)| move |(row, column): (usize, usize)| x[row * width + column]);
    let mut words = Vec::new();
    for lane in 0..32 {
        let pair = |at: &dyn Fn(usize) -> f64, i: usize| word(at(2 * i), at(2 * i + 1));
        words.extend((0..4).map(|i| pair(&|i| at_a(place_in_a(lane, i)), i)));
        words.extend((0..2).map(|i| pair(&|i| at_b(place_in_b(lane, i)), i)));
        words.extend((0..4).map(|i| (at_c(place_in_c(lane, i)) as f32).to_bits()));
    }
    let sum = |(row, column)| -> f64 {
        let products = (0..16).map(|k| at_a((row, k)) * at_b((k, column)));
        at_c((row, column)) + products.sum::<f64>()
    };
    let places = (0..32).flat_map(|lane| (0..4).map(move |i| place_in_c(lane, i)));
    let expected: Vec<f32> = places.map(|place| sum(place) as f32).collect();
    let off = distance(&expected, &probe(MULTIPLY, &words).unwrap());
    assert!(off < 1e-6, "{off:e}");
}

#[test]
fn two_numbers_in_a_word_are_each_the_nearest_bf16() {
    if !is_emulated() {
        return;
    }
    let bits = (0..320_u32).map(|i| i.wrapping_mul(0x0345_6789));
    let special = [
        0x7f7f_ffff,
        0x3f80_8000,
        0x3f81_8000,
        0x7f80_0000,
        0x7f80_0001,
        0xffff_ffff,
        1,
    ];
    let words: Vec<u32> = special.into_iter().chain(bits).take(320).collect();
    let found = probe(PACK, &words).unwrap();
    for (at, found) in found.into_iter().map(f32::to_bits).enumerate() {
        let first = at / 4 * 10 + at % 4;
        for (word, found) in [
            (words[first], found & 0xffff),
            (words[first + 1], found >> 16),
        ] {
            let expected = half::bf16::from_f32(f32::from_bits(word));
            let found = half::bf16::from_bits(found as u16);
            let is_same = found == expected || found.is_nan() && expected.is_nan();
            assert!(is_same, "{word:x}: {found} {expected}");
        }
    }
}

#[test]
fn what_tensor_cores_cannot_do_is_told() {
    if !is_emulated() {
        return;
    }
    let told = |what| probe(what, &[0; 320]).unwrap_err().to_string();
    assert_eq!(
        told(MULTIPLY_BY_HALF_A_WARP),
        "device: `gate`: a part of a warp at an operation of the whole warp"
    );
    assert_eq!(
        told(READ_ASIDE),
        "device: `gate`: neighbours that do not begin at a multiple of their bytes"
    );
}

#[test]
fn every_product_of_a_pass_in_bf16_is_made_on_tensor_cores() {
    if !is_emulated() {
        return;
    }
    let settings = EngineSettings {
        precision: Precision::Bf16,
        ..EngineSettings::default()
    };
    let mut launched = BTreeSet::new();
    for d_head in [10, 70] {
        let config = ModelConfig {
            d_model: 2 * d_head,
            n_heads: 2,
            n_kv_heads: 2,
            ..configs().remove(3).1
        };
        let (mut engine, device) = watched(&config, &settings, 3, 0);
        engine.accumulate(&packed(3, 12, 1), PASS).unwrap();
        launched.extend(device.launched.borrow().iter().copied());
    }
    launched.remove("attend_deltas");
    let multiplies = |name: &&str| name.starts_with("product_") || name.starts_with("attend_");
    let on_tensor_cores = names().filter(|name| is_tensor(name));
    let found: BTreeSet<&str> = launched.into_iter().filter(multiplies).collect();
    assert_eq!(found, on_tensor_cores.collect());
}
