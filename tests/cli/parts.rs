//! Corpora in parts: any number of them makes the same model, and a file more costs its part.

use std::{collections::BTreeMap, fs, process::Command};

use rusqlite::Connection;

use crate::{
    harness::{Project, children_of, signal, wait_until},
    hub::Hub,
};

const PARTS: &str = "
name: parts
stages:
  corpus: { kind: download, with: { path: corpus, partition: 1KB } }
  talk: { kind: normalize, inputs: [corpus], with: { partition: 1KB } }
  clean: { kind: dedupe, inputs: [talk], with: { method: minhash, partition: 1KB } }
  sample: { kind: download, with: { path: sample.jsonl } }
  sample_talk: { kind: normalize, inputs: [sample] }
  words: { kind: tokenizer, inputs: [sample_talk], with: { vocab_size: 300 } }
  shards: { kind: binarize, inputs: { documents: clean, tokenizer: words }, with: { validation: 0.1, partition: 1KB } }
  base:
    kind: pretrain
    inputs: { shards: shards }
    with:
      model: { preset: mini, context: 48, d_model: 32, n_layers: 1, n_heads: 2 }
      train: { batch: 4, steps: 20, lr: 0.003 }
";

fn project(n_files: usize) -> Project {
    let project = Project::new();
    project.write("x.yaml", PARTS);
    (0..n_files).for_each(|n| write(&project, n, 60));
    project.write("sample.jsonl", &rows(0, 60));
    project
}

fn write(project: &Project, file: usize, n_rows: usize) {
    project.write(&format!("corpus/talk-{file:02}.json"), &list(file, n_rows));
}

/// Rows as a list, which no part cuts.
fn list(file: usize, n_rows: usize) -> String {
    let rows = rows(file, n_rows).trim_end().replace('\n', ",");
    format!("[{rows}]")
}

/// Dialogues, a few of which another file holds too, and some nearly.
fn rows(file: usize, n_rows: usize) -> String {
    let row = |row: usize| {
        let of = if row.is_multiple_of(10) { 0 } else { file };
        let last = if row.is_multiple_of(20) { file } else { 0 };
        let words: Vec<String> = (0..30)
            .map(|word| format!("w{}", (of * 7919 + row * 31 + word * word) % 997))
            .collect();
        format!(
            "{{\"prompt\": \"what is {row} of {of}\", \"response\": \"{} {last}\"}}\n",
            words.join(" ")
        )
    };
    (0..n_rows).map(row).collect()
}

/// How many executions there have been of each kind of part, and how many of the others.
fn executions(project: &Project) -> BTreeMap<String, u32> {
    let registry = Connection::open(project.path(".tinylm/registry.sqlite")).unwrap();
    let mut query = registry
        .prepare("SELECT kind, count(*) FROM executions WHERE stage LIKE '%/%' AND status = 'done' GROUP BY kind")
        .unwrap();
    let rows = query
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// Runs it, and says how many parts of each kind were made for that.
fn made(project: &Project) -> BTreeMap<String, u32> {
    let before = if project.path(".tinylm").exists() {
        executions(project)
    } else {
        BTreeMap::new()
    };
    project.tinylm("run x.yaml").success();
    let mut made = executions(project);
    for (kind, n) in before {
        let now = made.entry(kind).or_default();
        *now -= n;
    }
    made.retain(|_, n| *n > 0);
    made
}

/// The artifact of a stage, by its digest.
fn artifact(project: &Project, stage: &str) -> String {
    let files = project.artifact_folder(stage);
    let names: Vec<_> = files.components().rev().skip(1).take(2).collect();
    format!("{names:?}")
}

#[test]
fn a_model_is_the_same_in_sixty_four_parts_in_one_and_in_none() {
    let many = project(64);
    assert_eq!(made(&many)["normalize-part"], 64);
    let one = project(64);
    one.write("x.yaml", &PARTS.replace("1KB", "1TB"));
    assert_eq!(made(&one)["normalize-part"], 1);
    let none = project(64);
    none.write(
        "x.yaml",
        &PARTS
            .replace("{ partition: 1KB }", "{}")
            .replace(", partition: 1KB", ""),
    );
    assert_eq!(made(&none), BTreeMap::new());
    assert_eq!(artifact(&many, "base"), artifact(&one, "base"));
    assert_eq!(artifact(&many, "base"), artifact(&none, "base"));
    assert_eq!(artifact(&many, "corpus"), artifact(&none, "corpus"));
}

#[test]
fn a_file_more_costs_its_part_and_what_is_compared_with_it() {
    let project = project(12);
    made(&project);
    let is_of_files = |kind: &str| {
        [
            "download-part",
            "normalize-part",
            "dedupe-sign",
            "dedupe-filter",
            "binarize-part",
        ]
        .contains(&kind)
    };
    let once = |made: &BTreeMap<String, u32>| {
        let of_files = made.iter().filter(|(kind, _)| is_of_files(kind));
        of_files
            .map(|(kind, n)| format!("{kind} {n}"))
            .collect::<Vec<_>>()
    };
    let one_of_each = [
        "binarize-part 1",
        "dedupe-filter 1",
        "dedupe-sign 1",
        "download-part 1",
        "normalize-part 1",
    ];
    write(&project, 12, 50);
    let appended = made(&project);
    assert_eq!(once(&appended), one_of_each, "{appended:?}");
    write(&project, 5, 50);
    let changed = made(&project);
    assert_eq!(changed["normalize-part"], 1, "{changed:?}");
    assert_eq!(changed["dedupe-sign"], 1, "{changed:?}");
    fs::remove_file(project.path("corpus/talk-11.json")).unwrap();
    let removed = made(&project);
    assert!(!removed.contains_key("normalize-part"), "{removed:?}");
    assert!(!removed.contains_key("dedupe-sign"), "{removed:?}");

    let scratch = self::project(0);
    for file in fs::read_dir(project.path("corpus")).unwrap() {
        let name = format!("corpus/{}", file.unwrap().file_name().to_str().unwrap());
        scratch.write(&name, &project.read(&name));
    }
    made(&scratch);
    for stage in ["corpus", "talk", "clean", "shards", "base"] {
        assert_eq!(
            artifact(&project, stage),
            artifact(&scratch, stage),
            "{stage}"
        );
    }
}

#[test]
fn whoever_is_killed_the_parts_that_were_made_are_not_made_again() {
    let project = project(40);
    let mut run = project.start("run x.yaml --threads 2");
    wait_until("a part of normalize", || {
        let registry = project.path(".tinylm/registry.sqlite");
        registry.exists()
            && executions(&project)
                .get("normalize-part")
                .is_some_and(|n| *n > 3)
    });
    // One part after the other, until the run gives up.
    let status = loop {
        if let Some(status) = run.try_wait().unwrap() {
            break status;
        }
        for part in children_of(run.id()) {
            // It may have ended by itself.
            Command::new("kill")
                .args(["-KILL", &part.to_string()])
                .output()
                .unwrap();
        }
    };
    assert!(!status.success());

    let mut run = project.start("run x.yaml --threads 2");
    wait_until("a part of dedupe", || {
        executions(&project).contains_key("dedupe-sign")
    });
    signal(run.id(), "KILL");
    run.wait().unwrap();
    project.tinylm("run x.yaml").success();
    let total = executions(&project);
    for kind in [
        "download-part",
        "normalize-part",
        "dedupe-sign",
        "binarize-part",
    ] {
        assert_eq!(total[kind], 40, "{kind}: nothing twice, nothing missing");
    }
    project.tinylm("cache verify").success();
    let undisturbed = self::project(40);
    made(&undisturbed);
    assert_eq!(artifact(&project, "base"), artifact(&undisturbed, "base"));
}

#[test]
fn whoever_has_a_file_more_fetches_the_parts_that_a_teammate_made() {
    let shared = tempfile::tempdir().unwrap();
    let run = |project: &Project, mode: &str| {
        let mut command = project.command(&["run", "x.yaml", "--until", "clean"]);
        command
            .env(
                "TINYLM_REMOTE",
                format!("file://{}", shared.path().display()),
            )
            .env("TINYLM_REMOTE_MODE", mode);
        project.output(&mut command).success();
    };
    run(&project(8), "write");
    let theirs = project(8);
    write(&theirs, 8, 50);
    run(&theirs, "read");
    let made = executions(&theirs);
    for kind in [
        "download-part",
        "normalize-part",
        "dedupe-sign",
        "dedupe-filter",
    ] {
        assert_eq!(made[kind], 1, "{made:?}");
    }
}

#[test]
fn a_file_more_on_the_hub_costs_its_part_too() {
    let repo = "datasets/someone/talk";
    let hub = Hub::start();
    let name = |n: usize| format!("data/part-{n:02}.json");
    (0..6).for_each(|n| hub.file(repo, &name(n), list(n, 60).as_bytes(), n % 2 == 0));
    let project = project(1);
    let of_hub = PARTS.replace("path: corpus", "hub: someone/talk");
    project.write("x.yaml", &of_hub);
    let online = |project: &Project, line: &str| {
        let mut command = project.shell(&format!("exec tinylm {line}"));
        command.env_remove("TINYLM_OFFLINE");
        project
            .output(command.env("HF_ENDPOINT", hub.address()))
            .success()
    };
    online(&project, "run x.yaml");
    assert_eq!(executions(&project)["download-hub-part"], 6);

    hub.file(repo, &name(6), list(6, 50).as_bytes(), false);
    hub.commit(repo, &"e".repeat(40));
    online(&project, "update x.yaml");
    online(&project, "run x.yaml");
    let after = executions(&project);
    assert_eq!(after["download-hub-part"], 7);
    assert_eq!(after["normalize-part"], 7);
    let asked = |n: usize| hub.ranges(&name(n)).len();
    assert_eq!((0..7).map(asked).collect::<Vec<_>>(), [1; 7]);

    let anew = Project::new();
    for file in ["x.yaml", "x.lock", "sample.jsonl"] {
        anew.write(file, &project.read(file));
    }
    online(&anew, "run x.yaml");
    for stage in ["corpus", "talk", "clean", "shards", "base"] {
        assert_eq!(artifact(&project, stage), artifact(&anew, stage), "{stage}");
    }
}
