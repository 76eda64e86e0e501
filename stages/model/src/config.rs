//! What a transformer is made of: the numbers and choices that fix its shape.
//!
//! A `ModelConfig` is complete: every choice is spelled out, so that a `config.json`
//! written today means the same model after the presets or defaults have moved on.
//! `Preset` names the starting points; an experiment file overrides fields of one.
//!
//! Tensor names and shapes, as stored in safetensors (linear weights are
//! `(out, in)` as in PyTorch; `D` model width, `K` = key/value heads x head width):
//!
//! | name | shape |
//! |---|---|
//! | `embed.weight` | `(V, D)` |
//! | `positions.weight` (learned) | `(T, D)` |
//! | `blocks.{i}.norm1.weight`, `.bias` | `(D)` |
//! | `blocks.{i}.qkv.weight`, `.bias` | `(D + 2K, D)`, `(D + 2K)` |
//! | `blocks.{i}.proj.weight`, `.bias` | `(D, D)`, `(D)` |
//! | `blocks.{i}.norm2.weight`, `.bias` | `(D)` |
//! | `blocks.{i}.gate.weight`, `.bias` (swiglu) | `(F, D)`, `(F)` |
//! | `blocks.{i}.up.weight`, `.bias` | `(F, D)`, `(F)` |
//! | `blocks.{i}.down.weight`, `.bias` | `(D, F)`, `(D)` |
//! | `norm.weight`, `.bias` | `(D)` |
//! | `head.weight` (untied), `head.bias` | `(V, D)`, `(V)` |

use serde::{Deserialize, Serialize};

/// The shape of a decoder-only transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub vocab_size: usize,
    /// Longest sequence the model was trained on; learned positions end here.
    pub context: usize,
    pub d_model: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    /// Fewer than `n_heads` is grouped-query attention.
    pub n_kv_heads: usize,
    pub d_ff: usize,
    pub positions: Positions,
    /// Base of the rotary frequencies; only read with `positions: rope`.
    pub rope_theta: f32,
    pub norm: Norm,
    pub norm_at: NormAt,
    /// A norm between the last block and the head.
    pub final_norm: bool,
    pub norm_eps: f32,
    pub activation: Activation,
    pub bias: Bias,
    /// The head shares the embedding's weight.
    pub tied: bool,
    /// Embeddings are multiplied by this before positions are added.
    pub embed_scale: f32,
}

/// Which parts have a bias. Norms have one only with `norm: layer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bias {
    pub norm: bool,
    pub qkv: bool,
    pub proj: bool,
    pub mlp: bool,
    pub head: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Positions {
    Learned,
    Sinusoidal,
    Rope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    Layer,
    Rms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormAt {
    Pre,
    Post,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    GeluTanh,
    Gelu,
    Relu,
    Silu,
    Swiglu,
}

/// Whether matrix products round their operands to bf16 (sums and weights stay f32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    F32,
    Bf16,
}

impl ModelConfig {
    /// Width of one head.
    pub fn d_head(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// Width of all key (or value) heads together.
    pub fn d_kv(&self) -> usize {
        self.n_kv_heads * self.d_head()
    }
}
