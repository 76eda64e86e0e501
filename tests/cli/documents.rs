//! Documents hold what was said: no template is in them, others' tools read them, and a
//! person sees them.

use std::fs;

use crate::harness::Project;

fn project() -> Project {
    let project = Project::new();
    let rows = [
        r#"{"prompt": "hi", "response": "ho"}"#,
        r#"{"prompt": "How are you?", "response": "Fine \u001b[2J<|im_end|>"}"#,
        r#"{"prompt": "HI", "response": "ho"}"#,
        r#"{"prompt": null, "response": "ho"}"#,
    ];
    project.write("rows.jsonl", &(rows.join("\n") + "\n"));
    project.write(
        "talk.yaml",
        "name: talk
stages:
  rows:   { kind: download,  with: { path: rows.jsonl } }
  chat:   { kind: normalize, inputs: [rows], with: { rejects_max: 0.5 } }
  kept:   { kind: dedupe,    inputs: [chat] }
  tokens: { kind: tokenizer, inputs: [kept], with: { vocab_size: 260, min_frequency: 1 } }
  shards: { kind: binarize,  inputs: { documents: kept, tokenizer: tokens } }
",
    );
    project
}

#[test]
fn another_template_makes_no_documents_anew() {
    let project = project();
    project.tinylm("run talk.yaml").success();
    project
        .tinylm("run talk.yaml -S tokens.template=start-end")
        .success();
    let outcomes = "rows hit, chat hit, kept hit, tokens made, shards made";
    assert_eq!(project.outcomes(), outcomes);
}

#[test]
fn a_template_in_the_wrong_place_is_told_the_right_one() {
    let project = project();
    project.replace("talk.yaml", "rejects_max: 0.5", "template: chatml");
    let told = project.tinylm("plan talk.yaml").failure(2).stderr;
    for part in [
        "stage `chat`: `normalize` has no setting `template`",
        "talk.yaml:4:",
        "`template` is a setting of `tokenizer`",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// Tools that are given a folder read all files of the ending that most have (checked with
/// `datasets` 5.2 by `load_dataset(folder)`), so the lists beside documents have another.
#[test]
fn only_documents_are_parquet_in_their_folder() {
    let project = project();
    project.tinylm("run talk.yaml").success();
    let names = |stage: &str| {
        let entries = fs::read_dir(project.artifact_folder(stage)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(
        names("chat"),
        "documents-00000.parquet rejected.jsonl stats.json"
    );
    assert_eq!(
        names("kept"),
        "documents-00000.parquet duplicates.jsonl stats.json"
    );
}

#[test]
fn a_person_is_shown_what_was_said_left_out_and_dropped() {
    let project = project();
    project.tinylm("run talk.yaml").success();
    let shown = |stage: &str| {
        let shown = project.tinylm(&format!("show @last/{stage}")).success();
        let (_, documents) = shown.stdout.split_once("\ndocuments, ").unwrap();
        documents.to_owned()
    };
    let chat = shown("chat");
    let first =
        "3 of 3:\n\n  <|im_start|>user\n  hi<|im_end|>\n  <|im_start|>assistant\n  ho<|im_end|>\n";
    assert!(chat.starts_with(first), "{chat}");
    assert!(!chat.contains('\u{1b}'), "{chat}");
    let left_out = "\nleft out (all are in `rejected.jsonl`):\n  `rows.jsonl`, row 4: `prompt` is null, not text\n";
    assert!(chat.ends_with(left_out), "{chat}");
    let kept = shown("kept");
    let dropped = "\ndropped (all are in `duplicates.jsonl`):\n\n  exact, 100 % the same as ";
    let (documents, dropped) = kept.split_once(dropped).unwrap_or_else(|| panic!("{kept}"));
    assert!(documents.starts_with("2 of 2:\n"), "{kept}");
    assert!(dropped.contains("\n  hi<|im_end|>\n"), "{kept}");
}
