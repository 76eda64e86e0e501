//! The operations as people run them on a CPU: fused kernels on dfdx's tape.
//!
//! A `Node` is a matrix of our own whose place on the tape is an empty dfdx tensor. That
//! tensor's id is the key of its gradient in dfdx's `Gradients`, and its empty storage says
//! "no gradient yet": the first operation backward moves its buffer in, later ones add, and
//! nothing is allocated or zeroed in vain. The values stay outside dfdx because its tensors
//! cannot be read without a copy from outside their crate; in an `Arc` of our own they can,
//! without unsafe code, and their buffers come back to a pool.
//!
//! What follows from other values that are kept by one cheap pass over them is not kept for
//! the backward pass but made again there (`Again`).

use std::sync::Arc;

use dfdx::prelude::*;
use rayon::{ThreadPool, prelude::*};

use crate::buffer::{Buf, Pool};
use crate::config::{HEAD_ROWS, ModelConfig, Positions};
use crate::dfdx_engine::Backend;
use crate::engine::{Batch, EngineError, Score};
use crate::kernels::attention::{Heads, Rows, attend, attend_backward};
use crate::kernels::rows::{self, NORM_STATS, Write};
use crate::kernels::{View, loss, math, matmul};
use crate::model::{Weights, forward};
use crate::noise::Place;
use crate::ops::{Ops, Result, Scene, Then};
use crate::profile::span;

type Grads = Gradients<f32, Cpu>;
type Slot = Tensor<(usize,), f32, Cpu>;
type Done = std::result::Result<(), CpuError>;

/// Makes a matrix again, to the bit.
type Again = Arc<dyn Fn() -> Buf<f32> + Send + Sync>;

/// A matrix of `width` columns, and where its gradient goes (`None`: nobody wants it).
#[derive(Clone)]
struct Node {
    data: Arc<Buf<f32>>,
    width: usize,
    slot: Option<Slot>,
    /// What the backward pass holds on to instead of the data, where that takes less.
    again: Option<Again>,
}

impl Node {
    fn view(&self) -> View<'_> {
        View::new(&self.data, self.width)
    }

    fn or_again(self, again: impl Fn() -> Buf<f32> + Send + Sync + 'static) -> Self {
        let again: Option<Again> = Some(Arc::new(again));
        Node { again, ..self }
    }
}

/// A node's data as the backward pass holds it.
enum Kept {
    Whole(Arc<Buf<f32>>),
    Again(Again),
}

impl Kept {
    fn of(node: &Node) -> Self {
        match &node.again {
            Some(again) => Kept::Again(Arc::clone(again)),
            None => Kept::Whole(Arc::clone(&node.data)),
        }
    }

    fn data(self) -> Arc<Buf<f32>> {
        match self {
            Kept::Whole(data) => data,
            Kept::Again(again) => Arc::new(again()),
        }
    }
}

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
                math::rotations(self.scene.n_positions(), heads.d_head, config.rope_theta)
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

/// The three ways to end a linear map.
impl<T: Tape<f32, Cpu>> Fused<'_, T> {
    fn linear_alone(&mut self, x: &Node, weight: &Node, bias: Option<&Node>) -> Result<Node> {
        let y = self.product(x, weight, values(bias));
        let y = self.node(
            y,
            weight.data.len() / x.width,
            &[Some(x), Some(weight), bias],
        )?;
        let backward = self.linear_backward(x, weight, bias);
        self.record(&y, move |grads, d_y| backward(grads, &d_y));
        Ok(y)
    }

    fn linear_activated(
        &mut self,
        x: &Node,
        weight: &Node,
        bias: Option<&Node>,
        place: Place,
    ) -> Result<Node> {
        let activation = self.scene.config.activation;
        let mask = self.scene.mask(place);
        let hidden = Arc::new(self.product(x, weight, values(bias)));
        let width = weight.data.len() / x.width;
        let make = {
            let (hidden, pool) = (Arc::clone(&hidden), self.pool.clone());
            move || {
                let _span = span("activation");
                let mut y = pool.take(hidden.len());
                rows::activate(activation, &hidden, &mut y, width, mask.as_ref());
                y
            }
        };
        let y = self.node(make(), width, &[Some(x), Some(weight), bias])?;
        let y = y.or_again(make);
        let backward = self.linear_backward(x, weight, None);
        let (bias, pool) = (bias.and_then(Target::of), self.pool.clone());
        self.record(&y, move |grads, mut d_y| {
            {
                let _span = span("activation");
                let mut d_bias = pool.zeros(bias.as_ref().map_or(0, |bias| bias.n));
                rows::activate_backward(
                    activation,
                    &hidden,
                    &mut d_y,
                    width,
                    mask.as_ref(),
                    &mut d_bias,
                );
                if let Some(bias) = bias {
                    give(grads, &bias.slot, d_bias)?;
                }
            }
            drop(hidden);
            backward(grads, &d_y)
        });
        Ok(y)
    }

    fn linear_added(
        &mut self,
        x: &Node,
        weight: &Node,
        bias: Option<&Node>,
        residual: &Node,
        place: Place,
    ) -> Result<Node> {
        let mask = self.scene.mask(place);
        let width = residual.width;
        let y = match &mask {
            None => {
                let mut y = self.pool.take(residual.data.len());
                {
                    let _span = span("bias, residual");
                    rows::fill_residual(&mut y, width, values(bias), &residual.data);
                }
                self.multiply(&mut y, true, x, weight);
                y
            }
            Some(mask) => {
                let mut y = self.product(x, weight, values(bias));
                let _span = span("bias, residual");
                rows::drop_and_add(&mut y, width, mask, &residual.data);
                y
            }
        };
        let y = self.node(y, width, &[Some(x), Some(weight), bias, Some(residual)])?;
        let backward = self.linear_backward(x, weight, bias);
        let (residual, pool) = (Target::of(residual), self.pool.clone());
        self.record(&y, move |grads, d_y| {
            match mask {
                None => backward(grads, &d_y)?,
                Some(mask) => {
                    let mut dropped = pool.take(d_y.len());
                    {
                        let _span = span("bias, residual");
                        rows::copy_dropped(&mut dropped, &d_y, width, &mask);
                    }
                    backward(grads, &dropped)?;
                }
            }
            match residual {
                Some(residual) => give(grads, &residual.slot, d_y),
                None => Ok(()),
            }
        });
        Ok(y)
    }

    /// What a linear map does with the gradient of its result.
    fn linear_backward(
        &self,
        x: &Node,
        weight: &Node,
        bias: Option<&Node>,
    ) -> impl FnOnce(&mut Grads, &[f32]) -> Done + 'static {
        let (kept, target, width) = (Kept::of(x), Target::of(x), x.width);
        let (weight, bias) = (weight.clone(), bias.and_then(Target::of));
        let (pool, precision) = (self.pool.clone(), self.scene.precision);
        move |grads, d_y| {
            if let Some(bias) = bias {
                let _span = span("bias, residual");
                bias.add_to(grads, &pool, |d| rows::add_column_sums(d, d_y))?;
            }
            let d_y = View::new(d_y, weight.data.len() / width);
            if let Some(Target { slot, n }) = &target {
                let _span = span("products");
                let (mut d_x, write) = take_or_new(grads, slot, &pool, *n)?;
                let weight = View::new(&weight.data, width);
                matmul(&mut d_x, write == Write::Add, d_y, weight, precision);
                put(grads, slot, d_x)?;
            }
            if let Some(slot) = &weight.slot {
                let x = kept.data();
                let _span = span("products");
                let (mut d_weight, write) = take_or_new(grads, slot, &pool, weight.data.len())?;
                let (accumulate, x) = (write == Write::Add, View::new(&x, width));
                matmul(&mut d_weight, accumulate, d_y.t(), x, precision);
                put(grads, slot, d_weight)?;
            }
            Ok(())
        }
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
}

/// A gradient's place and size, without holding on to the values it belongs to.
struct Target {
    slot: Slot,
    n: usize,
}

impl Target {
    fn of(node: &Node) -> Option<Target> {
        let slot = node.slot.clone()?;
        let n = node.data.len();
        Some(Target { slot, n })
    }

    /// Lets `f` add to the gradient.
    fn add_to(&self, grads: &mut Grads, pool: &Pool<f32>, f: impl FnOnce(&mut [f32])) -> Done {
        let mut d = match take(grads, &self.slot, pool)? {
            Some(d) => d,
            None => pool.zeros(self.n),
        };
        f(&mut d);
        put(grads, &self.slot, d)
    }
}

/// Takes a gradient out of its slot, if there is one.
fn take(
    grads: &mut Grads,
    slot: &Slot,
    pool: &Pool<f32>,
) -> std::result::Result<Option<Buf<f32>>, CpuError> {
    let held: &mut Vec<f32> = grads.get_or_alloc_mut(slot)?;
    let held = std::mem::take(held);
    Ok((!held.is_empty()).then(|| pool.own(held)))
}

/// Takes a gradient out to be added to, or a new buffer to be written.
fn take_or_new(
    grads: &mut Grads,
    slot: &Slot,
    pool: &Pool<f32>,
    n: usize,
) -> std::result::Result<(Buf<f32>, Write), CpuError> {
    Ok(match take(grads, slot, pool)? {
        Some(d) => (d, Write::Add),
        None => (pool.take(n), Write::Set),
    })
}

/// Puts a gradient (back) into its empty slot.
fn put(grads: &mut Grads, slot: &Slot, d: Buf<f32>) -> Done {
    let held: &mut Vec<f32> = grads.get_or_alloc_mut(slot)?;
    *held = d.into_vec();
    Ok(())
}

/// Adds to a gradient, or becomes it.
fn give(grads: &mut Grads, slot: &Slot, d: Buf<f32>) -> Done {
    let held: &mut Vec<f32> = grads.get_or_alloc_mut(slot)?;
    if held.is_empty() {
        *held = d.into_vec();
    } else {
        rows::add_all(held, &d);
    }
    Ok(())
}

fn values(bias: Option<&Node>) -> &[f32] {
    bias.map_or(&[], |bias| &bias.data)
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

fn device_error(error: CpuError) -> EngineError {
    EngineError::Device(error.to_string())
}

/// Weights in memory, for the fused operations.
pub struct FusedCpu {
    device: Cpu,
    pool: Pool<f32>,
    weights: Vec<Node>,
    /// Tokens of the last batch: other sizes need other buffers.
    n_tokens: usize,
}

impl FusedCpu {
    pub(crate) fn new() -> Self {
        FusedCpu {
            device: Cpu::default(),
            pool: Pool::default(),
            weights: Vec::new(),
            n_tokens: 0,
        }
    }

    fn ops<'a, T>(&mut self, scene: Scene<'a>, tape: T) -> Fused<'a, T> {
        if self.n_tokens != scene.n_tokens() {
            self.n_tokens = scene.n_tokens();
            self.pool.clear();
        }
        Fused {
            scene,
            batch: Arc::new(scene.batch.clone()),
            pool: self.pool.clone(),
            device: self.device.clone(),
            tape,
            total: None,
        }
    }

    fn find(&self, config: &ModelConfig, names: &[String]) -> Result<Weights<Node>> {
        let find = |name: &str| {
            let i = names.iter().position(|known| known == name)?;
            self.weights.get(i).cloned()
        };
        Weights::find(config, find).ok_or_else(|| EngineError::MissingTensor("weights".into()))
    }

    fn train(
        &mut self,
        scene: Scene,
        names: &[String],
        grads: &mut [Option<Vec<f32>>],
    ) -> Result<f64> {
        let mut held = Gradients::leaky();
        for (node, grad) in self.weights.iter().zip(grads.iter_mut()) {
            if let (Some(slot), Some(grad)) = (&node.slot, grad.take()) {
                put(&mut held, slot, self.pool.own(grad)).map_err(device_error)?;
            }
        }
        let seed: Slot = self
            .device
            .try_tensor_from_vec(Vec::new(), (0,))
            .map_err(device_error)?;
        let (_, tape) = seed.traced(held).split_tape();
        let mut ops = self.ops(scene, tape);
        let weights = self.find(scene.config, names)?;
        let x = forward(&mut ops, scene.config, &weights)?;
        let (head, bias) = weights.head();
        let total = ops.loss(&x, head, bias)?;
        drop((x, weights));
        let Fused {
            total: value, tape, ..
        } = ops;
        let Some(value) = value else {
            return Ok(total);
        };
        let mut held = value.put_tape(tape).try_backward().map_err(device_error)?;
        for (node, grad) in self.weights.iter().zip(grads) {
            if let Some(slot) = &node.slot {
                let d = take(&mut held, slot, &self.pool).map_err(device_error)?;
                *grad = d.map(Buf::into_vec);
            }
        }
        Ok(total)
    }

    fn score(&mut self, scene: Scene, names: &[String]) -> Result<Vec<Score>> {
        let mut ops = self.ops(scene, NoneTape);
        let weights = self.find(scene.config, names)?;
        let x = forward(&mut ops, scene.config, &weights)?;
        let (head, bias) = weights.head();
        ops.scores(&x, head, bias)
    }
}

impl Backend for FusedCpu {
    fn load(&mut self, weights: Vec<(Vec<f32>, Vec<usize>)>, trained: &[bool]) -> Result<()> {
        self.weights.clear();
        for ((data, shape), &trained) in weights.into_iter().zip(trained) {
            let slot = self
                .device
                .try_tensor_from_vec(Vec::new(), (0,))
                .map_err(device_error)?;
            self.weights.push(Node {
                data: Arc::new(self.pool.own(data)),
                width: shape.last().copied().unwrap_or(1),
                slot: trained.then_some(slot),
                again: None,
            });
        }
        Ok(())
    }

    fn weights(&self, threads: &ThreadPool) -> Result<Vec<Vec<f32>>> {
        let weights: Vec<&Buf<f32>> = self.weights.iter().map(|node| &*node.data).collect();
        let copies = || weights.into_par_iter().map(|data| data.to_vec()).collect();
        Ok(threads.install(copies))
    }

    fn change(
        &mut self,
        threads: &ThreadPool,
        which: &[bool],
        f: &mut (dyn FnMut(usize, &mut [f32]) + Send),
    ) -> Result<()> {
        let wanted = self.weights.iter_mut().enumerate().zip(which);
        let mut wanted = wanted.filter_map(|(node, &which)| which.then_some(node));
        threads.install(|| {
            wanted.try_for_each(|(i, node)| {
                let data = Arc::get_mut(&mut node.data)
                    .ok_or_else(|| EngineError::Device("a weight is still in use".into()))?;
                f(i, data);
                Ok(())
            })
        })
    }

    fn accumulate(
        &mut self,
        threads: &ThreadPool,
        scene: Scene,
        names: &[String],
        grads: &mut [Option<Vec<f32>>],
    ) -> Result<f64> {
        threads.install(|| self.train(scene, names, grads))
    }

    fn scores(
        &mut self,
        threads: &ThreadPool,
        scene: Scene,
        names: &[String],
    ) -> Result<Vec<Score>> {
        threads.install(|| self.score(scene, names))
    }

    fn recycle(&self, grad: Vec<f32>) {
        drop(self.pool.own(grad));
    }
}
