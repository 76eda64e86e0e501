//! Writes a model as a folder that other programs load.
//!
//! The artifact is that folder. Its card says nothing of the run, because what is not in the key must
//! not be in the artifact: `tinylm export RUN` writes a card with the run's whole history.

use std::path::PathBuf;

use tinylm_model::folder::Which;
use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    Content, Metrics, NoSettings, Role as InputRole, Roles, Stage, StageError, StageIo,
};

use crate::shared::export::{Ask, Numbers, Story, Target, export};

pub struct Export;

tinylm_pipeline::settings! {
    /// A model for other programs.
    pub struct ExportSettings {
        /// The program that it is for: `hf`, a folder for Hugging Face's transformers, `gguf`, a file for
        /// llama.cpp and ollama, `onnx`, a graph for onnxruntime and transformers.js, or `peft`, the adapter
        /// of a finetuned model alone.
        pub to: Target = Target::Hf,
        /// The numbers of a GGUF file.
        pub precision: Numbers = Numbers::F32 => neutral Numbers::F32,
        /// Which of the model's weights.
        pub weights: Which = Which::Best => neutral Which::Best,
    }
}

impl Stage for Export {
    type Settings = ExportSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "export";
    const ABOUT: &'static str = "writes a model as other programs load it";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Export;
    const METRICS: &'static [Key] = &[
        (
            "parameters",
            "The weights that were written, each number counted once.",
        ),
        (
            "documents_compared",
            "Documents that were encoded twice, with the files written and with the model's own.",
        ),
        (
            "same_ids",
            "The share of them of which both made the same ids.",
        ),
    ];
    const ROLES: Roles = Roles::Fixed(&[
        InputRole::one("model", "what is written").takes(&[Content::Model]),
        InputRole::many(
            "documents",
            "what is encoded with the files written, to compare the ids with those of training",
        )
        .optional()
        .takes(&[Content::Documents]),
    ]);

    fn run(settings: &ExportSettings, _: &NoSettings, io: &StageIo) -> Result<Metrics, StageError> {
        let documents = io.inputs("documents").into_iter();
        let documents: Vec<PathBuf> = documents.map(|input| input.path.clone()).collect();
        let ask = Ask {
            model: &io.input("model")?.path,
            to: settings.to,
            weights: settings.weights,
            numbers: settings.precision,
            story: &Story::default(),
            documents: &documents,
        };
        let exported = export(&ask, io.out())?;
        io.info(exported.told());
        let metrics = Metrics::default().count("parameters", exported.n_params as u64);
        Ok(match exported.share {
            Some(share) => {
                if let Some(text) = &share.first_other {
                    io.warn(format!("other tools give other ids to: {text}"));
                }
                metrics
                    .count("documents_compared", share.n as u64)
                    .number("same_ids", share.share())
            }
            None => metrics,
        })
    }
}
