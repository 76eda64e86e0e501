//! Which class a model fits, and what has to be changed for it.

use tinylm_model::config::{Activation, Bias, ModelConfig, Norm, NormAt, Positions};

use crate::{
    change::{Change, reasons},
    claim::Claim,
};

/// A class of `transformers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Gpt2,
    Ctrl,
    Opt,
    OpenaiGpt,
    Llama,
    Arcee,
    GptNeox,
    Starcoder2,
    StableLm,
    /// Ours, in the file that goes with the model.
    Tinylm,
}

/// The `eps` that OPT and CTRL have written in their code.
const OPT_EPS: f32 = 1e-5;
const CTRL_EPS: f32 = 1e-6;

impl Class {
    /// The name that `architectures` has.
    pub fn name(self) -> &'static str {
        match self {
            Class::Gpt2 => "GPT2LMHeadModel",
            Class::Ctrl => "CTRLLMHeadModel",
            Class::Opt => "OPTForCausalLM",
            Class::OpenaiGpt => "OpenAIGPTLMHeadModel",
            Class::Llama => "LlamaForCausalLM",
            Class::Arcee => "ArceeForCausalLM",
            Class::GptNeox => "GPTNeoXForCausalLM",
            Class::Starcoder2 => "Starcoder2ForCausalLM",
            Class::StableLm => "StableLmForCausalLM",
            Class::Tinylm => "TinylmForCausalLM",
        }
    }

    /// The name of the module that makes logits.
    pub(super) fn head(self) -> &'static str {
        match self {
            Class::GptNeox => "embed_out",
            Class::Tinylm => "head",
            _ => "lm_head",
        }
    }

    /// Whether its matrices are `(in, out)`.
    pub(super) fn is_turned(self) -> bool {
        matches!(self, Class::Gpt2 | Class::OpenaiGpt)
    }

    pub fn model_type(self) -> &'static str {
        match self {
            Class::Gpt2 => "gpt2",
            Class::Ctrl => "ctrl",
            Class::Opt => "opt",
            Class::OpenaiGpt => "openai-gpt",
            Class::Llama => "llama",
            Class::Arcee => "arcee",
            Class::GptNeox => "gpt_neox",
            Class::Starcoder2 => "starcoder2",
            Class::StableLm => "stablelm",
            Class::Tinylm => "tinylm",
        }
    }
}

/// Returns the class for a model and the changes after which it fits.
pub(super) fn choose(config: &ModelConfig) -> (Class, Vec<Change>) {
    let class = match config.positions {
        Positions::Rope => turning(config),
        Positions::Learned | Positions::Sinusoidal => counting(config),
    };
    let class = class.unwrap_or(Class::Tinylm);
    (class, changes(class, config))
}

/// The class of a model with rotary positions.
fn turning(c: &ModelConfig) -> Option<Class> {
    if c.norm_at == NormAt::Post || !c.final_norm || c.bias.head {
        return None;
    }
    let is_gated = c.activation == Activation::Swiglu;
    if c.parallel || c.rope_share != 1.0 {
        return partly_turning(c);
    }
    match (c.norm, is_gated) {
        (Norm::Rms, true) => Some(Class::Llama),
        (Norm::Rms, false) => Some(Class::Arcee),
        (Norm::Layer, false) if c.n_kv_heads == c.n_heads => Some(Class::GptNeox),
        (Norm::Layer, false) => Some(Class::Starcoder2),
        (Norm::Layer, true) if c.bias.proj || c.bias.mlp => None,
        (Norm::Layer, true) => Some(Class::StableLm),
    }
}

/// The class of a model with parallel parts, or heads of which rope turns a part.
fn partly_turning(c: &ModelConfig) -> Option<Class> {
    let is_gated = c.activation == Activation::Swiglu;
    match (c.norm, is_gated) {
        (Norm::Layer, false) if c.n_kv_heads == c.n_heads => Some(Class::GptNeox),
        // Its own parallel parts share a norm.
        (Norm::Layer, true) if !(c.parallel || c.bias.proj || c.bias.mlp) => Some(Class::StableLm),
        _ => None,
    }
}

/// The class of a model that adds positions to the embedding.
fn counting(c: &ModelConfig) -> Option<Class> {
    if c.activation == Activation::Swiglu || c.parallel {
        return None;
    }
    match (c.norm_at, c.final_norm) {
        (NormAt::Pre, true) if is_ctrl(c) => Some(Class::Ctrl),
        (NormAt::Pre, true) => Some(Class::Gpt2),
        (NormAt::Post, true) => None,
        (_, false) if c.norm == Norm::Rms || c.bias.head => None,
        (_, false) if c.norm_eps == OPT_EPS => Some(Class::Opt),
        (NormAt::Post, false) if is_openai_gpt(c) => Some(Class::OpenaiGpt),
        (_, false) => None,
    }
}

fn is_ctrl(c: &ModelConfig) -> bool {
    c.positions == Positions::Sinusoidal
        && c.norm == Norm::Layer
        && c.norm_eps == CTRL_EPS
        && c.activation == Activation::Relu
        && c.bias.head
        && c.n_kv_heads == c.n_heads
        && c.embed_scale == ctrl_scale(c)
}

/// What CTRL multiplies its embedding by.
fn ctrl_scale(c: &ModelConfig) -> f32 {
    (c.d_model as f32).sqrt()
}

fn is_openai_gpt(c: &ModelConfig) -> bool {
    c.activation != Activation::Gelu && c.d_ff == 4 * c.d_model
}

fn changes(class: Class, c: &ModelConfig) -> Vec<Change> {
    let unscaled = Change::ScaleEmbedding { to: 1.0 };
    let biases = |norm, qkv, proj, mlp| {
        let head = false;
        Change::AddBiases(Bias {
            norm,
            qkv,
            proj,
            mlp,
            head,
        })
    };
    let in_attention = c.bias.qkv || c.bias.proj;
    match class {
        Class::Gpt2 | Class::Opt | Class::OpenaiGpt => vec![
            Change::TabulatePositions,
            unscaled,
            Change::RepeatHeads,
            Change::Widen,
            biases(true, true, true, true),
        ],
        Class::Ctrl => vec![biases(true, true, true, true)],
        Class::Llama | Class::Arcee => vec![
            unscaled,
            biases(false, in_attention, in_attention, c.bias.mlp),
        ],
        Class::GptNeox => vec![unscaled, biases(true, true, true, true)],
        Class::Starcoder2 => {
            let parts = in_attention || c.bias.mlp;
            vec![unscaled, biases(true, parts, parts, parts)]
        }
        Class::StableLm => vec![unscaled, biases(true, c.bias.qkv, false, false)],
        Class::Tinylm => Vec::new(),
    }
}

/// Says how faithful the class is, and which settings are responsible.
pub(super) fn claim(class: Class, config: &ModelConfig) -> Claim {
    if class == Class::Tinylm {
        return Claim::OwnCode(obstacles(config));
    }
    let settings = reasons(config, &changes(class, config));
    match settings.is_empty() {
        true => Claim::Exact,
        false => Claim::Lowered(settings),
    }
}

/// A setting in the way, and what it would have to be.
type Obstacle = (String, fn(&mut ModelConfig));

/// The settings of which some, were they others, would leave a class that fits: those that are
/// enough alone where there are any, else all that are unlike GPT-2's.
fn obstacles(config: &ModelConfig) -> Vec<String> {
    let all: [(bool, Obstacle); 10] = [
        (
            config.parallel,
            ("parallel: true".to_owned(), |c| c.parallel = false),
        ),
        (
            config.positions == Positions::Rope && config.rope_share != 1.0,
            (format!("rope_share: {}", config.rope_share), |c| {
                c.rope_share = 1.0
            }),
        ),
        (
            config.bias.head,
            ("bias.head: true".to_owned(), |c| c.bias.head = false),
        ),
        (
            config.norm_at == NormAt::Post,
            ("norm_at: post".to_owned(), |c| c.norm_at = NormAt::Pre),
        ),
        (
            true,
            (format!("final_norm: {}", config.final_norm), |c| {
                c.final_norm = !c.final_norm;
            }),
        ),
        (
            config.activation == Activation::Swiglu,
            ("activation: swiglu".to_owned(), |c| {
                c.activation = Activation::Gelu;
            }),
        ),
        (
            config.norm == Norm::Rms,
            ("norm: rms".to_owned(), |c| c.norm = Norm::Layer),
        ),
        (
            config.norm_eps != OPT_EPS,
            (format!("norm_eps: {}", config.norm_eps), |c| {
                c.norm_eps = OPT_EPS;
            }),
        ),
        (
            config.bias.proj || config.bias.mlp,
            ("bias.proj, bias.mlp: true".to_owned(), |c| {
                (c.bias.proj, c.bias.mlp) = (false, false);
            }),
        ),
        (
            config.positions == Positions::Rope,
            ("positions: rope".to_owned(), |c| {
                c.positions = Positions::Learned;
            }),
        ),
    ];
    let set = all.into_iter().filter(|(is_set, _)| *is_set);
    let set: Vec<Obstacle> = set.map(|(_, obstacle)| obstacle).collect();
    let is_enough = |(_, change): &&Obstacle| {
        let mut other = config.clone();
        change(&mut other);
        choose(&other).0 != Class::Tinylm
    };
    let enough: Vec<String> = set
        .iter()
        .filter(is_enough)
        .map(|(name, _)| name.clone())
        .collect();
    match enough.is_empty() {
        true => set.into_iter().map(|(name, _)| name).collect(),
        false => enough,
    }
}
