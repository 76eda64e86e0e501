//! The operations as people run them on a CPU: fused kernels on dfdx's tape.
//!
//! A `Node` is a matrix of our own whose place on the tape is an empty dfdx tensor. That
//! tensor's id is the key of its gradient in dfdx's `Gradients`, and its empty storage says
//! "no gradient yet": the first operation backward moves its buffer in, later ones add, and
//! nothing is allocated or zeroed in vain. The values stay outside dfdx because its tensors
//! cannot be read without a copy from outside their crate; in an `Arc` of our own they can,
//! without unsafe code, and their buffers come back to a pool.
//!
//! Values that follow from other kept ones by one cheap pass over them are not kept for
//! the backward pass but made again there (`Again`).

mod cpu;
mod gradients;
mod linear;
mod node;

use std::sync::Arc;

use dfdx::prelude::*;

use crate::buffer::{Buf, Pool};
use crate::config::Positions;
use crate::engine::{Batch, Score};
use crate::kernels::attention::{Heads, Rows, attend, attend_backward};
use crate::kernels::rows::{self, NORM_STATS, Write};
use crate::kernels::{View, loss, math, matmul};
use crate::memory::HEAD_ROWS;
use crate::noise::Place;
use crate::ops::{Judge, Ops, Result, Scene, Then};
use crate::profile::span;

pub(crate) use cpu::FusedCpu;
use gradients::{Done, Grads, Slot, device_error, give, put, take, take_or_new};
use node::{Node, Target};

/// The fused operations during one pass: taped for training, untaped for evaluation.
struct Fused<'a, T> {
    scene: Scene<'a>,
    /// The batch again, for operations backward, which outlive every borrow.
    batch: Arc<Batch>,
    pool: Pool<f32>,
    device: Cpu,
    tape: T,
    /// The loss, once it is known.
    total: Option<Tensor<Rank0, f32, Cpu>>,
}

impl<T: Tape<f32, Cpu>> Fused<'_, T> {
    fn slot(&self) -> Result<Slot> {
        self.device
            .try_tensor_from_vec(Vec::new(), (0,))
            .map_err(device_error)
    }

    /// Makes the result of an operation; it has a gradient if one of its inputs wants one.
    fn node(&self, data: Buf<f32>, width: usize, inputs: &[Option<&Node>]) -> Result<Node> {
        let wanted = T::OWNS_TAPE && inputs.iter().flatten().any(|input| input.slot.is_some());
        let slot = if wanted { Some(self.slot()?) } else { None };
        Ok(Node {
            data: Arc::new(data),
            width,
            slot,
            again: None,
        })
    }

    /// Records `backward`, which is handed the gradient of `y`, if there is one.
    fn record(&mut self, y: &Node, backward: impl FnOnce(&mut Grads, Buf<f32>) -> Done + 'static) {
        let pool = self.pool.clone();
        if let Some(slot) = y.slot.clone() {
            self.tape
                .add_backward_op(move |grads| match take(grads, &slot, &pool)? {
                    Some(d_y) => backward(grads, d_y),
                    None => Ok(()),
                });
        }
    }

    fn heads(&self) -> Heads {
        let config = self.scene.config;
        Heads {
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            d_head: config.d_head(),
            precision: self.scene.precision,
        }
    }

    /// `x w^T + bias`.
    fn product(&self, x: &Node, weight: &Node, bias: &[f32]) -> Buf<f32> {
        let n_out = weight.data.len() / x.width;
        let mut y = self.pool.take(x.data.len() / x.width * n_out);
        if !bias.is_empty() {
            let _span = span("bias, residual");
            rows::fill_rows(&mut y, n_out, bias);
        }
        self.multiply(&mut y, !bias.is_empty(), x, weight);
        y
    }

    fn multiply(&self, y: &mut [f32], accumulate: bool, x: &Node, weight: &Node) {
        let _span = span("products");
        let weight = View::new(&weight.data, x.width);
        matmul(y, accumulate, x.view(), weight.t(), self.scene.precision);
    }

    fn logits(&self, x: &[f32], width: usize, weight: &Node, bias: Option<&Node>) -> Buf<f32> {
        let n_vocab = weight.data.len() / width;
        let mut logits = self.pool.take(x.len() / width * n_vocab);
        if let Some(bias) = bias {
            rows::fill_rows(&mut logits, n_vocab, &bias.data);
        }
        let _span = span("products");
        let weight = View::new(&weight.data, width).t();
        matmul(
            &mut logits,
            bias.is_some(),
            View::new(x, width),
            weight,
            self.scene.precision,
        );
        logits
    }

    fn rows_that_count(&self) -> Vec<usize> {
        let weights = &self.scene.batch.weights;
        (0..weights.len()).filter(|&i| weights[i] != 0.0).collect()
    }
}

impl<T: Tape<f32, Cpu>> Ops for Fused<'_, T> {
    type T = Node;

    fn embed(&mut self, table: &Node, positions: Option<&Node>) -> Result<Node> {
        let measured = span("embedding");
        let (config, batch) = (self.scene.config, self.scene.batch);
        let (width, factor) = (config.d_model, config.embed_scale);
        let sinusoids = match config.positions {
            Positions::Sinusoidal => math::sinusoids(self.scene.n_positions(), width),
            Positions::Learned | Positions::Rope => Vec::new(),
        };
        let added = positions.map_or(sinusoids.as_slice(), |positions| &positions.data);
        let mut y = self.pool.take(self.scene.n_tokens() * width);
        rows::embed(
            &mut y,
            width,
            (&table.data, &batch.tokens, factor),
            (added, &batch.positions),
        );
        let mask = self.scene.mask(Place::Embedding);
        if let Some(mask) = &mask {
            rows::drop_all(&mut y, width, mask);
        }
        drop(measured);
        let y = self.node(y, width, &[Some(table), positions])?;
        let (table, positions) = (Target::of(table), positions.and_then(Target::of));
        let (batch, pool) = (Arc::clone(&self.batch), self.pool.clone());
        self.record(&y, move |grads, mut d_y| {
            let _span = span("embedding");
            if let Some(mask) = &mask {
                rows::drop_all(&mut d_y, width, mask);
            }
            if let Some(table) = table {
                table.add_to(grads, &pool, |d| {
                    rows::scatter(d, &d_y, width, &batch.tokens, factor)
                })?;
            }
            if let Some(positions) = positions {
                positions.add_to(grads, &pool, |d| {
                    rows::scatter(d, &d_y, width, &batch.positions, 1.0)
                })?;
            }
            Ok(())
        });
        Ok(y)
    }

    fn norm(&mut self, x: &Node, gain: &Node, bias: Option<&Node>) -> Result<Node> {
        let (kind, eps) = (self.scene.config.norm, self.scene.config.norm_eps);
        let make = {
            let (x, gain) = (Arc::clone(&x.data), Arc::clone(&gain.data));
            let bias = bias.map(|bias| Arc::clone(&bias.data));
            let (pool, n_rows) = (self.pool.clone(), x.len() / gain.len());
            move || {
                let _span = span("norm");
                let mut y = pool.take(x.len());
                let mut stats = pool.take(n_rows * NORM_STATS);
                let bias = bias.as_ref().map_or(&[][..], |bias| bias);
                rows::norm(kind, eps, &x, &gain, bias, &mut y, &mut stats);
                (y, stats)
            }
        };
        let (y, stats) = make();
        let y = self.node(y, x.width, &[Some(x), Some(gain), bias])?;
        let y = y.or_again(move || make().0);
        let (x, gain, bias) = (x.clone(), gain.clone(), bias.and_then(Target::of));
        let pool = self.pool.clone();
        self.record(&y, move |grads, d_y| {
            let _span = span("norm");
            let mut d_gain = pool.zeros(gain.data.len());
            let mut d_bias = pool.zeros(bias.as_ref().map_or(0, |bias| bias.n));
            // Without a slot the gradient of x goes nowhere, but its pass also makes the others.
            let (mut d_x, write) = match &x.slot {
                Some(slot) => take_or_new(grads, slot, &pool, x.data.len())?,
                None => (pool.take(x.data.len()), Write::Set),
            };
            rows::norm_backward(
                kind,
                &x.data,
                &gain.data,
                &stats,
                &d_y,
                &mut d_x,
                write,
                &mut d_gain,
                &mut d_bias,
            );
            if let Some(slot) = &x.slot {
                put(grads, slot, d_x)?;
            }
            if let Some(slot) = &gain.slot {
                give(grads, slot, d_gain)?;
            }
            if let Some(bias) = bias {
                give(grads, &bias.slot, d_bias)?;
            }
            Ok(())
        });
        Ok(y)
    }

    fn linear(
        &mut self,
        x: &Node,
        weight: &Node,
        bias: Option<&Node>,
        then: Then<Node>,
    ) -> Result<Node> {
        match then {
            Then::Nothing => self.linear_alone(x, weight, bias),
            Then::Activate(place) => self.linear_activated(x, weight, bias, place),
            Then::Add(residual, place) => self.linear_added(x, weight, bias, residual, place),
        }
    }

    fn gate(&mut self, gate: &Node, up: &Node, place: Place) -> Result<Node> {
        let width = up.width;
        let mask = self.scene.mask(place);
        let make = {
            let (gate, up) = (Arc::clone(&gate.data), Arc::clone(&up.data));
            let pool = self.pool.clone();
            move || {
                let _span = span("activation");
                let mut y = pool.take(up.len());
                rows::gate(&gate, &up, &mut y, width, mask.as_ref());
                y
            }
        };
        let y = self.node(make(), width, &[Some(gate), Some(up)])?;
        let y = y.or_again(make);
        let (gate, up, pool) = (gate.clone(), up.clone(), self.pool.clone());
        self.record(&y, move |grads, mut d_y| {
            let _span = span("activation");
            let mut d_gate = pool.take(d_y.len());
            rows::gate_backward(
                &gate.data,
                &up.data,
                &mut d_gate,
                &mut d_y,
                width,
                mask.as_ref(),
            );
            for (node, d) in [(gate, d_gate), (up, d_y)] {
                if let Some(slot) = &node.slot {
                    give(grads, slot, d)?;
                }
            }
            Ok(())
        });
        Ok(y)
    }

    fn attention(&mut self, qkv: &Node, place: Place) -> Result<Node> {
        let measured = span("attention");
        let (heads, config) = (self.heads(), self.scene.config);
        let mask = self.scene.mask(place);
        let (n_tokens, turned) = (self.scene.n_tokens(), heads.n_heads + heads.n_kv_heads);
        let angles = match config.positions {
            Positions::Rope => {
                let (n, d_turned) = (self.scene.n_positions(), config.d_turned());
                math::rotations(n, heads.d_head, d_turned, config.rope_theta)
            }
            Positions::Learned | Positions::Sinusoidal => Vec::new(),
        };
        let rotate = move |x: &mut [f32], batch: &Batch, back: bool| {
            if !angles.is_empty() {
                let (width, at) = (
                    heads.d_qkv(),
                    (angles.as_slice(), batch.positions.as_slice()),
                );
                rows::rotate(x, width, (turned, heads.d_head), at, back);
            }
        };
        let rotated = if config.positions == Positions::Rope {
            let mut copy = self.pool.take(qkv.data.len());
            copy.copy_from_slice(&qkv.data);
            rotate(&mut copy, &self.batch, false);
            Arc::new(copy)
        } else {
            Arc::clone(&qkv.data)
        };
        let mut y = self.pool.take(n_tokens * heads.d_out());
        let mut log_sums = self.pool.take(n_tokens * heads.n_heads);
        attend(
            heads,
            rows_of(&self.batch),
            mask.as_ref(),
            &rotated,
            &mut y,
            &mut log_sums,
        );
        drop(measured);
        let y = self.node(y, heads.d_out(), &[Some(qkv)])?;
        let (target, out) = (Target::of(qkv), Arc::clone(&y.data));
        let (batch, pool) = (Arc::clone(&self.batch), self.pool.clone());
        self.record(&y, move |grads, d_y| {
            let _span = span("attention");
            let mut d_qkv = pool.take(rotated.len());
            let rows = rows_of(&batch);
            attend_backward(
                heads,
                rows,
                mask.as_ref(),
                &rotated,
                &out,
                &log_sums,
                &d_y,
                &mut d_qkv,
            );
            rotate(&mut d_qkv, &batch, true);
            match target {
                Some(target) => give(grads, &target.slot, d_qkv),
                None => Ok(()),
            }
        });
        Ok(y)
    }
}

impl<T: Tape<f32, Cpu>> Judge for Fused<'_, T> {
    /// The gradients are computed at once, a thousand rows at a time, so that no more logits
    /// than that ever exist. Rows that do not count are left out.
    fn loss(&mut self, x: &Node, weight: &Node, bias: Option<&Node>) -> Result<f64> {
        let (batch, precision) = (self.scene.batch, self.scene.precision);
        let counted = self.rows_that_count();
        let all = counted.len() == self.scene.n_tokens();
        let (width, n_vocab) = (x.width, self.scene.config.vocab_size);
        let taped = T::OWNS_TAPE;
        let wanted = |node: &Node| taped && node.slot.is_some();
        let mut d_x = wanted(x).then(|| {
            let n = x.data.len();
            if all {
                self.pool.take(n)
            } else {
                self.pool.zeros(n)
            }
        });
        let mut d_weight = wanted(weight).then(|| self.pool.take(weight.data.len()));
        let mut d_bias = bias
            .filter(|b| wanted(b))
            .map(|b| self.pool.zeros(b.data.len()));
        let mut total = 0.0;
        for (chunk, at) in counted.chunks(HEAD_ROWS).enumerate() {
            let n = at.len();
            let mut gathered = self.pool.take(n * width);
            gather(&mut gathered, &x.data, at, width);
            let pick = |from: &[u16]| -> Vec<u16> { at.iter().map(|&i| from[i]).collect() };
            let weights: Vec<f32> = at.iter().map(|&i| batch.weights[i]).collect();
            let mut logits = self.logits(&gathered, width, weight, bias);
            let mut losses = vec![0.0; n];
            {
                let _span = span("loss");
                let (targets, smoothing) = (pick(&batch.targets), self.scene.smoothing());
                loss::cross_entropy(
                    &mut logits,
                    &targets,
                    &weights,
                    smoothing,
                    &mut losses,
                    taped,
                );
            }
            total += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
            let _span = span("products");
            let d_logits = View::new(&logits, n_vocab);
            if let Some(d_weight) = &mut d_weight {
                let x = View::new(&gathered, width);
                matmul(d_weight, chunk > 0, d_logits.t(), x, precision);
            }
            if let Some(d_bias) = &mut d_bias {
                rows::add_column_sums(d_bias, &logits);
            }
            if let Some(d_x) = &mut d_x {
                matmul(
                    &mut gathered,
                    false,
                    d_logits,
                    View::new(&weight.data, width),
                    precision,
                );
                for (&i, d) in at.iter().zip(gathered.chunks_exact(width)) {
                    d_x[i * width..][..width].copy_from_slice(d);
                }
            }
        }
        let value = self
            .device
            .try_tensor_from_vec(vec![total as f32], ())
            .map_err(device_error)?;
        self.total = Some(value);
        let gradients = [(Some(x), d_x), (Some(weight), d_weight), (bias, d_bias)];
        let gradients: Vec<(Slot, Buf<f32>)> = gradients
            .into_iter()
            .filter_map(|(node, d)| Some((node?.slot.clone()?, d?)))
            .collect();
        if !counted.is_empty() {
            self.tape.add_backward_op(move |grads| {
                gradients
                    .into_iter()
                    .try_for_each(|(slot, d)| give(grads, &slot, d))
            });
        }
        Ok(total)
    }

    fn scores(&mut self, x: &Node, weight: &Node, bias: Option<&Node>) -> Result<Vec<Score>> {
        let (width, targets) = (x.width, &self.scene.batch.targets);
        let mut scores = vec![Score::default(); targets.len()];
        let chunks = x
            .data
            .chunks(HEAD_ROWS * width)
            .zip(targets.chunks(HEAD_ROWS));
        for ((x, targets), scores) in chunks.zip(scores.chunks_mut(HEAD_ROWS)) {
            loss::scores(&self.logits(x, width, weight, bias), targets, scores);
        }
        Ok(scores)
    }
}

fn rows_of(batch: &Batch) -> Rows<'_> {
    Rows {
        n_rows: batch.n_rows,
        len: batch.len,
        starts: &batch.starts,
    }
}

fn gather(out: &mut [f32], x: &[f32], at: &[usize], width: usize) {
    for (out, &i) in out.chunks_exact_mut(width).zip(at) {
        out.copy_from_slice(&x[i * width..][..width]);
    }
}
