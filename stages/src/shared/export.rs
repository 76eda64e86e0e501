//! A model for other programs: a folder that they load, with a card that says where it comes from.
//!
//! The command `export` and the stage of that kind write it through [`export`]. What the folder
//! claims it checks itself: documents of the run are rendered with the template in it, encoded whole
//! with the tokenizer in it, and compared with the ids that training reads.
//!
//! Tensors are made one after the other while they are written, so that a model which the other
//! form makes twice as wide needs no more memory than one of its tensors.

mod card;
mod exported;
mod files;
mod ids;
mod place;

use std::path::{Path, PathBuf};

use tinylm_exchange::hf;
use tinylm_model::{
    folder::{ModelFolder, WEIGHTS_NAME, Which},
    generate::OpenError,
    weights::write_source,
};
use tinylm_pipeline::{StageError, choices};

use crate::shared::{speak::SpeakError, tokens::Tokenizer};

pub use card::Story;
pub use exported::Exported;
pub use ids::Share;
pub use place::in_place;

choices! {
    /// For whom a model is written.
    pub enum Target {
        /// Hugging Face's `transformers`, and all that reads its folders.
        Hf = "hf",
    }
}

/// What is wanted.
pub struct Ask<'a> {
    /// The model's folder.
    pub model: &'a Path,
    pub to: Target,
    pub story: &'a Story,
    /// Folders of documents that the model's tokenizer was made for.
    pub documents: &'a [PathBuf],
}

/// Writes a model into an empty folder.
pub fn export(ask: &Ask<'_>, out: &Path) -> Result<Exported, StageError> {
    match ask.to {
        Target::Hf => to_hf(ask, out),
    }
}

fn to_hf(ask: &Ask<'_>, out: &Path) -> Result<Exported, StageError> {
    let folder = opened(ModelFolder::open(ask.model))?;
    let config = opened(folder.config())?;
    let tensors = opened(folder.tensor_file(Which::Best))?;
    opened(tensors.check(&config.parameters()))?;
    let tokenizer = Tokenizer::load(ask.model).map_err(SpeakError::from)?;
    let (tokens, vocab_size) = (tokenizer.vocab_size(), config.vocab_size);
    if tokens != vocab_size {
        return Err(SpeakError::Mismatch { tokens, vocab_size }.into());
    }
    let model = hf::Export::of(config.clone(), tensors);
    files::write(out, ask.model, &config, &model, &tokenizer)?;
    let share = ids::check(out, &tokenizer, ask.documents)?;
    let weights = out.join(WEIGHTS_NAME);
    opened(write_source(&weights, &model.shapes(), Some("pt"), &model))?;
    let exported = Exported {
        class: model.class,
        claim: model.claim.clone(),
        share,
        widths: (config.d_model, model.config().d_model),
        n_params: model.config().n_params(),
    };
    card::write(out, ask.story, &exported, &tokenizer)?;
    Ok(exported)
}

/// Tells what is wrong with a model as everything does that opens one.
fn opened<T, E>(result: Result<T, E>) -> Result<T, SpeakError>
where
    OpenError: From<E>,
{
    result.map_err(|error| OpenError::from(error).into())
}

#[cfg(test)]
mod tests;
