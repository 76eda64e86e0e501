//! The shape of a model, as an author writes it: a preset, and the fields that differ from it.
//!
//! A preset is a starting point, not a name for a model: the key and `tinylm.json` hold the
//! numbers it comes to with the fields that were overridden.

use serde_json::{Map, Value};
use tinylm_model::config::{Activation, ModelConfig, Norm, NormAt, Positions, Preset};
use tinylm_pipeline::settings::{SettingError, defaults, plain, settings};

use crate::shared::decimal::decimal;

settings! {
    /// Which parts have a bias.
    pub struct BiasSettings {
        /// Norms, with `norm: layer` only.
        pub norm: Option<bool> = None,
        /// Queries, keys and values.
        pub qkv: Option<bool> = None,
        /// The output of attention.
        pub proj: Option<bool> = None,
        /// Both sides of the MLP.
        pub mlp: Option<bool> = None,
        /// The head.
        pub head: Option<bool> = None,
    }
}

settings! {
    /// The shape of a model: a preset, and what differs from it.
    pub struct ModelSettings {
        /// Where the shape starts from.
        pub preset: Preset,
        /// Longest sequence the model reads.
        #[range(1, 1 << 16)]
        pub context: Option<usize> = None,
        /// Width of the model.
        #[range(1)]
        pub d_model: Option<usize> = None,
        /// Blocks.
        #[range(1)]
        pub n_layers: Option<usize> = None,
        /// Heads of attention.
        #[range(1)]
        pub n_heads: Option<usize> = None,
        /// Heads of keys and values; fewer than `n_heads` is grouped-query attention.
        #[range(1)]
        pub n_kv_heads: Option<usize> = None,
        /// Width inside the MLP; keeps its ratio to `d_model` if not given.
        #[range(1)]
        pub d_ff: Option<usize> = None,
        /// How the model knows where a token stands.
        pub positions: Option<Positions> = None,
        /// Base of the rotary frequencies.
        #[range(above 0.0)]
        pub rope_theta: Option<f64> = None,
        /// The part of each head that rope turns; all of it if not given.
        #[range(above 0.0, 1.0)]
        pub rope_share: Option<f64> = None => neutral None::<f64>,
        /// The kind of norm.
        pub norm: Option<Norm> = None,
        /// Before or after each part of a block.
        pub norm_at: Option<NormAt> = None,
        /// Attention and MLP read the same stream: `x + attention(norm1(x)) + mlp(norm2(x))`.
        pub parallel: Option<bool> = None => neutral None::<bool>,
        /// A norm between the last block and the head.
        pub final_norm: Option<bool> = None,
        /// Added under the root of a norm.
        #[range(above 0.0)]
        pub norm_eps: Option<f64> = None,
        /// The MLP's activation.
        pub activation: Option<Activation> = None,
        /// Which parts have a bias.
        pub bias: BiasSettings = defaults(),
        /// The head shares the embedding's weight.
        pub tied: Option<bool> = None,
        /// Embeddings are multiplied by this.
        #[range(above 0.0)]
        pub embed_scale: Option<f64> = None,
    }
}

impl ModelSettings {
    /// Spells out every field that the preset decides.
    pub(crate) fn canonical(self) -> Result<Self, SettingError> {
        // The vocabulary is the shards'; any will do for checking the rest.
        let config = self.config(1)?;
        let mut filled = plain(&Self {
            // Models had no words for these once; said or not, what they always were is left out.
            rope_share: self.rope_share.filter(|share| *share != 1.0),
            parallel: self.parallel.filter(|is_set| *is_set),
            ..self
        });
        fill(&mut filled, &plain(&config));
        serde_json::from_value(filled)
            .map_err(|error| SettingError::new("model", error.to_string()))
    }

    /// The dropout that the preset is usually trained with.
    pub(crate) fn dropout(&self) -> f64 {
        decimal(self.preset.dropout())
    }

    /// The model these settings describe, for some vocabulary.
    pub fn config(&self, vocab_size: usize) -> Result<ModelConfig, SettingError> {
        let preset = self.preset.config(vocab_size);
        let mut start = preset.clone();
        if let Some(d_model) = self.d_model {
            start.d_ff = preset.d_ff.saturating_mul(d_model) / preset.d_model;
            if preset.embed_scale != 1.0 {
                start.embed_scale = (d_model as f32).sqrt();
            }
        }
        if let Some(n_heads) = self.n_heads {
            start.n_kv_heads = (preset.n_kv_heads.saturating_mul(n_heads) / preset.n_heads).max(1);
        }
        let mut config = plain(&start);
        overlay(&mut config, &plain(self));
        let config: ModelConfig = serde_json::from_value(config)
            .map_err(|error| SettingError::new("model", error.to_string()))?;
        config
            .check()
            .map_err(|error| SettingError::new("model", error.to_string()))?;
        Ok(config)
    }
}

/// Puts into `config` what `given` says of a model.
fn overlay(config: &mut Value, given: &Value) {
    let (Value::Object(config), Value::Object(given)) = (config, given) else {
        return;
    };
    for (name, given) in given.iter().filter(|(name, _)| *name != "preset") {
        match given {
            Value::Null => (),
            Value::Object(_) => overlay(&mut config[name], given),
            other => {
                config.insert(name.clone(), other.clone());
            }
        }
    }
}

/// Replaces what is null in `settings` with what `config` says.
fn fill(settings: &mut Value, config: &Value) {
    let (Value::Object(settings), Value::Object(config)) = (settings, config) else {
        return;
    };
    fill_map(settings, config);
}

fn fill_map(settings: &mut Map<String, Value>, config: &Map<String, Value>) {
    for (name, value) in settings {
        match (&mut *value, config.get(name)) {
            (Value::Object(inner), Some(Value::Object(config))) => fill_map(inner, config),
            (Value::Null, Some(Value::Number(number))) if number.is_f64() => {
                *value = decimal(number.as_f64().unwrap_or_default() as f32).into();
            }
            (Value::Null, Some(other)) => *value = other.clone(),
            _ => (),
        }
    }
}
