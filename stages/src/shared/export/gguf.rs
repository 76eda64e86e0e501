//! A model as one GGUF file for llama.cpp and all that is built on it, with a `Modelfile` for ollama.

use std::{fmt::Write, fs, path::Path};

use serde_json::Value;
use tinylm_exchange::gguf::{Export, Field};
use tinylm_model::{config::ModelConfig, sampler::Sampling, weights::TensorFile};
use tinylm_pipeline::{At, StageError};

use super::{
    ask::{Ask, opened},
    card,
    exported::Exported,
    files::{self, MARK, MODEL_NAME, MODELFILE_NAME},
    ids::{self, Reader},
    vocabulary,
};
use crate::shared::{
    template::Role,
    tokens::{CHAT_TEMPLATE_NAME, TOKENIZER_NAME, Tokenizer},
};

pub(super) fn write(
    ask: &Ask<'_>,
    config: &ModelConfig,
    tensors: TensorFile,
    tokenizer: &Tokenizer,
    out: &Path,
) -> Result<Exported, StageError> {
    let model = Export::of(config.clone(), tensors).map_err(|settings| refused(&settings))?;
    let path = ask.model.join(TOKENIZER_NAME);
    let json: Value = serde_json::from_slice(&fs::read(&path).at(&path)?)
        .map_err(|error| StageError::new(format!("`{}`: {error}", path.display())))?;
    let template = template(ask.model, tokenizer)?;
    let mut fields = model.settings(ask.numbers);
    fields.extend(about(ask));
    fields.extend(vocabulary::fields(&json, tokenizer, template.clone())?);
    // What the share of documents with the ids of training is found with.
    let rendered = out.join(CHAT_TEMPLATE_NAME);
    fs::write(&rendered, template.unwrap_or_default()).at(&rendered)?;
    let share = ids::check(out, tokenizer, ask.documents, Reader::LlamaCpp)?;
    fs::remove_file(&rendered).at(&rendered)?;
    opened(model.write(&out.join(MODEL_NAME), &fields, ask.numbers))?;
    let path = out.join(MODELFILE_NAME);
    fs::write(&path, modelfile(tokenizer)).at(&path)?;
    let fallen = model.fallen_back(ask.numbers).len();
    let exported = Exported {
        to: ask.to,
        form: model.architecture.name(),
        has_code: false,
        claim: model.claim.clone(),
        numbers: ask.numbers,
        n_fallen_back: fallen,
        share,
        widths: (config.d_model, model.config().d_model),
        n_params: model.config().n_params(),
        n_tokens: None,
    };
    card::write(out, ask.story, &exported, tokenizer)?;
    Ok(exported)
}

fn refused(settings: &[String]) -> StageError {
    let settings: Vec<String> = settings
        .iter()
        .map(|setting| format!("`{setting}`"))
        .collect();
    StageError::new(format!(
        "llama.cpp has no architecture for this model, because of {}",
        settings.join(", ")
    ))
    .help("`--to hf` takes every model")
    .is_final()
}

/// The name, the licence, and how answers are made unless somebody says otherwise.
fn about(ask: &Ask<'_>) -> Vec<(String, Field)> {
    let sampling = Sampling::default();
    let mut fields = Vec::new();
    let mut put = |name: &str, field: Field| fields.push((format!("general.{name}"), field));
    if !ask.story.title.is_empty() {
        put("name", Field::text(&ask.story.title));
    }
    if let Some(licence) = card::licence(&ask.story.licences) {
        put("license", Field::Text(licence));
    }
    put("sampling.temp", Field::F32(sampling.temperature));
    put("sampling.top_k", Field::U32(sampling.top_k as u32));
    put("sampling.top_p", Field::F32(sampling.top_p));
    put("sampling.min_p", Field::F32(sampling.min_p));
    fields
}

/// The chat template, without the marks that only trainers of `transformers` know.
fn template(from: &Path, tokenizer: &Tokenizer) -> Result<Option<String>, StageError> {
    match tokenizer.template() {
        Some(ours) => Ok(Some(ours.jinja(tokenizer.spacing()))),
        None => files::own_template(from),
    }
}

/// Ollama renders dialogues with a template language of its own.
fn modelfile(tokenizer: &Tokenizer) -> String {
    let sampling = Sampling::default();
    let mut text = format!("{MARK}\nFROM ./{MODEL_NAME}\n");
    if tokenizer.knows_turns() {
        let (form, spacing) = (tokenizer.form(), tokenizer.spacing());
        let mut turns = String::new();
        for (role, word) in Role::ALL.into_iter().zip(["if", "else if", "else if"]) {
            let (open, close) = form.around(role, spacing);
            let name = role.name();
            let _ = write!(
                turns,
                "{{{{ {word} eq .Role \"{name}\" }}}}{open}{{{{ .Content }}}}{close}"
            );
        }
        let (answer, _) = form.around(Role::Assistant, spacing);
        let frame = form.frame();
        let answer = answer.trim_end_matches(' ');
        let _ = writeln!(
            text,
            "TEMPLATE \"\"\"{frame}{{{{- range .Messages }}}}{turns}{{{{ end }}}}{{{{ end }}}}{answer}\"\"\""
        );
    }
    for stop in &tokenizer.generation().stop {
        let _ = writeln!(text, "PARAMETER stop \"{stop}\"");
    }
    let _ = writeln!(text, "PARAMETER temperature {}", sampling.temperature);
    let _ = writeln!(text, "PARAMETER top_k {}", sampling.top_k);
    let _ = writeln!(text, "PARAMETER top_p {}", sampling.top_p);
    let _ = writeln!(text, "PARAMETER min_p {}", sampling.min_p);
    text
}
