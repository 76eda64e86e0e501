//! The parts of a stage as tasks of an array job.

use std::{collections::BTreeSet, fs, path::Path};

use rustix::process::Signal;

use crate::{
    lab::{breakable, kill, lab, wait_for},
    project::{LOST_ANSWER, Project},
};

const PARTS: &str = "
stages:
  corpus: { kind: download, with: { path: corpus } }
  talk: { kind: normalize, inputs: [corpus], with: { partition: 1KB } }
  clean: { kind: dedupe, inputs: [talk], with: { method: minhash, partition: 1KB } }
";
const N_FILES: usize = 12;

fn with_files(project: Project) -> Project {
    with_rows(project, 40)
}

fn with_rows(project: Project, n_rows: usize) -> Project {
    for file in 0..N_FILES {
        let row = |row: usize| {
            let of = if row.is_multiple_of(7) { 0 } else { file };
            format!(
                "{{\"prompt\": \"what is {row} of {of}\", \"response\": \"it is {} and {}\"}}\n",
                row * of,
                row + of
            )
        };
        let rows: String = (0..n_rows).map(row).collect();
        project.write(&format!("corpus/talk-{file:02}.jsonl"), &rows);
    }
    project
}

/// The artifacts of the two stages in parts when nothing happens to them, on this machine.
fn undisturbed(lab: &crate::lab::Lab) -> [String; 2] {
    let here = with_files(Project::new(lab, PARTS));
    here.tinylm("run x.yaml").success();
    ["talk", "clean"].map(|stage| here.artifact(stage))
}

/// The jobs of the parts of a stage, without the tasks.
fn arrays(project: &Project, stage: &str) -> Vec<String> {
    let of_stage = project
        .executions()
        .into_iter()
        .filter(|(name, status, _)| name.starts_with(&format!("{stage}/")) && status == "done");
    of_stage
        .map(|(name, _, place)| {
            let job = place.split(' ').nth(1).unwrap_or_default().to_owned();
            let (array, task) = job
                .split_once('_')
                .unwrap_or_else(|| panic!("{name}: `{place}`"));
            assert!(task.parse::<usize>().is_ok(), "{place}");
            array.to_owned()
        })
        .collect()
}

/// How many parts of `talk` have a record.
fn n_made(project: &Project) -> usize {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let folders: Vec<_> = entries(&project.path(".tinylm/store/keys")).collect();
    let records = folders.iter().flat_map(|folder| entries(&folder.path()));
    let text = records.map(|record| fs::read_to_string(record.path()).unwrap_or_default());
    text.filter(|text| text.contains("\"stage\": \"talk/"))
        .count()
}

#[test]
fn parts_are_tasks_of_one_job_and_make_the_same_bytes() {
    let Some(lab) = lab() else { return };
    let there = with_files(Project::new(lab, PARTS));
    there.tinylm("run x.yaml --executor slurm").success();
    let made = ["talk", "clean"].map(|stage| there.artifact(stage));
    assert_eq!(made, undisturbed(lab));
    let jobs = arrays(&there, "talk");
    assert_eq!(jobs.len(), N_FILES);
    assert_eq!(jobs.iter().collect::<BTreeSet<_>>().len(), 1, "{jobs:?}");
    let left = fs::read_dir(there.path(".tinylm/pools")).unwrap();
    assert_eq!(left.count(), 0, "the lists of tasks go with them");
}

#[test]
fn a_driver_that_is_killed_leaves_its_array_at_work_and_nothing_is_made_twice() {
    let Some(lab) = lab() else { return };
    let project = with_files(Project::new(lab, PARTS));
    let mut driver = project.start("run x.yaml --executor slurm -j 1");
    wait_for("some parts", || n_made(&project) >= 3);
    let runs = project.tinylm("runs").success();
    assert!(
        runs.stdout.contains("talk: "),
        "it says what is at work:\n{}",
        runs.stdout
    );
    kill(driver.id(), Signal::KILL);
    driver.wait().unwrap();
    assert!(n_made(&project) < N_FILES, "it was killed in the middle");
    project.tinylm("resume @last").success();
    let of_talk = project.executions().into_iter();
    let of_talk = of_talk.filter(|(name, ..)| name.starts_with("talk/"));
    let status: Vec<String> = of_talk.map(|(_, status, _)| status).collect();
    assert_eq!(status, ["done"; N_FILES], "nothing twice, nothing missing");
    let made = ["talk", "clean"].map(|stage| project.artifact(stage));
    assert_eq!(made, undisturbed(lab));
}

#[test]
fn parts_are_found_where_machines_do_not_see_the_same_at_once() {
    let Some(lab) = lab() else { return };
    let Some(project) = Project::shared(lab, PARTS) else {
        return;
    };
    let project = with_files(project);
    project.tinylm("run x.yaml --executor slurm").success();
    let made = ["talk", "clean"].map(|stage| project.artifact(stage));
    assert_eq!(made, undisturbed(lab));
}

#[test]
fn an_answer_of_sbatch_that_is_lost_costs_an_array_nothing() {
    let Some(lab) = lab() else { return };
    let project = with_files(Project::new(lab, PARTS));
    let path = project.instead_of_sbatch(LOST_ANSWER);
    let mut run = project.command("run x.yaml --executor slurm --until talk");
    let output = run.env("PATH", path).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let jobs: BTreeSet<String> = arrays(&project, "talk").into_iter().collect();
    assert_eq!(jobs.len(), 1, "submitted once: {jobs:?}");
    assert_eq!(project.artifact("talk"), undisturbed(lab)[0]);
}

#[test]
fn a_task_that_is_preempted_is_made_when_its_turn_comes_again_and_the_others_are_not() {
    let Some((lab, _alone)) = breakable() else {
        return;
    };
    // Long enough to be met at work.
    let project = || with_rows(Project::new(lab, PARTS), 100_000);
    let here = project();
    here.tinylm("run x.yaml --until talk").success();
    let project = project();
    let mut driver = project.start("run x.yaml --executor slurm --until talk");
    let mut held = None;
    wait_for("a task at work", || {
        held = lab.part_at_work();
        held.iter()
            .for_each(|(stage, _)| kill(*stage, Signal::STOP));
        held.is_some()
    });
    let (stage, task) = held.unwrap();
    let urgent = [
        "--partition=urgent",
        "--nodes=3",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=sleep 1",
    ];
    lab.slurm("sbatch", &urgent);
    let says = |words: &str| {
        lab.slurm("scontrol", &["show", "job", &task])
            .contains(words)
    };
    wait_for("another job's turn", || {
        says("PreemptTime=") && !says("PreemptTime=None")
    });
    kill(stage, Signal::CONT);
    wait_for("its second turn", || says("Restarts=1 "));
    assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    let of_talk = project.executions().into_iter();
    let of_talk = of_talk.filter(|(name, ..)| name.starts_with("talk/"));
    let (status, places): (Vec<_>, Vec<_>) =
        of_talk.map(|(_, status, place)| (status, place)).unzip();
    assert_eq!(status, ["done"; N_FILES], "nothing twice, nothing missing");
    assert!(
        places.iter().any(|place| place.contains(&task)),
        "{task}: {places:?}"
    );
    assert_eq!(project.artifact("talk"), here.artifact("talk"));
}
