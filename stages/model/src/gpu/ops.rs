//! The operations on a device, with a tape of their own: what `fused.rs` is for a CPU.
//!
//! What follows from kept values by one cheap pass is made again backward. The host only launches; it
//! waits for the device where a loss is read.

use std::cell::RefCell;
use std::rc::Rc;

use super::cached::Cached;
use super::inputs::{Inputs, Segments};
use super::launcher::{After, Arg, Dropped, HeadsArg, Numbers, NumbersMut};
use super::memory::{Buf, Device};
use super::product::{
    ACTIVATE, KEPT, Layout, RESIDUAL, Shape, add_parts, plainly, product, product_of_rows,
};
use super::tape::{Back, Grads, Node};
use super::tiles::Tiles;
use crate::config::{Activation, Norm, Positions};
use crate::engine::Score;
use crate::kernels::math;
use crate::memory::HEAD_ROWS;
use crate::noise::{Mask, Place};
use crate::ops::{Judge, Ops, Result, Scene, Then};

/// A table by position, made once and again where a longer one is needed.
#[derive(Default)]
pub(crate) struct Table(RefCell<Option<(usize, Rc<Buf>)>>);

impl Table {
    fn get(
        &self,
        device: &Rc<Device>,
        n: usize,
        make: impl Fn(usize) -> Vec<f32>,
    ) -> Result<Rc<Buf>> {
        let mut held = self.0.borrow_mut();
        if let Some((_, table)) = held.as_ref().filter(|(held, _)| *held >= n) {
            return Ok(Rc::clone(table));
        }
        let table = Rc::new(device.upload(Numbers::F32(&make(n)))?);
        *held = Some((n, Rc::clone(&table)));
        Ok(table)
    }
}

/// The tables of positions that the device holds.
#[derive(Default)]
pub(crate) struct Tables {
    angles: Table,
    sinusoids: Table,
}

/// The operations during one pass: with a tape for training, without one for evaluation.
pub(crate) struct GpuOps<'a> {
    pub(crate) scene: Scene<'a>,
    pub(crate) device: Rc<Device>,
    pub(crate) inputs: Rc<Inputs>,
    pub(crate) tables: &'a Tables,
    pub(crate) tape: Option<Vec<Back>>,
    /// What was read before, where tokens come after others.
    pub(crate) cached: Option<Cached>,
    /// Slots given out; weights have the first.
    pub(crate) n_slots: usize,
}

impl GpuOps<'_> {
    /// The result of an operation; it has a gradient if one of its inputs wants one.
    fn node(&mut self, data: Buf, n: usize, width: usize, inputs: &[Option<&Node>]) -> Node {
        let wanted = self.tape.is_some() && inputs.iter().flatten().any(|x| x.slot.is_some());
        let slot = wanted.then_some(self.n_slots);
        self.n_slots += usize::from(wanted);
        Node::new(data, n, width, slot)
    }

    /// Records `backward`, which is handed the gradient of `y`, if there is one.
    fn record(&mut self, y: &Node, backward: impl FnOnce(&mut Grads, Buf) -> Result<()> + 'static) {
        if let (Some(tape), Some(slot)) = (&mut self.tape, y.slot) {
            tape.push(Box::new(move |grads| match grads.take(slot) {
                Some(d_y) => backward(grads, d_y),
                None => Ok(()),
            }));
        }
    }

    fn dropped(&self, place: Place) -> Option<Dropped> {
        self.scene.mask(place).map(dropped)
    }

    fn heads(&self) -> HeadsArg {
        let config = self.scene.config;
        HeadsArg {
            n_heads: config.n_heads as i32,
            n_kv_heads: config.n_kv_heads as i32,
            d_head: config.d_head() as i32,
            len: self.inputs.len as i32,
            round: i32::from(self.scene.precision == crate::config::Precision::Bf16),
            scale: 1.0 / (config.d_head() as f32).sqrt(),
        }
    }

    /// `x w^T`, and what follows.
    fn product(&self, x: &Node, weight: &Node, after: After) -> Result<Buf> {
        let shape = (x.n_rows(), weight.n / x.width, x.width);
        let y = self.device.floats(shape.0 * shape.1)?;
        self.rows_times((y.at(), x.at(), weight.at()), shape, after)?;
        Ok(y)
    }

    fn rows_times(&self, operands: (Arg, Arg, Arg), shape: Shape, after: After) -> Result<()> {
        let (device, precision) = (&self.device, self.scene.precision);
        match self.cached {
            Some(_) => product_of_rows(device, operands, shape, precision, after),
            None => product(device, Layout::Nt, operands, shape, precision, after),
        }
    }

    /// How a linear map passes the gradient of its result on.
    fn linear_backward(
        &self,
        x: &Node,
        weight: &Node,
        bias: Option<&Node>,
    ) -> impl FnOnce(&mut Grads, &Buf) -> Result<()> + 'static {
        let (kept, x_slot, x_n, width) = (x.kept(), x.slot, x.n, x.width);
        let (weight, bias) = (weight.clone(), bias.and_then(|bias| bias.slot));
        let (device, precision) = (Rc::clone(&self.device), self.scene.precision);
        move |grads, d_y| {
            let (n_rows, n_out) = (x_n / width, weight.n / width);
            if let Some(slot) = bias {
                let (d, accumulate) = grads.target(slot, n_out)?;
                column_sums(&device, (&d, accumulate), d_y.at(), (n_rows, n_out))?;
                grads.put(slot, d);
            }
            if let Some(slot) = x_slot {
                let (d, accumulate) = grads.target(slot, x_n)?;
                let operands = (d.at(), d_y.at(), weight.data.at());
                let shape = (n_rows, width, n_out);
                product(
                    &device,
                    Layout::Nn,
                    operands,
                    shape,
                    precision,
                    plainly(accumulate),
                )?;
                grads.put(slot, d);
            }
            if let Some(slot) = weight.slot {
                let x = kept.data()?;
                let (d, accumulate) = grads.target(slot, weight.n)?;
                let operands = (d.at(), d_y.at(), x.at());
                let shape = (n_out, width, n_rows);
                product(
                    &device,
                    Layout::Tn,
                    operands,
                    shape,
                    precision,
                    plainly(accumulate),
                )?;
                grads.put(slot, d);
            }
            Ok(())
        }
    }

    fn linear_activated(
        &mut self,
        x: &Node,
        weight: &Node,
        bias: Option<&Node>,
        place: Place,
    ) -> Result<Node> {
        let (device, dropped) = (Rc::clone(&self.device), self.dropped(place).unwrap_or(KEPT));
        let (kind, width) = (number_of(self.scene.config.activation), weight.n / x.width);
        let n = x.n_rows() * width;
        let hidden = Rc::new(device.floats(n)?);
        let after = After {
            bias: bias.map_or(0, |bias| bias.data.address),
            hidden: hidden.address,
            dropped,
            then: ACTIVATE,
            activation: kind,
            ..plainly(false)
        };
        let y = self.product(x, weight, after)?;
        let ends = [
            Arg::Int(kind),
            Arg::Dropped(dropped),
            Arg::Int(width as i32),
        ];
        let again = {
            let (hidden, device) = (Rc::clone(&hidden), Rc::clone(&device));
            move || {
                let y = device.floats(n)?;
                let args = [&[y.at(), hidden.at()], &ends[..]].concat();
                device.rows("activate", n / width, &args)?;
                Ok(y)
            }
        };
        let y = self
            .node(y, n, width, &[Some(x), Some(weight), bias])
            .or_again(again);
        let backward = self.linear_backward(x, weight, bias);
        self.record(&y, move |grads, d_y| {
            let args = [&[d_y.at(), hidden.at()], &ends[..]].concat();
            device.rows("activate_backward", n / width, &args)?;
            drop(hidden);
            backward(grads, &d_y)
        });
        Ok(y)
    }

    fn linear_added(
        &mut self,
        (x, weight, bias): (&Node, &Node, Option<&Node>),
        residual: &Node,
        place: Place,
    ) -> Result<Node> {
        let (dropped, n, width) = (self.dropped(place), residual.n, residual.width);
        let after = After {
            bias: bias.map_or(0, |bias| bias.data.address),
            residual: residual.data.address,
            dropped: dropped.unwrap_or(KEPT),
            then: RESIDUAL,
            ..plainly(false)
        };
        let y = self.product(x, weight, after)?;
        let y = self.node(y, n, width, &[Some(x), Some(weight), bias, Some(residual)]);
        let backward = self.linear_backward(x, weight, bias);
        let (slot, device) = (residual.slot, Rc::clone(&self.device));
        self.record(&y, move |grads, d_y| {
            match dropped {
                None => backward(grads, &d_y)?,
                Some(dropped) => {
                    let d = device.floats(n)?;
                    drop_rows(&device, &d, &d_y, dropped, (n / width, width))?;
                    backward(grads, &d)?;
                }
            }
            grads.give(slot, d_y, n)
        });
        Ok(y)
    }

    /// Rows of `x`, turned by their positions, or back by -1.
    fn turner(&self) -> Result<impl Fn(&Buf, &Buf, f32) -> Result<()> + 'static> {
        let (config, inputs, device) = (
            self.scene.config,
            Rc::clone(&self.inputs),
            Rc::clone(&self.device),
        );
        let (d_head, d_turned, theta) = (config.d_head(), config.d_turned(), config.rope_theta);
        let n = self.scene.n_positions().max(config.context);
        let make = |n| math::rotations(n, d_head, d_turned, theta);
        let angles = self.tables.angles.get(&device, n, make)?;
        let (width, turned) = (d_qkv(config), config.n_heads + config.n_kv_heads);
        Ok(move |to: &Buf, x: &Buf, way: f32| {
            let args = [
                to.at(),
                x.at(),
                angles.at(),
                inputs.positions.at(),
                Arg::Int(width as i32),
                Arg::Int(turned as i32),
                Arg::Int(d_head as i32),
                Arg::Float(way),
            ];
            device.rows("rotate", inputs.n_tokens(), &args)
        })
    }
}

fn d_qkv(config: &crate::config::ModelConfig) -> usize {
    config.d_model + 2 * config.d_kv()
}

impl Ops for GpuOps<'_> {
    type T = Node;

    fn embed(&mut self, table: &Node, positions: Option<&Node>) -> Result<Node> {
        let (config, device) = (self.scene.config, Rc::clone(&self.device));
        let (n_tokens, width, scale) = (self.inputs.n_tokens(), config.d_model, config.embed_scale);
        let dropped = self.dropped(Place::Embedding).unwrap_or(KEPT);
        let sinusoids = match config.positions {
            Positions::Sinusoidal => {
                let n = self.scene.n_positions().max(config.context);
                let make = |n| math::sinusoids(n, width);
                Some(self.tables.sinusoids.get(&device, n, make)?)
            }
            Positions::Learned | Positions::Rope => None,
        };
        let added = sinusoids
            .as_ref()
            .or(positions.map(|positions| &positions.data));
        let y = device.floats(n_tokens * width)?;
        let args = [
            y.at(),
            table.at(),
            self.inputs.tokens.at(),
            Arg::Float(scale),
            added.map_or(Arg::At(0), |added| added.at()),
            self.inputs.positions.at(),
            Arg::Dropped(dropped),
            Arg::Int(width as i32),
        ];
        device.rows("embed", n_tokens, &args)?;
        let y = self.node(y, n_tokens * width, width, &[Some(table), positions]);
        let (table, positions) = (
            (table.slot, table.n),
            positions.map(|node| (node.slot, node.n)),
        );
        let inputs = Rc::clone(&self.inputs);
        self.record(&y, move |grads, d_y| {
            let add = (&d_y, dropped, width);
            if let Some(by_token) = &inputs.by_token {
                add_rows(
                    &device,
                    grads,
                    table,
                    add,
                    (&inputs.tokens, by_token, scale),
                )?;
            }
            match (positions, &inputs.by_position) {
                (Some(to), Some(by_position)) => {
                    let rows = (&inputs.positions, by_position, 1.0);
                    add_rows(&device, grads, to, add, rows)
                }
                _ => Ok(()),
            }
        });
        Ok(y)
    }

    fn norm(&mut self, x: &Node, gain: &Node, bias: Option<&Node>) -> Result<Node> {
        let (device, config, n_rows) = (Rc::clone(&self.device), self.scene.config, x.n_rows());
        let (n, width) = (x.n, x.width);
        let layer = Arg::Int(i32::from(config.norm == Norm::Layer));
        let (y, stats) = (device.floats(n)?, Rc::new(device.floats(2 * n_rows)?));
        let bias_at = bias.map_or(Arg::At(0), |bias| bias.data.at());
        let width_arg = Arg::Int(width as i32);
        let args = [
            y.at(),
            stats.at(),
            x.at(),
            gain.at(),
            bias_at,
            layer,
            Arg::Float(config.norm_eps),
            width_arg,
            Arg::Int(n_rows as i32),
        ];
        device.launch("normed", [n_rows.div_ceil(4), 1, 1], 128, 0, &args)?;
        let held = (
            Rc::clone(&x.data),
            Rc::clone(&gain.data),
            bias.map(|bias| Rc::clone(&bias.data)),
        );
        let again = {
            let (device, stats) = (Rc::clone(&device), Rc::clone(&stats));
            move || {
                let (x, gain, bias) = &held;
                let y = device.floats(n)?;
                let bias = bias.as_ref().map_or(Arg::At(0), |bias| bias.at());
                let args = [y.at(), stats.at(), x.at(), gain.at(), bias, width_arg];
                device.rows("norm_again", n_rows, &args)?;
                Ok(y)
            }
        };
        let y = self
            .node(y, n, width, &[Some(x), Some(gain), bias])
            .or_again(again);
        let (x, gain, bias) = (x.clone(), gain.clone(), bias.and_then(|bias| bias.slot));
        self.record(&y, move |grads, d_y| {
            if let Some(slot) = x.slot {
                let (d_x, accumulate) = grads.target(slot, n)?;
                let args = [
                    d_x.at(),
                    d_y.at(),
                    stats.at(),
                    x.at(),
                    gain.at(),
                    layer,
                    Arg::Int(i32::from(accumulate)),
                    width_arg,
                    Arg::Int(n_rows as i32),
                ];
                device.launch("norm_backward", [n_rows.div_ceil(4), 1, 1], 128, 0, &args)?;
                grads.put(slot, d_x);
            }
            if gain.slot.is_none() && bias.is_none() {
                return Ok(());
            }
            let sums = Sums::of(
                &device,
                d_y.at(),
                Some((x.at(), stats.at())),
                (n_rows, width),
            )?;
            for (slot, parts) in [(gain.slot, &sums.along), (bias, &Some(sums.plain))] {
                let (Some(slot), Some(parts)) = (slot, parts) else {
                    continue;
                };
                let (d, accumulate) = grads.target(slot, width)?;
                add_parts(&device, d.at(), parts, sums.n, accumulate, width)?;
                grads.put(slot, d);
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
            Then::Activate(place) => self.linear_activated(x, weight, bias, place),
            Then::Add(residual, place) => self.linear_added((x, weight, bias), residual, place),
            Then::Nothing => {
                let after = After {
                    bias: bias.map_or(0, |bias| bias.data.address),
                    ..plainly(false)
                };
                let (y, width) = (self.product(x, weight, after)?, weight.n / x.width);
                let y = self.node(y, x.n_rows() * width, width, &[Some(x), Some(weight), bias]);
                let backward = self.linear_backward(x, weight, bias);
                self.record(&y, move |grads, d_y| backward(grads, &d_y));
                Ok(y)
            }
        }
    }

    fn gate(&mut self, gate: &Node, up: &Node, place: Place) -> Result<Node> {
        let (device, n, width) = (Rc::clone(&self.device), up.n, up.width);
        let ends = [
            Arg::Dropped(self.dropped(place).unwrap_or(KEPT)),
            Arg::Int(width as i32),
        ];
        let again = {
            let (gate, up) = (Rc::clone(&gate.data), Rc::clone(&up.data));
            let device = Rc::clone(&device);
            move || {
                let y = device.floats(n)?;
                let args = [&[y.at(), gate.at(), up.at()], &ends[..]].concat();
                device.rows("gate", n / width, &args)?;
                Ok(y)
            }
        };
        let y = self
            .node(again()?, n, width, &[Some(gate), Some(up)])
            .or_again(again);
        let (gate, up) = (gate.clone(), up.clone());
        self.record(&y, move |grads, d_y| {
            let d_gate = device.floats(n)?;
            let args = [&[d_gate.at(), d_y.at(), gate.at(), up.at()], &ends[..]].concat();
            device.rows("gate_backward", n / width, &args)?;
            grads.give(gate.slot, d_gate, n)?;
            grads.give(up.slot, d_y, n)
        });
        Ok(y)
    }

    fn attention(&mut self, qkv: &Node, place: Place) -> Result<Node> {
        let (device, inputs, heads) = (
            Rc::clone(&self.device),
            Rc::clone(&self.inputs),
            self.heads(),
        );
        let turner = match self.scene.config.positions {
            Positions::Rope => Some(self.turner()?),
            Positions::Learned | Positions::Sinusoidal => None,
        };
        let turned = match &turner {
            Some(turn) => {
                let turned = device.floats(qkv.n)?;
                turn(&turned, &qkv.data, 1.0)?;
                Rc::new(turned)
            }
            None => Rc::clone(&qkv.data),
        };
        if let (Some(cached), Place::Attention(layer)) = (&self.cached, place) {
            let (n, width) = (inputs.n_tokens(), self.scene.config.d_model);
            let out = cached.attend(&device, (&turned, &inputs.positions, n), heads, layer)?;
            return Ok(Node::new(out, n * width, width, None));
        }
        let tiles = Tiles::of(&device, heads)?;
        let dropped = Arg::Dropped(self.dropped(place).unwrap_or(KEPT));
        let (n_heads, n_kv_heads) = (heads.n_heads as usize, heads.n_kv_heads as usize);
        let (n_tokens, width) = (inputs.n_tokens(), n_heads * heads.d_head as usize);
        let out = device.floats(n_tokens * width)?;
        let log_sums = device.floats(n_tokens * n_heads)?;
        let n_tiles = inputs.len.div_ceil(tiles.side);
        let args = [
            out.at(),
            log_sums.at(),
            turned.at(),
            inputs.starts.at(),
            dropped,
            Arg::Heads(heads),
        ];
        let grid = [n_tiles, n_heads, inputs.n_rows];
        tiles.forward.launch(&device, grid, &args)?;
        let y = self.node(out, n_tokens * width, width, &[Some(qkv)]);
        let (out, slot, n) = (Rc::clone(&y.data), qkv.slot, qkv.n);
        self.record(&y, move |grads, d_y| {
            let (deltas, d_qkv) = (device.floats(n_tokens * n_heads)?, device.floats(n)?);
            let n_queries = n_tokens * n_heads;
            let args = [
                deltas.at(),
                out.at(),
                d_y.at(),
                Arg::Heads(heads),
                Arg::Int(n_queries as i32),
            ];
            device.launch(
                "attend_deltas",
                [n_queries.div_ceil(4), 1, 1],
                128,
                0,
                &args,
            )?;
            let args = [
                d_qkv.at(),
                turned.at(),
                d_y.at(),
                log_sums.at(),
                deltas.at(),
                inputs.starts.at(),
                dropped,
                Arg::Heads(heads),
            ];
            let grid = [n_tiles, n_kv_heads, inputs.n_rows];
            tiles.keys.launch(&device, grid, &args)?;
            let grid = [n_tiles, n_heads, inputs.n_rows];
            tiles.queries.launch(&device, grid, &args)?;
            if let Some(turn) = turner {
                turn(&d_qkv, &d_qkv, -1.0)?;
            }
            grads.give(slot, d_qkv, n)
        });
        Ok(y)
    }
}

impl Judge for GpuOps<'_> {
    /// The gradients are computed at once, a thousand rows at a time, so that no more logits than that
    /// ever exist. Rows that do not count are left out.
    fn loss(&mut self, x: &Node, weight: &Node, bias: Option<&Node>) -> Result<f64> {
        let (device, inputs) = (Rc::clone(&self.device), Rc::clone(&self.inputs));
        let (width, n_vocab, precision) =
            (x.width, self.scene.config.vocab_size, self.scene.precision);
        let taped = self.tape.is_some();
        let total = device.zeros(2)?;
        let mut grads = Grads::new(&device, 3);
        let d_x = (taped && x.slot.is_some())
            .then(|| device.zeros(x.n))
            .transpose()?;
        let n_chunk = HEAD_ROWS.min(inputs.n_counted);
        let (rows, logits) = (
            device.floats(n_chunk * width)?,
            device.floats(n_chunk * n_vocab)?,
        );
        let losses = device.floats(n_chunk)?;
        for first in (0..inputs.n_counted).step_by(HEAD_ROWS) {
            let n = HEAD_ROWS.min(inputs.n_counted - first);
            let (at, width_arg) = (inputs.counted.behind(first), Arg::Int(width as i32));
            device.rows("gather", n, &[rows.at(), x.at(), at, width_arg])?;
            self.logits((&logits, rows.at()), (n, width), weight, bias)?;
            let args = [
                logits.at(),
                inputs.targets.at(),
                inputs.weights.at(),
                at,
                losses.at(),
                Arg::Float(self.scene.smoothing()),
                Arg::Int(i32::from(taped)),
                Arg::Int(n_vocab as i32),
            ];
            device.launch("cross_entropy", [n, 1, 1], 256, 64, &args)?;
            let args = [total.at(), losses.at(), Arg::Int(n as i32)];
            device.launch("add_losses", [1, 1, 1], 256, 2048, &args)?;
            if taped && weight.slot.is_some() {
                let (d, accumulate) = grads.target(1, weight.n)?;
                let (operands, shape) = ((d.at(), logits.at(), rows.at()), (n_vocab, width, n));
                product(
                    &device,
                    Layout::Tn,
                    operands,
                    shape,
                    precision,
                    plainly(accumulate),
                )?;
                grads.put(1, d);
            }
            if taped && bias.is_some_and(|bias| bias.slot.is_some()) {
                let (d, accumulate) = grads.target(2, n_vocab)?;
                column_sums(&device, (&d, accumulate), logits.at(), (n, n_vocab))?;
                grads.put(2, d);
            }
            if let Some(d_x) = &d_x {
                let (operands, shape) =
                    ((rows.at(), logits.at(), weight.at()), (n, width, n_vocab));
                product(
                    &device,
                    Layout::Nn,
                    operands,
                    shape,
                    precision,
                    plainly(false),
                )?;
                device.rows("scatter", n, &[d_x.at(), rows.at(), at, width_arg])?;
            }
        }
        if let (Some(tape), true) = (&mut self.tape, inputs.n_counted > 0) {
            let to = [
                (x.slot, d_x, x.n),
                (weight.slot, grads.take(1), weight.n),
                (bias.and_then(|bias| bias.slot), grads.take(2), n_vocab),
            ];
            tape.push(Box::new(move |grads| {
                let found = to
                    .into_iter()
                    .filter_map(|(slot, d, n)| Some((slot, d?, n)));
                found
                    .into_iter()
                    .try_for_each(|(slot, d, n)| grads.give(slot, d, n))
            }));
        }
        let mut words = [0; 2];
        let launcher = &device.launcher;
        launcher.read(NumbersMut::U32(&mut words), total.address)?;
        Ok(launcher.double(words))
    }

    fn scores(&mut self, x: &Node, weight: &Node, bias: Option<&Node>) -> Result<Vec<Score>> {
        let (device, n_tokens, n_vocab) = (&self.device, x.n_rows(), self.scene.config.vocab_size);
        let logits = device.floats(HEAD_ROWS.min(n_tokens) * n_vocab)?;
        let (losses, ranks) = (device.floats(n_tokens)?, device.floats(n_tokens)?);
        for first in (0..n_tokens).step_by(HEAD_ROWS) {
            let n = HEAD_ROWS.min(n_tokens - first);
            self.logits(
                (&logits, x.data.behind(first * x.width)),
                (n, x.width),
                weight,
                bias,
            )?;
            let args = [
                logits.at(),
                Arg::At(self.inputs.targets.address + 2 * first as u64),
                losses.behind(first),
                ranks.behind(first),
                Arg::Int(n_vocab as i32),
            ];
            device.launch("score", [n, 1, 1], 256, 64, &args)?;
        }
        let losses = device.floats_of(&losses, n_tokens)?;
        let mut found = vec![0; n_tokens];
        device
            .launcher
            .read(NumbersMut::U32(&mut found), ranks.address)?;
        let scores = losses.into_iter().zip(found);
        Ok(scores
            .map(|(nll, rank)| Score {
                nll,
                rank: rank as u8,
            })
            .collect())
    }
}

impl GpuOps<'_> {
    pub(crate) fn logits(
        &self,
        (to, x): (&Buf, Arg),
        (n, width): (usize, usize),
        weight: &Node,
        bias: Option<&Node>,
    ) -> Result<()> {
        let after = After {
            bias: bias.map_or(0, |bias| bias.data.address),
            ..plainly(false)
        };
        let (operands, shape) = ((to.at(), x, weight.at()), (n, weight.n / width, width));
        self.rows_times(operands, shape, after)
    }
}

/// The activation's number in `words.h`.
fn number_of(activation: Activation) -> i32 {
    match activation {
        Activation::GeluTanh => 0,
        Activation::Gelu => 1,
        Activation::Relu => 2,
        Activation::Silu | Activation::Swiglu => 3,
    }
}

fn drop_rows(
    device: &Rc<Device>,
    to: &Buf,
    x: &Buf,
    dropped: Dropped,
    (n_rows, width): (usize, usize),
) -> Result<()> {
    let args = [
        to.at(),
        x.at(),
        Arg::Dropped(dropped),
        Arg::Int(width as i32),
    ];
    device.rows("drop_rows", n_rows, &args)
}

fn dropped(mask: Mask) -> Dropped {
    Dropped {
        key: mask.key,
        row_offset: mask.row_offset as u32,
        len: mask.len as u32,
        below: mask.below,
        scale: mask.scale,
    }
}

/// Adds the gradients of looked-up rows to their table's.
fn add_rows(
    device: &Rc<Device>,
    grads: &mut Grads,
    (slot, n): (Option<usize>, usize),
    (d_y, dropped, width): (&Buf, Dropped, usize),
    (ids, segments, scale): (&Buf, &Segments, f32),
) -> Result<()> {
    let Some(slot) = slot else {
        return Ok(());
    };
    let d = grads.zeros_or_held(slot, n)?;
    let args = [
        d.at(),
        d_y.at(),
        segments.order.at(),
        segments.starts.at(),
        ids.at(),
        Arg::Float(scale),
        Arg::Dropped(dropped),
        Arg::Int(width as i32),
    ];
    device.launch(
        "embed_backward",
        [segments.n, width.div_ceil(32), 1],
        256,
        1024,
        &args,
    )?;
    grads.put(slot, d);
    Ok(())
}

/// Sums of columns in parts, to be added in order.
struct Sums {
    plain: Buf,
    along: Option<Buf>,
    n: usize,
}

impl Sums {
    /// Rows of one part.
    const CHUNK: usize = 256;

    fn of(
        device: &Rc<Device>,
        d: Arg,
        normed: Option<(Arg, Arg)>,
        (n_rows, width): (usize, usize),
    ) -> Result<Self> {
        let n = n_rows.div_ceil(Self::CHUNK);
        let plain = device.floats(n * width)?;
        let along = normed.map(|_| device.floats(n * width)).transpose()?;
        let (x, stats) = normed.unwrap_or((Arg::At(0), Arg::At(0)));
        let args = [
            plain.at(),
            along.as_ref().map_or(Arg::At(0), Buf::at),
            d,
            x,
            stats,
            Arg::Int(width as i32),
            Arg::Int(n_rows as i32),
            Arg::Int(Self::CHUNK as i32),
        ];
        device.launch("column_sums", [width.div_ceil(32), n, 1], 256, 2048, &args)?;
        Ok(Sums { plain, along, n })
    }
}

/// Writes or adds the sums of columns.
fn column_sums(
    device: &Rc<Device>,
    (to, accumulate): (&Buf, bool),
    d: Arg,
    (n_rows, width): (usize, usize),
) -> Result<()> {
    let sums = Sums::of(device, d, None, (n_rows, width))?;
    add_parts(device, to.at(), &sums.plain, sums.n, accumulate, width)
}
