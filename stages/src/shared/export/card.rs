//! The model card: what the hub reads in its head, and what people read below.

use std::{fmt::Write, fs, path::Path};

use serde_json::json;
use tinylm_exchange::Claim;
use tinylm_pipeline::{At, StageError};

use super::{
    ask::{Story, Target},
    exported::Exported,
    files::{CARD_NAME, MODEL_NAME, MODELFILE_NAME},
    ids::Share,
};
use crate::shared::tokens::Tokenizer;

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
        how_it_is_used(exported, story, tokenizer.knows_turns()),
        how_faithful_it_is(exported),
        history.to_owned(),
    ] {
        let _ = writeln!(card, "{section}");
    }
    fs::write(&path, card.trim_end().to_owned() + "\n").at(&path)
}

/// The block that the hub reads. Its values are written as JSON, which is YAML too.
fn head(story: &Story, exported: &Exported) -> String {
    let library = match exported.to {
        Target::Hf => "transformers",
        Target::Gguf => "gguf",
        Target::Onnx => "transformers.js",
        Target::Peft => "peft",
    };
    let mut head = format!("---\nlibrary_name: {library}\npipeline_tag: text-generation\n");
    let mut tags = vec!["tinylm"];
    if exported.has_code {
        tags.push("custom_code");
    }
    let _ = writeln!(head, "tags: {}", json!(tags));
    if let Some(base) = &story.base {
        let _ = writeln!(head, "base_model: {}", json!(base));
    }
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

fn how_it_is_used(exported: &Exported, story: &Story, knows_turns: bool) -> String {
    match exported.to {
        Target::Hf => with_transformers(exported, knows_turns),
        Target::Gguf => with_llama_cpp(knows_turns),
        Target::Onnx => with_onnxruntime(knows_turns),
        Target::Peft => with_peft(exported, story.base.as_deref()),
    }
}

fn with_peft(exported: &Exported, base: Option<&str>) -> String {
    let told = match base {
        Some(_) => "",
        None => {
            "`base` is the model that was finetuned, as `tinylm export RUN/STAGE --to hf --out base` writes it.\n\n"
        }
    };
    let resized = exported.n_tokens.map_or_else(String::new, |n| {
        format!("base.resize_token_embeddings({n})  # new tokens\n")
    });
    let base = base.unwrap_or("base");
    format!(
        "{told}```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
         tokenizer = AutoTokenizer.from_pretrained(\".\")\n\
         base = AutoModelForCausalLM.from_pretrained(\"{base}\")\n\
         {resized}model = PeftModel.from_pretrained(base, \".\")\n```\n"
    )
}

fn with_llama_cpp(knows_turns: bool) -> String {
    let (model, modelfile) = (MODEL_NAME, MODELFILE_NAME);
    let llama = match knows_turns {
        true => format!("llama-cli -m {model}"),
        false => format!("llama-completion -m {model} -p \"Once upon a time\""),
    };
    format!(
        "```console\n$ {llama}\n```\n\nWith ollama, in this folder:\n\n\
         ```console\n$ ollama create tiny -f {modelfile}\n$ ollama run tiny\n```\n"
    )
}

fn with_transformers(exported: &Exported, knows_turns: bool) -> String {
    let trust = match exported.has_code {
        true => ", trust_remote_code=True",
        false => "",
    };
    let imports = "from transformers import AutoModelForCausalLM, AutoTokenizer";
    with_python(imports, "AutoModelForCausalLM", trust, knows_turns)
}

fn with_onnxruntime(knows_turns: bool) -> String {
    let said = match knows_turns {
        false => "\"Once upon a time\"",
        true => "[{ role: \"user\", content: \"how are you ?\" }]",
    };
    let imports = "from optimum.onnxruntime import ORTModelForCausalLM\nfrom transformers import AutoTokenizer";
    format!(
        "```js\nimport {{ pipeline }} from \"@huggingface/transformers\";\n\n\
         const generate = await pipeline(\"text-generation\", \".\");\n\
         console.log((await generate({said}))[0].generated_text);\n```\n\n{}",
        with_python(imports, "ORTModelForCausalLM", "", knows_turns)
    )
}

fn with_python(imports: &str, class: &str, trust: &str, knows_turns: bool) -> String {
    let prompt = match knows_turns {
        false => "ids = tokenizer(\"Once upon a time\", return_tensors=\"pt\")".to_owned(),
        true => "messages = [{\"role\": \"user\", \"content\": \"how are you ?\"}]\nids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors=\"pt\", return_dict=True)".to_owned(),
    };
    format!(
        "```python\n{imports}\n\n\
         tokenizer = AutoTokenizer.from_pretrained(\".\"{trust})\n\
         model = {class}.from_pretrained(\".\"{trust})\n\
         {prompt}\n\
         print(tokenizer.decode(model.generate(**ids)[0]))\n```\n"
    )
}

fn how_faithful_it_is(exported: &Exported) -> String {
    let (form, claim) = (exported.form, &exported.claim);
    let n_params = exported.n_params;
    let mut text = match exported.to {
        Target::Peft => return an_adapter(exported),
        Target::Hf | Target::Gguf | Target::Onnx => {
            format!("It is a `{form}` with {n_params} parameters: **{claim}**.")
        }
    };
    if let Some(told) = exported.told_numbers() {
        let _ = write!(text, " In the file: {told}.");
    }
    match claim {
        Claim::Exact => text += " Its tensors are those that were trained, under other names.",
        Claim::Lowered(_) => {
            text += " Its tensors compute what was trained, up to the rounding of 32-bit numbers. It is for use: to train it further, begin with the original";
            text += match exported.to {
                Target::Hf => ", whose settings stand in `config.json` under `tinylm`.",
                Target::Gguf | Target::Onnx | Target::Peft => ".",
            };
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

fn an_adapter(exported: &Exported) -> String {
    let (form, claim, n_params) = (exported.form, &exported.claim, exported.n_params);
    let text = format!(
        "It is an adapter of {n_params} numbers for a `{form}`, which is **{claim}** where tinylm exports it.\n"
    );
    match &exported.share {
        Some(share) => format!("{text}\n{}\n", told(share)),
        None => text,
    }
}

fn told(share: &Share) -> String {
    format!(
        "Of {} documents that it was trained on, {} have the ids here that training saw.",
        share.n, share.n_same
    )
}
