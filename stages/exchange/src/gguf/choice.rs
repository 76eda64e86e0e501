//! Which architecture of llama.cpp a model fits, and what has to be changed for it.

use tinylm_model::config::{Activation, Bias, ModelConfig, Norm, NormAt, Positions};

use crate::{
    change::{Change, reasons},
    claim::Claim,
};

/// An architecture of llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Gpt2,
    Llama,
    Qwen2,
    Starcoder2,
    StableLm,
    GptNeox,
}

impl Architecture {
    /// The name that `general.architecture` has.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Gpt2 => "gpt2",
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Starcoder2 => "starcoder2",
            Architecture::StableLm => "stablelm",
            Architecture::GptNeox => "gptneox",
        }
    }
}

/// Returns the architecture for a model and the changes after which it fits, or the settings that
/// none has.
pub(super) fn choose(config: &ModelConfig) -> Result<(Architecture, Vec<Change>), Vec<String>> {
    let obstacles = obstacles(config);
    if !obstacles.is_empty() {
        return Err(obstacles);
    }
    let architecture = match (config.positions, config.norm) {
        (Positions::Rope, Norm::Rms) if config.bias.head => Architecture::Qwen2,
        (Positions::Rope, Norm::Rms) => Architecture::Llama,
        (Positions::Rope, Norm::Layer) if config.activation == Activation::Swiglu => {
            Architecture::StableLm
        }
        (Positions::Rope, Norm::Layer) if is_partly_turned(config) => Architecture::GptNeox,
        (Positions::Rope, Norm::Layer) => Architecture::Starcoder2,
        _ => Architecture::Gpt2,
    };
    Ok((architecture, changes(architecture)))
}

/// Two settings that a few architectures alone have.
fn is_partly_turned(c: &ModelConfig) -> bool {
    c.parallel || c.rope_share != 1.0
}

/// The settings that no architecture has, in the words of an experiment file.
fn obstacles(c: &ModelConfig) -> Vec<String> {
    let is_gated = c.activation == Activation::Swiglu;
    let turns = c.positions == Positions::Rope;
    let is_llama = turns && c.norm == Norm::Rms && is_gated;
    let mut found = Vec::new();
    let mut put = |is_set: bool, setting: &str| {
        if is_set {
            found.push(setting.to_owned());
        }
    };
    put(c.norm_at == NormAt::Post, "norm_at: post");
    put(!c.final_norm, "final_norm: false");
    put(c.activation == Activation::Relu, "activation: relu");
    put(c.activation == Activation::Silu, "activation: silu");
    put(
        is_gated && !turns,
        "activation: swiglu without positions: rope",
    );
    put(
        turns && is_gated && c.norm == Norm::Layer && (c.bias.proj || c.bias.mlp),
        "activation: swiglu with norm: layer beside bias.proj or bias.mlp",
    );
    put(
        turns && !is_gated && c.norm == Norm::Rms,
        "norm: rms without activation: swiglu",
    );
    put(
        turns && c.bias.head && !is_llama,
        "bias.head: true with positions: rope",
    );
    let share = format!("rope_share: {}", c.rope_share);
    let is_partly = turns && c.rope_share != 1.0;
    put(
        is_partly && c.norm == Norm::Rms,
        &format!("{share} with norm: rms"),
    );
    put(
        c.parallel && (!turns || c.norm == Norm::Rms || is_gated),
        "parallel: true without positions: rope, norm: layer and an ungated MLP",
    );
    put(
        (is_partly || c.parallel) && !is_gated && c.n_kv_heads != c.n_heads,
        "n_kv_heads below n_heads beside parallel or rope_share",
    );
    put(
        is_llama && c.bias.head && (c.bias.proj || c.bias.mlp),
        "bias.head: true beside bias.proj or bias.mlp",
    );
    found
}

fn changes(architecture: Architecture) -> Vec<Change> {
    let unscaled = Change::ScaleEmbedding { to: 1.0 };
    // Biases that an architecture insists on.
    let norm = Bias {
        norm: true,
        qkv: false,
        proj: false,
        mlp: false,
        head: false,
    };
    let all = Change::AddBiases(Bias {
        qkv: true,
        proj: true,
        mlp: true,
        ..norm
    });
    match architecture {
        Architecture::Gpt2 => vec![Change::TabulatePositions, unscaled, Change::Widen, all],
        Architecture::Starcoder2 | Architecture::GptNeox => vec![unscaled, all],
        Architecture::StableLm => vec![unscaled, Change::AddBiases(norm)],
        Architecture::Llama | Architecture::Qwen2 => vec![unscaled],
    }
}

/// Says how faithful it is, and which settings are responsible.
pub(super) fn claim(config: &ModelConfig, changes: &[Change]) -> Claim {
    let settings = reasons(config, changes);
    // llama.cpp computes the tanh form, whatever a model was trained with.
    if config.activation == Activation::Gelu {
        let gelu = "activation: gelu".to_owned();
        return Claim::Approximate([vec![gelu], settings].concat());
    }
    match settings.is_empty() {
        true => Claim::Exact,
        false => Claim::Lowered(settings),
    }
}
