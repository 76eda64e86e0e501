//! Hugging Face's folder: `config.json` beside one safetensors file or several.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    error::{ForeignError, read_error},
    family::{GPT_NEO, GPT_NEOX, GPT2, LLAMA, Layout, OPT, STARCODER2},
    fields::Fields,
    model::ForeignModel,
    named::Named,
    peft::Peft,
};
use tinylm_model::{
    config::{Activation, Bias, ModelConfig, Norm, NormAt, Positions},
    engine::Tensor,
    weights::{TensorFile, read_file},
};

/// A folder in Hugging Face's format.
pub struct HuggingFace {
    config: Value,
    files: Vec<TensorFile>,
    adapter: Option<Peft>,
}

/// A family's shape, names, and notes to the person who imports it.
type Read = (ModelConfig, Layout, Vec<String>);
type Reader = fn(&Fields) -> Result<Read, ForeignError>;

impl HuggingFace {
    /// Opens `config.json` and the files of weights.
    pub fn open(config: &Path, weights: &[PathBuf]) -> Result<Self, ForeignError> {
        let bytes = read_file(config).map_err(|source| read_error(config, source))?;
        let config = serde_json::from_slice(&bytes).map_err(|error| ForeignError::Damaged {
            path: config.to_owned(),
            reason: error.to_string(),
        })?;
        let files: Result<Vec<_>, _> = weights.iter().map(|path| TensorFile::open(path)).collect();
        let files = files?;
        if let Some(name) = twice(&files) {
            let paths = weights.iter().map(|path| path.display().to_string());
            let paths = paths.collect::<Vec<_>>().join("`, `");
            return Err(ForeignError::Twice { name, paths });
        }
        let adapter = None;
        Ok(Self {
            config,
            files,
            adapter,
        })
    }

    /// Merges an adapter into the tensors.
    pub fn with_adapter(mut self, adapter: Peft) -> Result<Self, ForeignError> {
        let is_turned = self.is_turned();
        self.adapter = Some(adapter.fitted(&self, is_turned)?);
        Ok(self)
    }

    /// Whether matrices are `(in, out)`.
    fn is_turned(&self) -> bool {
        self.config["model_type"] == "gpt2"
    }

    /// Returns the description as it stands in the file.
    pub fn config(&self) -> &Value {
        &self.config
    }

    pub fn model(&self) -> Result<ForeignModel<'_>, ForeignError> {
        let fields = Fields::new(&self.config, "");
        let family = fields.get("model_type").and_then(Value::as_str);
        let Some((name, read)) = FAMILIES.iter().find(|(name, _)| Some(*name) == family) else {
            let names: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
            let reason = format!("these can be imported: {}", names.join(", "));
            return Err(fields.refuse("model_type", &reason));
        };
        let (mut config, layout, notes) = read(&fields)?;
        config.vocab_size = fields.count("vocab_size")?;
        let default = !matches!(
            *name,
            "llama" | "mistral" | "qwen2" | "arcee" | "stablelm" | "gpt_neox"
        );
        config.tied = fields.flag_or("tie_word_embeddings", default)?;
        if let Some(adapter) = &self.adapter {
            adapter.enlarge(&mut config, &layout, self)?;
        }
        let mut model = ForeignModel::new(name, config, layout, self)?;
        model.notes = notes;
        Ok(model)
    }
}

/// A tensor that two files hold, of which nothing says which one is meant.
fn twice(files: &[TensorFile]) -> Option<String> {
    let mut known = BTreeSet::new();
    let names = files.iter().flat_map(TensorFile::names);
    names.into_iter().find(|name| !known.insert(name.clone()))
}

impl Named for HuggingFace {
    fn names(&self) -> Vec<String> {
        let names = self.files.iter().flat_map(TensorFile::names);
        let added = self.adapter.iter().flat_map(Peft::whole).cloned();
        names.chain(added).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let whole = self
            .adapter
            .as_ref()
            .and_then(|adapter| adapter.shape(name));
        if whole.is_some() {
            return whole;
        }
        let mut shapes = self.files.iter().filter_map(|file| file.shape(name));
        shapes.next().map(<[usize]>::to_vec)
    }

    fn get(&self, name: &str) -> Result<Tensor, ForeignError> {
        if let Some(whole) = self.adapter.as_ref().and_then(|adapter| adapter.get(name)) {
            return whole;
        }
        let file = self.files.iter().find(|file| file.shape(name).is_some());
        let file = file.ok_or_else(|| ForeignError::MissingTensor {
            name: name.to_owned(),
        })?;
        let tensor = file.get(name)?;
        match &self.adapter {
            Some(adapter) => adapter.add(name, tensor, self.is_turned()),
            None => Ok(tensor),
        }
    }
}

const FAMILIES: [(&str, Reader); 10] = [
    ("gpt2", gpt2),
    ("gpt_neo", gpt_neo),
    ("gpt_neox", gpt_neox),
    ("opt", opt),
    ("llama", llama),
    ("mistral", llama),
    ("qwen2", llama),
    ("arcee", arcee),
    ("starcoder2", starcoder2),
    ("stablelm", stablelm),
];

/// A GPT before a family's fields are read. Biases are found in the weights.
pub(super) fn base() -> ModelConfig {
    ModelConfig {
        vocab_size: 1,
        context: 1,
        d_model: 1,
        n_layers: 1,
        n_heads: 1,
        n_kv_heads: 1,
        d_ff: 1,
        positions: Positions::Learned,
        rope_theta: 10_000.0,
        rope_share: 1.0,
        norm: Norm::Layer,
        norm_at: NormAt::Pre,
        parallel: false,
        final_norm: true,
        norm_eps: 1e-5,
        activation: Activation::GeluTanh,
        bias: Bias {
            norm: false,
            qkv: false,
            proj: false,
            mlp: false,
            head: false,
        },
        tied: false,
        embed_scale: 1.0,
    }
}

fn gpt2(fields: &Fields) -> Result<Read, ForeignError> {
    fields.only(&[
        ("scale_attn_weights", json!(true)),
        ("scale_attn_by_inverse_layer_idx", json!(false)),
        ("add_cross_attention", json!(false)),
    ])?;
    let d_model = fields.count("n_embd")?;
    let n_heads = fields.count("n_head")?;
    let config = ModelConfig {
        context: fields.count("n_positions")?,
        d_model,
        n_layers: fields.count("n_layer")?,
        n_heads,
        n_kv_heads: n_heads,
        d_ff: fields.count_or("n_inner", d_model.saturating_mul(4))?,
        norm_eps: fields.number_or("layer_norm_epsilon", 1e-5)?,
        activation: fields.activation("activation_function", "gelu_new")?,
        ..base()
    };
    Ok((config, GPT2, Vec::new()))
}

/// Every second layer sees the last `window_size` tokens alone, which is all of them for a
/// context that is no longer.
fn gpt_neo(fields: &Fields) -> Result<Read, ForeignError> {
    let d_model = fields.count("hidden_size")?;
    let n_heads = fields.count("num_heads")?;
    let trained = fields.count("max_position_embeddings")?;
    let types = fields.get("attention_types").map(Value::to_string);
    let is_local = types.is_none_or(|types| types.contains("local"));
    let context = match is_local {
        true => trained.min(fields.count_or("window_size", 256)?),
        false => trained,
    };
    let notes = (context < trained).then(|| {
        format!("it reads {context} tokens, not {trained}: every second layer sees no further, and beyond that a model of ours would differ")
    });
    let config = ModelConfig {
        context,
        d_model,
        n_layers: fields.count("num_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        d_ff: fields.count_or("intermediate_size", d_model.saturating_mul(4))?,
        norm_eps: fields.number_or("layer_norm_epsilon", 1e-5)?,
        activation: fields.activation("activation_function", "gelu_new")?,
        ..base()
    };
    Ok((config, GPT_NEO, notes.into_iter().collect()))
}

fn gpt_neox(fields: &Fields) -> Result<Read, ForeignError> {
    let n_heads = fields.count("num_attention_heads")?;
    let config = ModelConfig {
        n_kv_heads: n_heads,
        rope_theta: match fields.get("rotary_emb_base") {
            Some(_) => fields.number("rotary_emb_base")?,
            None => theta(fields)?,
        },
        rope_share: rotary_share(fields, &["rotary_pct", "partial_rotary_factor"], 0.25)?,
        parallel: fields.flag_or("use_parallel_residual", true)?,
        norm_eps: fields.number_or("layer_norm_eps", 1e-5)?,
        activation: fields.activation("hidden_act", "gelu")?,
        ..hidden(fields)?
    };
    Ok((config, GPT_NEOX, Vec::new()))
}

fn opt(fields: &Fields) -> Result<Read, ForeignError> {
    let d_model = fields.count("hidden_size")?;
    fields.only(&[
        ("word_embed_proj_dim", json!(d_model)),
        ("enable_bias", json!(true)),
        ("layer_norm_elementwise_affine", json!(true)),
    ])?;
    let n_heads = fields.count("num_attention_heads")?;
    let is_pre = fields.flag_or("do_layer_norm_before", true)?;
    let config = ModelConfig {
        context: fields.count("max_position_embeddings")?,
        d_model,
        n_layers: fields.count("num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        d_ff: fields.count("ffn_dim")?,
        norm_at: if is_pre { NormAt::Pre } else { NormAt::Post },
        final_norm: is_pre && !fields.flag_or("_remove_final_layer_norm", false)?,
        activation: fields.activation("activation_function", "relu")?,
        ..base()
    };
    Ok((config, OPT, Vec::new()))
}

/// The sizes that Llama's kin call alike.
fn hidden(fields: &Fields) -> Result<ModelConfig, ForeignError> {
    let n_heads = fields.count("num_attention_heads")?;
    let d_model = fields.count("hidden_size")?;
    if fields.get("head_dim").is_some() && n_heads > 0 {
        let of_a_head = d_model / n_heads;
        fields.only(&[("head_dim", json!(of_a_head))])?;
    }
    Ok(ModelConfig {
        context: fields.count("max_position_embeddings")?,
        d_model,
        n_layers: fields.count("num_hidden_layers")?,
        n_heads,
        n_kv_heads: fields.count_or("num_key_value_heads", n_heads)?,
        d_ff: fields.count("intermediate_size")?,
        positions: Positions::Rope,
        ..base()
    })
}

fn llama(fields: &Fields) -> Result<Read, ForeignError> {
    fields.only(&[("hidden_act", json!("silu"))])?;
    no_window(fields)?;
    let config = ModelConfig {
        rope_theta: theta(fields)?,
        norm: Norm::Rms,
        norm_eps: fields.number_or("rms_norm_eps", 1e-6)?,
        activation: Activation::Swiglu,
        ..hidden(fields)?
    };
    Ok((config, LLAMA, Vec::new()))
}

fn arcee(fields: &Fields) -> Result<Read, ForeignError> {
    let config = ModelConfig {
        rope_theta: theta(fields)?,
        norm: Norm::Rms,
        norm_eps: fields.number_or("rms_norm_eps", 1e-5)?,
        activation: fields.activation("hidden_act", "relu2")?,
        ..hidden(fields)?
    };
    Ok((config, LLAMA, Vec::new()))
}

fn starcoder2(fields: &Fields) -> Result<Read, ForeignError> {
    no_window(fields)?;
    let config = ModelConfig {
        rope_theta: theta(fields)?,
        norm_eps: fields.number_or("norm_epsilon", 1e-5)?,
        activation: fields.activation("hidden_act", "gelu_pytorch_tanh")?,
        ..hidden(fields)?
    };
    Ok((config, STARCODER2, Vec::new()))
}

fn stablelm(fields: &Fields) -> Result<Read, ForeignError> {
    fields.only(&[
        ("hidden_act", json!("silu")),
        ("use_parallel_residual", json!(false)),
        ("qk_layernorm", json!(false)),
    ])?;
    let config = ModelConfig {
        rope_theta: theta(fields)?,
        rope_share: rotary_share(fields, &["partial_rotary_factor"], 0.25)?,
        norm_eps: fields.number_or("layer_norm_eps", 1e-5)?,
        activation: Activation::Swiglu,
        ..hidden(fields)?
    };
    Ok((config, LLAMA, Vec::new()))
}

fn no_window(fields: &Fields) -> Result<(), ForeignError> {
    let is_used = fields.flag_or("use_sliding_window", true)?;
    match fields.get("sliding_window") {
        Some(_) if is_used => {
            Err(fields.refuse("sliding_window", "every token sees all before it here"))
        }
        _ => Ok(()),
    }
}

/// The base of rope's frequencies, and no scaling of them.
fn theta(fields: &Fields) -> Result<f32, ForeignError> {
    match rope(fields, "rope_theta")? {
        Some(theta) => Ok(theta),
        None => fields.number_or("rope_theta", 10_000.0),
    }
}

fn rotary_share(fields: &Fields, names: &[&str], default: f32) -> Result<f32, ForeignError> {
    if let Some(share) = rope(fields, "partial_rotary_factor")? {
        return Ok(share);
    }
    match names.iter().find(|name| fields.get(name).is_some()) {
        Some(name) => fields.number(name),
        None => Ok(default),
    }
}

/// A number of rope's own settings, which go by two names; what they say of another rope is refused.
fn rope(fields: &Fields, name: &str) -> Result<Option<f32>, ForeignError> {
    let mut found = None;
    for field in ["rope_parameters", "rope_scaling"] {
        let Some(value) = fields.get(field) else {
            continue;
        };
        let sorts = [&value["rope_type"], &value["type"]].into_iter();
        let is_default = match sorts.into_iter().find(|sort| !sort.is_null()) {
            Some(sort) => sort == "default",
            None => value["factor"].is_null(),
        };
        if !value.is_object() || !is_default {
            return Err(fields.refuse(field, "rope's frequencies are not scaled here"));
        }
        if value
            .as_object()
            .is_some_and(|map| map.values().any(Value::is_object))
        {
            return Err(fields.refuse(field, "every layer has the same rope here"));
        }
        let number = Fields::new(value, "");
        if number.get(name).is_some() {
            found = Some(number.number(name)?);
        }
    }
    Ok(found)
}
