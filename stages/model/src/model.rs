//! The transformer, written once.

use crate::config::{Activation, ModelConfig, NormAt};
use crate::noise::Place;
use crate::ops::{Ops, Result, Then};

/// A model's tensors, each in its place.
pub(crate) struct Weights<T> {
    pub(crate) embed: T,
    pub(crate) positions: Option<T>,
    pub(crate) blocks: Vec<Block<T>>,
    pub(crate) norm: Option<Norm<T>>,
    pub(crate) head: Linear<T>,
}

pub(crate) struct Block<T> {
    pub(crate) norm1: Norm<T>,
    pub(crate) qkv: Linear<T>,
    pub(crate) proj: Linear<T>,
    pub(crate) norm2: Norm<T>,
    pub(crate) gate: Option<Linear<T>>,
    pub(crate) up: Linear<T>,
    pub(crate) down: Linear<T>,
}

pub(crate) struct Linear<T> {
    pub(crate) weight: T,
    pub(crate) bias: Option<T>,
}

pub(crate) struct Norm<T> {
    pub(crate) gain: T,
    pub(crate) bias: Option<T>,
}

impl<T> Weights<T> {
    /// Finds each tensor by its name; `find` returns `None` for those the config does not have.
    /// Returns `None` when one that every such model has is missing.
    pub(crate) fn find(config: &ModelConfig, find: impl Fn(&str) -> Option<T>) -> Option<Self> {
        let linear = |name: &str| -> Option<Linear<T>> {
            Some(Linear {
                weight: find(&format!("{name}.weight"))?,
                bias: find(&format!("{name}.bias")),
            })
        };
        let norm = |name: &str| -> Option<Norm<T>> {
            let Linear { weight, bias } = linear(name)?;
            Some(Norm { gain: weight, bias })
        };
        let block = |i: usize| -> Option<Block<T>> {
            Some(Block {
                norm1: norm(&format!("blocks.{i}.norm1"))?,
                qkv: linear(&format!("blocks.{i}.qkv"))?,
                proj: linear(&format!("blocks.{i}.proj"))?,
                norm2: norm(&format!("blocks.{i}.norm2"))?,
                gate: linear(&format!("blocks.{i}.gate")),
                up: linear(&format!("blocks.{i}.up"))?,
                down: linear(&format!("blocks.{i}.down"))?,
            })
        };
        let head = if config.tied {
            "embed.weight"
        } else {
            "head.weight"
        };
        Some(Weights {
            embed: find("embed.weight")?,
            positions: find("positions.weight"),
            blocks: (0..config.n_layers).map(block).collect::<Option<_>>()?,
            norm: norm("norm"),
            head: Linear {
                weight: find(head)?,
                bias: find("head.bias"),
            },
        })
    }

    pub(crate) fn head(&self) -> (&T, Option<&T>) {
        (&self.head.weight, self.head.bias.as_ref())
    }
}

/// Runs the model up to the head.
pub(crate) fn forward<O: Ops>(
    ops: &mut O,
    config: &ModelConfig,
    weights: &Weights<O::T>,
) -> Result<O::T> {
    let mut x = ops.embed(&weights.embed, weights.positions.as_ref())?;
    for (layer, block) in weights.blocks.iter().enumerate() {
        x = match config.norm_at {
            NormAt::Pre if config.parallel => {
                let for_attention = norm(ops, &x, &block.norm1)?;
                let for_mlp = norm(ops, &x, &block.norm2)?;
                let x = attention(ops, block, layer, &for_attention, &x)?;
                mlp(ops, config, block, layer, &for_mlp, &x)?
            }
            NormAt::Pre => {
                let normed = norm(ops, &x, &block.norm1)?;
                let x = attention(ops, block, layer, &normed, &x)?;
                let normed = norm(ops, &x, &block.norm2)?;
                mlp(ops, config, block, layer, &normed, &x)?
            }
            NormAt::Post => {
                let x = attention(ops, block, layer, &x, &x)?;
                let x = norm(ops, &x, &block.norm1)?;
                let x = mlp(ops, config, block, layer, &x, &x)?;
                norm(ops, &x, &block.norm2)?
            }
        };
    }
    match &weights.norm {
        Some(last) => norm(ops, &x, last),
        None => Ok(x),
    }
}

/// Attention on `x`, added to the residual stream.
fn attention<O: Ops>(
    ops: &mut O,
    block: &Block<O::T>,
    layer: usize,
    x: &O::T,
    residual: &O::T,
) -> Result<O::T> {
    let qkv = linear(ops, x, &block.qkv, Then::Nothing)?;
    let mixed = ops.attention(&qkv, Place::Attention(layer))?;
    let then = Then::Add(residual, Place::AfterAttention(layer));
    linear(ops, &mixed, &block.proj, then)
}

/// The MLP on `x`, added to the residual stream.
fn mlp<O: Ops>(
    ops: &mut O,
    config: &ModelConfig,
    block: &Block<O::T>,
    layer: usize,
    x: &O::T,
    residual: &O::T,
) -> Result<O::T> {
    let place = Place::Mlp(layer);
    let hidden = match &block.gate {
        Some(gate) if config.activation == Activation::Swiglu => {
            let gate = linear(ops, x, gate, Then::Nothing)?;
            let up = linear(ops, x, &block.up, Then::Nothing)?;
            ops.gate(&gate, &up, place)?
        }
        _ => linear(ops, x, &block.up, Then::Activate(place))?,
    };
    let then = Then::Add(residual, Place::AfterMlp(layer));
    linear(ops, &hidden, &block.down, then)
}

fn linear<O: Ops>(ops: &mut O, x: &O::T, linear: &Linear<O::T>, then: Then<O::T>) -> Result<O::T> {
    ops.linear(x, &linear.weight, linear.bias.as_ref(), then)
}

fn norm<O: Ops>(ops: &mut O, x: &O::T, norm: &Norm<O::T>) -> Result<O::T> {
    ops.norm(x, &norm.gain, norm.bias.as_ref())
}
