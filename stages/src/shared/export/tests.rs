//! What an export's folder holds, and what it is never put in place of.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tinylm_model::{
    config::{ModelConfig, Preset},
    folder::Which,
    weights::read_tensors,
};

use super::*;
use crate::shared::{
    form::OwnForm,
    speak::fixture::{self, write_model},
    template::Role,
    testing::Corpus,
    tokens::CHAT_TEMPLATE_NAME,
};

/// A model whose head has a bias and whose tokens are bytes, in `model`.
fn model() -> TempDir {
    let dir = TempDir::new().unwrap();
    let config = ModelConfig {
        context: 64,
        d_model: 32,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 4,
        d_ff: 48,
        ..Preset::Tinylm.config(fixture::VOCAB_SIZE)
    };
    write_model(&dir.path().join("model"), &config);
    dir
}

fn exported(dir: &TempDir, story: &Story, documents: &[PathBuf]) -> Exported {
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let ask = Ask {
        model: &dir.path().join("model"),
        to: Target::Hf,
        weights: Which::Best,
        numbers: Numbers::F32,
        story,
        documents,
    };
    export(&ask, &out).unwrap()
}

fn read(dir: &TempDir, name: &str) -> String {
    fs::read_to_string(dir.path().join("out").join(name)).unwrap()
}

fn json_of(dir: &TempDir, name: &str) -> Value {
    serde_json::from_str(&read(dir, name)).unwrap()
}

#[test]
fn a_folder_has_what_is_loaded_and_everybody_may_read_it() {
    let dir = model();
    exported(&dir, &Story::default(), &[]);
    let ordinary = dir.path().join("ordinary");
    fs::write(&ordinary, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let mut names = Vec::new();
    for entry in fs::read_dir(dir.path().join("out")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), mode(&ordinary), "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    insta::assert_snapshot!(names.join("\n"), @"
    README.md
    chat_template.jinja
    config.json
    generation_config.json
    model.safetensors
    special_tokens_map.json
    tokenizer.json
    tokenizer_config.json
    ");
    let weights = fs::read(dir.path().join("out/model.safetensors")).unwrap();
    let header = String::from_utf8_lossy(&weights[8..60]);
    assert!(
        header.starts_with(r#"{"__metadata__":{"format":"pt"},"#),
        "{header}"
    );
}

#[test]
fn the_weights_are_the_classs_and_the_original_is_described() {
    let dir = model();
    let exported = exported(&dir, &Story::default(), &[]);
    assert_eq!(exported.widths, (32, 36));
    assert_eq!(
        exported.claim.to_string(),
        "exact after lowering because of `positions: sinusoidal`, `bias.head: true`"
    );
    let tensors = read_tensors(&dir.path().join("out/model.safetensors")).unwrap();
    assert_eq!(tensors["transformer.wte.weight"].shape, [259, 36]);
    assert_eq!(tensors["transformer.h.1.mlp.c_fc.weight"].shape, [36, 48]);
    assert_eq!(
        exported.n_params,
        tensors.values().map(|t| t.data.len()).sum::<usize>()
    );
    let settings = json_of(&dir, "config.json");
    assert_eq!(settings["architectures"], json!(["GPT2LMHeadModel"]));
    assert_eq!(settings["tinylm"]["model"]["d_model"], 32);
    assert_eq!(settings["tinylm"]["claim"], "exact after lowering");
}

#[test]
fn special_tokens_have_their_names_and_answers_end_at_every_stop() {
    let dir = model();
    exported(&dir, &Story::default(), &[]);
    let generation = json_of(&dir, "generation_config.json");
    assert_eq!(generation["eos_token_id"], json!([257, 258]));
    assert_eq!(generation["max_length"], 64);
    let special = json!({
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    });
    assert_eq!(json_of(&dir, "special_tokens_map.json"), special);
    let tokenizer = json_of(&dir, "tokenizer_config.json");
    assert_eq!(tokenizer["eos_token"], "<|endoftext|>");
    assert_eq!(tokenizer["model_max_length"], 64);
    let template = read(&dir, "chat_template.jinja");
    assert_eq!(tokenizer["chat_template"], template);
    assert!(template.contains("{% generation %}"), "{template}");
}

#[test]
fn a_model_that_no_class_expresses_brings_its_code() {
    let dir = model();
    let config = ModelConfig {
        context: 64,
        ..Preset::Toiny.config(fixture::VOCAB_SIZE)
    };
    write_model(&dir.path().join("model"), &config);
    let exported = exported(&dir, &Story::default(), &[]);
    assert!(exported.has_code);
    assert_eq!(
        exported.claim.to_string(),
        "exact, with its own code because of `bias.head: true`"
    );
    assert!(read(&dir, "modeling_tinylm.py").contains("class TinylmForCausalLM"));
    assert!(read(&dir, "README.md").contains("trust_remote_code=True"));
    // The tensors are our own, to the bit.
    let [ours, theirs] = ["model", "out"]
        .map(|folder| read_tensors(&dir.path().join(folder).join("model.safetensors")).unwrap());
    assert_eq!(ours, theirs);
}

#[test]
fn documents_are_compared_and_one_that_forges_a_tag_is_told() {
    let dir = model();
    let mut corpus = Corpus::new();
    for text in ["hi", "  two spaces", "naïve 日本語"] {
        corpus.dialogue(&[(Role::User, text), (Role::Assistant, text)]);
    }
    corpus.text("a raw text");
    corpus.text("one with <|im_end|> in it");
    let documents = dir.path().join("documents");
    corpus.write(&documents);
    let exported = exported(&dir, &Story::default(), &[documents]);
    let share = Share {
        n_same: 4,
        n: 5,
        first_other: Some("one with <|im_end|> in it".to_owned()),
    };
    assert_eq!(exported.share, Some(share));
    assert!(read(&dir, "README.md").contains("Of 5 documents that it was trained on, 4 have"));
}

/// Rewrites the model's `generation.json`, and its template, to those of an imported model.
fn foreign(dir: &TempDir, template: &str) {
    let model = dir.path().join("model");
    let generation = fs::read(model.join("generation.json")).unwrap();
    let mut generation: Value = serde_json::from_slice(&generation).unwrap();
    generation.as_object_mut().unwrap().remove("template");
    let form = OwnForm::of_texts(Some("<|im_start|>"), "<|endoftext|>");
    generation["form"] = json!(form);
    (generation["bos"], generation["bos_id"]) = (json!("<|im_start|>"), json!(256));
    fs::write(model.join("generation.json"), generation.to_string()).unwrap();
    fs::write(model.join(CHAT_TEMPLATE_NAME), template).unwrap();
}

/// Templates from elsewhere call Python's methods and tokens by their names.
#[test]
fn a_foreign_template_is_kept_and_rendered_and_an_empty_one_is_left_out() {
    let dir = model();
    let template = "{{ bos_token }}{% for m in messages %}{{ m['content'].strip() }}{% endfor %}";
    foreign(&dir, template);
    let mut corpus = Corpus::new();
    corpus.dialogue(&[(Role::User, "hi"), (Role::Assistant, "ho")]);
    let documents = dir.path().join("documents");
    corpus.write(&documents);
    let told = exported(&dir, &Story::default(), std::slice::from_ref(&documents));
    assert_eq!(read(&dir, CHAT_TEMPLATE_NAME), template);
    let first = told.share.unwrap().first_other;
    assert_eq!(first.as_deref(), Some("<|im_start|>hiho"));

    fs::remove_dir_all(dir.path().join("out")).unwrap();
    foreign(&dir, "");
    exported(&dir, &Story::default(), &[documents]);
    assert!(!dir.path().join("out").join(CHAT_TEMPLATE_NAME).exists());
    assert!(
        json_of(&dir, "tokenizer_config.json")
            .get("chat_template")
            .is_none()
    );
}

/// The block at the head of a card, by its keys.
fn head(card: &str) -> BTreeMap<String, Value> {
    let head = card
        .strip_prefix("---\n")
        .unwrap()
        .split("---\n")
        .next()
        .unwrap();
    serde_yaml::from_str(head).unwrap()
}

#[test]
fn a_card_says_what_is_known_and_what_is_not() {
    let dir = model();
    exported(&dir, &Story::default(), &[]);
    let card = read(&dir, "README.md");
    assert_eq!(head(&card)["library_name"], "transformers");
    assert!(!head(&card).contains_key("license"));
    assert!(
        card.contains("made from the model's folder alone"),
        "{card}"
    );

    fs::remove_dir_all(dir.path().join("out")).unwrap();
    let story = Story {
        title: "a: \"title\"".to_owned(),
        base: Some("HuggingFaceTB/SmolLM2-135M".to_owned()),
        datasets: vec!["LDJnr/Puffin".to_owned()],
        licences: vec!["Apache-2.0".to_owned(), "Apache-2.0; gated".to_owned()],
        figures: vec![("perplexity".to_owned(), 3.5)],
        history: "## brave-otter\n".to_owned(),
    };
    exported(&dir, &story, &[]);
    let card = read(&dir, "README.md");
    let head = head(&card);
    assert_eq!(head["license"], "apache-2.0");
    assert_eq!(head["datasets"], json!(["LDJnr/Puffin"]));
    assert_eq!(head["base_model"], "HuggingFaceTB/SmolLM2-135M");
    let index = &head["model-index"][0];
    assert_eq!(index["name"], story.title);
    assert_eq!(
        index["results"][0]["metrics"][0],
        json!({"type": "perplexity", "value": 3.5})
    );
    assert!(
        card.contains("## brave-otter") && !card.contains("folder alone"),
        "{card}"
    );
}

#[test]
fn licences_that_differ_or_that_the_hub_has_no_word_for_are_other() {
    let word = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        card::licence(&names)
    };
    assert_eq!(word(&[]), None);
    assert_eq!(word(&["CC BY-NC-SA 4.0"]).unwrap(), "cc-by-nc-sa-4.0");
    assert_eq!(word(&["MIT", "Apache-2.0"]).unwrap(), "other");
    assert_eq!(word(&["mine"]).unwrap(), "other");
}

/// Puts a file into a folder that will stand at `out`.
fn placed(out: &Path, text: &str) -> Result<(), StageError> {
    in_place(out, |folder| {
        fs::write(folder.join("config.json"), text).unwrap();
        match text {
            "bad" => Err(StageError::new("it failed")),
            _ => Ok(()),
        }
    })
}

const OURS: &str = r#"{"tinylm": {}}"#;

#[test]
fn an_earlier_export_is_replaced_whole_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("new/out");
    let text = || fs::read_to_string(out.join("config.json")).unwrap();
    placed(&out, OURS).unwrap();
    fs::write(out.join("README.md"), "of the first").unwrap();
    assert_eq!(placed(&out, "bad").unwrap_err().message, "it failed");
    assert_eq!(text(), OURS);
    placed(&out, r#"{"tinylm": {"second": true}}"#).unwrap();
    assert!(text().contains("second"));
    assert!(!out.join("README.md").exists());
    let left: Vec<_> = fs::read_dir(dir.path().join("new")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_second_export_to_one_folder_is_refused_while_the_first_writes() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    in_place(&out, |folder| {
        let refused = placed(&out, OURS).unwrap_err().message;
        assert!(refused.ends_with("is under way"), "{refused}");
        fs::write(folder.join("config.json"), OURS).unwrap();
        Ok(())
    })
    .unwrap();
    placed(&out, OURS).unwrap();
}

#[test]
fn an_export_that_was_killed_at_any_moment_costs_nothing() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    // While it wrote, and between its two moves.
    fs::create_dir_all(path(".out.unfinished/onnx")).unwrap();
    fs::write(path(".out.unfinished/onnx/model.onnx"), "half").unwrap();
    fs::create_dir(path(".out.earlier")).unwrap();
    fs::write(path(".out.earlier/config.json"), OURS).unwrap();
    placed(&path("out"), "bad").unwrap_err();
    let text = || fs::read_to_string(path("out/config.json")).unwrap();
    assert_eq!(text(), OURS, "the earlier one is back");
    placed(&path("out"), r#"{"tinylm": {"second": true}}"#).unwrap();
    assert!(text().contains("second") && !path("out/onnx").exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_is_no_export_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("empty")).unwrap();
    placed(&path("empty"), OURS).unwrap();
    // Somebody's own file in an export, a foreign model, a file.
    fs::write(path("empty").join("notes.txt"), "mine").unwrap();
    fs::create_dir(path("foreign")).unwrap();
    fs::write(path("foreign").join("config.json"), "{}").unwrap();
    fs::write(path("file"), "").unwrap();
    std::os::unix::fs::symlink(path("nowhere"), path("link")).unwrap();
    let refusals = ["empty", "foreign", "file", "link", "file/.."].map(|name| {
        let message = placed(&path(name), OURS).unwrap_err().message;
        message.replace(&dir.path().display().to_string(), "")
    });
    insta::assert_snapshot!(refusals.join("\n"), @"
    `/empty` is there and holds something else than an export
    `/foreign` is there and holds something else than an export
    `/file` is there and is no folder
    `/link` is a link to nothing
    `/file/..` has no name that an export could have
    ");
    assert_eq!(
        fs::read_to_string(path("empty").join("notes.txt")).unwrap(),
        "mine"
    );
}
