//! A model that reads on a device, for any number of sequences.
//!
//! Not the engine, which holds what a backward pass needs and knows no tokens before: this one holds weights,
//! and the keys and values of each sequence for as long as somebody has it. Both are `model::forward`.

use std::{
    ops::Range,
    rc::Rc,
    sync::{Arc, Weak},
};

use super::{
    cached::Cached,
    inputs::Inputs,
    launcher::{Arg, Launcher, Numbers},
    memory::{Buf, Device},
    opening::{Work, check_heads, open},
    ops::{GpuOps, Tables},
    tape::Node,
};
use crate::{
    config::{ModelConfig, Precision},
    engine::{Batch, EngineError, Score},
    generate::Stored,
    model::{Weights, forward},
    ops::{Judge, Result, Scene},
};

/// Most sequences at once: each takes a row of every pass.
const MOST: u64 = 128;

/// A sequence's part of the device, which is given back once this is dropped, by any thread.
#[derive(Default)]
pub(crate) struct OnDevice(Arc<()>);

/// Tokens of a sequence, and how many it holds before them.
pub(crate) struct Read<'a> {
    pub(crate) sequence: &'a OnDevice,
    pub(crate) start: usize,
    pub(crate) tokens: &'a [u16],
}

pub(crate) struct GpuReader {
    config: ModelConfig,
    precision: Precision,
    device: Rc<Device>,
    tables: Tables,
    weights: Weights<Node>,
    caches: Vec<(Weak<()>, Buf)>,
    /// What the last pass made of its rows, up to the head.
    last: Option<Node>,
    /// What it was asked for, row by row.
    pub(crate) logits: Vec<f32>,
}

impl GpuReader {
    /// Takes a model to the GPU that it is for.
    pub(crate) fn open(stored: &Stored) -> Result<Self> {
        Self::on(open(stored.device, Work::Reading)?, stored)
    }

    pub(crate) fn on(launcher: Box<dyn Launcher>, stored: &Stored) -> Result<Self> {
        check_heads(&*launcher, &stored.config)?;
        let (config, device) = (stored.config.clone(), Device::new(launcher));
        let parameters = config.parameters();
        let mut nodes = Vec::new();
        for (parameter, data) in parameters.iter().zip(&stored.tensors) {
            let width = parameter.shape.last().copied().unwrap_or(1);
            let held = device.upload(Numbers::F32(data))?;
            nodes.push(Node::new(held, data.len(), width, None));
        }
        let find = |name: &str| {
            let at = parameters.iter().position(|known| known.name == name)?;
            nodes.get(at).cloned()
        };
        let weights = Weights::find(&config, find)
            .ok_or_else(|| EngineError::MissingTensor("weights".into()))?;
        Ok(GpuReader {
            precision: stored.precision,
            tables: Tables::default(),
            caches: Vec::new(),
            last: None,
            logits: Vec::new(),
            config,
            device,
            weights,
        })
    }

    /// How many sequences it has room for: half of what is free is left to passes.
    pub(crate) fn n_sequences(&self) -> usize {
        let n_bytes = 4 * Cached::n_floats(&self.config) as u64;
        let free = self.device.launcher.free_bytes();
        let room = free.map_or(MOST, |free| free / 2 / n_bytes.max(1));
        room.clamp(1, MOST) as usize
    }

    /// Reads tokens behind those that each sequence holds, and keeps the logits of the rows `heads`.
    pub(crate) fn pass(&mut self, reads: &[Read<'_>], heads: &[usize]) -> Result<()> {
        self.last = None;
        let mut addresses = Vec::new();
        for read in reads {
            let address = self.cache_of(read.sequence)?;
            addresses.extend(read.tokens.iter().map(|_| address));
        }
        let batch = batch(reads);
        let cached = Cached::new(&self.device, &addresses, self.config.context)?;
        let mut ops = self.ops(&batch, cached)?;
        let x = forward(&mut ops, &self.config, &self.weights)?;
        let logits = head(&ops, &x, heads, &self.weights)?;
        (self.last, self.logits) = (Some(x), logits);
        Ok(())
    }

    /// Scores the targets of these rows of the last pass.
    pub(crate) fn score(&mut self, rows: Range<usize>, targets: &[u16]) -> Result<Vec<Score>> {
        let Some(x) = &self.last else {
            return Ok(Vec::new());
        };
        let batch = alone(targets);
        let cached = Cached::new(&self.device, &[], self.config.context)?;
        let mut ops = self.ops(&batch, cached)?;
        let asked = gathered(&ops, x, rows)?;
        let (head, bias) = self.weights.head();
        ops.scores(&asked, head, bias)
    }

    fn ops<'a>(&'a self, batch: &'a Batch, cached: Cached) -> Result<GpuOps<'a>> {
        Ok(GpuOps {
            scene: Scene {
                config: &self.config,
                batch,
                precision: self.precision,
                training: None,
            },
            inputs: Rc::new(Inputs::new(&self.device, batch, false)?),
            device: Rc::clone(&self.device),
            tables: &self.tables,
            tape: None,
            cached: Some(cached),
            n_slots: 0,
        })
    }

    /// Where a sequence's keys and values are; what nobody has any more is given back first.
    fn cache_of(&mut self, sequence: &OnDevice) -> Result<u64> {
        self.caches.retain(|(owner, _)| owner.strong_count() > 0);
        let is_its = |(owner, _): &&(Weak<()>, Buf)| owner.as_ptr() == Arc::as_ptr(&sequence.0);
        if let Some((_, cache)) = self.caches.iter().find(is_its) {
            return Ok(cache.address);
        }
        let cache = self.device.floats(Cached::n_floats(&self.config))?;
        let address = cache.address;
        self.caches.push((Arc::downgrade(&sequence.0), cache));
        Ok(address)
    }
}

/// The logits of these rows.
fn head(ops: &GpuOps<'_>, x: &Node, rows: &[usize], weights: &Weights<Node>) -> Result<Vec<f32>> {
    let n_vocab = ops.scene.config.vocab_size;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let asked = gathered(ops, x, rows.iter().copied())?;
    let logits = ops.device.floats(rows.len() * n_vocab)?;
    let (head, bias) = weights.head();
    ops.logits((&logits, asked.at()), (rows.len(), x.width), head, bias)?;
    ops.device.floats_of(&logits, rows.len() * n_vocab)
}

fn gathered(ops: &GpuOps<'_>, x: &Node, rows: impl Iterator<Item = usize>) -> Result<Node> {
    let rows: Vec<u32> = rows.map(|row| row as u32).collect();
    let at = ops.device.upload(Numbers::U32(&rows))?;
    let to = ops.device.floats(rows.len() * x.width)?;
    let args = [to.at(), x.at(), at.at(), Arg::Int(x.width as i32)];
    ops.device.rows("gather", rows.len(), &args)?;
    Ok(Node::new(to, rows.len() * x.width, x.width, None))
}

/// All that is read, one token after the other: only positions and caches tell sequences apart.
fn batch(reads: &[Read<'_>]) -> Batch {
    let tokens = reads.iter().flat_map(|read| read.tokens.iter().copied());
    let positions = reads
        .iter()
        .flat_map(|read| (read.start..).take(read.tokens.len()));
    Batch {
        positions: positions.map(|position| position as u16).collect(),
        ..alone(&tokens.collect::<Vec<_>>())
    }
}

/// One row of these tokens, each of which is its own target too.
fn alone(tokens: &[u16]) -> Batch {
    Batch {
        n_rows: 1,
        len: tokens.len(),
        tokens: tokens.to_vec(),
        targets: tokens.to_vec(),
        positions: vec![0; tokens.len()],
        starts: vec![0; tokens.len()],
        weights: vec![0.0; tokens.len()],
        ..Batch::default()
    }
}
