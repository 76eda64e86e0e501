//! Trains a model further, on other documents.
//!
//! Reads `shards` and a `model`, which is the artifact of a stage or, with `from`, a folder or
//! a file of the user's own. Writes the same model folder as `pretrain`.
//!
//! The shards must speak the model's language: the same tokenizer, or one that keeps every
//! old token's id and adds new ones, for which the embedding grows. Another tokenizer would
//! make every learned row mean something else, and a training that seems to work.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;
use tinylm_model::{
    config::ModelConfig,
    engine::{EngineError, Tensors},
    folder::{FolderError, ModelFolder, SHAPE_NAME, TOKENIZER_NAME, Which},
    shards::Shards,
    surgery::{Freeze, SurgeryError, adapt_optimizer, adapt_weights, frozen},
};
use tinylm_pipeline::{
    At, Content, LocalFile, Metrics, Role, Roles, Stage, StageError, StageIo, choices,
    settings::{LocalPath, SettingError, defaults},
};

use crate::shared::training::{
    METRICS, ModelSettings, TrainSettings, TrainWatch, Training, explained, folder_error,
    open_engine,
};

pub struct Finetune;

choices! {
    pub enum OptimizerStateName {
        Reset = "reset",
        Keep = "keep",
    }
}

tinylm_pipeline::settings! {
    /// Parts that stay as they are.
    pub struct FreezeSettings {
        /// Token and position embeddings, and a tied head with them.
        pub embeddings: bool = false,
        /// The first so many blocks.
        pub blocks: usize = 0,
    }
}

tinylm_pipeline::settings! {
    /// Trains a model further.
    pub struct FinetuneSettings {
        /// A model folder, or a safetensors file, in place of the role `model`.
        pub from: Option<LocalPath> = None,
        /// The model's shape, where `from` is a safetensors file alone; the folder's own description is not read then.
        pub model: Option<ModelSettings> = None,
        /// Which weights to start from: `best`, or `last` with `optimizer_state: keep`.
        pub start: Option<Which> = None,
        /// `keep` goes on with moments that an earlier stage wrote with `keep_optimizer`.
        pub optimizer_state: OptimizerStateName = OptimizerStateName::Reset,
        /// Longest sequence the model reads from now on; learned positions are extended or sliced.
        pub context: Option<usize> = None,
        /// Parts that stay as they are.
        pub freeze: FreezeSettings = defaults(),
        /// How the model is trained.
        pub train: TrainSettings,
        /// Writes the optimizer's state too.
        pub keep_optimizer: bool = false,
        /// Instead of the experiment's seed.
        pub seed: Option<u64> = None,
    }
}

impl Stage for Finetune {
    type Settings = FinetuneSettings;
    type Watch = TrainWatch;

    const KIND: &'static str = "finetune";
    const ABOUT: &'static str = "trains a model further on other documents";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Model;
    const METRICS: &'static [&'static str] = METRICS;
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
        Ok(settings)
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

        // Before the weights are read: its memory is what is free now.
        let seed = settings.seed.unwrap_or_else(|| io.seed());
        let mut engine = open_engine(io, to.clone(), &settings.train, frozen.clone(), seed)?;
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
            optimizer.retain(|key, _| !frozen.iter().any(|name| is_moment_of(key, name)));
            engine
                .load_optimizer(&optimizer)
                .map_err(|error| origin.optimizer_error(&error, &optimizer))?;
            let updates = origin.folder.updates();
            updates_before = updates.map_err(|error| folder_error(&error))?;
        }
        origin.check_files()?;
        let training = Training {
            settings: &settings.train,
            watch,
            shards: &shards,
            seed,
            updates_before,
            keep_optimizer: settings.keep_optimizer,
        };
        training.run(engine.as_mut(), io)
    }
}

/// The model that training starts from.
struct Origin<'a> {
    folder: ModelFolder,
    which: Which,
    /// What `from` names.
    files: Vec<&'a LocalFile>,
}

impl<'a> Origin<'a> {
    fn find(settings: &FinetuneSettings, io: &StageIo<'a>) -> Result<Self, StageError> {
        let files = io.local_files("from");
        let folder = match (io.optional_input("model"), &settings.from) {
            (Some(input), None) => {
                let folder =
                    ModelFolder::open(&input.path).map_err(|error| folder_error(&error))?;
                folder.called(format!("stage `{}`", input.stage))
            }
            (None, Some(from)) => {
                let named = files.iter();
                let named = named.map(|file| (file.name.clone(), file.path.clone()));
                ModelFolder::of_files(format!("`{}`", from.0.display()), named.collect())
            }
            (Some(_), Some(_)) => {
                let message = "both `from` and the role `model` say where to start";
                let error = StageError::new(message).help("leave one of them out");
                return Err(error.is_final());
            }
            (None, None) => {
                let help = "name a stage in the role `model`, or a model folder in `from`";
                let error = StageError::new("nothing says which model to start from").help(help);
                return Err(error.is_final());
            }
        };
        let which = settings.start.unwrap_or(Which::Best);
        Ok(Self {
            folder,
            which,
            files,
        })
    }

    /// Looks once more at what was read of the user's own files, before anything is made from it.
    fn check_files(&self) -> Result<(), StageError> {
        let mut files = self.files.iter();
        files.try_for_each(|file| file.check(&file.path))
    }

    fn config(&self, settings: &FinetuneSettings) -> Result<ModelConfig, StageError> {
        let Some(model) = &settings.model else {
            return self.folder.config().map_err(|error| no_config(&error));
        };
        let vocab_size = self.folder.vocab_size(self.which);
        let vocab_size = vocab_size.map_err(|error| folder_error(&error))?;
        Ok(model.config(vocab_size.unwrap_or(1))?)
    }

    fn weights(&self, config: &ModelConfig) -> Result<Tensors, StageError> {
        let weights = self.folder.weights(self.which, config);
        weights.map_err(|error| folder_error(&error))
    }

    fn optimizer(&self) -> Result<Tensors, StageError> {
        self.folder.optimizer().map_err(|error| match &error {
            FolderError::Missing { .. } => folder_error(&error).help("set `keep_optimizer: true` in the stage that trained it, or `optimizer_state: reset` here"),
            _ => folder_error(&error),
        })
    }

    /// Says why kept moments do not fit: another optimizer's, or of a training in which what
    /// is trained now was frozen.
    fn optimizer_error(&self, error: &EngineError, kept: &Tensors) -> StageError {
        let EngineError::MissingTensor(missing) = error else {
            return explained(error);
        };
        let tensor = missing.splitn(3, '.').last().unwrap_or_default();
        let (now, before) = match missing.starts_with("muon.") {
            true => ("muon", "adamw"),
            false => ("adamw", "muon"),
        };
        let (problem, remedy) = match kept.keys().any(|key| is_moment_of(key, tensor)) {
            true => (
                format!(
                    "is that of `train.optimizer: {before}`, and here `train.optimizer` is `{now}`"
                ),
                format!("set `train.optimizer: {before}`"),
            ),
            false => (
                format!("has nothing for `{tensor}`, which was frozen when it was made"),
                "freeze it here too".to_owned(),
            ),
        };
        StageError::new(format!(
            "`optimizer_state: keep` cannot go on: the optimizer's state of {} {problem}",
            self.folder.name()
        ))
        .help(format!("{remedy}, or set `optimizer_state: reset`"))
        .is_final()
    }

    /// Refuses shards in which an old token has another id.
    fn check_tokenizer(&self, shards: &Path, io: &StageIo) -> Result<(), StageError> {
        let (Some(old), new) = (self.folder.tokenizer(), shards.join(TOKENIZER_NAME)) else {
            io.warn(format!(
                "{} has no `{TOKENIZER_NAME}`, so it is not checked that the shards were made with its tokenizer",
                self.folder.name()
            ));
            return Ok(());
        };
        let (old, new) = (vocabulary(&read_json(old)?), vocabulary(&read_json(&new)?));
        match old.iter().find(|(id, token)| new.get(id) != Some(token)) {
            None => Ok(()),
            Some((id, token)) => {
                let now = match new.get(id) {
                    Some(other) => format!("is `{other}`"),
                    None => "has none".to_owned(),
                };
                let message = format!(
                    "the shards were made with another tokenizer: id {id} was `{token}` to the model of {}, and here it {now}",
                    self.folder.name()
                );
                Err(StageError::new(message)
                    .help("make the shards with the model's tokenizer, or with one that adds tokens to it")
                    .is_final())
            }
        }
    }
}

/// Says what to do where nothing describes the model.
fn no_config(error: &FolderError) -> StageError {
    match error {
        FolderError::NoShape { .. } => folder_error(error).help(format!(
            "give the model's folder with its `{SHAPE_NAME}`, or its shape in `model`"
        )),
        _ => folder_error(error),
    }
}

/// Tokens by id, of a tokenizer in Hugging Face's format.
fn vocabulary(tokenizer: &Value) -> BTreeMap<u64, String> {
    let mut tokens = BTreeMap::new();
    match &tokenizer["model"]["vocab"] {
        // Unigram: a list of tokens with their scores.
        Value::Array(list) => {
            for (id, token) in list.iter().enumerate() {
                let token = token[0].as_str().unwrap_or_default();
                tokens.insert(id as u64, token.to_owned());
            }
        }
        Value::Object(map) => {
            let ids = map
                .iter()
                .filter_map(|(token, id)| Some((id.as_u64()?, token.clone())));
            tokens.extend(ids);
        }
        _ => (),
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        if let (Some(id), Some(token)) = (added["id"].as_u64(), added["content"].as_str()) {
            tokens.insert(id, token.to_owned());
        }
    }
    tokens
}

fn is_moment_of(key: &str, tensor: &str) -> bool {
    key.strip_suffix(tensor)
        .is_some_and(|moment| moment.ends_with('.'))
}

fn read_json(path: &Path) -> Result<Value, StageError> {
    let text = fs::read(path).at(path)?;
    serde_json::from_slice(&text)
        .map_err(|error| StageError::new(format!("`{}`: {error}", path.display())).is_final())
}

fn surgery_error(error: &SurgeryError) -> StageError {
    explained(error).help(error.help()).is_final()
}
