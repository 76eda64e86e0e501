//! Causal attention over rows that may hold several documents.
//!
//! A block of queries is multiplied with the keys it can see, so scores exist for one block
//! at a time and the backward pass computes them again from one number kept per query: the
//! logarithm of its sum. Keys before the first document that a block touches are not read.

use rayon::prelude::*;

use super::math::exp;
use super::matmul::multiply_local;
use super::scratch::Scratch;
use super::shared::Shared;
use super::simd::{dot, lane_max, lane_sum, simd};
use super::view::View;
use crate::config::Precision;
use crate::noise::{Line, Mask};

/// Queries of one block.
const QUERIES: usize = 64;

/// The sizes of one attention; `qkv` has query heads, then key heads, then value heads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) d_head: usize,
    pub(crate) precision: Precision,
}

impl Heads {
    pub(crate) fn d_out(&self) -> usize {
        self.n_heads * self.d_head
    }

    pub(crate) fn d_qkv(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.d_head
    }

    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.d_head as f32).sqrt()
    }
}

/// The rows of a batch: `starts[t]` is where the document of token `t` starts in its row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) n_rows: usize,
    pub(crate) len: usize,
    pub(crate) starts: &'a [u16],
}

/// A block of queries `from..to` of one row, which sees keys from `first` on.
#[derive(Clone, Copy)]
struct Block {
    from: usize,
    to: usize,
    first: usize,
}

impl Rows<'_> {
    fn starts_of(&self, row: usize) -> &[u16] {
        &self.starts[row * self.len..][..self.len]
    }

    fn blocks(&self, row: usize) -> impl DoubleEndedIterator<Item = Block> {
        let starts = self.starts_of(row);
        (0..self.len.div_ceil(QUERIES)).map(move |i| {
            let (from, to) = (i * QUERIES, self.len.min((i + 1) * QUERIES));
            let first = starts[from..to].iter().min().map_or(0, |&s| usize::from(s));
            Block { from, to, first }
        })
    }
}

/// One query's place: its keys are `visible` of the block's, and `line` drops some of them.
struct Query {
    visible: std::ops::Range<usize>,
    line: Option<Line>,
    first: usize,
}

fn query(
    rows: Rows,
    block: Block,
    row: usize,
    t: usize,
    head: usize,
    mask: Option<&Mask>,
) -> Query {
    let start = usize::from(rows.starts_of(row)[t]);
    Query {
        visible: start - block.first..t + 1 - block.first,
        line: mask.map(|mask| mask.line(row * rows.len + t, head)),
        first: start,
    }
}

/// Scratch of one thread: two blocks of scores, and packed operands.
struct Work {
    scores: Vec<f32>,
    slopes: Vec<f32>,
    scratch: Scratch,
}

/// Runs `f` for every row and key/value head.
fn for_each_head(rows: Rows, heads: Heads, f: impl Fn(usize, usize, &mut Work) + Sync) {
    let work = || Work {
        scores: vec![0.0; QUERIES * rows.len],
        slopes: vec![0.0; QUERIES * rows.len],
        scratch: Scratch::default(),
    };
    (0..rows.n_rows * heads.n_kv_heads)
        .into_par_iter()
        .with_max_len(1)
        .for_each_init(work, |work, i| {
            f(i / heads.n_kv_heads, i % heads.n_kv_heads, work)
        });
}

/// Writes the attention's result to `out` and each query's log-sum to `log_sums` (row, head, t).
pub(crate) fn attend(
    heads: Heads,
    rows: Rows,
    mask: Option<&Mask>,
    qkv: &[f32],
    out: &mut [f32],
    log_sums: &mut [f32],
) {
    let Heads {
        d_head, precision, ..
    } = heads;
    let (d_out, d_qkv, len) = (heads.d_out(), heads.d_qkv(), rows.len);
    let n_tokens = rows.n_rows * len;
    assert!(rows.starts.len() == n_tokens && qkv.len() == n_tokens * d_qkv);
    assert!(out.len() == n_tokens * d_out && log_sums.len() == n_tokens * heads.n_heads);
    let (out, log_sums) = (Shared(out.as_mut_ptr()), Shared(log_sums.as_mut_ptr()));
    for_each_head(rows, heads, |row, kv_head, work| {
        let (k, v) = keys_and_values(heads, qkv, row * len, kv_head);
        for head in kv_head * heads.group()..(kv_head + 1) * heads.group() {
            for block in rows.blocks(row) {
                let n_keys = block.to - block.first;
                let scores = &mut work.scores[..(block.to - block.from) * n_keys];
                let at = row * len + block.from;
                let q = part(heads, qkv, at, head, block.to - block.from);
                let (k, v) = (keys(k, block, d_qkv, d_head), keys(v, block, d_qkv, d_head));
                // SAFETY: `scores` is this thread's, with a row of `n_keys` for each query.
                unsafe {
                    let out = scores.as_mut_ptr();
                    multiply_local(out, n_keys, false, q, k.t(), precision, &mut work.scratch);
                }
                for (t, row_of_scores) in
                    (block.from..block.to).zip(scores.chunks_exact_mut(n_keys))
                {
                    let Query {
                        visible,
                        line,
                        first,
                    } = query(rows, block, row, t, head, mask);
                    row_of_scores[..visible.start].fill(0.0);
                    row_of_scores[visible.end..].fill(0.0);
                    let seen = &mut row_of_scores[visible];
                    let log_sum = soften(seen, heads.scale());
                    if let Some(line) = line {
                        drop_some(seen, line, first);
                    }
                    // SAFETY: within `log_sums` (asserted); this head of this row is this task's.
                    unsafe { *log_sums.at((row * heads.n_heads + head) * len + t) = log_sum };
                }
                let p = View::new(scores, n_keys);
                // SAFETY: within `out` (asserted); these columns of these rows are this task's.
                unsafe {
                    let out = out.at(at * d_out + head * d_head);
                    multiply_local(out, d_out, false, p, v, precision, &mut work.scratch);
                }
            }
        }
    });
}

/// Writes the gradient of `qkv`.
#[expect(
    clippy::too_many_arguments,
    reason = "the gradient of a function of six arguments"
)]
pub(crate) fn attend_backward(
    heads: Heads,
    rows: Rows,
    mask: Option<&Mask>,
    qkv: &[f32],
    out: &[f32],
    log_sums: &[f32],
    d_out: &[f32],
    d_qkv: &mut [f32],
) {
    let Heads {
        d_head, precision, ..
    } = heads;
    let (width, stride, len) = (heads.d_out(), heads.d_qkv(), rows.len);
    let n_tokens = rows.n_rows * len;
    assert!(rows.starts.len() == n_tokens && qkv.len() == n_tokens * stride);
    assert!(d_qkv.len() == qkv.len() && out.len() == n_tokens * width && d_out.len() == out.len());
    assert!(log_sums.len() == n_tokens * heads.n_heads);
    let d_qkv = Shared(d_qkv.as_mut_ptr());
    for_each_head(rows, heads, |row, kv_head, work| {
        let (k, v) = keys_and_values(heads, qkv, row * len, kv_head);
        let k_at = row * len * stride + (heads.n_heads + kv_head) * d_head;
        let v_at = k_at + heads.n_kv_heads * d_head;
        for t in 0..len {
            // SAFETY: within `d_qkv` (asserted); the columns of this head in this row are this task's.
            unsafe {
                d_qkv.at(k_at + t * stride).write_bytes(0, d_head);
                d_qkv.at(v_at + t * stride).write_bytes(0, d_head);
            }
        }
        for head in kv_head * heads.group()..(kv_head + 1) * heads.group() {
            for block in rows.blocks(row) {
                let (n_keys, n_queries) = (block.to - block.first, block.to - block.from);
                let (p, d_s) = (
                    &mut work.scores[..n_queries * n_keys],
                    &mut work.slopes[..n_queries * n_keys],
                );
                let scratch = &mut work.scratch;
                let at = row * len + block.from;
                let q = part(heads, qkv, at, head, n_queries);
                let (k, v) = (
                    keys(k, block, stride, d_head),
                    keys(v, block, stride, d_head),
                );
                let out_at = at * width + head * d_head;
                let d_o = View::strided(&d_out[out_at..], n_queries, d_head, width);
                // SAFETY: both buffers are this thread's, with a row of `n_keys` for each query.
                unsafe {
                    multiply_local(p.as_mut_ptr(), n_keys, false, q, k.t(), precision, scratch);
                    multiply_local(
                        d_s.as_mut_ptr(),
                        n_keys,
                        false,
                        d_o,
                        v.t(),
                        precision,
                        scratch,
                    );
                }
                for (i, (p, d_s)) in p
                    .chunks_exact_mut(n_keys)
                    .zip(d_s.chunks_exact_mut(n_keys))
                    .enumerate()
                {
                    let t = block.from + i;
                    let Query {
                        visible,
                        line,
                        first,
                    } = query(rows, block, row, t, head, mask);
                    for x in [&mut *p, &mut *d_s] {
                        x[..visible.start].fill(0.0);
                        x[visible.end..].fill(0.0);
                    }
                    let here = out_at + i * width;
                    let delta = dot(&out[here..][..d_head], &d_out[here..][..d_head]);
                    let log_sum = log_sums[(row * heads.n_heads + head) * len + t];
                    let (p, d_s) = (&mut p[visible.clone()], &mut d_s[visible]);
                    match line {
                        None => slopes(p, d_s, heads.scale(), log_sum, delta),
                        Some(line) => {
                            dropped_slopes(p, d_s, heads.scale(), log_sum, delta, line, first)
                        }
                    }
                }
                let (p, d_s) = (View::new(p, n_keys), View::new(d_s, n_keys));
                // SAFETY: within `d_qkv` (asserted); these columns of this row are this task's.
                unsafe {
                    let d_v = d_qkv.at(v_at + block.first * stride);
                    multiply_local(d_v, stride, true, p.t(), d_o, precision, scratch);
                    let d_k = d_qkv.at(k_at + block.first * stride);
                    multiply_local(d_k, stride, true, d_s.t(), q, precision, scratch);
                    let d_q = d_qkv.at(at * stride + head * d_head);
                    multiply_local(d_q, stride, false, d_s, k, precision, scratch);
                }
            }
        }
    });
}

/// The columns of one head, from token `at` on.
fn part(heads: Heads, qkv: &[f32], at: usize, head: usize, n: usize) -> View<'_> {
    let stride = heads.d_qkv();
    View::strided(
        &qkv[at * stride + head * heads.d_head..],
        n,
        heads.d_head,
        stride,
    )
}

/// Where the keys and the values of one head start in a row.
fn keys_and_values(heads: Heads, qkv: &[f32], at: usize, kv_head: usize) -> (&[f32], &[f32]) {
    let row = &qkv[at * heads.d_qkv()..];
    let k = (heads.n_heads + kv_head) * heads.d_head;
    (&row[k..], &row[k + heads.n_kv_heads * heads.d_head..])
}

/// The keys (or values) that a block sees.
fn keys(row: &[f32], block: Block, stride: usize, d_head: usize) -> View<'_> {
    View::strided(
        &row[block.first * stride..],
        block.to - block.first,
        d_head,
        stride,
    )
}

simd! {
    /// Softmax in place; returns the logarithm of the sum.
    fn soften(scores: &mut [f32], scale: f32) -> f32 {
        let max = lane_max(scores) * scale;
        for x in scores.iter_mut() {
            *x = exp(*x * scale - max);
        }
        let sum = lane_sum(scores.len(), |j| scores[j]);
        let inverse = 1.0 / sum;
        for x in scores.iter_mut() {
            *x *= inverse;
        }
        max + sum.ln()
    }
}

simd! {
    fn drop_some(p: &mut [f32], line: Line, first: usize) {
        for (j, p) in p.iter_mut().enumerate() {
            *p *= line.factor(first + j);
        }
    }
}

simd! {
    /// From scores and the gradient of probabilities: probabilities and the gradient of scores.
    fn slopes(p: &mut [f32], d_s: &mut [f32], scale: f32, log_sum: f32, delta: f32) {
        for (p, d_s) in p.iter_mut().zip(d_s) {
            *p = exp(*p * scale - log_sum);
            *d_s = *p * (*d_s - delta) * scale;
        }
    }
}

simd! {
    fn dropped_slopes(
        p: &mut [f32], d_s: &mut [f32], scale: f32, log_sum: f32, delta: f32, line: Line, first: usize,
    ) {
        for (j, (p, d_s)) in p.iter_mut().zip(d_s).enumerate() {
            let kept = line.factor(first + j);
            let whole = exp(*p * scale - log_sum);
            *d_s = whole * (*d_s * kept - delta) * scale;
            *p = whole * kept;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Batch, Pass};
    use crate::kernels::matmul::testing::numbers;
    use crate::noise::Place;

    const LEN: usize = 150;
    const D_HEAD: usize = 20;

    /// Two rows of more than two blocks; documents begin inside blocks and at their edges.
    fn starts() -> Vec<u16> {
        let row = |begins: [usize; 3]| {
            let begun = move |t: usize| begins.into_iter().filter(|&b| b <= t).max();
            (0..LEN).map(move |t| begun(t).unwrap_or(0) as u16)
        };
        row([20, 64, 100]).chain(row([70, 127, 149])).collect()
    }

    /// The definition of attention, in f64 and one query at a time.
    struct Definition<'a> {
        heads: Heads,
        starts: &'a [u16],
        mask: Option<Mask>,
        qkv: Vec<f64>,
    }

    impl Definition<'_> {
        /// Where the numbers of a token's head stand: query heads, then key heads, then value heads.
        fn at(&self, token: usize, head: usize) -> std::ops::Range<usize> {
            let from = token * self.heads.d_qkv() + head * D_HEAD;
            from..from + D_HEAD
        }

        fn key_and_value(&self, token: usize, head: usize) -> [std::ops::Range<usize>; 2] {
            let kv_head = self.heads.n_heads + head / self.heads.group();
            [kv_head, kv_head + self.heads.n_kv_heads].map(|head| self.at(token, head))
        }

        fn product(&self, a: std::ops::Range<usize>, b: std::ops::Range<usize>) -> f64 {
            a.zip(b).map(|(a, b)| self.qkv[a] * self.qkv[b]).sum()
        }

        /// Of each token that a query sees: its probability and what dropout multiplies that by.
        fn seen(&self, token: usize, head: usize) -> Vec<(usize, f64, f64)> {
            let (row, t) = (token / LEN * LEN, token % LEN);
            let line = self.mask.map(|mask| mask.line(token, head));
            let keys = usize::from(self.starts[token])..t + 1;
            let score = |j: usize| {
                let [key, _] = self.key_and_value(row + j, head);
                self.product(self.at(token, head), key) / (D_HEAD as f64).sqrt()
            };
            let exps: Vec<f64> = keys.clone().map(|j| score(j).exp()).collect();
            let sum: f64 = exps.iter().sum();
            let kept = |j| line.map_or(1.0, |line| f64::from(line.factor(j)));
            let seen = keys.zip(exps);
            seen.map(|(j, exp)| (row + j, exp / sum, kept(j))).collect()
        }

        fn forward(&self) -> Vec<f64> {
            let mut out = Vec::new();
            for (token, head) in self.queries() {
                let seen = self.seen(token, head);
                let mixed = |d: usize| {
                    let part = |&(j, p, kept): &(usize, f64, f64)| {
                        let [_, value] = self.key_and_value(j, head);
                        p * kept * self.qkv[value.start + d]
                    };
                    seen.iter().map(part).sum::<f64>()
                };
                out.extend((0..D_HEAD).map(mixed));
            }
            out
        }

        fn backward(&self, d_out: &[f32]) -> Vec<f64> {
            let mut d_qkv = vec![0.0; self.qkv.len()];
            let scale = 1.0 / (D_HEAD as f64).sqrt();
            for ((token, head), d_o) in self.queries().zip(d_out.chunks_exact(D_HEAD)) {
                let seen = self.seen(token, head);
                let d_p = |&(j, _, kept): &(usize, f64, f64)| {
                    let [_, value] = self.key_and_value(j, head);
                    let products = self.qkv[value].iter().zip(d_o);
                    kept * products.map(|(v, &d)| v * f64::from(d)).sum::<f64>()
                };
                let delta: f64 = seen.iter().map(|one| one.1 * d_p(one)).sum();
                let query = self.at(token, head);
                for one in &seen {
                    let (d_s, p) = (one.1 * (d_p(one) - delta) * scale, one.1 * one.2);
                    let [key, value] = self.key_and_value(one.0, head);
                    for (d, &d_o) in d_o.iter().enumerate() {
                        d_qkv[query.start + d] += d_s * self.qkv[key.start + d];
                        d_qkv[key.start + d] += d_s * self.qkv[query.start + d];
                        d_qkv[value.start + d] += p * f64::from(d_o);
                    }
                }
            }
            d_qkv
        }

        fn queries(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
            let (n_tokens, n_heads) = (self.starts.len(), self.heads.n_heads);
            (0..n_tokens).flat_map(move |token| (0..n_heads).map(move |head| (token, head)))
        }
    }

    #[track_caller]
    fn assert_near(found: &[f32], expected: &[f64], bound: f64, what: &str) {
        for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
            let off = (f64::from(found) - expected).abs();
            assert!(off < bound, "{what} {i}: {found} for {expected}");
        }
    }

    #[test]
    fn attention_over_several_blocks_and_documents_is_its_definition() {
        let starts = starts();
        let batch = Batch {
            n_rows: 2,
            len: LEN,
            ..Batch::default()
        };
        let pass = Pass { seed: 3, step: 4 };
        for (n_kv_heads, rate) in [(4, 0.0), (2, 0.3)] {
            for (precision, bound) in [(Precision::F32, 2e-5), (Precision::Bf16, 3e-2)] {
                let heads = Heads {
                    n_heads: 4,
                    n_kv_heads,
                    d_head: D_HEAD,
                    precision,
                };
                let rows = Rows {
                    n_rows: 2,
                    len: LEN,
                    starts: &starts,
                };
                let mask = Mask::new(rate, Place::Attention(1), pass, &batch);
                let n = starts.len();
                let (qkv, d_out) = (numbers(n * heads.d_qkv(), 1), numbers(n * heads.d_out(), 2));
                let (mut out, mut log_sums) = (numbers(d_out.len(), 3), vec![0.0; n * 4]);
                attend(heads, rows, mask.as_ref(), &qkv, &mut out, &mut log_sums);
                let mut d_qkv = numbers(qkv.len(), 4);
                attend_backward(
                    heads,
                    rows,
                    mask.as_ref(),
                    &qkv,
                    &out,
                    &log_sums,
                    &d_out,
                    &mut d_qkv,
                );
                let definition = Definition {
                    heads,
                    starts: &starts,
                    mask,
                    qkv: qkv.iter().map(|&x| f64::from(x)).collect(),
                };
                let what = format!("{n_kv_heads} key heads, {precision:?}");
                assert_near(&out, &definition.forward(), bound, &what);
                assert_near(&d_qkv, &definition.backward(&d_out), bound, &what);
            }
        }
    }
}
