//! The shape of a transformer: the numbers and choices that fix it.
//!
//! A `ModelConfig` is complete: every choice is spelled out, so that a `tinylm.json`
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
//!
//! The numbers mean the same to every implementation (`p` a token's position in its document):
//!
//! - input: `embed[id] * embed_scale`, plus `positions[p]` (learned) or, at columns `2i` and
//!   `2i + 1`, the sine and cosine of `p / 10000^(2i / D)` (sinusoidal);
//! - norm: `(x - mean) / sqrt(variance + eps) * weight + bias`, or `x / sqrt(mean of squares + eps) * weight`;
//! - `pre`: `x + part(norm(x))`; `post`: `norm(x + part(x))`; the parts are attention, then the MLP;
//! - `qkv` holds the query heads, then the key heads, then the value heads; query head `h` reads
//!   key/value head `h / (n_heads / n_kv_heads)`; scores are divided by `sqrt(d_head)`;
//! - `parallel`: `x + attention(norm1(x)) + mlp(norm2(x))`;
//! - rope turns columns `(i, i + d_head / 2)` of each query and key head by `p / theta^(2i / d_turned)`, for
//!   all `i` below `d_turned / 2`, where `d_turned` is `rope_share` of the head;
//! - MLP: `down(act(up(x)))`, and for swiglu `down(silu(gate(x)) * up(x))`; `gelu` is the exact one.

mod parameters;
mod presets;

use serde::{Deserialize, Serialize};
use tinylm_settings::choices;

pub use parameters::{Parameter, Role};
pub use presets::Preset;

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
    /// The part of each head that rope turns.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub rope_share: f32,
    pub norm: Norm,
    pub norm_at: NormAt,
    /// Attention and MLP read the same stream, where usually one follows the other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parallel: bool,
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

fn whole() -> f32 {
    1.0
}

/// A share that earlier versions did not know, and is written only where it says something.
fn is_whole(share: &f32) -> bool {
    *share == whole()
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

choices! {
    /// How a model knows where a token stands.
    pub enum Positions {
        Learned = "learned",
        Sinusoidal = "sinusoidal",
        Rope = "rope",
    }
}

choices! {
    pub enum Norm {
        Layer = "layer",
        Rms = "rms",
    }
}

choices! {
    pub enum NormAt {
        Pre = "pre",
        Post = "post",
    }
}

choices! {
    pub enum Activation {
        GeluTanh = "gelu-tanh",
        Gelu = "gelu",
        Relu = "relu",
        Silu = "silu",
        Swiglu = "swiglu",
    }
}

choices! {
    /// Whether matrix products round their operands to bf16 (sums and weights stay f32).
    pub enum Precision {
        F32 = "f32",
        Bf16 = "bf16",
    }
}

choices! {
    /// The numbers that weights are read in where nothing is trained.
    pub enum ReadPrecision {
        F32 = "f32",
        /// Operands of matrix products are rounded.
        Bf16 = "bf16",
        /// Eight bits and a scale for 64 of them; what they are multiplied with stays f32.
        Int8 = "int8",
    }
}

/// A shape that no transformer has; each message names the setting to change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    #[error("`d_model` ({d_model}) must be a multiple of `n_heads` ({n_heads})")]
    Heads { d_model: usize, n_heads: usize },
    #[error("`n_heads` ({n_heads}) must be a multiple of `n_kv_heads` ({n_kv_heads})")]
    KvHeads { n_heads: usize, n_kv_heads: usize },
    #[error("`positions: rope` turns pairs of numbers, so `d_model / n_heads` ({0}) must be even")]
    OddHead(usize),
    #[error("`positions: sinusoidal` fills pairs of numbers, so `d_model` ({0}) must be even")]
    OddWidth(usize),
    #[error("`{setting}` ({value}) must be at most {DIMENSION_MAX}")]
    Huge { setting: &'static str, value: usize },
    #[error("`vocab_size` ({0}) must be at most 65536: token ids are stored in 16 bits")]
    Vocabulary(usize),
    #[error("`context` ({0}) must be at most 65536: positions are stored in 16 bits")]
    Context(usize),
    #[error("`{setting}` must be a number above 0, not {value}")]
    Positive { setting: &'static str, value: f32 },
    #[error("`bias.norm` needs `norm: layer`: an RMS norm has no bias")]
    NormBias,
    #[error("`parallel: true` needs `norm_at: pre`: each part has a norm of its own before it")]
    ParallelPost,
    #[error(
        "`rope_share` ({share}) must leave an even number of a head's {d_head} to turn, and at most all"
    )]
    RopeShare { share: f32, d_head: usize },
}

/// Largest width or depth: nothing that could be trained is near it, and sizes made of
/// such numbers stay countable.
const DIMENSION_MAX: usize = 1 << 16;

impl ModelConfig {
    /// Width of one head.
    pub fn d_head(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// How much of a head rope turns.
    pub fn d_turned(&self) -> usize {
        (self.d_head() as f32 * self.rope_share).round() as usize
    }

    /// Width of all key (or value) heads together.
    pub fn d_kv(&self) -> usize {
        self.n_kv_heads * self.d_head()
    }

    /// Refuses a shape that cannot be built; everything else in this crate relies on it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            ("vocab_size", self.vocab_size),
            ("context", self.context),
            ("d_model", self.d_model),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("n_kv_heads", self.n_kv_heads),
            ("d_ff", self.d_ff),
        ];
        if let Some((setting, _)) = counts.into_iter().find(|(_, n)| *n == 0) {
            return Err(ConfigError::Zero(setting));
        }
        let dimensions = [
            ("d_model", self.d_model),
            ("n_layers", self.n_layers),
            ("d_ff", self.d_ff),
        ];
        if let Some((setting, value)) = dimensions.into_iter().find(|(_, n)| *n > DIMENSION_MAX) {
            return Err(ConfigError::Huge { setting, value });
        }
        let numbers = [
            ("norm_eps", self.norm_eps),
            ("embed_scale", self.embed_scale),
            ("rope_theta", self.rope_theta),
            ("rope_share", self.rope_share),
        ];
        for (setting, value) in numbers {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError::Positive { setting, value });
            }
        }
        let (d_model, n_heads, n_kv_heads) = (self.d_model, self.n_heads, self.n_kv_heads);
        if !d_model.is_multiple_of(n_heads) {
            return Err(ConfigError::Heads { d_model, n_heads });
        }
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(ConfigError::KvHeads {
                n_heads,
                n_kv_heads,
            });
        }
        if self.positions == Positions::Rope && !self.d_head().is_multiple_of(2) {
            return Err(ConfigError::OddHead(self.d_head()));
        }
        self.check_share()?;
        if self.parallel && self.norm_at == NormAt::Post {
            return Err(ConfigError::ParallelPost);
        }
        if self.positions == Positions::Sinusoidal && !d_model.is_multiple_of(2) {
            return Err(ConfigError::OddWidth(d_model));
        }
        if self.vocab_size > 1 << 16 {
            return Err(ConfigError::Vocabulary(self.vocab_size));
        }
        if self.context > 1 << 16 {
            return Err(ConfigError::Context(self.context));
        }
        if self.bias.norm && self.norm == Norm::Rms {
            return Err(ConfigError::NormBias);
        }
        Ok(())
    }

    fn check_share(&self) -> Result<(), ConfigError> {
        let (share, d_head) = (self.rope_share, self.d_head());
        let turned = d_head as f32 * share;
        let is_even = (turned - turned.round()).abs() < 1e-3 && self.d_turned().is_multiple_of(2);
        match self.positions != Positions::Rope || (share <= 1.0 && self.d_turned() > 0 && is_even)
        {
            true => Ok(()),
            false => Err(ConfigError::RopeShare { share, d_head }),
        }
    }
}

#[cfg(test)]
mod tests {
    use tinylm_settings::Choice;

    use super::*;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut ModelConfig)) -> String {
        let mut config = Preset::Mini.config(100);
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn every_preset_can_be_built() {
        for &preset in Preset::ALL {
            assert_eq!(preset.config(1000).check(), Ok(()), "{}", preset.word());
        }
    }

    #[test]
    fn a_refusal_names_the_setting() {
        assert!(refused(|c| c.n_heads = 3).contains("`n_heads` (3)"));
        assert!(refused(|c| c.n_kv_heads = 3).contains("`n_kv_heads` (3)"));
        assert!(
            refused(|c| (c.parallel, c.norm_at) = (true, NormAt::Post))
                .contains("`parallel: true`")
        );
        for share in [0.01, 0.26, 1.5] {
            let turned =
                |c: &mut ModelConfig| (c.positions, c.rope_share) = (Positions::Rope, share);
            assert!(refused(turned).contains("`rope_share`"), "{share}");
        }
        assert!(refused(|c| c.n_layers = 0).contains("`n_layers`"));
        assert!(refused(|c| c.d_model = 1 << 40).contains("`d_model` (1099511627776)"));
        assert!(refused(|c| c.norm_eps = f32::NAN).contains("`norm_eps`"));
        assert!(refused(|c| c.vocab_size = 65_537).contains("`vocab_size` (65537)"));
        assert!(refused(|c| c.norm = Norm::Rms).contains("`bias.norm`"));
        let odd = refused(|c| {
            c.positions = Positions::Rope;
            (c.d_model, c.n_heads, c.n_kv_heads) = (9, 3, 3);
        });
        assert!(odd.contains("must be even"), "{odd}");
    }

    #[test]
    fn a_config_survives_json() {
        for &preset in Preset::ALL {
            let config = preset.config(32_105);
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), config);
        }
    }
}
