//! Trains a model from random weights.
//!
//! Reads `shards`; writes a model folder: `model.safetensors` (the weights with the lowest
//! validation loss), `last.safetensors`, `config.json`, `training.json` (the course of the
//! training, no times) and the tokenizer's files, so that the folder answers on its own.
//!
//! A preset is a starting point, not a name for a model: what counts, in the key and in
//! `config.json`, are the numbers it comes to with the fields that were overridden.

use serde_json::{Map, Value};
use tinylm_model::{
    config::{ModelConfig, Preset},
    shards::Shards,
};
use tinylm_pipeline::{
    Metrics, Role, Roles, Stage, StageError, StageIo, choices,
    settings::{SettingError, plain},
};

pub use crate::shared::training::MemoryNeed;
use crate::shared::training::{
    TrainSettings, TrainWatch, Training, explained, machine, open_engine,
};

pub struct Pretrain;

choices! {
    /// Where a model's shape starts from.
    pub enum PresetName {
        Toiny = "toiny",
        Tinylm = "tinylm",
        Jojo = "jojo",
        Mini = "mini",
        FortyOne = "forty-one",
        LlamaTiny = "llama-tiny",
    }
}

choices! {
    pub enum PositionsName {
        Learned = "learned",
        Sinusoidal = "sinusoidal",
        Rope = "rope",
    }
}

choices! {
    pub enum NormName {
        Layer = "layer",
        Rms = "rms",
    }
}

choices! {
    pub enum NormAtName {
        Pre = "pre",
        Post = "post",
    }
}

choices! {
    pub enum ActivationName {
        GeluTanh = "gelu-tanh",
        Gelu = "gelu",
        Relu = "relu",
        Silu = "silu",
        Swiglu = "swiglu",
    }
}

tinylm_pipeline::settings! {
    /// Which parts have a bias.
    pub struct BiasSettings {
        /// Norms, with `norm: layer` only.
        pub norm: Option<bool> = None,
        /// Queries, keys and values.
        pub qkv: Option<bool> = None,
        /// What attention puts out.
        pub proj: Option<bool> = None,
        /// Both sides of the MLP.
        pub mlp: Option<bool> = None,
        /// The head.
        pub head: Option<bool> = None,
    }
}

tinylm_pipeline::settings! {
    /// The shape of a model: a preset, and what differs from it.
    pub struct ModelSettings {
        /// Where the shape starts from.
        pub preset: PresetName,
        /// Longest sequence the model reads.
        pub context: Option<usize> = None,
        /// Width of the model.
        pub d_model: Option<usize> = None,
        /// Blocks.
        pub n_layers: Option<usize> = None,
        /// Heads of attention.
        pub n_heads: Option<usize> = None,
        /// Heads of keys and values; fewer than `n_heads` is grouped-query attention.
        pub n_kv_heads: Option<usize> = None,
        /// Width inside the MLP; keeps its ratio to `d_model` if not given.
        pub d_ff: Option<usize> = None,
        /// How the model knows where a token stands.
        pub positions: Option<PositionsName> = None,
        /// Base of the rotary frequencies.
        pub rope_theta: Option<f64> = None,
        /// The kind of norm.
        pub norm: Option<NormName> = None,
        /// Before or after each part of a block.
        pub norm_at: Option<NormAtName> = None,
        /// A norm between the last block and the head.
        pub final_norm: Option<bool> = None,
        /// Added under the root of a norm.
        pub norm_eps: Option<f64> = None,
        /// The MLP's activation.
        pub activation: Option<ActivationName> = None,
        /// Which parts have a bias.
        pub bias: BiasSettings = BiasSettings { norm: None, qkv: None, proj: None, mlp: None, head: None },
        /// The head shares the embedding's weight.
        pub tied: Option<bool> = None,
        /// Embeddings are multiplied by this.
        pub embed_scale: Option<f64> = None,
    }
}

tinylm_pipeline::settings! {
    /// Trains a model from random weights.
    pub struct PretrainSettings {
        /// The shape of the model.
        pub model: ModelSettings,
        /// How it is trained.
        pub train: TrainSettings,
        /// Writes the optimizer's state too, for a `finetune` that goes on with it.
        pub keep_optimizer: bool = false,
        /// Instead of the experiment's seed.
        pub seed: Option<u64> = None,
    }
}

impl Stage for Pretrain {
    type Settings = PretrainSettings;
    type Watch = TrainWatch;

    const KIND: &'static str = "pretrain";
    const ABOUT: &'static str = "trains a model from random weights";
    const REVISION: u32 = 1;
    const ROLES: Roles = Roles::Fixed(&[Role::one("shards", "the tokens it is trained on")]);
    const HEAVY: bool = true;
    const SEEDED: bool = true;

    fn canonical(settings: PretrainSettings) -> Result<PretrainSettings, SettingError> {
        let dropout = decimal(settings.model.preset.preset().dropout());
        let model = settings.model.canonical()?;
        let train = settings.train.canonical(dropout)?;
        train.check_stride(model.context)?;
        Ok(PretrainSettings {
            model,
            train,
            ..settings
        })
    }

    fn run(
        settings: &PretrainSettings,
        watch: &TrainWatch,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let shards = Shards::open(&io.input("shards")?.path)
            .map_err(|error| explained(&error).help(error.help()).is_final())?;
        let config = settings.model.config(shards.index().vocab_size)?;
        let engine_settings = settings.train.engine_settings(Vec::new());
        let seed = settings.seed.unwrap_or_else(|| io.seed());
        let machine = machine(io, &settings.train, &config)?;
        let mut engine = open_engine(io, config, engine_settings, seed)?;
        let training = Training {
            settings: &settings.train,
            watch,
            shards: &shards,
            machine,
            seed,
            updates_before: 0,
            keep_optimizer: settings.keep_optimizer,
        };
        training.run(engine.as_mut(), io)
    }
}

impl PretrainSettings {
    /// What this training would take of this machine's memory now.
    pub fn memory_need(&self, config: &ModelConfig) -> MemoryNeed {
        self.train.memory_need(config)
    }
}

impl ModelSettings {
    /// Spells out every field that the preset decides.
    pub(crate) fn canonical(self) -> Result<Self, SettingError> {
        // The vocabulary is the shards'; any will do for checking the rest.
        let config = self.config(1)?;
        let mut filled = plain(&self);
        fill(&mut filled, &plain(&config));
        serde_json::from_value(filled)
            .map_err(|error| SettingError::new("model", error.to_string()))
    }

    /// The model these settings describe, for some vocabulary.
    pub fn config(&self, vocab_size: usize) -> Result<ModelConfig, SettingError> {
        let preset = self.preset.preset().config(vocab_size);
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

impl PresetName {
    fn preset(self) -> Preset {
        match self {
            Self::Toiny => Preset::Toiny,
            Self::Tinylm => Preset::Tinylm,
            Self::Jojo => Preset::Jojo,
            Self::Mini => Preset::Mini,
            Self::FortyOne => Preset::FortyOne,
            Self::LlamaTiny => Preset::LlamaTiny,
        }
    }
}

/// Replaces in `config` what `given` says, and only what a config has.
fn overlay(config: &mut Value, given: &Value) {
    let (Value::Object(config), Value::Object(given)) = (config, given) else {
        return;
    };
    for (name, value) in config {
        match given.get(name) {
            None | Some(Value::Null) => (),
            Some(inner @ Value::Object(_)) => overlay(value, inner),
            Some(other) => *value = other.clone(),
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

/// The shortest decimal that means this f32: 0.1, not 0.10000000149.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(number.into())
}
