//! A home that several machines share: who is at work there, seen from one that cannot see them.

use std::thread;

use crate::harness::{Project, signal, wait_until};

/// The claim of a process on another machine.
fn foreign(note: &str) -> String {
    format!(
        r#"{{"note":"{note}","nonce":"n","host":"node7","machine":"m","boot":"b","space":"s","pid":7,"started":7}}"#
    )
}

/// The key of the first stage of a project that has made nothing.
fn first_key(project: &Project) -> String {
    let plan = project.tinylm("plan chain.yaml --json").success().stdout;
    let key = plan.split("\"key\":").nth(1).unwrap();
    key.split('"').nth(1).unwrap().to_owned()
}

/// The folder of a job of a cluster, as its driver leaves it when it dies.
fn job_of_a_cluster(project: &Project, key: &str) -> String {
    let folder = format!(".tinylm/work/{key}/0199-a");
    project.write(&format!("{folder}/job.json"), "{}");
    let submission = r#"{"number":1,"resources":{}}"#;
    project.write(&format!("{folder}/submission-1.json"), submission);
    project.write(&format!("{folder}/submission-1.id"), "4711");
    folder
}

#[test]
fn gc_refuses_while_a_job_of_a_cluster_may_be_at_work_until_it_is_said_to_be_gone() {
    let project = Project::chain();
    let folder = job_of_a_cluster(&project, &"0a".repeat(32));
    project.tinylm("run chain.yaml").success();
    project.tinylm("rm @last").success();
    let made = |project: &Project| {
        project
            .path(".tinylm/store/artifacts")
            .read_dir()
            .unwrap()
            .count()
    };
    let before = made(&project);
    let refused = project.tinylm("gc").failure(2);
    let said = "a job of a cluster may be at work in `";
    assert!(refused.stderr.contains(said), "{refused}");
    assert!(refused.stderr.contains(&format!("{folder}`")), "{refused}");
    assert!(
        refused.stderr.contains("tinylm gc --abandoned"),
        "{refused}"
    );
    assert_eq!(made(&project), before, "nothing was taken");
    assert!(project.path(&folder).join("job.json").exists());
    let freed = project.tinylm("gc --abandoned").success();
    assert_eq!(freed.stdout.matches("artifact ").count(), 3, "{freed}");
    assert!(!project.path(&folder).exists());
}

#[test]
fn nothing_is_started_here_on_a_key_that_a_job_of_a_cluster_may_be_making() {
    let project = Project::chain();
    let folder = job_of_a_cluster(&project, &first_key(&project));
    let refused = project.tinylm("run chain.yaml").failure(1);
    assert!(
        refused
            .stderr
            .contains("the Slurm job 4711 may be at work on it"),
        "{refused}"
    );
    assert!(refused.stderr.contains("`--executor slurm`"), "{refused}");
    assert!(
        project.path(&folder).join("job.json").exists(),
        "it is left to who can ask"
    );
    assert!(
        project.outcomes().starts_with("corpus failed"),
        "{}",
        project.outcomes()
    );
    // It has said its last word, and what it says is that nothing came of it.
    let last =
        r#"{"ended":{"last":"out_of_time","usage":{"cpu_seconds":0.0,"peak_memory_bytes":0}}}"#;
    project.write(&format!("{folder}/reports/0001-0000-0000000.jsonl"), last);
    project.tinylm("run chain.yaml").success();
    assert_eq!(project.outcomes(), "corpus made, sorted made, first made");
}

#[test]
fn gc_refuses_while_another_machine_may_be_at_work_until_it_is_said_to_be_gone() {
    let project = Project::chain();
    project.tinylm("run chain.yaml").success();
    project.write(".tinylm/locks/runs/r.json", &foreign("run calm-fox-0001"));
    let refused = project.tinylm("gc").failure(2);
    assert!(
        refused
            .stderr
            .contains("run calm-fox-0001 on node7 may be at work"),
        "{refused}"
    );
    assert!(
        refused.stderr.contains("tinylm gc --abandoned"),
        "{refused}"
    );
    project.tinylm("gc --abandoned").success();
    project.tinylm("gc").success();
    project.tinylm("run chain.yaml").success();
    assert_eq!(project.outcomes(), "corpus hit, sorted hit, first hit");
}

#[test]
fn a_key_that_another_machine_makes_is_waited_for_and_named() {
    let project = Project::chain();
    let key = first_key(&project);
    let claim = format!(".tinylm/work/{key}/claim.json");
    project.write(&claim, &foreign("`corpus` of run calm-fox-0001"));
    let child = project.start_saying("run chain.yaml", "log");
    project.wait_for_words(
        "log",
        "corpus: waiting for `corpus` of run calm-fox-0001 on node7",
    );
    // Whoever looks at the run from elsewhere sees it too.
    let waits = "waiting for `corpus` of run calm-fox-0001 on node7";
    let show = project.tinylm("show @last/corpus").success();
    assert!(show.stdout.contains(&format!("pending  {waits}")), "{show}");
    let watched = std::fs::File::create(project.path("watched")).unwrap();
    let watching = project.command(&["watch"]).stdout(watched).spawn().unwrap();
    project.wait_for_words("watched", &format!("corpus: {waits}"));
    // It lets go.
    std::fs::remove_file(project.path(&claim)).unwrap();
    project.wait(watching).success();
    project.wait(child).success();
    assert_eq!(project.outcomes(), "corpus made, sorted made, first made");
    assert!(
        !project.path(".tinylm/work").join(&key).exists(),
        "its own claim is gone too"
    );
}

#[test]
fn a_killed_process_leaves_no_claim_that_anybody_waits_for() {
    let project = Project::chain();
    project.replace("chain.yaml", "sort '", "sleep 60; sort '");
    let child = project.start("run chain.yaml");
    let holds = || {
        let work = std::fs::read_dir(project.path(".tinylm/work"))
            .into_iter()
            .flatten()
            .flatten();
        work.into_iter()
            .any(|key| key.path().join("claim.json").exists())
    };
    wait_until("the claim", || {
        project.path(".tinylm/work").is_dir() && holds()
    });
    thread::sleep(std::time::Duration::from_millis(300));
    signal(child.id(), "KILL");
    project.wait(child).failure(-9);
    project.replace("chain.yaml", "sleep 60; sort '", "sort '");
    project.tinylm("run chain.yaml").success();
    project.tinylm("gc").success();
}

/// A command given on a machine of this name, whose registry is on its own disk.
fn on(project: &Project, machine: &str, line: &str) -> crate::harness::Output {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut command = project.command(&words);
    command.env("TINYLM_INDEX", project.path(machine));
    project.output(&mut command)
}

#[test]
fn two_machines_that_share_a_home_have_one_history() {
    let project = Project::chain();
    project.write(".tinylm/shared", "");
    on(&project, "here", "run chain.yaml").success();
    assert!(
        !project.path(".tinylm/registry.sqlite").exists(),
        "each machine has its own"
    );
    let there = on(&project, "there", "run chain.yaml").success();
    assert!(there.stdout.contains("3 hit"), "{there}");
    on(&project, "there", "tag @last good").success();
    let here = on(&project, "here", "runs").success();
    assert!(here.stdout.contains("good"), "{here}");
    assert_eq!(here.stdout, on(&project, "there", "runs").success().stdout);
    // What one removes, both have removed, and `gc` on either knows what the other needs.
    project.replace("chain.yaml", "sort '", "sort -r '");
    on(&project, "here", "run chain.yaml").success();
    on(&project, "there", "rm @last").success();
    let gc = on(&project, "here", "gc").success();
    assert!(gc.stdout.contains("artifact"), "{gc}");
    assert_eq!(on(&project, "here", "runs").success().stdout, here.stdout);
    let doctor = on(&project, "there", "doctor").success();
    assert!(
        doctor.stdout.contains("shared with other machines"),
        "{doctor}"
    );
}

#[test]
fn a_run_is_followed_and_stopped_from_another_machine() {
    let project = Project::chain();
    project.write(".tinylm/shared", "");
    project.replace(
        "chain.yaml",
        "sort '",
        "echo begun > '{out}/begun'; sleep 60; sort '",
    );
    let mut command = project.command(&["run", "chain.yaml"]);
    command.env("TINYLM_INDEX", project.path("here"));
    let mut run = command.spawn().unwrap();
    wait_until("the run to be seen from there", || {
        let show = on(&project, "there", "show @last");
        show.stdout.contains("running") && show.stdout.contains("sorted")
    });
    on(&project, "there", "stop @last").success();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let show = on(&project, "there", "show @last").success();
    assert!(show.stdout.contains("cancelled"), "{show}");
}
