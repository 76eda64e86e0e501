//! Trainings that several processes share: any number of them makes the same bytes, whatever befalls
//! one of them.

use std::{fs, path::Path, process::Child};

use crate::harness::{Project, children_of, signal, wait_until};

const SHARED: &str = "
name: shared
stages:
  corpus: { kind: download, with: { path: corpus.txt } }
  chat: { kind: normalize, inputs: { sources: corpus }, with: { format: lines } }
  tokens: { kind: tokenizer, inputs: { documents: chat }, with: { vocab_size: 300 } }
  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens }, with: { validation: 0.2 } }
  base:
    kind: pretrain
    inputs: { shards: shards }
    with:
      model: { preset: mini, context: 48, d_model: 32, n_layers: 2, n_heads: 2 }
      train: { batch: 8, steps: STEPS, lr: 0.003, validate_every: 100, leaves: 8, dropout: 0.1 }
    watch: { log_every: 1, checkpoint_every: 10 }
    resources: { ranks: 1 }
";

fn project(n_steps: u32) -> Project {
    let project = Project::new();
    project.write("x.yaml", &SHARED.replace("STEPS", &n_steps.to_string()));
    let lines = (0..900).map(|n| format!("the {n}th line says {} and {}\n", n * 7 % 13, n % 5));
    project.write("corpus.txt", &lines.collect::<String>());
    project
}

fn share_among(project: &Project, n_ranks: usize) {
    let text = project.read("x.yaml");
    let (before, _) = text.split_once("ranks: ").unwrap();
    project.write("x.yaml", &format!("{before}ranks: {n_ranks} }}\n"));
}

/// The weights that came out, by their digest.
fn made(project: &Project) -> String {
    let files = project.artifact_folder("base");
    let names: Vec<_> = files.components().rev().skip(1).take(2).collect();
    format!("{names:?}")
}

/// The processes that follow, once so many share the work.
fn followers(run: &Child, n: usize) -> Vec<u32> {
    let found = || -> Vec<u32> {
        let stages = children_of(run.id());
        stages.into_iter().flat_map(children_of).collect()
    };
    wait_until("those that follow", || found().len() == n);
    found()
}

fn has_checkpoint(project: &Project) -> bool {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let work = project.path(".tinylm/work");
    let saved = entries(&work).map(|key| key.path().join("checkpoints"));
    let saved: Vec<_> = saved.collect();
    saved
        .iter()
        .flat_map(|folder| entries(folder))
        .any(|one| one.file_name().to_string_lossy().starts_with("step-"))
}

/// A training of three processes that is under way, and what an undisturbed one comes to.
fn under_way() -> (Project, Child, Vec<u32>, String) {
    let alone = project(400);
    alone.tinylm("run x.yaml").success();
    let undisturbed = made(&alone);
    let project = project(400);
    share_among(&project, 3);
    let run = project.start_saying("run x.yaml -v", "log");
    project.wait_for_words("log", "3 processes share the work");
    wait_until("a checkpoint", || has_checkpoint(&project));
    let followers = followers(&run, 2);
    (project, run, followers, undisturbed)
}

#[test]
fn one_two_three_four_and_eight_processes_make_the_same_bytes_and_a_hit_for_each_other() {
    let project = project(60);
    project.tinylm("run x.yaml").success();
    let alone = made(&project);
    for n_ranks in [2, 3, 4, 8] {
        share_among(&project, n_ranks);
        let again = project.tinylm("run x.yaml").success();
        assert!(
            again.stdout.contains("5 hit"),
            "not a part of the key: {again}"
        );
        let run = project.tinylm("run x.yaml --force base -v").success();
        let told = format!("{n_ranks} processes share the work");
        assert!(run.stderr.contains(&told), "{run}");
        assert_eq!(made(&project), alone);
    }
}

#[test]
fn a_process_that_is_killed_costs_a_step_and_no_byte() {
    let (project, run, followers, undisturbed) = under_way();
    signal(followers[1], "KILL");
    project.wait(run).success();
    let log = project.read("log");
    assert!(log.contains("is gone; step"), "{log}");
    assert_eq!(
        log.matches("3 processes share the work").count(),
        2,
        "{log}"
    );
    assert_eq!(made(&project), undisturbed);
}

#[test]
fn a_process_that_says_nothing_is_given_up() {
    let (project, run, followers, undisturbed) = under_way();
    signal(followers[0], "STOP");
    project.wait(run).success();
    let log = project.read("log");
    assert!(log.contains("says nothing any more; step"), "{log}");
    assert_eq!(made(&project), undisturbed);
}

#[test]
fn when_the_one_that_decides_dies_the_others_end_and_fewer_go_on_from_its_checkpoint() {
    let (project, mut run, followers, undisturbed) = under_way();
    let stage = children_of(run.id())[0];
    // One of the others is stuck, and the rest may wait for it.
    signal(followers[0], "STOP");
    signal(stage, "KILL");
    assert_eq!(run.wait().unwrap().code(), Some(1));
    wait_until("the others to end", || {
        followers
            .iter()
            .all(|pid| !fs::exists(format!("/proc/{pid}")).unwrap())
    });
    share_among(&project, 2);
    let resumed = project.tinylm("run x.yaml -v").success();
    assert!(resumed.stderr.contains("going on from step"), "{resumed}");
    assert_eq!(made(&project), undisturbed);
}

#[test]
fn a_training_whose_steps_are_whole_cannot_be_shared() {
    let project = project(10);
    project.replace("x.yaml", ", leaves: 8", "");
    share_among(&project, 2);
    let run = project.tinylm("run x.yaml").failure(1);
    assert!(
        run.stderr
            .contains("2 processes are to share a training whose steps are whole"),
        "{run}"
    );
    assert!(run.stderr.contains("`train: { leaves: 8 }`"), "{run}");
}
