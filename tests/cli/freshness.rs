//! Which stages run again after an edit.

use std::fs;

use insta::assert_snapshot;

use crate::harness::Project;

fn run(project: &Project) -> String {
    project.tinylm("run chain.yaml").success();
    project.outcomes()
}

#[test]
fn a_second_run_has_nothing_to_do_and_says_who_did_it() {
    let project = Project::chain();
    assert_eq!(run(&project), "corpus made, sorted made, first made");
    assert_eq!(project.artifact("first", "first.txt"), "apple\n");
    let first = project.last_run("name");
    let again = project.tinylm("run chain.yaml").success();
    assert!(again.stdout.contains(&format!("from {first}")), "{again}");
    assert_eq!(project.outcomes(), "corpus hit, sorted hit, first hit");
}

#[test]
fn changing_a_setting_reruns_that_stage_and_what_reads_it() {
    let project = Project::chain();
    run(&project);
    project.replace("chain.yaml", "first.txt'\"", "first.txt' \"");
    project.replace("chain.yaml", "[sorted.txt]", "[sorted.txt, sorted.txt]");
    let plan = project.tinylm("plan chain.yaml").success();
    assert_snapshot!(plan, @r#"
    fresh    corpus
    dirty    sorted  `outputs.1` is new: sorted.txt
    pending  first   `run.2` was "head -n 1 '{in.sorted}/sorted.txt' > '{out}/first.txt'", is now "head -n 1 '{in.sorted}/sorted.txt' > '{out}/first.txt' "
                     reads `sorted`
    `tinylm run chain.yaml` would run 1 stage, then at most 1 that reads it.
    "#);
    assert_eq!(run(&project), "corpus hit, sorted made, first made");
}

#[test]
fn reverting_a_setting_is_an_instant_hit() {
    let project = Project::chain();
    run(&project);
    project.replace("chain.yaml", "sort '", "sort -r '");
    assert_eq!(run(&project), "corpus hit, sorted made, first made");
    assert_eq!(project.artifact("first", "first.txt"), "cherry\n");
    project.replace("chain.yaml", "sort -r '", "sort '");
    assert_eq!(run(&project), "corpus hit, sorted hit, first hit");
    assert_eq!(project.artifact("first", "first.txt"), "apple\n");
}

#[test]
fn comments_order_spelled_out_defaults_and_names_change_nothing() {
    let project = Project::chain();
    let before = "name: chain
stages:
  corpus: { kind: download, with: { path: corpus.txt } }
  sorted:
    kind: command
    inputs: { text: corpus }
    with: { run: [cp, '{in.text}/corpus.txt', '{out}/sorted.txt'], outputs: [sorted.txt] }
";
    project.write("chain.yaml", before);
    run(&project);
    project.write(
        "chain.yaml",
        "# Another comment.
name: chain
seed: 1337
stages:
  ordered:
    inputs: { text: [book] }
    with:
      files: []
      outputs: [sorted.txt]
      run: [cp, '{in.text}/corpus.txt', '{out}/sorted.txt']
    kind: command
  book: { with: { path: ./corpus.txt }, kind: download }
",
    );
    assert_eq!(run(&project), "book hit, ordered hit");
}

/// Two homes, so that nothing is a hit: a name that is in no key must leave no trace in what is made.
#[test]
fn other_names_for_the_stages_make_the_same_bytes() {
    let made = |rename: &dyn Fn(&str) -> String| {
        let project = Project::new();
        project.write("a.jsonl", "{\"prompt\": \"hi\", \"response\": \"ho\"}\n");
        project.write("b.txt", "User: how are you?\nAssistant: fine\n");
        let text = "name: names
stages:
  ONE:    { kind: download,  with: { path: a.jsonl } }
  TWO:    { kind: download,  with: { path: b.txt } }
  BOTH:   { kind: normalize, inputs: [ONE, TWO] }
  SECOND:  { kind: normalize, inputs: [TWO] }
  KEPT:   { kind: dedupe,    inputs: [BOTH, SECOND], with: { method: minhash } }
  WORDS:  { kind: tokenizer, inputs: [KEPT, SECOND], with: { vocab_size: 270, min_frequency: 1 } }
  SHARDS: { kind: binarize,  inputs: { documents: [KEPT, SECOND], validation: SECOND, tokenizer: WORDS } }
";
        let names = ["ONE", "TWO", "BOTH", "SECOND", "KEPT", "WORDS", "SHARDS"];
        let renamed = names.iter().fold(text.to_owned(), |text, name| {
            text.replace(name, &rename(name))
        });
        project.write("names.yaml", &renamed);
        project.tinylm("run names.yaml").success();
        let digests = names.map(|name| {
            let folder = project.artifact_folder(&rename(name));
            let parts: Vec<_> = folder.iter().rev().take(2).collect();
            format!("{name} {parts:?}")
        });
        let shards = project.artifact(&rename("SHARDS"), "shards.json");
        let shards: serde_json::Value = serde_json::from_str(&shards).unwrap();
        (digests, shards["sources"].to_string())
    };
    let (before, sources) = made(&str::to_lowercase);
    let (after, _) = made(&|name| format!("other_{}", name.to_lowercase()));
    assert_eq!(before, after);
    assert_eq!(sources, r#"["1/1/1/a","1/1/2/b","2/b","b"]"#);
}

#[test]
fn an_input_counts_by_its_contents_and_not_by_who_wrote_it() {
    let project = Project::chain();
    run(&project);
    project.write("corpus.txt", "banana\ncherry\napple\n");
    // `sorted` runs again and writes the same bytes, so `first` is cut off early.
    assert_eq!(run(&project), "corpus made, sorted made, first hit");
}

#[test]
fn touching_a_file_changes_nothing_and_changed_bytes_behind_an_old_time_are_seen() {
    let project = Project::chain();
    run(&project);
    let corpus = project.path("corpus.txt");
    let modified = fs::metadata(&corpus).unwrap().modified().unwrap();
    project.write("corpus.txt", "cherry\napple\nbanana\n");
    assert_eq!(run(&project), "corpus hit, sorted hit, first hit");

    project.write("corpus.txt", "cherry\nabble\nbanana\n");
    let file = fs::File::options().write(true).open(&corpus).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(run(&project), "corpus made, sorted made, first made");
    assert_eq!(project.artifact("first", "first.txt"), "abble\n");
}

#[test]
fn another_place_and_other_threads_have_the_same_keys_and_bytes() {
    let plan = |project: &Project, args: &str, file: &str| {
        project.tinylm(&format!("run {file} {args}")).success();
        let plan = project.tinylm(&format!("plan {file} --json")).success();
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        let stages = plan.as_array().unwrap().iter();
        let names = ["stage", "key", "artifact", "state"];
        stages
            .map(|stage| names.map(|name| stage[name].to_string()).join(" "))
            .collect::<Vec<_>>()
    };
    let here = plan(&Project::chain(), "-j 1 --threads 1", "chain.yaml");
    let there = Project::chain();
    let deep = there.path("deep/er");
    fs::create_dir_all(&deep).unwrap();
    for name in ["chain.yaml", "corpus.txt"] {
        fs::rename(there.path(name), deep.join(name)).unwrap();
    }
    assert_eq!(here, plan(&there, "-j 3 --threads 5", "deep/er/chain.yaml"));
    assert!(
        here.iter().all(|stage| stage.ends_with("\"fresh\"")),
        "{here:?}"
    );
}

#[test]
fn a_file_that_uses_or_extends_another_hits_what_the_two_share() {
    let project = Project::chain();
    run(&project);
    project.write(
        "more/other.yaml",
        "use: { small: ../chain.yaml }
vars: { n: 2 }
stages:
  tail:
    kind: command
    inputs: { text: small.sorted }
    with: { run: [sh, -c, \"tail -n ${n} '{in.text}/sorted.txt' > '{out}/x'\"], outputs: [x] }
",
    );
    project.tinylm("run more/other.yaml").success();
    let outcomes = "small.corpus hit, small.sorted hit, tail made";
    assert_eq!(project.outcomes(), outcomes);
    assert_eq!(project.artifact("tail", "x"), "banana\ncherry\n");
    project.tinylm("run more/other.yaml -S vars.n=1").success();
    assert_eq!(project.outcomes(), outcomes);
    assert_eq!(project.artifact("tail", "x"), "cherry\n");

    let run_of_first = "[sh, -c, \"tail -n 1 '{in.sorted}/sorted.txt' > '{out}/first.txt'\"]";
    let text = format!(
        "extends: chain.yaml\nstages: {{ first: {{ with: {{ run: {run_of_first} }} }} }}\n"
    );
    project.write("last.yaml", &text);
    project.tinylm("run last.yaml").success();
    assert_eq!(project.outcomes(), "corpus hit, sorted hit, first made");
    assert_eq!(project.artifact("first", "first.txt"), "cherry\n");
}

#[test]
fn a_lost_registry_retrains_nothing_and_is_read_from_the_journals_again() {
    let project = Project::chain();
    run(&project);
    project.tinylm("tag @last kept").success();
    let shown = project.tinylm("show @last").success();
    let report = project.tinylm("report @last --json").success();
    for file in [
        "registry.sqlite",
        "registry.sqlite-wal",
        "registry.sqlite-shm",
    ] {
        fs::remove_file(project.path(".tinylm").join(file)).ok();
    }
    assert_eq!(project.tinylm("show @last").success().stdout, shown.stdout);
    assert_eq!(
        project.tinylm("report @last --json").success().stdout,
        report.stdout
    );
    assert_eq!(run(&project), "corpus hit, sorted hit, first hit");
}

#[test]
fn force_until_and_dry_run_do_what_they_say() {
    let project = Project::chain();
    let dry = project.tinylm("run chain.yaml --dry-run").success();
    assert!(dry.stdout.contains("would run 1 stage"), "{dry}");
    assert!(
        !project.path(".tinylm").exists(),
        "a dry run writes nothing"
    );
    project.tinylm("run chain.yaml --until sorted").success();
    assert_eq!(project.outcomes(), "corpus made, sorted made");
    project.tinylm("run chain.yaml --force sorted").success();
    assert_eq!(project.outcomes(), "corpus hit, sorted made, first made");
}

#[test]
fn a_sweep_is_a_run_for_each_value_that_shares_what_it_can() {
    let project = Project::chain();
    project.write(
        "chain.yaml",
        "name: chain
stages:
  corpus: { kind: download, with: { path: corpus.txt } }
  sorted:
    kind: command
    inputs: { text: corpus }
    with: { run: [cp, '{in.text}/corpus.txt', '{out}/a.txt'], outputs: [a.txt] }
",
    );
    run(&project);
    let wrong = ["run", "chain.yaml", "-S", "sorted.outputs=[../a.txt]"];
    let output = project.tinylm_words(&wrong).failure(2);
    assert!(output.stderr.contains("../a.txt"), "{output}");
    let sweep = "sorted.run=[cp,'{in.text}/corpus.txt','{out}/a.txt'],[cp,-r,'{in.text}/corpus.txt','{out}/a.txt']";
    let output = project
        .tinylm_words(&["run", "chain.yaml", "--sweep", sweep])
        .success();
    assert!(output.stdout.contains("2 of 2"), "{output}");
    assert_eq!(project.outcomes(), "corpus hit, sorted made");
    let runs = project.tinylm("runs --json").success();
    let runs: serde_json::Value = serde_json::from_str(&runs.stdout).unwrap();
    let runs = runs.as_array().unwrap();
    let sweeps: Vec<&serde_json::Value> = runs.iter().map(|run| &run["sweep"]).collect();
    assert_eq!(sweeps.len(), 3);
    assert_eq!(
        sweeps[0], sweeps[1],
        "the runs of one sweep know each other"
    );
    assert!(sweeps[2].is_null() && !sweeps[0].is_null());
}
