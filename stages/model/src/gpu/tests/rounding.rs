//! What `bf16` rounds, kernel by kernel, against sums in f64 of numbers that are rounded where it says.
//!
//! Whole models cannot tell: the two engines round in different places, and are no nearer to each other than to
//! f32. Here a place that is not rounded, or one too many, is a hundred times as far off as all else.

use std::ops::Range;

use super::*;
use crate::config::Preset;
use crate::dfdx_engine::tests::{distance, plain_rows};
use crate::engine::Batch;
use crate::gpu::inputs::Inputs;
use crate::gpu::launcher::Numbers;
use crate::gpu::memory::{Buf, Device as Memory};
use crate::gpu::ops::{GpuOps, Tables};
use crate::gpu::product::{plainly, product};
use crate::gpu::tape::{Grads, Node};
use crate::noise::{Dropout, Mask, Place, mix};
use crate::ops::{Ops, Scene, Training};

/// Rounding a place less, or more, is 1e-3 and above.
const BOUND: f64 = 1e-4;

fn memory(order: u32) -> Rc<Memory> {
    Memory::new(Box::new(Emulated::new(library().unwrap(), order)))
}

/// The same with products of a library.
fn multiplied() -> Rc<Memory> {
    Memory::new(Box::new(super::library::launcher(&[], 0)))
}

pub(super) fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let number = |i: usize| (mix(seed << 32 ^ i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    (0..n).map(number).collect()
}

/// By way of f32, because `half` takes what is just above the middle of two in f64 for the middle.
pub(super) fn rounded(x: f64) -> f64 {
    f64::from(half::bf16::from_f32(x as f32))
}

fn all_rounded(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| rounded(f64::from(x))).collect()
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

pub(super) fn bf16_product(
    device: &Rc<Memory>,
    layout: Layout,
    (a, b): (&[f32], &[f32]),
    shape: (usize, usize, usize),
) -> Vec<f32> {
    let [a, b] = [a, b].map(|x| device.upload(Numbers::F32(x)).unwrap());
    let out = device.floats(shape.0 * shape.1).unwrap();
    let operands = (out.at(), a.at(), b.at());
    let how = (Precision::Bf16, plainly(false));
    product(device, layout, operands, shape, how.0, how.1).unwrap();
    device.floats_of(&out, shape.0 * shape.1).unwrap()
}

#[test]
fn a_number_is_rounded_to_the_nearest_bf16_and_ties_to_even() {
    if !is_emulated() {
        return;
    }
    let ends = [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let tops = (0..1 << 16)
        .step_by(37)
        .chain([0x3f80, 0x3f81, 0x7f7f, 0xff7f]);
    let bits = tops.flat_map(|top: u32| ends.map(|end| top << 16 | end));
    let xs: Vec<f32> = bits.map(f32::from_bits).filter(|x| !x.is_nan()).collect();
    // A product with one, so that nothing but the rounding is seen.
    for device in [memory(0), multiplied()] {
        let found = bf16_product(&device, Layout::Nt, (&xs, &[1.0]), (xs.len(), 1, 1));
        for (x, found) in xs.iter().zip(found) {
            assert_eq!(found, half::bf16::from_f32(*x).to_f32(), "{x:e}");
        }
    }
}

/// The product of rounded numbers in f64.
fn product_of_rounded(
    layout: Layout,
    (a, b): (&[f32], &[f32]),
    shape: (usize, usize, usize),
) -> Vec<f32> {
    let (a, b) = (all_rounded(a), all_rounded(b));
    let sums = products(layout, (&a, &b), shape).map(|products| products.iter().sum::<f64>());
    narrow(&sums.collect::<Vec<_>>())
}

/// Edges inside every tile and beside it, rows that can be read by fours and that cannot, and a sum that is cut.
const SHAPES: [(usize, usize, usize); 7] = [
    (70, 130, 100),
    (1, 1, 1),
    (129, 3, 33),
    (136, 260, 64),
    (2, 420, 70),
    (20, 24, 700),
    (1, 32_105, 2),
];

#[test]
fn a_products_operands_are_rounded_however_they_lie() {
    if !is_emulated() {
        return;
    }
    for shape in SHAPES {
        let (m, n, k) = shape;
        let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
        for layout in [Layout::Nt, Layout::Nn, Layout::Tn] {
            let expected = product_of_rounded(layout, (&a, &b), shape);
            let [found, again, multiplied] = [memory(0), memory(3), multiplied()]
                .map(|device| bf16_product(&device, layout, (&a, &b), shape));
            for found in [&found, &multiplied] {
                let off = distance(&expected, found);
                assert!(off < 1e-6, "{layout:?} of {shape:?}: {off:e}");
            }
            assert!(found == again, "{layout:?} of {shape:?}: order of threads");
        }
    }
}

/// Attention as the kernels round it, in f64 and one query at a time.
struct Rounded<'a> {
    config: &'a ModelConfig,
    starts: &'a [u16],
    /// Keys of a tile: a probability is rounded beside the highest score of the tiles so far.
    side: usize,
    mask: Option<Mask>,
    qkv: Vec<f64>,
}

impl Rounded<'_> {
    fn d(&self) -> usize {
        self.config.d_head()
    }

    fn head(&self, token: usize, head: usize) -> Range<usize> {
        let from = (token * (self.config.n_heads + 2 * self.config.n_kv_heads) + head) * self.d();
        from..from + self.d()
    }

    /// Where a token's key and value stand for a query head.
    fn key_and_value(&self, token: usize, head: usize) -> [Range<usize>; 2] {
        let (n, shared) = (self.config.n_heads, self.config.n_kv_heads);
        let key = n + head / (n / shared);
        [key, key + shared].map(|head| self.head(token, head))
    }

    fn dot(&self, a: Range<usize>, b: Range<usize>) -> f64 {
        a.zip(b).map(|(a, b)| self.qkv[a] * self.qkv[b]).sum()
    }

    /// The keys that a query sees, each with its score.
    fn scores(&self, query: usize, head: usize) -> Vec<(usize, f64)> {
        let keys = usize::from(self.starts[query])..query + 1;
        let score = |key| {
            let key = self.key_and_value(key, head)[0].clone();
            self.dot(self.head(query, head), key) / (self.d() as f64).sqrt()
        };
        keys.map(|key| (key, score(key))).collect()
    }

    /// What dropout makes of a probability.
    fn kept(&self, query: usize, head: usize, key: usize) -> f64 {
        self.mask
            .map_or(1.0, |mask| mask.line(query, head).factor(key).into())
    }

    /// A query's result, and the logarithm of its sum.
    fn attend(&self, query: usize, head: usize) -> (Vec<f64>, f64) {
        let (mut out, mut total, mut top) = (vec![0.0; self.d()], 0.0, f64::NEG_INFINITY);
        let scores = self.scores(query, head);
        for tile in scores.chunk_by(|(a, _), (b, _)| a / self.side == b / self.side) {
            let highest = tile.iter().map(|(_, score)| *score).fold(top, f64::max);
            let keep = (top - highest).exp();
            (top, total) = (highest, total * keep);
            out.iter_mut().for_each(|x| *x *= keep);
            for (key, score) in tile {
                let each = (score - top).exp();
                total += each;
                let kept = self.kept(query, head, *key);
                let value = self.key_and_value(*key, head)[1].clone();
                for (x, at) in out.iter_mut().zip(value) {
                    *x += rounded(each * kept) * self.qkv[at];
                }
            }
        }
        out.iter_mut().for_each(|x| *x /= total);
        (out, top + total.ln())
    }

    /// The gradient of `qkv`, from that of the result and its rounded numbers.
    fn slopes(&self, d_out: &[f32]) -> Vec<f64> {
        let (n, d) = (self.config.n_heads, self.d());
        let (mut slopes, d_rounded) = (vec![0.0; self.qkv.len()], all_rounded(d_out));
        for (query, head) in (0..self.starts.len()).flat_map(|t| (0..n).map(move |h| (t, h))) {
            let (out, log_sum) = self.attend(query, head);
            let here = (query * n + head) * d..(query * n + head + 1) * d;
            let exact = d_out[here.clone()].iter().map(|&x| f64::from(x));
            let delta: f64 = out.iter().zip(exact).map(|(a, b)| a * b).sum();
            for (at, score) in self.scores(query, head) {
                let [key, value] = self.key_and_value(at, head);
                let share = (score - log_sum).exp();
                let d_share: f64 = value
                    .clone()
                    .zip(here.clone())
                    .map(|(v, o)| self.qkv[v] * d_rounded[o])
                    .sum();
                let kept = self.kept(query, head, at);
                let slope = rounded(share * (d_share * kept - delta) / (d as f64).sqrt());
                for (i, q) in self.head(query, head).enumerate() {
                    slopes[q] += slope * self.qkv[key.start + i];
                    slopes[key.start + i] += slope * self.qkv[q];
                    slopes[value.start + i] += rounded(share * kept) * d_rounded[here.start + i];
                }
            }
        }
        slopes
    }
}

/// Attention and its gradient, as the engine launches them, and what is dropped.
fn attention(
    device: &Rc<Memory>,
    config: &ModelConfig,
    batch: &Batch,
    dropout: f32,
    (qkv, d_out): (&[f32], &[f32]),
) -> (Vec<f32>, Vec<f32>, Option<Mask>) {
    let training = Training {
        pass: PASS,
        dropout: Dropout::everywhere(dropout),
        label_smoothing: 0.0,
    };
    let scene = Scene {
        config,
        batch,
        precision: Precision::Bf16,
        training: Some(training),
    };
    let mask = scene.mask(Place::Attention(0));
    let mut ops = GpuOps {
        scene,
        device: Rc::clone(device),
        inputs: Rc::new(Inputs::new(device, batch, true).unwrap()),
        tables: &Tables::default(),
        cached: None,
        tape: Some(Vec::new()),
        n_slots: 1,
    };
    let upload = |x: &[f32]| -> Buf { device.upload(Numbers::F32(x)).unwrap() };
    let width = qkv.len() / batch.tokens.len();
    let qkv = Node::new(upload(qkv), qkv.len(), width, Some(0));
    let out = ops.attention(&qkv, Place::Attention(0)).unwrap();
    let mut grads = Grads::new(device, 2);
    grads.put(out.slot.unwrap(), upload(d_out));
    let tape = ops.tape.take().unwrap();
    tape.into_iter()
        .rev()
        .for_each(|back| back(&mut grads).unwrap());
    let d_qkv = grads.take(0).unwrap();
    let read = |buf: &Buf, n| device.floats_of(buf, n).unwrap();
    (read(&out.data, out.n), read(&d_qkv, qkv.n), mask)
}

#[test]
fn attention_rounds_what_it_multiplies_and_nothing_else() {
    if !is_emulated() {
        return;
    }
    // The last heads are too wide for tensor cores, and most rows too long for one block.
    for (d_head, side, len, dropout) in [
        (10, 32, 45, 0.0),
        (64, 32, 300, 0.25),
        (70, 32, 45, 0.0),
        (128, 32, 140, 0.0),
        (128, 32, 45, 0.25),
        (144, 16, 45, 0.25),
    ] {
        let config = ModelConfig {
            d_model: 4 * d_head,
            n_heads: 4,
            n_kv_heads: 2,
            ..Preset::Mini.config(37)
        };
        // Documents of 38 tokens, which is more than a tile, and of those that are left.
        let mut batch = plain_rows(1, len, 4);
        batch.starts[38..].fill(38);
        let given = (
            &numbers(len * 8 * d_head, 1)[..],
            &numbers(len * 4 * d_head, 2)[..],
        );
        let (found, d_found, mask) = attention(&memory(0), &config, &batch, dropout, given);
        let rounded = Rounded {
            config: &config,
            starts: &batch.starts,
            side,
            mask,
            qkv: all_rounded(given.0),
        };
        let places = (0..len).flat_map(|t| (0..4).map(move |head| (t, head)));
        let expected: Vec<f64> = places
            .flat_map(|(t, head)| rounded.attend(t, head).0)
            .collect();
        let off = distance(&narrow(&expected), &found);
        assert!(off < BOUND, "heads of {d_head}: {off:e}");
        let off = distance(&narrow(&rounded.slopes(given.1)), &d_found);
        assert!(off < BOUND, "heads of {d_head}, backward: {off:e}");
    }
}

/// Kernels that divide a probability by its sum before they round it, as the CPU does. A tile knows its own sum
/// alone, so this holds for rows that fit into one.
fn dividing_first() -> &'static Library {
    let changes = [
        (
            "s[j][i] *= factor(query.line",
            "s[j][i] *= 1 / total * factor(query.line",
        ),
        ("1 / totals[0], 1 / totals[1]);", "1, 1);"),
    ];
    let change = |file: &str, text: &str| match file {
        "tensor_attention.cu" => changes.iter().fold(text.to_owned(), |text, (from, to)| {
            assert!(text.contains(from));
            text.replace(from, to)
        }),
        _ => text.to_owned(),
    };
    Box::leak(Box::new(Library::compiled(change).unwrap()))
}

#[test]
fn the_engines_differ_in_bf16_where_a_probability_is_rounded_and_nowhere_else() {
    if !is_emulated() {
        return;
    }
    let library = dividing_first();
    let settings = EngineSettings {
        precision: Precision::Bf16,
        ..EngineSettings::default()
    };
    let mut distances = Vec::new();
    for (_, config) in configs() {
        let launcher = Box::new(Emulated::new(library, 0));
        let what = (config.clone(), settings.clone());
        let mut engine = GpuEngine::on(launcher, Device::CUDA, what, 3).unwrap();
        engine.load_weights(&stirred(&engine)).unwrap();
        let found = gradients(&mut engine, &packed(3, 12, 1));
        let fused = gradients(&mut cpu(&config, &settings, 2), &packed(3, 12, 1));
        let pairs = found.1.iter().zip(&fused.1);
        distances.extend(pairs.map(|((_, a), (_, b))| distance(a, b)));
    }
    // A last digit may tip a number to the other of two, and all that follows from it with it.
    distances.sort_by(f64::total_cmp);
    let most = distances[distances.len() * 3 / 4];
    assert!(most < 1e-6, "{most:e}, {distances:?}");
    assert!(distances.last() < Some(&BF16_BOUND), "{distances:?}");
}
