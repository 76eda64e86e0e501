//! The model card: what the hub reads in its head, and what people read below.

use std::{fmt::Write, fs, path::Path};

use serde_json::json;
use tinylm_exchange::{Claim, hf::Class};
use tinylm_pipeline::{At, StageError};

use super::{exported::Exported, files::CARD_NAME, ids::Share};
use crate::shared::tokens::Tokenizer;

/// What is known of a model besides itself.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub title: String,
    /// The hub's datasets that it was trained on.
    pub datasets: Vec<String>,
    /// The licences of its data, as their owners call them.
    pub licences: Vec<String>,
    /// Names and values of figures.
    pub figures: Vec<(String, f64)>,
    /// Where it comes from and how to make it again, in Markdown; empty where nobody knows.
    pub history: String,
}

pub(super) fn write(
    out: &Path,
    story: &Story,
    exported: &Exported,
    tokenizer: &Tokenizer,
) -> Result<(), StageError> {
    let path = out.join(CARD_NAME);
    let mut card = head(story, exported);
    let title = if story.title.is_empty() {
        "A tiny language model"
    } else {
        &story.title
    };
    let _ = write!(card, "# {title}\n\n");
    let history = match story.history.is_empty() {
        true => {
            "This export was made from the model's folder alone: nothing is recorded in it of the data and the training that the model comes from, nor of their licences.\n"
        }
        false => story.history.as_str(),
    };
    for section in [
        how_it_is_used(exported, tokenizer.knows_turns()),
        how_faithful_it_is(exported),
        history.to_owned(),
    ] {
        let _ = writeln!(card, "{section}");
    }
    fs::write(&path, card.trim_end().to_owned() + "\n").at(&path)
}

/// The block that the hub reads. Its values are written as JSON, which is YAML too.
fn head(story: &Story, exported: &Exported) -> String {
    let mut head = "---\nlibrary_name: transformers\npipeline_tag: text-generation\n".to_owned();
    let mut tags = vec!["tinylm"];
    if exported.class == Class::Tinylm {
        tags.push("custom_code");
    }
    let _ = writeln!(head, "tags: {}", json!(tags));
    if let Some(licence) = licence(&story.licences) {
        let _ = writeln!(head, "license: {licence}");
    }
    if !story.datasets.is_empty() {
        let _ = writeln!(head, "datasets: {}", json!(story.datasets));
    }
    if !story.figures.is_empty() {
        let figures = story.figures.iter();
        let metrics: Vec<_> = figures
            .map(|(name, value)| json!({"type": name, "value": value}))
            .collect();
        let result = json!({
            "task": {"type": "text-generation"},
            "dataset": {"type": "own", "name": "held back from training"},
            "metrics": metrics,
        });
        let index = json!([{"name": story.title, "results": [result]}]);
        let _ = writeln!(head, "model-index: {index}");
    }
    head + "---\n\n"
}

/// The hub's word for the licence of all data, `other` for several, nothing where none is known.
pub(super) fn licence(names: &[String]) -> Option<String> {
    const KNOWN: [&str; 8] = [
        "apache-2.0",
        "mit",
        "cc0-1.0",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0",
        "cdla-sharing-1.0",
    ];
    let word = |name: &String| {
        let name = name.split(';').next().unwrap_or_default();
        let word = name.trim().to_lowercase().replace(' ', "-");
        if KNOWN.contains(&word.as_str()) {
            word
        } else {
            "other".to_owned()
        }
    };
    let mut words: Vec<String> = names.iter().map(word).collect();
    words.sort();
    words.dedup();
    match words.len() {
        0 => None,
        1 => words.pop(),
        _ => Some("other".to_owned()),
    }
}

fn how_it_is_used(exported: &Exported, knows_turns: bool) -> String {
    let trust = match exported.class {
        Class::Tinylm => ", trust_remote_code=True",
        _ => "",
    };
    let prompt = match knows_turns {
        false => "ids = tokenizer(\"Once upon a time\", return_tensors=\"pt\")".to_owned(),
        true => "messages = [{\"role\": \"user\", \"content\": \"how are you ?\"}]\nids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors=\"pt\", return_dict=True)".to_owned(),
    };
    format!(
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
         tokenizer = AutoTokenizer.from_pretrained(\".\"{trust})\n\
         model = AutoModelForCausalLM.from_pretrained(\".\"{trust})\n\
         {prompt}\n\
         print(tokenizer.decode(model.generate(**ids)[0]))\n```\n"
    )
}

fn how_faithful_it_is(exported: &Exported) -> String {
    let (class, claim) = (exported.class.name(), &exported.claim);
    let mut text = format!(
        "It is a `{class}` with {} parameters: **{claim}**.",
        exported.n_params
    );
    match claim {
        Claim::Exact => text += " Its tensors are those that were trained, under other names.",
        Claim::Lowered(_) => {
            text += " Its tensors compute what was trained, up to the rounding of 32-bit numbers. It is for use: to train it further, begin with the original, whose settings stand in `config.json` under `tinylm`.";
            let (before, after) = exported.widths;
            if before != after {
                let _ = write!(text, " It is {after} wide where the original is {before}.");
            }
        }
        Claim::Approximate(_) => text += " What it computes is not quite what was trained.",
        Claim::OwnCode(_) => {
            text += " No class of `transformers` has these settings, so `modeling_tinylm.py` goes with it.";
        }
    }
    if let Some(share) = &exported.share {
        let _ = write!(text, "\n\n{}", told(share));
    }
    text + "\n"
}

fn told(share: &Share) -> String {
    format!(
        "Of {} documents that it was trained on, {} have the ids here that training saw.",
        share.n, share.n_same
    )
}
