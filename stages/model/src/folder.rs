//! A model's folder: which files belong to it, what each is called, how they are read and written.
//!
//! ```text
//! tinylm.json            the shape of the model, a `ModelConfig`
//! model.safetensors      the weights with the lowest validation loss
//! last.safetensors       those of the last step, if there was one
//! optimizer.safetensors  the optimizer's state, where it was kept
//! adapter.json           the adapter that was trained, where one was: its product is in the weights
//! adapter.safetensors    its factors in `model.safetensors`, and in `last_adapter.safetensors` the last
//! training.json          the course of the training
//! tokenizer.json  chat_template.jinja  generation.json
//! ```
//!
//! The tokenizer's files are carried on as they are: a model without its tokenizer is of no
//! use to anybody. What stands in them is not this crate's business.
//!
//! Folders of earlier versions have the shape in `config.json`. That name now belongs to the
//! format that other programs read, so it is read where there is no `tinylm.json`, and never
//! written. The two hold the same bytes: what was made before is as good as what is made now.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tinylm_settings::choices;

use crate::{
    adapter::factors_of,
    checkpoint::{is_checkpoint, newest},
    config::ModelConfig,
    engine::Tensors,
    weights::{TensorFile, WeightsError, read_file, write_tensors},
};

pub const SHAPE_NAME: &str = "tinylm.json";
/// Where the shape stood before.
pub const OLD_SHAPE_NAME: &str = "config.json";
pub const WEIGHTS_NAME: &str = "model.safetensors";
pub const LAST_NAME: &str = "last.safetensors";
pub const OPTIMIZER_NAME: &str = "optimizer.safetensors";
pub const ADAPTER_NAME: &str = "adapter.json";
pub const FACTORS_NAME: &str = "adapter.safetensors";
pub const LAST_FACTORS_NAME: &str = "last_adapter.safetensors";
pub const TRAINING_NAME: &str = "training.json";
/// The tokenizer itself, in Hugging Face's format.
pub const TOKENIZER_NAME: &str = "tokenizer.json";
/// The template of a dialogue, for others' tools.
pub const CHAT_TEMPLATE_NAME: &str = "chat_template.jinja";
/// The template's name, and the tokens at which an answer ends.
pub const GENERATION_NAME: &str = "generation.json";
/// The tokenizer's files, which are carried from its artifact to shards and models.
pub const TOKENIZER_NAMES: [&str; 3] = [TOKENIZER_NAME, CHAT_TEMPLATE_NAME, GENERATION_NAME];

/// Why a model's folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{folder} is no model: it has no `{missing}`")]
    NoModel {
        folder: String,
        missing: &'static str,
    },
    #[error("{folder} has no `{missing}`")]
    Missing {
        folder: String,
        missing: &'static str,
    },
    #[error("{folder} does not say what model it is")]
    NoShape { folder: String },
    #[error("`{}` does not describe a model of this program: {reason}", path.display())]
    Shape { path: PathBuf, reason: String },
    #[error("`{}`: {reason}", path.display())]
    Json { path: PathBuf, reason: String },
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

choices! {
    /// One of the two sets of weights that a training leaves.
    pub enum Which {
        /// Those with the lowest validation loss.
        Best = "best",
        /// Those of the last step.
        Last = "last",
    }
}

/// The files of a model, by name.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// The folder as messages call it.
    name: String,
    files: BTreeMap<String, PathBuf>,
}

/// Everything that is written into a model's folder.
pub struct ModelFiles<'a, Report> {
    pub config: &'a ModelConfig,
    pub best: &'a Tensors,
    /// None where no step was made and the best are the last.
    pub last: Option<&'a Tensors>,
    pub optimizer: Option<&'a Tensors>,
    pub adapter: Option<AdapterFiles<'a>>,
    pub report: &'a Report,
    /// A folder with the tokenizer's files.
    pub tokenizer: &'a Path,
}

/// An adapter, whose product is in the weights beside it.
pub struct AdapterFiles<'a> {
    pub about: &'a TrainedAdapter,
    pub best: &'a Tensors,
    pub last: &'a Tensors,
}

/// What was trained in place of the whole model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainedAdapter {
    pub rank: usize,
    pub alpha: f32,
    /// The tensors that its factors change.
    pub on: Vec<String>,
    /// Tensors that were trained themselves, since they had new rows.
    pub whole: Vec<String>,
}

/// Returns the folder with what all checkpoints of a training share, where this one is a checkpoint.
pub fn shared_by_checkpoints(path: &Path) -> Option<&Path> {
    let folder = path.parent()?;
    (is_checkpoint(path) && folder.join(SHAPE_NAME).exists()).then_some(folder)
}

impl ModelFolder {
    /// Finds the files of a folder; each is read when it is asked for.
    pub fn open(path: &Path) -> Result<ModelFolder, FolderError> {
        let name = format!("`{}`", path.display());
        let mut files = BTreeMap::new();
        if let Some(shared) = shared_by_checkpoints(path) {
            for name in [&[SHAPE_NAME][..], &TOKENIZER_NAMES].concat() {
                files.insert(name.to_owned(), shared.join(name));
            }
            // It has one set of weights, whichever is asked for.
            files.insert(LAST_NAME.to_owned(), path.join(WEIGHTS_NAME));
        }
        for entry in fs::read_dir(path).map_err(io_error("read", path))? {
            let entry = entry.map_err(io_error("read", path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            files.insert(name, entry.path());
        }
        // A training that goes on: its last checkpoint is the model so far.
        if !files.contains_key(WEIGHTS_NAME)
            && files.contains_key(SHAPE_NAME)
            && let Some((_, weights)) = newest(path)
        {
            files.insert(WEIGHTS_NAME.to_owned(), weights.clone());
            files.insert(LAST_NAME.to_owned(), weights);
        }
        Ok(ModelFolder { name, files })
    }

    /// Writes beside the checkpoints of a training what makes a model of each of them.
    pub fn begin(
        checkpoints: &Path,
        config: &ModelConfig,
        tokenizer: &Path,
    ) -> Result<(), FolderError> {
        write_json(&checkpoints.join(SHAPE_NAME), config)?;
        carry_tokenizer(tokenizer, checkpoints)
    }

    /// Takes files that need not stand in one folder.
    pub fn of_files(name: String, files: BTreeMap<String, PathBuf>) -> ModelFolder {
        ModelFolder { name, files }
    }

    /// Gives the folder another name in messages.
    #[must_use]
    pub fn called(self, name: String) -> ModelFolder {
        ModelFolder { name, ..self }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name of the file that describes the model's shape, if there is one.
    pub fn shape_file(&self) -> Option<&'static str> {
        let mut names = [SHAPE_NAME, OLD_SHAPE_NAME].into_iter();
        names.find(|name| self.files.contains_key(*name))
    }

    /// Returns the model's shape, checked.
    pub fn config(&self) -> Result<ModelConfig, FolderError> {
        if self.only_tensors().is_some() {
            let folder = self.name.clone();
            return Err(FolderError::NoShape { folder });
        }
        let path = self.shape_file().and_then(|name| self.files.get(name));
        let path = path.ok_or_else(|| self.no_model(SHAPE_NAME))?;
        let bytes = read_file(path).map_err(io_error("read", path))?;
        let config: ModelConfig =
            serde_json::from_slice(&bytes).map_err(|error| shape_error(path, &error))?;
        config.check().map_err(|error| shape_error(path, &error))?;
        Ok(config)
    }

    /// Returns the weights of a model of this shape.
    pub fn weights(&self, which: Which, config: &ModelConfig) -> Result<Tensors, FolderError> {
        let file = self.tensor_file(which)?;
        file.check(&config.parameters())?;
        Ok(file.tensors()?)
    }

    /// Returns how many tokens the weights know, for files that do not say what model they are.
    pub fn vocab_size(&self, which: Which) -> Result<Option<usize>, FolderError> {
        let file = self.tensor_file(which)?;
        let shape = file.shape("embed.weight");
        Ok(shape.and_then(|shape| shape.first().copied()))
    }

    pub fn optimizer(&self) -> Result<Tensors, FolderError> {
        Ok(TensorFile::open(self.path(OPTIMIZER_NAME)?)?.tensors()?)
    }

    /// Returns the updates that the weights have had: AdamW's correction goes on from there.
    pub fn updates(&self) -> Result<u64, FolderError> {
        Ok(self.report()?["updates"].as_u64().unwrap_or(0))
    }

    /// The course of the training.
    fn report(&self) -> Result<serde_json::Value, FolderError> {
        let path = self.path(TRAINING_NAME)?;
        let bytes = read_file(path).map_err(io_error("read", path))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let (path, reason) = (path.to_owned(), error.to_string());
            FolderError::Json { path, reason }
        })
    }

    /// Returns the adapter that is in the weights, and the file of its factors.
    pub fn adapter(&self, which: Which) -> Result<(TrainedAdapter, TensorFile), FolderError> {
        let path = self.path(ADAPTER_NAME)?;
        let bytes = read_file(path).map_err(io_error("read", path))?;
        let refused = |reason: String| {
            let path = path.to_owned();
            FolderError::Json { path, reason }
        };
        let about: TrainedAdapter =
            serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
        if about.rank == 0 {
            return Err(refused("`rank` is 0".to_owned()));
        }
        let factors = match which {
            Which::Best => FACTORS_NAME,
            Which::Last => LAST_FACTORS_NAME,
        };
        let factors = TensorFile::open(self.path(factors)?)?;
        let changed = self.config()?.parameters().into_iter();
        let changed = changed.filter(|p| p.shape.len() == 2 && about.on.contains(&p.name));
        let expected: Vec<_> = changed
            .flat_map(|parameter| factors_of(about.rank, &parameter))
            .collect();
        factors.check(&expected)?;
        Ok((about, factors))
    }

    /// Returns where the tokenizer stands, if the model has one.
    pub fn tokenizer(&self) -> Option<&Path> {
        self.files.get(TOKENIZER_NAME).map(PathBuf::as_path)
    }

    /// Writes a whole model folder.
    pub fn write<Report: Serialize>(
        out: &Path,
        files: &ModelFiles<'_, Report>,
    ) -> Result<(), FolderError> {
        write_tensors(&out.join(WEIGHTS_NAME), files.best)?;
        if let Some(last) = files.last {
            write_tensors(&out.join(LAST_NAME), last)?;
        }
        if let Some(optimizer) = files.optimizer {
            write_tensors(&out.join(OPTIMIZER_NAME), optimizer)?;
        }
        if let Some(adapter) = &files.adapter {
            write_json(&out.join(ADAPTER_NAME), adapter.about)?;
            write_tensors(&out.join(FACTORS_NAME), adapter.best)?;
            write_tensors(&out.join(LAST_FACTORS_NAME), adapter.last)?;
        }
        write_json(&out.join(SHAPE_NAME), files.config)?;
        write_json(&out.join(TRAINING_NAME), files.report)?;
        carry_tokenizer(files.tokenizer, out)
    }

    /// Returns the file of some weights, of which nothing is known yet.
    pub fn tensor_file(&self, which: Which) -> Result<TensorFile, FolderError> {
        let path = match (self.only_tensors(), which) {
            (Some(path), _) => path,
            (None, Which::Last) if !self.has_one_step() => self.path(LAST_NAME)?,
            (None, _) => {
                let path = self.files.get(WEIGHTS_NAME);
                path.ok_or_else(|| self.no_model(WEIGHTS_NAME))?
            }
        };
        Ok(TensorFile::open(path)?)
    }

    /// Whether nothing was trained here, so that the best weights are the last.
    fn has_one_step(&self) -> bool {
        let is_imported = || {
            self.report()
                .is_ok_and(|report| report["imported"].is_string())
        };
        !self.files.contains_key(LAST_NAME) && is_imported()
    }

    /// A single safetensors file, whatever it is called.
    fn only_tensors(&self) -> Option<&Path> {
        let mut files = self.files.iter();
        match (files.next(), files.next()) {
            (Some((name, path)), None) if name.ends_with(".safetensors") => Some(path),
            _ => None,
        }
    }

    fn path(&self, missing: &'static str) -> Result<&Path, FolderError> {
        let path = self.files.get(missing).map(PathBuf::as_path);
        path.ok_or_else(|| FolderError::Missing {
            folder: self.name.clone(),
            missing,
        })
    }

    fn no_model(&self, missing: &'static str) -> FolderError {
        let folder = self.name.clone();
        FolderError::NoModel { folder, missing }
    }
}

/// Copies the tokenizer's files from one folder to another. All of them must be there.
fn carry_tokenizer(from: &Path, to: &Path) -> Result<(), FolderError> {
    for name in TOKENIZER_NAMES {
        let (from, to) = (from.join(name), to.join(name));
        let bytes = read_file(&from).map_err(io_error("read", &from))?;
        fs::write(&to, bytes).map_err(io_error("write", &to))?;
    }
    Ok(())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), FolderError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| io_error("write", path)(io::Error::other(error)))?;
    text.push(b'\n');
    fs::write(path, text).map_err(io_error("write", path))
}

fn shape_error(path: &Path, error: &dyn std::error::Error) -> FolderError {
    let (path, reason) = (path.to_owned(), error.to_string());
    FolderError::Shape { path, reason }
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { verb, path, source }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::{bigram::config, engine::Tensor};

    fn tensors(config: &ModelConfig, value: f32) -> Tensors {
        let parameters = config.parameters().into_iter();
        parameters
            .map(|parameter| {
                let data = vec![value; parameter.n()];
                let shape = parameter.shape;
                (parameter.name, Tensor { shape, data })
            })
            .collect()
    }

    /// A model of three tokens whose best weights are ones and whose last are twos.
    fn written() -> (TempDir, PathBuf) {
        let dir = TempDir::new().unwrap();
        let [tokenizer, out] = ["tokenizer", "model"].map(|name| dir.path().join(name));
        for folder in [&tokenizer, &out] {
            fs::create_dir(folder).unwrap();
        }
        for name in TOKENIZER_NAMES {
            fs::write(tokenizer.join(name), name).unwrap();
        }
        let config = config(3);
        let files = ModelFiles {
            config: &config,
            best: &tensors(&config, 1.0),
            last: Some(&tensors(&config, 2.0)),
            optimizer: Some(&tensors(&config, 3.0)),
            adapter: None,
            report: &serde_json::json!({ "updates": 7 }),
            tokenizer: &tokenizer,
        };
        ModelFolder::write(&out, &files).unwrap();
        (dir, out)
    }

    fn refusal(folder: &Path) -> String {
        let folder = ModelFolder::open(folder).unwrap().called("it".to_owned());
        let error = match folder.config() {
            Ok(config) => folder.weights(Which::Best, &config).map(drop).unwrap_err(),
            Err(error) => error,
        };
        error.to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let (_dir, out) = written();
        let folder = ModelFolder::open(&out).unwrap();
        let config = folder.config().unwrap();
        assert_eq!(config, crate::bigram::config(3));
        for (which, value) in [(Which::Best, 1.0), (Which::Last, 2.0)] {
            assert_eq!(
                folder.weights(which, &config).unwrap(),
                tensors(&config, value)
            );
            assert_eq!(folder.vocab_size(which).unwrap(), Some(3));
        }
        assert_eq!(folder.optimizer().unwrap(), tensors(&config, 3.0));
        assert_eq!(folder.updates().unwrap(), 7);
        assert_eq!(
            fs::read_to_string(folder.tokenizer().unwrap()).unwrap(),
            TOKENIZER_NAME
        );
    }

    #[test]
    fn a_folder_of_an_earlier_version_is_read_and_a_foreign_config_beside_our_own_is_not() {
        let (_dir, out) = written();
        let ours = ModelFolder::open(&out).unwrap().config().unwrap();
        fs::rename(out.join(SHAPE_NAME), out.join(OLD_SHAPE_NAME)).unwrap();
        let old = ModelFolder::open(&out).unwrap();
        assert_eq!(old.config().unwrap(), ours);
        assert_eq!(old.shape_file(), Some("config.json"));

        fs::rename(out.join(OLD_SHAPE_NAME), out.join(SHAPE_NAME)).unwrap();
        fs::write(out.join(OLD_SHAPE_NAME), r#"{"model_type": "llama"}"#).unwrap();
        assert_eq!(ModelFolder::open(&out).unwrap().config().unwrap(), ours);
        fs::remove_file(out.join(SHAPE_NAME)).unwrap();
        let refused = refusal(&out);
        let expected = "config.json` does not describe a model of this program: ";
        assert!(refused.contains(expected), "{refused}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let (_dir, out) = written();
        fs::remove_file(out.join(WEIGHTS_NAME)).unwrap();
        assert_eq!(
            refusal(&out),
            "it is no model: it has no `model.safetensors`"
        );
        fs::remove_file(out.join(SHAPE_NAME)).unwrap();
        assert_eq!(refusal(&out), "it is no model: it has no `tinylm.json`");
        for name in [LAST_NAME, OPTIMIZER_NAME, TRAINING_NAME] {
            fs::remove_file(out.join(name)).unwrap();
        }
        let folder = ModelFolder::open(&out).unwrap().called("it".to_owned());
        let config = config(3);
        let missing = [
            folder.weights(Which::Last, &config).unwrap_err(),
            folder.optimizer().unwrap_err(),
            folder.updates().unwrap_err(),
        ];
        assert_eq!(
            missing.map(|error| error.to_string()),
            [
                "it has no `last.safetensors`",
                "it has no `optimizer.safetensors`",
                "it has no `training.json`"
            ]
        );
    }

    #[test]
    fn weights_of_another_shape_are_refused() {
        let (_dir, out) = written();
        let config = config(3);
        let mut others = tensors(&config, 1.0);
        let nothing = Tensor {
            shape: vec![],
            data: vec![1.0],
        };
        others.insert("embed.weight".to_owned(), nothing);
        write_tensors(&out.join(WEIGHTS_NAME), &others).unwrap();
        let refused = refusal(&out);
        assert!(
            refused.starts_with("`embed.weight` has shape []"),
            "{refused}"
        );
        let vocab_size = ModelFolder::open(&out).unwrap().vocab_size(Which::Best);
        assert_eq!(vocab_size.unwrap(), None);
        others.remove("embed.weight");
        write_tensors(&out.join(WEIGHTS_NAME), &others).unwrap();
        assert_eq!(refusal(&out), "`embed.weight` is missing from the weights");
    }

    #[test]
    fn a_model_is_not_written_without_its_tokenizer() {
        let (dir, out) = written();
        let tokenizer = dir.path().join("tokenizer");
        fs::remove_file(tokenizer.join(GENERATION_NAME)).unwrap();
        let error = carry_tokenizer(&tokenizer, &out).unwrap_err();
        let expected = format!(
            "cannot read `{}`",
            tokenizer.join(GENERATION_NAME).display()
        );
        assert_eq!(error.to_string(), expected);
    }
}
