//! From a person's own file to a model that answers, by `init` and `run` alone: the shapes that people have.

use std::{fmt::Write, fs};

use crate::harness::{Output, Project};

/// An experiment that `init` writes runs to its end, however short the training.
const TOY: &str = "-S model.train.steps=4 -S model.model.n_layers=1 -S model.train.batch=2";

/// Exchanges that are all different, since what is said twice is left out.
fn exchanges(n: usize, each: impl Fn(usize, &str, &str) -> String) -> String {
    let word = |n: usize| ["rain", "snow", "the sea", "a lamp", "bread", "the hill"][n % 6];
    (0..n)
        .map(|n| {
            let asked = format!("what do you say of {} number {n}?", word(n));
            each(n, &asked, &format!("{n} times {} is enough", word(n + 1)))
        })
        .collect()
}

fn named(n: usize) -> String {
    exchanges(n, |_, asked, said| format!("Anna: {asked}\nBob: {said}\n"))
}

/// A private chat as Telegram exports it.
fn telegram(n: usize) -> String {
    let mut messages: Vec<String> = Vec::new();
    let mut say = |from: &str, text: &str| {
        let (id, at) = (messages.len(), 1_700_000_000 + 60 * messages.len());
        messages.push(format!(
            r#"{{"id": {id}, "type": "message", "date": "2023-11-14T22:{:02}:{:02}", "date_unixtime": "{at}", "from": "{from}", "from_id": "user{from}", "text": "{text}"}}"#,
            id / 60, id % 60,
        ));
    };
    exchanges(n, |_, asked, said| format!("{asked}\t{said}\n"))
        .lines()
        .for_each(|line| {
            let (asked, said) = line.split_once('\t').unwrap();
            say("Anna", asked);
            say("Bob", said);
        });
    let messages = messages.join(",\n");
    format!(r#"{{"name": "Bob", "type": "personal_chat", "id": 7, "messages": [{messages}]}}"#)
}

/// Writes an experiment for a file, runs it and talks to what it made; returns what `init` said.
#[track_caller]
fn told_and_run(name: &str, text: &str) -> (Project, Output) {
    let project = Project::new();
    project.write(name, text);
    let told = project
        .tinylm_words(&["init", "mine.yaml", "--chat", name, "--minutes", "1"])
        .success();
    let run = project.tinylm(&format!("run mine.yaml {TOY}")).success();
    assert!(run.stdout.contains("answers> hello"), "{name}: {run}");
    let warned = "is read as raw text";
    assert!(!run.to_string().contains(warned), "{name}: {run}");
    let said = project.output(&mut project.shell("echo hello | tinylm chat @last -n 4"));
    said.success();
    (project, told)
}

#[test]
fn every_shape_of_talk_becomes_an_experiment_that_runs_and_answers() {
    let rows = exchanges(300, |_, asked, said| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "{asked}"}}, {{"role": "assistant", "content": "{said}"}}]}}"#
        ) + "\n"
    });
    let evening = exchanges(60, |n, asked, said| {
        format!("[01.03.23, 20:{n:02}:10] Anna: {asked}\n[01.03.23, 20:{n:02}:40] Bob: {said}\n")
    });
    let between_lines = exchanges(100, |_, asked, said| {
        format!("anna: {asked}\nbob: {said}\nanna: well\n\n")
    });
    let shapes = [
        (
            "forty.txt",
            named(40),
            "one dialogue of 40 exchanges between Anna and Bob (`speakers`); the model answers as Bob",
        ),
        (
            "hundred.txt",
            between_lines,
            "100 dialogues between anna and bob (`speakers`); the model answers as bob",
        ),
        (
            "long.txt",
            named(4000),
            "one dialogue of 4000 exchanges between Anna and Bob (`speakers`); the model answers as Bob",
        ),
        (
            "WhatsApp Chat with Bob.txt",
            evening,
            "one dialogue of 60 exchanges between Anna and Bob (`whatsapp`); the model answers as Bob",
        ),
        (
            "result.json",
            telegram(60),
            "one dialogue of 60 exchanges between Anna and Bob (`turns`); the model answers as Bob",
        ),
        ("rows.jsonl", rows, "300 dialogues (`messages`)"),
        (
            "names.txt",
            named(40).replace("Anna", "Zoë 🌸"),
            "one dialogue of 40 exchanges between Zoë 🌸 and Bob (`speakers`); the model answers as Bob",
        ),
    ];
    for (name, text, found) in shapes {
        let (project, told) = told_and_run(name, &text);
        let line = format!("{name}: {found}\n");
        assert!(told.stdout.contains(&line), "{told}");
        let written = project.read("mine.yaml");
        assert!(written.contains(&format!("# Found in it: {found}.\n")));
        assert!(written.contains("perplexity: { kind: evaluate"), "{name}");
        let measured = project.tinylm("show @last/perplexity").success();
        assert!(measured.stdout.contains("perplexity"), "{measured}");
    }
}

#[test]
fn too_little_talk_to_hold_any_back_is_not_measured_and_the_file_says_why() {
    let (project, _) = told_and_run("three.txt", &named(3));
    let written = project.read("mine.yaml");
    assert!(
        written.contains("# Too little talk to hold any back"),
        "{written}"
    );
    assert!(project.tinylm("show @last/perplexity").code != Some(0));
}

#[test]
fn a_file_that_no_experiment_could_read_is_refused_before_one_is_written() {
    let project = Project::new();
    let pdf = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Length 9 >>\nstream\n\x00\xff\xfe\x01\n";
    for name in ["paper.pdf", "paper.txt"] {
        fs::write(project.path(name), pdf.repeat(20)).unwrap();
    }
    project.write(
        "tale.txt",
        &"Once upon a time there was a lamp. ".repeat(200),
    );
    let mut alone = String::new();
    for n in 0..20 {
        writeln!(alone, "[01.03.23, 20:{n:02}:10] Anna: note {n}").unwrap();
    }
    project.write("alone.txt", &alone);
    let latin = b"J\xf6rg: what is it?\nBob: it is number one\n".repeat(20);
    fs::write(project.path("latin.txt"), latin).unwrap();
    for (words, told) in [
        (
            "--chat paper.pdf",
            "none of these files is data: `paper.pdf`",
        ),
        (
            "--text paper.pdf",
            "none of these files is data: `paper.pdf`",
        ),
        ("--text paper.txt", "not UTF-8"),
        ("--chat tale.txt", "give it as `--text`"),
        ("--chat alone.txt", "`Anna` speaks alone"),
        ("--chat latin.txt", "error: `latin.txt` is not UTF-8"),
    ] {
        let refused = project
            .tinylm(&format!("init mine.yaml {words}"))
            .failure(2);
        assert!(refused.stderr.contains(told), "{words}: {refused}");
        assert!(!project.path("mine.yaml").exists(), "{words}");
    }
}

#[test]
fn a_folder_and_a_file_of_another_encoding_are_read_as_they_are() {
    let project = Project::new();
    let lines = named(60).lines().map(str::to_owned).collect::<Vec<_>>();
    let messages = lines.iter().enumerate().map(|(n, line)| {
        let (name, text) = line.split_once(": ").unwrap();
        format!(
            r#"{{"type": "message", "user": "{name}", "text": "{text}", "ts": "{}.0001"}}"#,
            1_700_000_000 + 60 * n
        )
    });
    let messages = messages.collect::<Vec<_>>().join(",");
    project.write("slack/general/2023-11-14.json", &format!("[{messages}]"));
    project.write("slack/users.json", r#"[{"id": "Anna", "name": "anna"}]"#);
    let marked: Vec<u8> = format!("\u{feff}{}", named(60))
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    fs::write(project.path("wide.txt"), marked).unwrap();
    for (name, settings) in [
        ("slack", "assistant: \"Bob\", pairs: exchanges"),
        ("wide.txt", "encoding: utf-16"),
    ] {
        project
            .tinylm(&format!("init {name}.yaml --chat {name}"))
            .success();
        let written = project.read(&format!("{name}.yaml"));
        assert!(written.contains(settings), "{written}");
        let run = project.tinylm(&format!("run {name}.yaml {TOY}")).success();
        assert!(run.stderr.contains(" 0 rejected"), "{run}");
    }
}

#[test]
fn a_text_of_another_encoding_is_read_where_it_is_marked_and_otherwise_told_how_to_be_saved() {
    let project = Project::new();
    let story = "Es war ein schöner Tag im März, und die Vögel sangen.\n".repeat(200);
    let marked: Vec<u8> = format!("\u{feff}{story}")
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    fs::write(project.path("wide.txt"), marked).unwrap();
    project.tinylm("init wide.yaml --text wide.txt").success();
    let written = project.read("wide.yaml");
    assert!(written.contains("encoding: utf-16"), "{written}");
    project.tinylm(&format!("run wide.yaml {TOY}")).success();

    let old: Vec<u8> = story.chars().map(|c| c as u8).collect();
    project.write("texts/new.txt", &story);
    fs::write(project.path("texts/old.txt"), old).unwrap();
    let refused = project.tinylm("init old.yaml --text texts/old.txt");
    let refused = refused.failure(2);
    let told = "`iconv -f windows-1252 -t utf-8 [ROOT]/texts/old.txt`";
    assert!(refused.stderr.contains(told), "{refused}");
    let refused = project.tinylm("init old.yaml --text texts").failure(2);
    assert!(refused.stderr.contains(told), "{refused}");
    assert!(!project.path("old.yaml").exists());
}

#[test]
fn nothing_is_left_of_what_was_only_looked_at() {
    let project = Project::new();
    project.write("chat.txt", &named(40));
    fs::create_dir(project.path("tmp")).unwrap();
    let words = ["init", "mine.yaml", "--chat", "chat.txt"];
    let mut command = project.command(&words);
    command.env("TMPDIR", project.path("tmp"));
    project.output(&mut command).success();
    assert_eq!(fs::read_dir(project.path("tmp")).unwrap().count(), 0);
}
