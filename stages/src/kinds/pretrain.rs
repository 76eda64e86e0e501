//! Trains a model from random weights.
//!
//! Reads `shards`; writes a model folder: `model.safetensors` (the weights with the lowest
//! validation loss), `last.safetensors`, `tinylm.json`, `training.json` (the course of the
//! training, no times) and the tokenizer's files, so that the folder answers on its own.

use tinylm_model::shards::Shards;
use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    Content, FindInput, Forecast, Metrics, Role, Roles, SettingError, Stage, StageError, StageIo,
};

use crate::shared::training::{
    Corpus, METRICS, ModelSettings, TrainSettings, TrainWatch, Training, explained, open_engine,
};

pub struct Pretrain;

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
    const MAKES: Content = Content::Model;
    const METRICS: &'static [Key] = METRICS;
    const ROLES: Roles = Roles::Fixed(&[
        Role::one("shards", "the tokens it is trained on").takes(&[Content::Shards])
    ]);
    const HEAVY: bool = true;
    const ON_DEVICE: bool = true;
    const SEEDED: bool = true;

    fn canonical(settings: PretrainSettings) -> Result<PretrainSettings, SettingError> {
        let dropout = settings.model.dropout();
        let model = settings.model.canonical()?;
        let train = settings.train.canonical(dropout)?;
        train.check_stride(model.context)?;
        Ok(PretrainSettings {
            model,
            train,
            ..settings
        })
    }

    fn forecast(settings: &PretrainSettings, input: &FindInput) -> Option<Forecast> {
        let Some(corpus) = Corpus::of(&input("shards")) else {
            let what = "its shape is known once its shards, and so its vocabulary, are there";
            return Some(Forecast::Later(what));
        };
        let config = settings.model.config(corpus.vocab_size()).ok()?;
        let train = &settings.train;
        Some(train.forecast((&config, None), &train.engine_settings(), &corpus))
    }

    fn run(
        settings: &PretrainSettings,
        watch: &TrainWatch,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let shards = Shards::open(&io.input("shards")?.path)
            .map_err(|error| explained(&error).help(error.help()).is_final())?;
        let config = settings.model.config(shards.index().vocab_size)?;
        let seed = settings.seed.unwrap_or_else(|| io.seed());
        let train = &settings.train;
        let mut engine = open_engine(io, config, (train, None), train.engine_settings(), seed)?;
        let training = Training {
            settings: train,
            watch,
            shards: &shards,
            seed,
            updates_before: 0,
            keep_optimizer: settings.keep_optimizer,
            adapter: None,
            dpo: None,
        };
        training.run(engine.as_mut(), io)
    }
}
