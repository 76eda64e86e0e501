//! Trains a model further, on other documents.
//!
//! Reads `shards` and a `model`, which is the artifact of a stage or, with `from`, a folder or
//! a file of the user's own. Writes the same model folder as `pretrain`.
//!
//! The shards must speak the model's language: the same tokenizer, or one that keeps every
//! old token's id and adds new ones, for which the embedding grows. Another tokenizer would
//! make every learned row mean something else, and a training that seems to work.

mod adapter;
mod origin;
mod settings;

use tinylm_model::{
    config::ModelConfig,
    folder::Which,
    shards::Shards,
    surgery::{Freeze, SurgeryError, adapt_optimizer, adapt_weights, frozen},
};
use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    Content, FindInput, Forecast, Metrics, Role, Roles, SettingError, Stage, StageError, StageIo,
};

use crate::shared::training::{
    Corpus, METRICS, ModelSettings, TrainWatch, Training, explained, folder_error, open_engine,
};

use adapter::Plan;
use origin::{Origin, is_moment_of};
use settings::{FinetuneSettings, OptimizerStateName};

pub struct Finetune;

impl Stage for Finetune {
    type Settings = FinetuneSettings;
    type Watch = TrainWatch;

    const KIND: &'static str = "finetune";
    const ABOUT: &'static str = "trains a model further on other documents";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Model;
    const METRICS: &'static [Key] = METRICS;
    const ROLES: Roles = Roles::Fixed(&[
        Role::one("shards", "the tokens it is trained on").takes(&[Content::Shards]),
        Role::one("model", "where it starts from")
            .optional()
            .takes(&[Content::Model]),
    ]);
    const HEAVY: bool = true;
    const ON_DEVICE: bool = true;
    const SEEDED: bool = true;

    fn canonical(mut settings: FinetuneSettings) -> Result<FinetuneSettings, SettingError> {
        settings
            .start
            .get_or_insert(match settings.optimizer_state {
                OptimizerStateName::Reset => Which::Best,
                OptimizerStateName::Keep => Which::Last,
            });
        settings.model = settings.model.map(ModelSettings::canonical).transpose()?;
        settings.train = settings.train.canonical(0.0)?;
        settings.train.check_stride(settings.context)?;
        adapter::check(&mut settings)?;
        settings.with_objective()
    }

    fn forecast(settings: &FinetuneSettings, input: &FindInput) -> Option<Forecast> {
        let corpus = Corpus::of(&input("shards"));
        let from = origin::shape(&input("model"));
        let (Some(corpus), Some(from)) = (corpus, from) else {
            let what =
                "its shape is known once its shards and the model that it starts from are there";
            return Some(Forecast::Later(what));
        };
        let config = ModelConfig {
            vocab_size: corpus.vocab_size().max(from.vocab_size),
            context: settings.context.unwrap_or(from.context),
            ..from.clone()
        };
        // The stage itself says what is wrong with it.
        config.check().ok()?;
        let plan = Plan::new(settings.adapter.as_ref(), &from, &config, Vec::new()).ok()?;
        let how = plan.engine_settings(&settings.train);
        Some(
            settings
                .train
                .forecast((&config, settings.dpo()), &how, &corpus),
        )
    }

    fn run(
        settings: &FinetuneSettings,
        watch: &TrainWatch,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let shards = Shards::open(&io.input("shards")?.path)
            .map_err(|error| explained(&error).help(error.help()).is_final())?;
        let origin = Origin::find(settings, io)?;
        let from = origin.config(settings)?;
        let to = ModelConfig {
            vocab_size: shards.index().vocab_size,
            context: settings.context.unwrap_or(from.context),
            ..from.clone()
        };
        if let (Some(_), Some(file)) = (&settings.model, origin.folder.shape_file()) {
            io.warn(format!(
                "the shape is the one in `model`: the `{file}` of {} is not read",
                origin.folder.name()
            ));
        }
        origin.check_tokenizer(shards.folder(), io)?;
        let freeze = Freeze {
            embeddings: settings.freeze.embeddings,
            blocks: settings.freeze.blocks,
        };
        let frozen = frozen(&to, freeze).map_err(|error| surgery_error(&error))?;
        let plan = Plan::new(settings.adapter.as_ref(), &from, &to, frozen)?;

        // Before the weights are read: its memory is what is free now.
        let seed = settings.seed.unwrap_or_else(|| io.seed());
        let how = plan.engine_settings(&settings.train);
        let dpo = settings.dpo();
        let mut engine = open_engine(io, to.clone(), (&settings.train, dpo), how, seed)?;
        let mut weights = origin.weights(&from)?;
        adapt_weights(&mut weights, &from, &to).map_err(|error| surgery_error(&error))?;
        if to.vocab_size > from.vocab_size {
            let n_new = to.vocab_size - from.vocab_size;
            io.info(format!(
                "{n_new} new tokens start as the mean of the old ones"
            ));
            if freeze.embeddings {
                io.warn("`freeze.embeddings` leaves the new tokens all alike: set it to false to learn them");
            }
        }
        engine
            .load_weights(&weights)
            .map_err(|error| explained(&error))?;
        drop(weights);
        let mut updates_before = 0;
        if settings.optimizer_state == OptimizerStateName::Keep {
            let mut optimizer = origin.optimizer()?;
            adapt_optimizer(&mut optimizer, &from, &to).map_err(|error| surgery_error(&error))?;
            optimizer.retain(|key, _| !plan.frozen.iter().any(|name| is_moment_of(key, name)));
            engine
                .load_optimizer(&optimizer)
                .map_err(|error| origin.optimizer_error(&error, &optimizer))?;
            let updates = origin.folder.updates();
            updates_before = updates.map_err(|error| folder_error(&error))?;
        }
        origin.check_files()?;
        let n_trained = plan.tell(engine.as_ref(), io)?;
        let training = Training {
            settings: &settings.train,
            watch,
            shards: &shards,
            seed,
            updates_before,
            keep_optimizer: settings.keep_optimizer,
            adapter: plan.adapter,
            dpo,
        };
        let metrics = training.run(engine.as_mut(), io)?;
        Ok(match n_trained {
            Some(n) => metrics.count("trained_parameters", n as u64),
            None => metrics,
        })
    }
}

fn surgery_error(error: &SurgeryError) -> StageError {
    explained(error).help(error.help()).is_final()
}
