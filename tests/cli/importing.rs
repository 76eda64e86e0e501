//! A model comes into the house: one that left it, to the bit, and files that are no model.

use std::fs;

use serde_json::Value;

use crate::harness::Project;

const DATA: &str = "\
name: back
stages:
  rows:
    kind: download
    with:
      rows:
        - { prompt: \"how are you ?\", response: \"i am fine . and you ?\" }
        - { prompt: \"what is your name ?\", response: \"my name is tiny .\" }
  chat: { kind: normalize, inputs: [rows] }
  tokens: { kind: tokenizer, inputs: [chat], with: { vocab_size: 300 } }
  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens } }
";

/// Each is another class of `transformers`: GPT-2, Llama, GPT-NeoX, Starcoder2, Arcee, StableLM.
const MODELS: [(&str, &str); 6] = [
    ("mini", "preset: mini, n_heads: 4"),
    ("llama", "preset: llama-tiny, n_heads: 4, n_kv_heads: 2"),
    ("turning", "preset: mini, positions: rope, n_heads: 4"),
    (
        "grouped",
        "preset: mini, positions: rope, n_heads: 4, n_kv_heads: 2",
    ),
    (
        "ungated",
        "preset: llama-tiny, activation: gelu, n_heads: 4, n_kv_heads: 2",
    ),
    (
        "gated",
        "preset: mini, positions: rope, activation: swiglu, n_heads: 4, bias: { proj: false, mlp: false }",
    ),
];

/// Those that llama.cpp has an architecture for, and a tokenizer of another sort.
const IN_A_FILE: [(&str, &str, &str); 8] = [
    ("mini", "gpt2", "tokens"),
    ("llama", "llama", "tokens"),
    ("turning", "starcoder2", "tokens"),
    ("grouped", "starcoder2", "tokens"),
    ("gated", "stablelm", "tokens"),
    ("llama", "llama", "pieces"),
    ("llama", "llama", "unigram"),
    ("llama", "llama", "words"),
];

/// The stages of a model that is trained, leaves, comes back and speaks before and after.
fn there_and_back((name, model): (&str, &str)) -> String {
    let sizes = "d_model: 32, n_layers: 2, d_ff: 48, context: 48";
    let train = "{ steps: 3, batch: 2, lr: 1e-2, validate_every: 0 }";
    let ask = "{ prompts: [\"how are you ?\"], max_tokens: 12, seed: 3 }";
    format!(
        "  {name}: {{ kind: pretrain, inputs: [shards], with: {{ model: {{ {model}, {sizes} }}, train: {train} }} }}\n  \
           {name}_out: {{ kind: export, inputs: [{name}] }}\n  \
           {name}_in: {{ kind: import, inputs: [{name}_out] }}\n  \
           {name}_before: {{ kind: sample, inputs: [{name}], with: {ask} }}\n  \
           {name}_after: {{ kind: sample, inputs: [{name}_in], with: {ask} }}\n"
    )
}

#[test]
fn a_model_that_left_comes_back_to_the_bit_and_says_the_same() {
    let project = Project::new();
    let stages = MODELS.map(there_and_back).concat();
    project.write("back.yaml", &format!("{DATA}{stages}"));
    project.tinylm("run back.yaml").success();
    for (name, _) in MODELS {
        let bytes =
            |stage: &str, file: &str| fs::read(project.artifact_folder(stage).join(file)).unwrap();
        let back = format!("{name}_in");
        let shape = |stage: &str| -> Value {
            serde_json::from_slice(&bytes(stage, "tinylm.json")).unwrap()
        };
        assert_eq!(shape(name), shape(&back), "{name}");
        let weights = "model.safetensors";
        assert!(bytes(name, weights) == bytes(&back, weights), "{name}");
        let said = ["before", "after"].map(|at| bytes(&format!("{name}_{at}"), "samples.jsonl"));
        assert!(said[0] == said[1], "{name}");
    }
}

#[test]
fn a_model_that_left_in_a_file_comes_back_to_the_bit_too() {
    let project = Project::new();
    let algorithms = [
        ("pieces", "sentencepiece-bpe"),
        ("unigram", "unigram"),
        ("words", "wordpiece"),
    ];
    let tokenizers = algorithms.map(|(name, algorithm)| {
        format!("  {name}: {{ kind: tokenizer, inputs: [chat], with: {{ algorithm: {algorithm}, vocab_size: 320, min_frequency: 1, template: tags }} }}\n")
    });
    let tokenizers = tokenizers.concat();
    for (name, architecture, tokens) in IN_A_FILE {
        let model = MODELS.iter().find(|(model, _)| *model == name).unwrap();
        let stages = there_and_back(*model).replace(
            "{ kind: export, inputs: [",
            "{ kind: export, with: { to: gguf }, inputs: [",
        );
        let data = DATA.replace("tokenizer: tokens }", &format!("tokenizer: {tokens} }}"));
        project.write("back.yaml", &format!("{data}{tokenizers}{stages}"));
        project.tinylm("run back.yaml").success();
        let card = project.artifact(&format!("{name}_out"), "README.md");
        assert!(
            card.contains(&format!("It is a `{architecture}`")),
            "{card}"
        );
        assert!(card.contains("**exact**"), "{card}");
        let bytes =
            |stage: &str, file: &str| fs::read(project.artifact_folder(stage).join(file)).unwrap();
        let back = format!("{name}_in");
        for file in ["tinylm.json", "model.safetensors"] {
            let same = match file {
                "tinylm.json" => {
                    let [ours, theirs] = [name, &back]
                        .map(|stage| serde_json::from_slice::<Value>(&bytes(stage, file)).unwrap());
                    ours == theirs
                }
                _ => bytes(name, file) == bytes(&back, file),
            };
            assert!(same, "{name}, {tokens}: {file}");
        }
        let said = ["before", "after"].map(|at| bytes(&format!("{name}_{at}"), "samples.jsonl"));
        assert!(said[0] == said[1], "{name}, {tokens}");
    }
}

#[test]
fn a_model_from_elsewhere_lends_its_tokenizer_and_is_trained_further() {
    let project = Project::new();
    let llama = there_and_back(MODELS[1]);
    let further = "  more: { kind: binarize, inputs: { documents: chat, tokenizer: llama_in } }\n  \
                     tuned: { kind: finetune, inputs: { shards: more, model: llama_in }, with: { train: { steps: 2, batch: 2, validate_every: 0 } } }\n  \
                     measured: { kind: evaluate, inputs: { model: tuned, shards: more }, with: { split: train } }\n";
    project.write("further.yaml", &format!("{DATA}{llama}{further}"));
    let run = project.tinylm("run further.yaml").success();
    assert!(run.stdout.contains("measured: perplexity"), "{run}");
    let tokens = |stage: &str| -> Value {
        serde_json::from_str(&project.artifact(stage, "tokenizer.json")).unwrap()
    };
    let learnt = &tokens("tokens")["model"]["vocab"];
    assert_eq!(&tokens("more")["model"]["vocab"], learnt);
}

#[test]
fn a_file_that_is_no_model_is_refused_at_its_stage() {
    let project = Project::new();
    project.write("files/pytorch_model.bin", "PK\u{3}\u{4}pickled");
    project.write(
        "a.yaml",
        "name: a\nstages:\n  files: { kind: download, with: { path: files } }\n  base: { kind: import, inputs: [files] }\n",
    );
    let refused = project.tinylm("run a.yaml").failure(1);
    insta::assert_snapshot!(refused.stderr, @"
    start    files
    start    base 

    error: stage `base` failed: `pytorch_model.bin` is a pickle, which is a program and is not run here
      help: take the model's safetensors files, or convert it with its own tools
    ");
}
