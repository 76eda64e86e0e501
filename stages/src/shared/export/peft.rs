//! The adapter of a finetuned model alone, in a folder that `PeftModel` loads onto the model that was
//! finetuned, exported as it was before. Its tokenizer goes with it, since it may know new tags.

use std::{borrow::Cow, path::Path};

use serde_json::Value;
use tinylm_exchange::hf::AdapterExport;
use tinylm_model::{
    config::ModelConfig,
    folder::ModelFolder,
    weights::{Source, TensorFile, WeightsError, write_source},
};
use tinylm_pipeline::StageError;

use super::{
    ask::{Ask, opened},
    card,
    exported::Exported,
    files::{self, ADAPTER_SETTINGS_NAME, ADAPTER_WEIGHTS_NAME},
    ids::{self, Reader},
};
use crate::shared::{json::write_json, tokens::Tokenizer, training::folder_error};

/// The factors in one file, the model's own tensors in another.
struct Both {
    factors: TensorFile,
    model: TensorFile,
}

impl Source for Both {
    fn numbers(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightsError> {
        match self.factors.shape(name) {
            Some(_) => self.factors.numbers(name),
            None => self.model.numbers(name),
        }
    }
}

pub(super) fn write(
    ask: &Ask<'_>,
    folder: &ModelFolder,
    config: &ModelConfig,
    model: TensorFile,
    tokenizer: &Tokenizer,
    out: &Path,
) -> Result<Exported, StageError> {
    let help = "`--to hf` writes the whole model";
    let found = folder.adapter(ask.weights);
    let (about, factors) = found.map_err(|error| {
        folder_error(&error).help(format!(
            "only a `finetune` with `adapter` leaves one; {help}"
        ))
    })?;
    let adapter = AdapterExport::of(config.clone(), &about, Both { factors, model });
    let adapter = adapter.map_err(|name| {
        let message = format!("an adapter cannot bring the new rows of `{name}` along");
        StageError::new(message).help(help).is_final()
    })?;
    let settings = Value::Object(adapter.settings(ask.story.base.as_deref()));
    write_json(&out.join(ADAPTER_SETTINGS_NAME), &settings)?;
    files::write_tokenizer(out, ask.model, tokenizer, config.context)?;
    let share = ids::check(out, tokenizer, ask.documents, Reader::HuggingFace)?;
    let shapes = adapter.shapes();
    let weights = out.join(ADAPTER_WEIGHTS_NAME);
    opened(write_source(&weights, &shapes, Some("pt"), &adapter))?;
    let n_params = shapes.values().map(|shape| shape.iter().product::<usize>());
    let exported = Exported {
        to: ask.to,
        form: adapter.class.name(),
        has_code: false,
        claim: adapter.claim.clone(),
        numbers: ask.numbers,
        n_fallen_back: 0,
        share,
        widths: (config.d_model, config.d_model),
        n_params: n_params.sum(),
        n_tokens: (!about.whole.is_empty()).then_some(config.vocab_size),
    };
    card::write(out, ask.story, &exported, tokenizer)?;
    Ok(exported)
}
