//! The meaning of right files.

use insta::assert_snapshot;

use std::time::Duration;

use super::*;

pub(super) const EXAMPLE: &str = r#"# Does a 41M model trained on everyday dialogue hold a conversation?
name: combined_41m
seed: 1337
stages:
  dialogs:   { kind: download,  with: { hub: roskoN/dailydialog } }
  extra:     { kind: download,  with: { path: ../data/chitchat.jsonl } }
  chat:      { kind: normalize, inputs: [dialogs, extra], with: { template: start-end } }
  tokens:    { kind: tokenizer, inputs: [chat], with: { vocab_size: 0x800 } }
  shards:    { kind: binarize,  inputs: { tokenizer: tokens, documents: chat }, with: { validation: 0.02 } }
  base:
    kind: pretrain
    inputs: { shards: shards }
    with:
      model: { preset: forty-one }        # 41,343,965 parameters at vocabulary 32,105
      train: { epochs: 5, batch: 32, lr: 1e-3, warmup: 30% }
    watch: { samples: ["how are you ?"], keep_checkpoints: 3 }
    retries: 2
    timeout: 1h30m
  perplexity: { kind: evaluate, inputs: { model: base, shards: shards } }
  lines:
    kind: command
    inputs: [chat, extra]
    with: { run: ["sh", "-c", "cat '{in.chat}'/* > '{out}/lines.txt'"], outputs: [lines.txt], files: [gen.py] }
"#;

#[test]
fn an_experiment_is_read() {
    let desk = Desk::new(&[("experiments/example.yaml", EXAMPLE)]);
    let experiment = desk.load("experiments/example.yaml", &[]).unwrap();
    assert_eq!(
        experiment.about,
        "Does a 41M model trained on everyday dialogue hold a conversation?"
    );
    assert_eq!(experiment.text, EXAMPLE);
    assert_snapshot!(desk.hide_root(&told(&experiment)), @r#"
    combined_41m seed 1337
    dialogs: download with {"hub":"roskoN/dailydialog","path":null,"url":null,"rows":null}
    extra: download with {"hub":null,"path":"[ROOT]/data/chitchat.jsonl","url":null,"rows":null}
    chat: normalize sources=dialogs+extra with {"template":"start-end","renames":{},"rules":[],"lenient":false}
    tokens: tokenizer documents=chat with {"vocab_size":2048,"files":[]}
    shards: binarize documents=chat tokenizer=tokens with {"validation":0.02}
    base: pretrain shards=shards with {"model":{"preset":"forty-one","layers":null},"train":{"epochs":5.0,"lr":0.001,"batch":32,"warmup":"30%"},"seed":null} watch {"samples":["how are you ?"],"keep_checkpoints":3}
    perplexity: evaluate model=base shards=shards with {}
    lines: command 0=chat 1=extra with {"run":["sh","-c","cat '{in.chat}'/* > '{out}/lines.txt'"],"outputs":["lines.txt"],"files":["[DIR]/gen.py"]}
    "#);
    let base = &experiment.stages[5];
    assert_eq!(
        (base.retries, base.timeout),
        (2, Some(Duration::from_secs(5400)))
    );
    assert_eq!(base_name(&base.home_file), "example.yaml");
    assert_snapshot!(base.given, @r#"{"model":{"preset":"forty-one"},"train":{"epochs":5,"batch":32,"lr":0.001,"warmup":"30%"}}"#);
}

#[test]
fn values_are_read_as_yaml_1_2_does() {
    let rows = "[no, yes, 010, 0x10, 0o17, 1e-3, 30%, .5, -1, +1, ~, null, '1', 1_000, 12:30, 2024-01-01, on, True, 1.0]";
    let experiment = loaded(&format!(
        "stages: {{ a: {{ kind: download, with: {{ rows: {rows} }} }} }}"
    ));
    assert_snapshot!(experiment.stages[0].given["rows"], @r#"["no","yes","010",16,15,0.001,"30%",0.5,-1,1,null,null,"1","1_000","12:30","2024-01-01","on",true,1.0]"#);
}

#[test]
fn anchors_repeat_what_they_name() {
    let experiment = loaded(
        r#"
stages:
  a: &a { kind: download, with: &w { rows: [1] } }
  b: { kind: download, with: *w }
  c: { <<: *a }
  d: { <<: [{ with: { hub: x } }, *a], retries: 1 }
"#,
    );
    assert_snapshot!(told(&experiment), @r#"
    a seed 1337
    a: download with {"hub":null,"path":null,"url":null,"rows":[1]}
    b: download with {"hub":null,"path":null,"url":null,"rows":[1]}
    c: download with {"hub":null,"path":null,"url":null,"rows":[1]}
    d: download with {"hub":"x","path":null,"url":null,"rows":null}
    "#);
}

#[test]
fn a_folder_may_have_any_name() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let text = "stages: { a: { kind: download, with: { path: in.txt } } }";
    let desk = Desk::new(&[("with space\nand line/a.yaml", text)]);
    let experiment = desk.load("with space\nand line/a.yaml", &[]);
    let experiment = experiment.unwrap_or_else(|wrong| panic!("{wrong}"));
    let path = format!("{}/with space\nand line/in.txt", desk.root());
    assert_eq!(experiment.stages[0].with["path"], path.as_str());

    let dir = desk.0.path().join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.yaml"), text).unwrap();
    let mut request = desk.request("a.yaml");
    request.current_dir = dir;
    let wrong = load(&request, CATALOG).unwrap_err();
    assert_snapshot!(desk.hide_root(&wrong.to_string()), @"
    error: the path `[ROOT]/caf�/a.yaml` is not UTF-8
     |
     = help: rename the part of it that is not
    ");
}

#[test]
fn paths_count_from_the_folder_that_a_link_stands_in() {
    let text = "stages: { a: { kind: download, with: { path: ../in.txt } }, b: { kind: download, with: { path: /abs/../x } } }";
    let desk = Desk::new(&[("real/deep/a.yaml", text)]);
    std::os::unix::fs::symlink("real/deep", desk.0.path().join("link")).unwrap();
    let experiment = desk.load("link/./a.yaml", &[]);
    let experiment = experiment.unwrap_or_else(|wrong| panic!("{wrong}"));
    let path = format!("{}/real/in.txt", desk.root());
    assert_eq!(experiment.stages[0].with["path"], path.as_str());
    assert_eq!(experiment.stages[1].with["path"], "/abs/../x");
    assert_eq!(
        experiment.file,
        desk.0
            .path()
            .canonicalize()
            .unwrap()
            .join("real/deep/a.yaml")
    );
}

#[test]
fn a_file_needs_no_name_and_no_seed() {
    let experiment = loaded("stages: { a: { kind: download } }");
    assert_snapshot!(told(&experiment), @r#"
    a seed 1337
    a: download with {"hub":null,"path":null,"url":null,"rows":null}
    "#);
}
