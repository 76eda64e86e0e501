//! `config.json` of each class.
//!
//! Where versions 4 and 5 of `transformers` spell a setting differently (`torch_dtype` and `dtype`,
//! the rotary ones), both stand there. What no class asks for by default is written out, because
//! a default of theirs may be another (`bos_token_id` of GPT-2 is 50256).

use serde_json::{Map, Value, json};
use tinylm_model::config::{Activation, ModelConfig, NormAt};
use tinylm_settings::Choice;

use super::choice::Class;

/// The ids that a model's settings name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ids {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub pad: Option<u32>,
}

pub(crate) fn of(class: Class, c: &ModelConfig, ids: Ids) -> Map<String, Value> {
    let mut settings = common(class, c, ids);
    let own = match class {
        Class::Gpt2 => gpt2(c),
        Class::OpenaiGpt => openai_gpt(c),
        Class::Ctrl => ctrl(c),
        Class::Opt => opt(c),
        Class::Llama => llama(c),
        Class::Arcee => arcee(c),
        Class::GptNeox => gpt_neox(c),
        Class::Starcoder2 => starcoder2(c),
        Class::StableLm => stable_lm(c),
        Class::Tinylm => tinylm(c),
    };
    // Each is written as an object.
    settings.extend(own.as_object().cloned().unwrap_or_default());
    settings
}

fn common(class: Class, c: &ModelConfig, ids: Ids) -> Map<String, Value> {
    let common = json!({
        "architectures": [class.name()],
        "model_type": class.model_type(),
        "dtype": "float32",
        "torch_dtype": "float32",
        "vocab_size": c.vocab_size,
        "tie_word_embeddings": c.tied,
        "use_cache": true,
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "pad_token_id": ids.pad,
    });
    common.as_object().cloned().unwrap_or_default()
}

fn activation(c: &ModelConfig) -> &'static str {
    match c.activation {
        Activation::GeluTanh => "gelu_new",
        Activation::Gelu => "gelu",
        Activation::Relu => "relu",
        Activation::Silu | Activation::Swiglu => "silu",
    }
}

fn gpt2(c: &ModelConfig) -> Value {
    json!({
        "n_positions": c.context,
        "n_ctx": c.context,
        "n_embd": c.d_model,
        "n_layer": c.n_layers,
        "n_head": c.n_heads,
        "n_inner": c.d_ff,
        "activation_function": activation(c),
        "layer_norm_epsilon": number(c.norm_eps),
        "scale_attn_weights": true,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    })
}

fn openai_gpt(c: &ModelConfig) -> Value {
    let activation = match c.activation {
        Activation::GeluTanh => "gelu",
        Activation::Silu => "swish",
        _ => activation(c),
    };
    json!({
        "n_positions": c.context,
        "n_embd": c.d_model,
        "n_layer": c.n_layers,
        "n_head": c.n_heads,
        "afn": activation,
        "layer_norm_epsilon": number(c.norm_eps),
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    })
}

fn ctrl(c: &ModelConfig) -> Value {
    json!({
        "n_positions": c.context,
        "n_embd": c.d_model,
        "dff": c.d_ff,
        "n_layer": c.n_layers,
        "n_head": c.n_heads,
        "layer_norm_epsilon": number(c.norm_eps),
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
    })
}

fn opt(c: &ModelConfig) -> Value {
    json!({
        "max_position_embeddings": c.context,
        "hidden_size": c.d_model,
        "word_embed_proj_dim": c.d_model,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "ffn_dim": c.d_ff,
        "activation_function": activation(c),
        "do_layer_norm_before": c.norm_at == NormAt::Pre,
        "_remove_final_layer_norm": !c.final_norm,
        "enable_bias": true,
        "layer_norm_elementwise_affine": true,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        // Its default, 1, would take an ordinary token for padding.
        "pad_token_id": null,
    })
}

/// The sizes of every class that turns its queries and keys.
fn turning(c: &ModelConfig, own: &Value) -> Value {
    let rope = json!({
        "rope_type": "default",
        "rope_theta": number(c.rope_theta),
        "partial_rotary_factor": number(c.rope_share),
    });
    let mut all = json!({
        "max_position_embeddings": c.context,
        "hidden_size": c.d_model,
        "intermediate_size": c.d_ff,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "hidden_act": activation(c),
        "attention_dropout": 0.0,
        "rope_parameters": rope,
    });
    for (name, value) in own.as_object().into_iter().flatten() {
        all[name] = value.clone();
    }
    all
}

fn llama(c: &ModelConfig) -> Value {
    let own = json!({
        "num_key_value_heads": c.n_kv_heads,
        "head_dim": c.d_head(),
        "rms_norm_eps": number(c.norm_eps),
        "attention_bias": c.bias.qkv,
        "mlp_bias": c.bias.mlp,
        "rope_theta": number(c.rope_theta),
        "rope_scaling": null,
        "pretraining_tp": 1,
    });
    turning(c, &own)
}

fn arcee(c: &ModelConfig) -> Value {
    llama(c)
}

fn gpt_neox(c: &ModelConfig) -> Value {
    let own = json!({
        "layer_norm_eps": number(c.norm_eps),
        "use_parallel_residual": c.parallel,
        "attention_bias": true,
        "rotary_pct": number(c.rope_share),
        "rotary_emb_base": number(c.rope_theta),
        "hidden_dropout": 0.0,
    });
    turning(c, &own)
}

fn starcoder2(c: &ModelConfig) -> Value {
    let own = json!({
        "num_key_value_heads": c.n_kv_heads,
        "norm_epsilon": number(c.norm_eps),
        "use_bias": c.bias.qkv,
        "sliding_window": null,
        "residual_dropout": 0.0,
        "embedding_dropout": 0.0,
        "rope_theta": number(c.rope_theta),
    });
    turning(c, &own)
}

fn stable_lm(c: &ModelConfig) -> Value {
    let own = json!({
        "num_key_value_heads": c.n_kv_heads,
        "layer_norm_eps": number(c.norm_eps),
        "use_qkv_bias": c.bias.qkv,
        "qk_layernorm": false,
        "use_parallel_residual": false,
        "partial_rotary_factor": number(c.rope_share),
        "hidden_dropout": 0.0,
        "rope_theta": number(c.rope_theta),
    });
    turning(c, &own)
}

/// The settings of our own under our own names.
fn tinylm(c: &ModelConfig) -> Value {
    json!({
        "auto_map": {
            "AutoConfig": "modeling_tinylm.TinylmConfig",
            "AutoModelForCausalLM": "modeling_tinylm.TinylmForCausalLM",
        },
        "context": c.context,
        "d_model": c.d_model,
        "n_layers": c.n_layers,
        "n_heads": c.n_heads,
        "n_kv_heads": c.n_kv_heads,
        "d_ff": c.d_ff,
        "positions": c.positions.word(),
        "rope_theta": number(c.rope_theta),
        "rope_share": number(c.rope_share),
        "norm": c.norm.word(),
        "norm_at": c.norm_at.word(),
        "parallel": c.parallel,
        "final_norm": c.final_norm,
        "norm_eps": number(c.norm_eps),
        "activation": c.activation.word(),
        "bias": c.bias,
        "tied": c.tied,
        "embed_scale": number(c.embed_scale),
        // The head is computed with the embedding itself, so that there is nothing to tie.
        "tie_word_embeddings": false,
        "use_cache": false,
    })
}

/// A number as it was written in an experiment: 1e-5 and not 9.99999974737875e-6.
fn number(x: f32) -> Value {
    x.to_string()
        .parse::<f64>()
        .map_or(Value::Null, Value::from)
}
