//! A model for other programs: a folder that they load, with a card that says where it comes from.
//!
//! The command `export` and the stage of that kind write it through [`export`]. What the folder
//! claims it checks itself: documents of the run are rendered with the template in it, encoded whole
//! with the tokenizer in it, and compared with the ids that training reads.
//!
//! Tensors are made one after the other while they are written, so that a model which the other
//! form makes twice as wide needs no more memory than one of its tensors.

mod ask;
mod card;
mod exported;
mod files;
mod gguf;
mod ids;
mod onnx;
mod peft;
mod place;
mod vocabulary;

use std::{fs, path::Path};

use tinylm_exchange::hf;
use tinylm_model::{
    config::ModelConfig,
    folder::{ModelFolder, WEIGHTS_NAME},
    weights::{TensorFile, write_source},
};
use tinylm_pipeline::{At, StageError, settings::Choice as _};

use crate::shared::{speak::SpeakError, tokens::Tokenizer};

use ask::opened;
pub use ask::{Ask, Story, Target};
pub use exported::Exported;
use files::Described;
use ids::Reader;
pub use ids::Share;
pub use place::in_place;
pub use tinylm_exchange::gguf::Numbers;

/// Writes a model into an empty folder.
pub fn export(ask: &Ask<'_>, out: &Path) -> Result<Exported, StageError> {
    let folder = opened(ModelFolder::open(ask.model))?;
    let config = opened(folder.config())?;
    let tensors = opened(folder.tensor_file(ask.weights))?;
    opened(tensors.check(&config.parameters()))?;
    let tokenizer = Tokenizer::load(ask.model).map_err(SpeakError::from)?;
    let (tokens, vocab_size) = (tokenizer.vocab_size(), config.vocab_size);
    if tokens != vocab_size {
        return Err(SpeakError::Mismatch { tokens, vocab_size }.into());
    }
    if ask.to != Target::Gguf && ask.numbers != Numbers::F32 {
        return Err(
            StageError::new(format!("`{}` is written in f32", ask.to.word()))
                .help("leave `precision` out, or write `--to gguf`")
                .is_final(),
        );
    }
    match ask.to {
        Target::Hf => to_hf(ask, &config, tensors, &tokenizer, out),
        Target::Peft => peft::write(ask, &folder, &config, tensors, &tokenizer, out),
        Target::Gguf => gguf::write(ask, &config, tensors, &tokenizer, out),
        Target::Onnx => onnx::write(ask, &config, tensors, &tokenizer, out),
    }
}

fn to_hf(
    ask: &Ask<'_>,
    config: &ModelConfig,
    tensors: TensorFile,
    tokenizer: &Tokenizer,
    out: &Path,
) -> Result<Exported, StageError> {
    let model = hf::Export::of(config.clone(), tensors);
    let has_code = model.class == hf::Class::Tinylm;
    let described = Described {
        from: ask.model,
        ours: config,
        claim: &model.claim,
        tokenizer,
        has_cache: !has_code,
    };
    described.write(out, |ids| model.settings(ids))?;
    if has_code {
        let path = out.join(hf::CODE_NAME);
        fs::write(&path, hf::CODE).at(&path)?;
    }
    let share = ids::check(out, tokenizer, ask.documents, Reader::HuggingFace)?;
    let weights = out.join(WEIGHTS_NAME);
    opened(write_source(&weights, &model.shapes(), Some("pt"), &model))?;
    let exported = Exported {
        to: ask.to,
        form: model.class.name(),
        has_code,
        claim: model.claim.clone(),
        numbers: ask.numbers,
        n_fallen_back: 0,
        share,
        widths: (config.d_model, model.config().d_model),
        n_params: model.config().n_params(),
        n_tokens: None,
    };
    card::write(out, ask.story, &exported, tokenizer)?;
    Ok(exported)
}

#[cfg(test)]
mod tests;
