//! From talk as people keep it to a corpus of dialogues, without a look into any source file; and
//! what is said where a model has never heard any.

use std::process::Stdio;

use crate::harness::Project;

const TWO: &str = "\
12/31/23, 11:58\u{202f}PM - Messages and calls are end-to-end encrypted. Tap to learn more.
12/31/23, 11:58\u{202f}PM - Anna: Are you awake?
12/31/23, 11:59\u{202f}PM - Bob: Yes.
12/31/23, 11:59\u{202f}PM - Bob: <Media omitted>
1/1/24, 12:01\u{202f}AM - Bob: Happy new year!
1/1/24, 12:02\u{202f}AM - Anna: The same to you,

and see you tomorrow.
1/2/24, 9:00\u{202f}AM - Anna: Are you at the station?
1/2/24, 9:05\u{202f}AM - Bob: On my way.
";

const EXPERIMENT: &str = "\
name: talk
stages:
  export: { kind: download,  with: { path: \"exports/*.txt\" } }
  chat:   { kind: normalize, inputs: [export] }
";

fn project(name: &str, text: &str) -> Project {
    let project = Project::new();
    project.write(&format!("exports/{name}"), text);
    project.write("talk.yaml", EXPERIMENT);
    project
}

/// The documents of the last run as a person is shown them.
fn documents(project: &Project) -> String {
    let shown = project.tinylm("show @last/chat").success().stdout;
    let (_, documents) = shown.split_once("\ndocuments, ").unwrap();
    documents
        .replace("<|im_start|>", "")
        .replace("<|im_end|>", "")
}

#[test]
fn a_whatsapp_export_becomes_dialogues_of_two() {
    let project = project("WhatsApp Chat with Bob.txt", TWO);
    let ran = project.tinylm("run talk.yaml").success();
    let told: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("chat: "))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @"
    chat: the assistant is `Bob`, who wrote 3 of 6 messages; the user is `Anna`; `assistant: NAME` chooses another
    chat: `WhatsApp Chat with Bob.txt` is read as `whatsapp`: 8 rows, 0 rejected, 2 left out
    ");
    insta::assert_snapshot!(documents(&project), @"
    2 of 2:

      user
      Are you awake?
      assistant
      Yes.
      Happy new year!
      user
      The same to you,
      
      and see you tomorrow.

      user
      Are you at the station?
      assistant
      On my way.

    left out (all are in `rejected.jsonl`):
      `WhatsApp Chat with Bob.txt`, row 1: is the app's own
      `WhatsApp Chat with Bob.txt`, row 4: is a notice in place of words
    ");

    project
        .tinylm("run talk.yaml -S chat.assistant=Anna")
        .success();
    assert!(documents(&project).contains("assistant\n  Are you awake?"));
}

#[test]
fn a_whatsapp_export_of_three_becomes_dialogues_with_one_of_them() {
    let three = "\
[15/01/2023, 14:21:00] Anna: \u{200e}Messages and calls are end-to-end encrypted.\r
[15/01/2023, 14:22:00] Anna: Who comes?\r
[15/01/2023, 14:23:00] Bob: I do.\r
\u{200e}[15/01/2023, 14:23:30] Carl: \u{200e}image omitted\r
[15/01/2023, 14:24:00] Carl: Me too\r
if it is dry.\r
[15/01/2023, 14:25:00] Bob: It will be.\r
";
    let project = project("_chat.txt", three);
    let ran = project.tinylm("run talk.yaml").success();
    let chosen = "the assistant is `Bob`, who wrote 2 of 4 messages; the user is `Anna`, `Carl`";
    assert!(ran.stderr.contains(chosen), "{ran}");
    insta::assert_snapshot!(documents(&project), @"
    1 of 1:

      user
      Who comes?
      assistant
      I do.
      user
      Me too
      if it is dry.
      assistant
      It will be.

    left out (all are in `rejected.jsonl`):
      `_chat.txt`, row 1: is a notice in place of words
      `_chat.txt`, row 4: is a notice in place of words
    ");

    let wrong = project
        .tinylm("run talk.yaml -S chat.assistant=carl")
        .failure(1);
    for part in [
        "`assistant: carl` is nobody who speaks",
        "`Anna`, `Bob`, `Carl`",
    ] {
        assert!(wrong.stderr.contains(part), "{part}: {wrong}");
    }
    project
        .tinylm("run talk.yaml -S chat.assistant=Carl")
        .success();
    assert!(documents(&project).contains("assistant\n  Me too\n  if it is dry."));
}

#[test]
fn a_model_of_raw_text_is_told_from_one_that_answers() {
    let project = Project::new();
    project.write(
        "story.txt",
        &"Once upon a time there was a lake.\n".repeat(40),
    );
    project.write(
        "story.yaml",
        "name: story
stages:
  story:  { kind: download,  with: { path: story.txt } }
  text:   { kind: normalize, inputs: [story] }
  tokens: { kind: tokenizer, inputs: [text], with: { vocab_size: 270 } }
  shards: { kind: binarize,  inputs: { documents: text, tokenizer: tokens } }
  model:
    kind: pretrain
    inputs: [shards]
    with:
      model: { preset: mini, d_model: 32, n_heads: 2, n_layers: 1, d_ff: 64, context: 32 }
      train: { steps: 2, batch: 2, validate_every: 0 }
",
    );
    let ran = project.tinylm("run story.yaml").success();
    let told = "shards: all of it is raw text: a model of this alone";
    assert!(ran.stderr.contains(told), "{ran}");
    let mut chat = project.command(&["chat", "@last", "-n", "4"]);
    let chatted = project.output(chat.stdin(Stdio::null())).success();
    let told = "`tinylm sample @last --text` lets it";
    assert!(chatted.stderr.contains(told), "{chatted}");
}
