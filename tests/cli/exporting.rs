//! A model leaves the house: `export` of a run and of a folder, and the stage of that kind.

use std::fs;

use serde_json::Value;

use crate::harness::Project;

const TALKER: &str = "\
# Does it leave?
name: talker
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
  model:
    kind: pretrain
    inputs: [shards]
    with:
      model: { preset: tinylm, d_model: 32, n_heads: 4, n_kv_heads: 4, n_layers: 1, d_ff: 64, context: 64 }
      train: { steps: 2, batch: 2, validate_every: 0 }
  hub: { kind: export, inputs: { model: model, documents: chat }, with: { to: hf } }
";

fn talker() -> Project {
    let project = Project::new();
    project.write("talker.yaml", TALKER);
    project.tinylm("run talker.yaml").success();
    project
}

fn names(project: &Project, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(project.path(folder)).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_is_exported_with_its_history_and_a_stage_writes_the_same_model() {
    let project = talker();
    let told = project.tinylm("export @last --to hf --out hf").success();
    insta::assert_snapshot!(told.stdout, @"
    GPT2LMHeadModel, 36 wide instead of 32: exact after lowering because of `positions: sinusoidal`, `bias.head: true`
    2 of 2 documents have the ids that training saw
    wrote `hf`
    ");
    let card = project.read("hf/README.md");
    for part in [
        "library_name: transformers",
        "AutoModelForCausalLM.from_pretrained",
        "**exact after lowering because of `positions: sinusoidal`, `bias.head: true`**",
        "Of 2 documents that it was trained on, 2 have the ids",
        "It is what the stage `model` made.",
        "Does it leave?",
        "### Data",
        "| rows | `rows in the experiment's file` | `",
        "### Licences of the data",
        "### How to make it again",
        "$ tinylm run talker.yaml",
        "preset: tinylm, d_model: 32",
    ] {
        assert!(card.contains(part), "{part}:\n{card}");
    }
    // Whose machine it was stays here.
    assert!(
        !card.contains(&*project.path("").to_string_lossy()),
        "{card}"
    );
    assert!(!card.contains(env!("CARGO_BIN_EXE_tinylm")), "{card}");
    let stage = project.artifact_folder("hub");
    for name in names(&project, "hf") {
        let [of_run, of_stage] =
            [project.path("hf"), stage.clone()].map(|folder| fs::read(folder.join(&name)).unwrap());
        // The stage knows no run, so its card is another.
        assert_eq!(of_run == of_stage, name != "README.md", "{name}");
    }
    assert!(
        project
            .artifact("hub", "README.md")
            .contains("folder alone")
    );
    let shown = project.tinylm("show @last/hub --json").success();
    assert!(shown.stdout.contains("\"export\""), "{shown}");
    let again = project.tinylm("run talker.yaml").success();
    assert!(!again.stdout.contains("made "), "{again}");
}

#[test]
fn a_folder_is_exported_without_a_registry_and_nothing_else_is_overwritten() {
    let project = talker();
    let model = project.artifact_folder("model");
    let alone = Project::new();
    crate::harness::copy_folder(&model, &alone.path("tiny"));
    let told = alone.tinylm("export tiny").success();
    assert!(told.stdout.ends_with("wrote `tiny-hf`\n"), "{told}");
    assert!(alone.read("tiny-hf/README.md").contains("# tiny\n"));
    assert!(!alone.path(".tinylm").exists());
    let settings: Value = serde_json::from_str(&alone.read("tiny-hf/config.json")).unwrap();
    assert_eq!(settings["model_type"], "gpt2");

    // Once more is an export in place of an export; anything else stays.
    alone.tinylm("export tiny").success();
    alone.write("tiny-hf/notes.txt", "mine");
    let refused = alone.tinylm("export tiny").failure(2);
    insta::assert_snapshot!(refused.stderr, @"
    error: `[ROOT]/tiny-hf` is there and holds something else than an export
      help: name another folder with `--out`
    ");
    let refused = alone.tinylm("export tiny --to pickle").failure(2);
    assert!(
        refused
            .stderr
            .contains("[possible values: hf, gguf, onnx, peft, tensorboard, csv, parquet]"),
        "{refused}"
    );
    alone.write("empty/notes.txt", "mine");
    let refused = alone.tinylm("export empty").failure(2);
    assert!(refused.stderr.contains("is no model"), "{refused}");
    assert_eq!(names(&alone, "."), ["empty", "tiny", "tiny-hf"]);
}

#[test]
fn a_file_for_llama_cpp_is_written_with_what_ollama_needs() {
    let project = talker();
    let told = project
        .tinylm("export @last --to gguf --precision q8_0 --out file")
        .success();
    insta::assert_snapshot!(told.stdout, @"
    gpt2, 36 wide instead of 32: approximate because of `activation: gelu`, `positions: sinusoidal`, `bias.head: true`; numbers q8_0, but f16 in 5 tensors whose rows are no whole blocks
    2 of 2 documents have the ids that training saw
    wrote `file`
    ");
    assert_eq!(
        names(&project, "file"),
        ["Modelfile", "README.md", "model.gguf"]
    );
    assert_eq!(
        &fs::read(project.path("file/model.gguf")).unwrap()[..4],
        b"GGUF"
    );
    insta::assert_snapshot!(project.read("file/Modelfile"), @r#"
    # Written by tinylm.
    FROM ./model.gguf
    TEMPLATE """{{- range .Messages }}{{ if eq .Role "system" }}<|im_start|>system
    {{ .Content }}<|im_end|>
    {{ else if eq .Role "user" }}<|im_start|>user
    {{ .Content }}<|im_end|>
    {{ else if eq .Role "assistant" }}<|im_start|>assistant
    {{ .Content }}<|im_end|>
    {{ end }}{{ end }}<|im_start|>assistant
    """
    PARAMETER stop "<|im_end|>"
    PARAMETER stop "<|endoftext|>"
    PARAMETER temperature 0.8
    PARAMETER top_k 40
    PARAMETER top_p 0.95
    PARAMETER min_p 0.05
    "#);
    let card = project.read("file/README.md");
    for part in [
        "library_name: gguf",
        "llama-cli -m model.gguf",
        "ollama create tiny -f Modelfile",
        "In the file: numbers q8_0",
        "### How to make it again",
    ] {
        assert!(card.contains(part), "{part}:\n{card}");
    }
    // Once more, and in place of nothing else.
    project
        .tinylm("export @last --to gguf --out file")
        .success();
    let refused = project
        .tinylm("export @last --to hf --precision q8_0 --out folder")
        .failure(2);
    assert!(refused.stderr.contains("is written in f32"), "{refused}");
    assert!(!project.path("folder").exists());
    project.replace("talker.yaml", "preset: tinylm", "preset: toiny");
    project.tinylm("run talker.yaml --until model").success();
    let refused = project
        .tinylm("export @last --to gguf --out none")
        .failure(2);
    insta::assert_snapshot!(refused.stderr, @"
    error: llama.cpp has no architecture for this model, because of `norm_at: post`, `final_norm: false`, `activation: relu`
      help: `--to hf` takes every model
    ");
}

#[test]
fn a_graph_is_written_where_browsers_look_for_it_whatever_the_model_is() {
    let project = talker();
    project.replace("talker.yaml", "preset: tinylm", "preset: toiny");
    project.replace("talker.yaml", "to: hf", "to: onnx");
    project.tinylm("run talker.yaml").success();
    let export = "export @last/model --to onnx --out web";
    let told = project.tinylm(export).success();
    insta::assert_snapshot!(told.stdout, @"
    graph: exact
    2 of 2 documents have the ids that training saw
    wrote `web`
    ");
    insta::assert_snapshot!(names(&project, "web").join("\n"), @"
    README.md
    chat_template.jinja
    config.json
    genai_config.json
    generation_config.json
    onnx
    special_tokens_map.json
    tokenizer.json
    tokenizer_config.json
    ");
    let [of_run, of_stage] = [project.path("web"), project.artifact_folder("hub")]
        .map(|folder| fs::read(folder.join("onnx/model.onnx")).unwrap());
    assert_eq!(of_run, of_stage);
    // The first field is the version of the format.
    assert_eq!(of_run[..2], [8, 8]);
    let genai: Value = serde_json::from_str(&project.read("web/genai_config.json")).unwrap();
    let decoder = &genai["model"]["decoder"];
    assert_eq!(decoder["filename"], "onnx/model.onnx");
    assert_eq!(decoder["head_size"], 8);
    let card = project.read("web/README.md");
    for part in [
        "library_name: transformers.js",
        "pipeline(\"text-generation\", \".\")",
        "ORTModelForCausalLM.from_pretrained",
        "### How to make it again",
    ] {
        assert!(card.contains(part), "{part}:\n{card}");
    }

    // Once more; not where somebody put a graph of their own beside ours.
    project.tinylm(export).success();
    project.write("web/onnx/model_q4.onnx", "mine");
    let refused = project.tinylm(export).failure(2);
    assert!(
        refused.stderr.contains("something else than an export"),
        "{refused}"
    );
    let refused = project
        .tinylm("export @last/model --to onnx --precision f16 --out halves")
        .failure(2);
    insta::assert_snapshot!(refused.stderr, @"
    error: `onnx` is written in f32
      help: leave `precision` out, or write `--to gguf`
    ");
}
