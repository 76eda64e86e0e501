//! What is asked of an export.

use std::path::{Path, PathBuf};

use tinylm_exchange::gguf::Numbers;
use tinylm_model::{folder::Which, generate::OpenError};
use tinylm_pipeline::choices;

use crate::shared::speak::SpeakError;

choices! {
    /// For whom a model is written.
    pub enum Target {
        /// A folder for Hugging Face's `transformers`, and all that reads such folders.
        Hf = "hf",
        /// A file for llama.cpp, and all that is built on it: ollama, LM Studio.
        Gguf = "gguf",
        /// A graph for onnxruntime, and all that is built on it: transformers.js, optimum.
        Onnx = "onnx",
        /// The adapter of a finetuned model alone, for Hugging Face's PEFT.
        Peft = "peft",
    }
}

/// A wish for an export.
pub struct Ask<'a> {
    /// The model's folder.
    pub model: &'a Path,
    pub to: Target,
    pub weights: Which,
    /// The numbers of a GGUF file; all else has f32.
    pub numbers: Numbers,
    pub story: &'a Story,
    /// Folders of documents that the model's tokenizer was made for.
    pub documents: &'a [PathBuf],
}

/// Facts about a model that are not in it.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub title: String,
    /// The hub's name of the model that it was finetuned from.
    pub base: Option<String>,
    /// The hub's datasets that it was trained on.
    pub datasets: Vec<String>,
    /// The licences of its data, as their owners call them.
    pub licences: Vec<String>,
    /// Names and values of figures.
    pub figures: Vec<(String, f64)>,
    /// Where it comes from and how to make it again, in Markdown; empty where nobody knows.
    pub history: String,
}

/// Tells what is wrong with a model as everything does that opens one.
pub(super) fn opened<T, E>(result: Result<T, E>) -> Result<T, SpeakError>
where
    OpenError: From<E>,
{
    result.map_err(|error| OpenError::from(error).into())
}
