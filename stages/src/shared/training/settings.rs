//! How a model is trained, as an author writes it, and what the training loop makes of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tinylm_model::{
    Dropout, EngineSettings, Optimizer,
    batches::{BatchSettings, Batching, LongDocuments, LossOn},
    config::{ModelConfig, Precision},
    dpo::Dpo,
    schedule::{self, Amount, Schedule},
    train::{
        Length, OnNonFinite, OnSpike, TrainSettings as LoopSettings, WatchSettings as LoopWatch,
    },
};
use tinylm_pipeline::settings::{SettingError, Settings as _, Shape, Shaped, with_defaults};

use crate::shared::decimal::decimal;

/// `auto`, or a number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroBatch(pub Option<usize>);

impl Shaped for MicroBatch {
    fn shape() -> Shape {
        Shape::Own(
            "`auto`, or a whole number",
            r#"{ "type": ["integer", "string"], "minimum": 1, "pattern": "^auto$" }"#,
        )
    }
}

impl Serialize for MicroBatch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => serializer.serialize_str("auto"),
            Some(rows) => serializer.serialize_u64(rows as u64),
        }
    }
}

impl<'de> Deserialize<'de> for MicroBatch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let rows = value.as_u64().filter(|&rows| rows > 0);
        match rows {
            Some(rows) => Ok(Self(Some(rows as usize))),
            None if value == "auto" => Ok(Self(None)),
            None => Err(serde::de::Error::custom(format!(
                "must be `auto` or a number of rows, not {value}"
            ))),
        }
    }
}

tinylm_pipeline::settings! {
    /// How a model is trained.
    #[exclusive("epochs", "steps")]
    pub struct TrainSettings {
        /// Times all documents are read; 1 if neither this nor `steps` is given.
        #[range(above 0.0)]
        pub epochs: Option<f64> = None,
        /// Updates.
        #[range(1)]
        pub steps: Option<u64> = None,
        /// Rows in an update.
        #[range(1, 1 << 24)]
        pub batch: usize = 32,
        /// Rows computed at a time; `auto` takes what fits into memory. Gradients add up over a batch.
        pub micro_batch: MicroBatch = MicroBatch(None),
        /// Parts of an update's rows whose gradients are added in a fixed tree: any number of processes
        /// (`resources: { ranks: 2 }`, `nodes`) then makes the same bytes.
        #[range(1)]
        pub leaves: Option<usize> = None => neutral None,
        /// Places in a row; the model's context if not given.
        #[range(1, 1 << 16)]
        pub context: Option<usize> = None,
        /// How rows are cut from documents.
        pub batching: Batching = Batching::Packed,
        /// Tokens between the starts of `sliding` windows, at most the context; the context if not given.
        #[range(1)]
        pub stride: Option<usize> = None,
        /// The treatment of documents longer than the context (`packed` and `padded`).
        pub long_documents: LongDocuments = LongDocuments::Split,
        /// Which tokens are learned.
        pub loss_on: LossOn = LossOn::Targets,
        /// The highest learning rate.
        #[range(above 0.0, 10.0)]
        pub lr: f64 = 1e-3,
        /// How the learning rate goes after the warm-up.
        pub schedule: schedule::Shape = schedule::Shape::Cosine,
        /// Updates over which the learning rate rises, as a number or as a share of all.
        pub warmup: Amount = Amount::Share(0.05),
        /// The lowest learning rate after the warm-up, as a number or as a share of `lr`.
        pub floor: Amount = Amount::Number(0.0),
        /// Updates over which `wsd` comes down at the end, as a number or as a share of all.
        pub decay: Amount = Amount::Share(0.2),
        /// The rule that turns gradients into changes of weights.
        pub optimizer: Optimizer = EngineSettings::default().optimizer,
        /// AdamW's decays of its two moments.
        pub betas: Vec<f64> = betas(&EngineSettings::default()),
        /// Muon's momentum.
        #[range(0.0, 1.0)]
        pub momentum: f64 = decimal(EngineSettings::default().momentum),
        /// Decay of matrices per unit of learning rate.
        #[range(0.0)]
        pub weight_decay: f64 = decimal(EngineSettings::default().weight_decay),
        /// Norm above which gradients are scaled down; null switches it off.
        #[range(above 0.0)]
        pub clip: Option<f64> = Some(1.0),
        /// Share of activations dropped, in all four places; the preset's if not given, and none in `finetune`.
        #[range(0.0, 1.0)]
        pub dropout: Option<f64> = None,
        /// The same for embeddings alone.
        #[range(0.0, 1.0)]
        pub dropout_embedding: Option<f64> = None,
        /// The same for attention weights alone.
        #[range(0.0, 1.0)]
        pub dropout_attention: Option<f64> = None,
        /// The same for what blocks add to the residual stream.
        #[range(0.0, 1.0)]
        pub dropout_residual: Option<f64> = None,
        /// The same inside the MLP.
        #[range(0.0, 1.0)]
        pub dropout_mlp: Option<f64> = None,
        /// Share of each target's probability that is spread over the vocabulary.
        #[range(0.0, 1.0)]
        pub label_smoothing: f64 = decimal(EngineSettings::default().label_smoothing),
        /// The numbers that operands of matrix products are rounded to; sums and weights stay f32.
        pub precision: Precision = EngineSettings::default().precision,
        /// Updates between two validations; 0 never validates, and without it there are twenty.
        pub validate_every: Option<u64> = None,
        /// Rows of the fixed validation set, spread over the validation documents; if not given,
        /// a quarter of what is trained on between two validations, 64 to 1000.
        pub validate_rows: Option<usize> = None,
        /// Validations without a gain after which training stops.
        #[range(1)]
        pub patience: Option<u64> = None,
        /// The answer to a loss, of training or validation, or a gradient norm that is not finite.
        pub on_non_finite: OnNonFinite = OnNonFinite::Stop,
        /// The answer to a loss far above its running mean.
        pub on_spike: OnSpike = OnSpike::Warn,
        /// Standard deviations above the mean that make a spike.
        pub spike_z: f64 = 6.0,
    }
}

tinylm_pipeline::settings! {
    /// Looks at the training that change nothing of it.
    pub struct TrainWatch {
        /// Prompts that the model answers at every validation.
        pub samples: Vec<String> = Vec::new(),
        /// Most tokens of such an answer.
        pub sample_tokens: usize = 48,
        /// Updates between two logged ones; without it ten, and fewer where there are few in all.
        pub log_every: Option<u64> = None,
        /// Checkpoints kept for going back.
        pub keep_checkpoints: usize = 3,
        /// Updates between two checkpoints; 0 saves for validations and by time only.
        pub checkpoint_every: u64 = 0,
        /// Minutes of work that may be lost at most.
        pub checkpoint_minutes: f64 = 10.0,
    }
}

impl Default for TrainWatch {
    fn default() -> Self {
        let nothing = Value::Object(serde_json::Map::new());
        let filled = with_defaults(&Self::list(), &nothing);
        serde_json::from_value(filled).expect("all of it has defaults")
    }
}

/// Rows of one update. Far more than anybody trains with, and few enough to be multiplied.
const BATCH_MAX: usize = 1 << 24;

impl TrainSettings {
    /// Spells out what follows from other settings, and refuses what contradicts itself.
    pub(crate) fn canonical(mut self, preset_dropout: f64) -> Result<Self, SettingError> {
        match (self.epochs, self.steps) {
            (Some(_), Some(_)) => {
                let help = "leave one of them out";
                return Err(SettingError::new("train.steps", "excludes `epochs`").help(help));
            }
            (None, None) => self.epochs = Some(1.0),
            _ => (),
        }
        let everywhere = self.dropout.unwrap_or(preset_dropout);
        self.dropout = Some(everywhere);
        for place in [
            &mut self.dropout_embedding,
            &mut self.dropout_attention,
            &mut self.dropout_residual,
            &mut self.dropout_mlp,
        ] {
            place.get_or_insert(everywhere);
        }
        self.check()?;
        Ok(self)
    }

    fn check(&self) -> Result<(), SettingError> {
        let error =
            |name: &str, message: String| Err(SettingError::new(format!("train.{name}"), message));
        let shares = [
            ("dropout", self.dropout),
            ("dropout_embedding", self.dropout_embedding),
            ("dropout_attention", self.dropout_attention),
            ("dropout_residual", self.dropout_residual),
            ("dropout_mlp", self.dropout_mlp),
            ("label_smoothing", Some(self.label_smoothing)),
            ("momentum", Some(self.momentum)),
        ];
        for (name, share) in shares {
            if share.is_some_and(|share| !(0.0..1.0).contains(&share)) {
                return error(name, "must be at least 0 and less than 1".to_owned());
            }
        }
        if self.betas.len() != 2 || self.betas.iter().any(|beta| !(0.0..1.0).contains(beta)) {
            return error(
                "betas",
                "must be two numbers, at least 0 and less than 1".to_owned(),
            );
        }
        if let Err(wrong) = self.schedule().check() {
            let told = SettingError::new(format!("train.{}", wrong.setting()), wrong.wrong());
            return Err(told.help(wrong.help()));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay * self.lr < 1.0) {
            return error(
                "weight_decay",
                "must be at least 0, and less than 1 / `lr`".to_owned(),
            );
        }
        if self.batch == 0 || self.batch > BATCH_MAX {
            return error("batch", format!("must be from 1 to {BATCH_MAX}"));
        }
        if let Some(leaves) = self.leaves.filter(|n| !(1..=self.batch).contains(n)) {
            return error(
                "leaves",
                format!(
                    "is {leaves}, and must be from 1 to `batch` ({})",
                    self.batch
                ),
            );
        }
        if self.patience == Some(0) {
            return error("patience", "must be at least 1".to_owned());
        }
        if self.validate_rows == Some(0) {
            return error(
                "validate_rows",
                "must be at least 1; `validate_every: 0` switches validation off".to_owned(),
            );
        }
        match self.stride {
            Some(_) if self.batching != Batching::Sliding => {
                error("stride", "is only for `batching: sliding`".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Refuses windows with gaps, where the context is known before the run.
    pub(crate) fn check_stride(&self, of_model: Option<usize>) -> Result<(), SettingError> {
        match (self.stride, self.context.or(of_model)) {
            (Some(stride), Some(context)) if stride > context => {
                let message = format!(
                    "is {stride}, and more than `context` ({context}): tokens in between would never be read"
                );
                let help = "set `stride` to at most `context`";
                Err(SettingError::new("train.stride", message).help(help))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn engine_settings(&self) -> EngineSettings {
        let rate = |place: Option<f64>| place.or(self.dropout).unwrap_or(0.0) as f32;
        let start = EngineSettings::default();
        let beta = |idx: usize, or: f32| self.betas.get(idx).map_or(or, |beta| *beta as f32);
        EngineSettings {
            precision: self.precision,
            optimizer: self.optimizer,
            beta1: beta(0, start.beta1),
            beta2: beta(1, start.beta2),
            weight_decay: self.weight_decay as f32,
            momentum: self.momentum as f32,
            dropout: Dropout {
                embedding: rate(self.dropout_embedding),
                attention: rate(self.dropout_attention),
                residual: rate(self.dropout_residual),
                mlp: rate(self.dropout_mlp),
            },
            label_smoothing: self.label_smoothing as f32,
            ..start
        }
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            shape: self.schedule,
            lr: self.lr,
            warmup: self.warmup,
            floor: self.floor,
            decay: self.decay,
        }
    }

    pub(super) fn batch_settings(&self, config: &ModelConfig, dpo: Option<Dpo>) -> BatchSettings {
        let context = self.context.unwrap_or(config.context);
        BatchSettings {
            batching: self.batching,
            stride: self.stride.unwrap_or(context),
            context,
            batch: self.batch,
            long_documents: self.long_documents,
            loss_on: self.loss_on,
            pairs: dpo.is_some(),
        }
    }

    pub(super) fn loop_settings(
        &self,
        (config, dpo): (&ModelConfig, Option<Dpo>),
        watch: &TrainWatch,
        flops_per_second: Option<f64>,
        seed: u64,
    ) -> LoopSettings {
        LoopSettings {
            length: match self.steps {
                Some(steps) => Length::Steps(steps),
                None => Length::Epochs(self.epochs.unwrap_or(1.0)),
            },
            batches: self.batch_settings(config, dpo),
            dpo,
            schedule: self.schedule(),
            clip: self.clip.map_or(f32::INFINITY, |clip| clip as f32),
            micro_batch: self.micro_batch.0,
            leaves: self.leaves.unwrap_or(0),
            validate_every: self.validate_every,
            validate_rows: self.validate_rows,
            patience: self.patience,
            on_non_finite: self.on_non_finite,
            on_spike: self.on_spike,
            spike_z: self.spike_z,
            seed,
            updates_before: 0,
            watch: LoopWatch {
                log_every: watch.log_every,
                checkpoint_every: watch.checkpoint_every,
                checkpoint_interval: minutes(watch.checkpoint_minutes),
                keep_checkpoints: watch.keep_checkpoints,
                flops_per_second,
            },
        }
    }
}

fn betas(settings: &EngineSettings) -> Vec<f64> {
    [settings.beta1, settings.beta2].map(decimal).to_vec()
}

/// A duration; what is no time at all (negative, NaN) means as often as possible.
fn minutes(minutes: f64) -> Duration {
    Duration::try_from_secs_f64(60.0 * minutes).unwrap_or_default()
}
