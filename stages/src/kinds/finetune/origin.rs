//! The model that a finetuning starts from, and whether the shards speak its language.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;
use tinylm_model::{
    config::ModelConfig,
    engine::{EngineError, Tensors},
    folder::{FolderError, ModelFolder, SHAPE_NAME, TOKENIZER_NAME, Which},
};
use tinylm_pipeline::{Ahead, At, Forecast, LocalFile, StageError, StageIo};

use super::settings::FinetuneSettings;
use crate::shared::training::{explained, folder_error};

/// The model that training starts from.
pub(super) struct Origin<'a> {
    pub(super) folder: ModelFolder,
    which: Which,
    /// What `from` names.
    files: Vec<&'a LocalFile>,
}

/// The shape of the model that a stage made or is to make.
pub(super) fn shape(ahead: &Ahead) -> Option<ModelConfig> {
    let made = ahead.made.as_deref();
    let made = made.and_then(|folder| ModelFolder::open(folder).ok()?.config().ok());
    made.or_else(|| match ahead.forecasts.first()? {
        Forecast::Model { shape, .. } => serde_json::from_value(shape.clone()).ok(),
        _ => None,
    })
}

impl<'a> Origin<'a> {
    pub(super) fn find(settings: &FinetuneSettings, io: &StageIo<'a>) -> Result<Self, StageError> {
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
    pub(super) fn check_files(&self) -> Result<(), StageError> {
        let mut files = self.files.iter();
        files.try_for_each(|file| file.check(&file.path))
    }

    pub(super) fn config(&self, settings: &FinetuneSettings) -> Result<ModelConfig, StageError> {
        let Some(model) = &settings.model else {
            return self.folder.config().map_err(|error| no_config(&error));
        };
        let vocab_size = self.folder.vocab_size(self.which);
        let vocab_size = vocab_size.map_err(|error| folder_error(&error))?;
        Ok(model.config(vocab_size.unwrap_or(1))?)
    }

    pub(super) fn weights(&self, config: &ModelConfig) -> Result<Tensors, StageError> {
        let weights = self.folder.weights(self.which, config);
        weights.map_err(|error| folder_error(&error))
    }

    pub(super) fn optimizer(&self) -> Result<Tensors, StageError> {
        self.folder.optimizer().map_err(|error| match &error {
            FolderError::Missing { .. } => folder_error(&error).help("set `keep_optimizer: true` in the stage that trained it, or `optimizer_state: reset` here"),
            _ => folder_error(&error),
        })
    }

    /// Says why kept moments do not fit: another optimizer's, or of a training in which what
    /// is trained now was frozen.
    pub(super) fn optimizer_error(&self, error: &EngineError, kept: &Tensors) -> StageError {
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
    pub(super) fn check_tokenizer(&self, shards: &Path, io: &StageIo) -> Result<(), StageError> {
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

pub(super) fn is_moment_of(key: &str, tensor: &str) -> bool {
    key.strip_suffix(tensor)
        .is_some_and(|moment| moment.ends_with('.'))
}

fn read_json(path: &Path) -> Result<Value, StageError> {
    let text = fs::read(path).at(path)?;
    serde_json::from_slice(&text)
        .map_err(|error| StageError::new(format!("`{}`: {error}", path.display())).is_final())
}
