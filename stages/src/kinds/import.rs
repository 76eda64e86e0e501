//! Takes a model that was trained elsewhere, so that it can be finetuned, measured and talked to.
//!
//! Reads `weights`, the files of a `download`: a Hugging Face folder (`config.json` and
//! safetensors), one GGUF file, or a `.bin` of llama2.c with its `tokenizer.bin`. Writes a model
//! folder like `pretrain`'s. `stages/exchange/src/foreign.rs` says what can be taken and what is
//! promised.
//!
//! With `adapter`, a folder of Hugging Face's PEFT, the model is the one that its adapter makes of it.
//!
//! The tokenizer stays as it is, ids and all. How dialogues are written is found out from the
//! model's own chat template (`shared/form`); a model without one continues texts.

use serde_json::json;
use tinylm_exchange::foreign::{ForeignError, ForeignModel, Gguf, HuggingFace, Llama2c, Peft};
use tinylm_model::folder::{ModelFiles, ModelFolder};
use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    Content, Metrics, NoSettings, Role, Roles, Stage, StageError, StageIo, settings,
};

use crate::shared::training::{explained, folder_error};

mod files;
mod tokenizer;

use files::{Adapter, Found, weights_of};
use tokenizer::Speech;

pub struct Import;

settings! {
    /// Takes a model that was trained elsewhere.
    pub struct ImportSettings {
        /// Which GGUF or `.bin` file, where there are several.
        pub file: Option<String> = None,
        /// Reads at most so many tokens, in place of all that the model can.
        pub context: Option<usize> = None,
    }
}

impl Stage for Import {
    type Settings = ImportSettings;
    type Watch = NoSettings;

    const KIND: &'static str = "import";
    const ABOUT: &'static str = "takes a model from elsewhere: Hugging Face, GGUF or llama2.c";
    const REVISION: u32 = 2;
    const MAKES: Content = Content::Model;
    const METRICS: &'static [Key] = &[(
        "parameters",
        "The model's weights, each number counted once.",
    )];
    const ROLES: Roles = Roles::Fixed(&[
        Role::one(
            "weights",
            "the model's files: a Hugging Face folder (`config.json`, safetensors, the \
             tokenizer's files), a GGUF file, or a `.bin` of llama2.c with its `tokenizer.bin`",
        )
        .takes(&[Content::Files, Content::Export]),
        Role::one(
            "adapter",
            "a folder of PEFT's for it: `adapter_config.json`, `adapter_model.safetensors`",
        )
        .optional()
        .takes(&[Content::Files, Content::Export]),
    ]);
    const HEAVY: bool = true;

    fn run(settings: &ImportSettings, _: &NoSettings, io: &StageIo) -> Result<Metrics, StageError> {
        let found = Found::below(&io.input("weights")?.path, settings.file.as_deref())?;
        let adapter = io.optional_input("adapter");
        let adapter = adapter
            .map(|input| Adapter::below(&input.path))
            .transpose()?;
        if let (Some(_), Found::Gguf(_) | Found::Llama2c(..)) = (&adapter, &found) {
            let message = "an adapter of PEFT's is for a Hugging Face folder";
            let help = "give `weights` as `config.json` with safetensors files";
            return Err(StageError::new(message).help(help).is_final());
        }
        match found {
            Found::HuggingFace(mut files) => {
                let weights = weights_of(&files)?;
                let mut source =
                    HuggingFace::open(&files["config.json"], &weights).map_err(refused)?;
                if let Some(adapter) = adapter {
                    let peft = Peft::open(&adapter.settings, &adapter.weights);
                    let merged = peft.and_then(|peft| source.with_adapter(peft));
                    source = merged.map_err(refused)?;
                    files.extend(adapter.tokenizer);
                }
                let speech = Speech::of_folder(&files, source.config())?;
                finish(source.model().map_err(refused)?, speech, settings, io)
            }
            Found::Gguf(path) => {
                let source = Gguf::open(&path).map_err(refused)?;
                let speech = Speech::of_gguf(source.settings())?;
                finish(source.model().map_err(refused)?, speech, settings, io)
            }
            Found::Llama2c(path, vocabulary) => {
                let source = Llama2c::open(&path).map_err(refused)?;
                let model = source.model().map_err(refused)?;
                let pieces = Llama2c::vocabulary(&vocabulary, model.config.vocab_size);
                let speech = Speech::of_llama2c(&pieces.map_err(refused)?)?;
                finish(model, speech, settings, io)
            }
        }
    }
}

/// Writes the model's folder.
fn finish(
    mut model: ForeignModel<'_>,
    speech: Speech,
    settings: &ImportSettings,
    io: &StageIo,
) -> Result<Metrics, StageError> {
    if let Some(context) = settings.context {
        model.shorten(context).map_err(refused)?;
    }
    for note in &model.notes {
        io.info(note.clone());
    }
    speech.write(io, model.config.vocab_size)?;
    let tensors = model.tensors().map_err(refused)?;
    let files = ModelFiles {
        config: &model.config,
        best: &tensors,
        last: None,
        optimizer: None,
        adapter: None,
        report: &json!({ "imported": model.family, "updates": 0 }),
        // Where `speech` wrote it.
        tokenizer: io.out(),
    };
    ModelFolder::write(io.out(), &files).map_err(|error| folder_error(&error))?;
    Ok(Metrics::default().count("parameters", model.config.n_params() as u64))
}

fn refused(error: ForeignError) -> StageError {
    explained(&error)
        .help("what can be imported stands in `tinylm stages import`")
        .is_final()
}

#[cfg(test)]
mod tests;
