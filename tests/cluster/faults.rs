//! The bad days: nodes that are lost, jobs that are queued again, a controller that is away.

use std::{
    process::Child,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    lab::{Lab, breakable, hold_still, kill, lab, wait_for},
    project::{LOST_ANSWER, Project, TRAINING, undisturbed},
};

/// The scheduler's number of the job that trains.
pub(crate) fn job_of_base(project: &Project) -> String {
    let place = || {
        let executions = project.executions().into_iter();
        let mut bases = executions.filter(|(stage, ..)| stage == "base");
        bases
            .next()
            .map(|(_, _, place)| place)
            .filter(|place| place.contains(" on n"))
    };
    wait_for("the training's job", || place().is_some());
    place()
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .to_owned()
}

/// What a training is interrupted with, and the words that it goes on with.
fn goes_on_after(lab: &Lab, interrupt: impl FnOnce(&str)) {
    let project = Project::new(lab, TRAINING);
    let mut driver = project.start("run x.yaml --executor slurm -v");
    project.wait_for_a_checkpoint();
    interrupt(&job_of_base(&project));
    assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    let log = project.read("log");
    assert!(log.contains("going on from step"), "{log}");
    assert_eq!(project.artifact("base"), undisturbed(lab));
    let executions = project.executions().into_iter();
    assert_eq!(executions.filter(|(stage, ..)| stage == "base").count(), 1);
}

#[test]
fn a_job_that_is_queued_again_in_mid_training_goes_on_to_the_same_bytes() {
    let Some(lab) = lab() else { return };
    goes_on_after(lab, |job| drop(lab.slurm("scontrol", &["requeue", job])));
}

#[test]
fn a_training_whose_time_is_nearly_up_saves_and_queues_itself_again() {
    let Some(lab) = lab() else { return };
    // The signal that `--signal` would send, without the half minute before it.
    goes_on_after(lab, |job| {
        drop(lab.slurm("scancel", &["--signal=USR1", "--batch", job]))
    });
}

#[test]
fn a_training_whose_time_is_up_while_it_saves_goes_on_from_what_it_had_saved() {
    let Some(lab) = lab() else { return };
    let often = TRAINING.replace("checkpoint_every: 20", "checkpoint_every: 1");
    let project = Project::new(
        lab,
        &format!(
            "{}    resources: {{ time: 1m }}\n",
            often.trim_end_matches(' ')
        ),
    );
    let mut driver = project.start("run x.yaml --executor slurm -v");
    project.wait_for_a_checkpoint();
    let job = job_of_base(&project);
    let stage = lab.stage_of(&job).expect("the stage's process");
    // As on a disk that hangs: it neither ends what it writes nor hears that its time is nearly up.
    let is_amid = || {
        kill(stage, Signal::STOP);
        let is_amid = project
            .checkpoints()
            .iter()
            .any(|name| name.starts_with("writing-"));
        if !is_amid {
            kill(stage, Signal::CONT);
        }
        is_amid
    };
    wait_for("a checkpoint that is being written", is_amid);
    lab.slurm(
        "scontrol",
        &["update", &format!("JobId={job}"), "EndTime=now+5"],
    );
    // Slurm wakes what it ends.
    hold_still(stage);
    assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    let log = project.read("log");
    for words in [
        "its time was up; submitted again from its last checkpoint",
        "going on from step",
    ] {
        assert!(log.contains(words), "`{words}`: {log}");
    }
    assert_eq!(project.artifact("base"), undisturbed(lab));
}

#[test]
fn a_training_that_is_preempted_goes_on_when_its_turn_comes_again() {
    let Some((lab, _alone)) = breakable() else {
        return;
    };
    goes_on_after(lab, |_| {
        let urgent = [
            "--partition=urgent",
            "--nodes=3",
            "--exclusive",
            "--output=/dev/null",
            "--wrap=sleep 3",
        ];
        lab.slurm("sbatch", &urgent);
    });
}

#[test]
fn a_node_that_is_lost_in_mid_training_costs_no_more_than_since_the_last_checkpoint() {
    let Some((lab, _alone)) = breakable() else {
        return;
    };
    let mut lost = None;
    goes_on_after(lab, |job| {
        let node = lab.slurm("squeue", &["--noheader", "--format=%N", "--jobs", job]);
        lost = Some(lab.without_node(node.trim()));
    });
}

/// A driver whose stage works until there is a file `go`.
fn at_work(lab: &Lab) -> (Project<'_>, Child) {
    let project = Project::new(lab, "");
    let here = project.path("").display().to_string();
    let line = format!(
        "touch {here}started; while [ ! -f {here}go ]; do sleep 0.1; done; touch '{{out}}/x'"
    );
    let stage = format!(
        "stages: {{ slow: {{ kind: command, with: {{ outputs: [x], run: [sh, -c, \"{line}\"] }} }} }}\n"
    );
    project.write("x.yaml", &stage);
    let driver = project.start("run x.yaml --executor slurm");
    wait_for("the job", || project.path("started").exists());
    (project, driver)
}

#[test]
fn while_the_controller_is_away_a_job_works_on_and_the_run_waits() {
    let Some((lab, _alone)) = breakable() else {
        return;
    };
    let (project, mut driver) = at_work(lab);
    let away = lab.without_controller();
    project.wait_for_words("nobody knows at the moment whether it still runs");
    project.write("go", "");
    assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    drop(away);
    assert_eq!(project.executions().len(), 1);
}

#[test]
fn whoever_insists_is_not_kept_waiting_by_a_controller_that_is_away() {
    let Some((lab, _alone)) = breakable() else {
        return;
    };
    let (project, mut driver) = at_work(lab);
    let _away = lab.without_controller();
    kill(driver.id(), Signal::INT);
    project.wait_for_words("stopping at the next safe point");
    kill(driver.id(), Signal::INT);
    let code = driver.wait().unwrap().code();
    assert_eq!(code, Some(130), "{}", project.read("log"));
}

#[test]
fn a_job_that_waits_in_the_queue_does_not_keep_whoever_stops_the_run() {
    let Some(lab) = lab() else { return };
    for resources in ["", ", resources: { cpus: 1 }"] {
        let project = Project::new(lab, "");
        let stage = format!(
            "kind: command, with: {{ outputs: [x], run: [touch, '{{out}}/x'] }}{resources}"
        );
        project.write("x.yaml", &format!("stages: {{ a: {{ {stage} }} }}\n"));
        let site = project.read(".tinylm/site.yaml");
        project.write(
            ".tinylm/site.yaml",
            &format!("{site}  options: [--begin=now+1hour]\n"),
        );
        let mut driver = project.start("run x.yaml --executor slurm");
        project.wait_for_words("waits in the queue");
        let log = project.read("log");
        let job = log.split("job ").nth(1).unwrap().split(' ').next().unwrap();
        let begun = Instant::now();
        kill(driver.id(), Signal::INT);
        assert_eq!(
            driver.wait().unwrap().code(),
            Some(130),
            "{}",
            project.read("log")
        );
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "`{resources}`: {:?}",
            begun.elapsed()
        );
        wait_for("an empty queue", || {
            !lab.slurm("squeue", &["--noheader", "--format=%A"])
                .lines()
                .any(|one| one == job)
        });
    }
}

#[test]
fn a_stage_that_dies_in_a_shared_job_fails_at_once_and_is_not_made_again() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, "");
    let counter = project.path("count").display().to_string();
    let line = format!("echo x >> {counter}; kill -9 $PPID; sleep 5");
    project.write(
        "x.yaml",
        &format!("stages: {{ a: {{ kind: command, with: {{ outputs: [x], run: [sh, -c, \"{line}\"] }} }} }}\n"),
    );
    let mut driver = project.start("run x.yaml --executor slurm");
    wait_for("its death", || project.path("count").exists());
    let begun = Instant::now();
    let status = driver.wait().unwrap();
    let told = project.read("log");
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains("killed by the system (signal 9)"), "{told}");
    assert!(
        begun.elapsed() < Duration::from_secs(45),
        "{:?}: it waited for the shared job",
        begun.elapsed()
    );
    assert_eq!(project.read("count"), "x\n");
}

#[test]
fn a_grandchild_that_the_kernel_kills_for_its_memory_is_no_success() {
    let Some(lab) = lab() else { return };
    let Some(node) = lab.confined() else { return };
    // The shell loses its child and goes on as if nothing were, to exit code 0.
    let hungry = "python3 -c 'x = bytearray(250 << 20); x[::4096] = b\"1\" * len(x[::4096])'";
    let stage = |memory: &str| {
        let line = format!("echo x >> '{{here}}count'; {hungry}; echo half > '{{out}}/x'");
        let run = serde_json::to_string(&["sh", "-c", &line]).unwrap();
        format!(
            "stages:\n  a:\n    kind: command\n    with: {{ run: {run}, outputs: [x] }}\n    resources: {{ memory: {memory} }}\n"
        )
    };
    let project = Project::new(lab, "");
    let here = project.path("").display().to_string();
    let site = project.read(".tinylm/site.yaml");
    project.write(
        ".tinylm/site.yaml",
        &format!("{site}  options: [--nodelist={node}]\n"),
    );
    project.write("x.yaml", &stage("100M").replace("{here}", &here));
    let told = project.tinylm("run x.yaml --executor slurm");
    assert_eq!(told.code, Some(1), "{}\n{}", told.stdout, told.stderr);
    for words in [
        "it ran out of memory (100M)",
        "a program that it started was killed for its memory",
        "resources: { memory:",
    ] {
        assert!(told.stderr.contains(words), "`{words}`: {}", told.stderr);
    }
    project.write("x.yaml", &stage("100M..400M").replace("{here}", &here));
    let told = project.tinylm("run x.yaml --executor slurm").success();
    let again = "it ran out of memory; submitted again with";
    assert_eq!(told.stderr.matches(again).count(), 2, "{}", told.stderr);
    assert_eq!(project.read("count"), "x\n".repeat(4));
}

#[test]
fn a_finished_job_that_is_queued_again_does_nothing_twice() {
    let Some(lab) = lab() else { return };
    // It says how often it ran outside of its outputs.
    let project = Project::new(lab, "stages: {}");
    let counter = project.path("count").display().to_string();
    let line = format!("echo x >> {counter}; touch '{{out}}/x'; sleep 1");
    let stage = |next: &str| {
        format!(
            "stages:\n  a: {{ kind: command, with: {{ run: [sh, -c, \"{line}\"], outputs: [x] }}, resources: {{ cpus: 1 }} }}\n  \
             b: {{ kind: command, inputs: {{ a: a }}, with: {{ run: [sh, -c, \"sleep {next}; touch '{{out}}/y'\"], outputs: [y] }} }}\n"
        )
    };
    project.write("x.yaml", &stage("6"));
    let mut driver = project.start("run x.yaml --executor slurm");
    project.wait_for_words("made     a");
    let jobs = lab.slurm("squeue", &["--noheader", "--states=all", "--format=%A %j"]);
    let of_a = jobs.lines().find(|line| line.contains(" a.")).expect(&jobs);
    let job = of_a.split(' ').next().unwrap();
    lab.slurm("scontrol", &["requeue", job]);
    // Looked for before anything else: the scheduler forgets a job soon after its end.
    let again = || {
        lab.slurm(
            "squeue",
            &[
                "--noheader",
                "--states=all",
                "--Format=RestartCnt:8,State:20",
                "--jobs",
                job,
            ],
        )
    };
    wait_for("the job's second start and end", || {
        let again = again();
        again.starts_with('1') && (again.contains("FAILED") || again.contains("COMPLETED"))
    });
    assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    assert_eq!(project.read("count"), "x\n");
}

/// A stage that says outside of its outputs that it ran.
pub(crate) fn counting(project: &Project) {
    let here = project.path("").display().to_string();
    let line = format!("echo x >> {here}count; sleep 2; touch '{{out}}/x'");
    let stage = format!(
        "stages:\n  a: {{ kind: command, with: {{ run: [sh, -c, \"{line}\"], outputs: [x] }}, resources: {{ cpus: 1 }} }}\n"
    );
    project.write("x.yaml", &stage);
}

#[test]
fn a_driver_that_dies_around_sbatch_neither_loses_a_job_nor_makes_two() {
    let Some(lab) = lab() else { return };
    let deaths = [
        ("before", "kill -9 $PPID; sleep 1"),
        ("during", "$REAL \"$@\" >/dev/null; kill -9 $PPID; sleep 1"),
    ];
    for (when, script) in deaths {
        let project = Project::new(lab, "");
        counting(&project);
        let path = project.instead_of_sbatch(script);
        let mut driver = project
            .command("run x.yaml --executor slurm")
            .env("PATH", path)
            .spawn()
            .unwrap();
        assert_eq!(driver.wait().unwrap().code(), None, "{when}: it was killed");
        let told = project.tinylm("resume @last").success();
        assert!(told.stdout.contains("1 made"), "{when}: {}", told.stdout);
        assert_eq!(project.read("count"), "x\n", "{when}");
    }
}

#[test]
fn an_answer_of_sbatch_that_is_lost_is_found_in_the_queue() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, "");
    counting(&project);
    let path = project.instead_of_sbatch(LOST_ANSWER);
    let output = project
        .command("run x.yaml --executor slurm")
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(project.read("count"), "x\n");
}

#[test]
fn two_drivers_that_want_one_key_make_it_once() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, "");
    counting(&project);
    let mut drivers = [(); 2].map(|()| project.start("run x.yaml --executor slurm"));
    for driver in &mut drivers {
        assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    }
    assert_eq!(project.read("count"), "x\n");
}

#[test]
fn a_folder_that_driver_and_nodes_see_through_caches_of_their_own_is_enough() {
    let Some(lab) = lab() else { return };
    let Some(project) = Project::shared(lab, TRAINING) else {
        return;
    };
    let mut driver = project.start("run x.yaml --executor slurm -v");
    project.wait_for_a_checkpoint();
    kill(driver.id(), Signal::HUP);
    assert_eq!(
        driver.wait().unwrap().code(),
        Some(129),
        "{}",
        project.read("log")
    );
    assert!(
        project.read("log").contains("hung up: the jobs go on"),
        "{}",
        project.read("log")
    );
    let mut second = project.start("resume @last");
    project.wait_for_words("base: job ");
    let job = job_of_base(&project);
    lab.slurm("scontrol", &["requeue", &job]);
    assert!(second.wait().unwrap().success(), "{}", project.read("log"));
    assert_eq!(project.artifact("base"), undisturbed(lab));
    let executions = project.executions().into_iter();
    assert_eq!(executions.filter(|(stage, ..)| stage == "base").count(), 1);
}

#[test]
fn a_run_whose_driver_dies_on_one_machine_is_gone_on_with_from_another() {
    let Some(lab) = lab() else { return };
    let Some(project) = Project::shared(lab, TRAINING) else {
        return;
    };
    let mut driver = project.start("run x.yaml --executor slurm");
    project.wait_for_a_checkpoint();
    kill(driver.id(), Signal::KILL);
    driver.wait().unwrap();
    let there = project.tinylm_on("a", "resume @last").success();
    assert!(there.stdout.contains("1 made, 4 hit"), "{there:?}");
    assert_eq!(project.artifact("base"), undisturbed(lab));
    let begun = project.executions().into_iter();
    assert_eq!(begun.filter(|(stage, ..)| stage == "base").count(), 1);
    // Both tell the same story, the curve with it: each read what the other wrote.
    let report = "report @last --json";
    assert_eq!(
        project.tinylm_on("a", report).success().stdout,
        project.tinylm_on("b", report).success().stdout
    );
}

#[test]
fn what_one_machine_makes_and_clears_away_another_can_make_again_at_once() {
    let Some(lab) = lab() else { return };
    let Some(project) = Project::shared(lab, TRAINING) else {
        return;
    };
    // Each has seen the other's working folders, and remembers what is gone as if it were there.
    project.tinylm_on("b", "run x.yaml").success();
    for (mount, place) in [("b", "--executor slurm"), ("a", ""), ("b", ""), ("a", "")] {
        let args = format!("run x.yaml --force base {place}");
        let told = project.tinylm_on(mount, &args).success();
        assert!(told.stdout.contains("1 made, 4 hit"), "{told:?}");
        assert_eq!(project.artifact("base"), undisturbed(lab));
    }
    // Files too: the lock on the store goes with what is collected.
    project.tinylm_on("b", "run x.yaml").success();
    project.tinylm_on("a", "gc").success();
    let told = project.tinylm_on("b", "run x.yaml").success();
    assert!(told.stdout.contains("5 hit"), "{told:?}");
}

/// A training whose steps can be divided.
fn divided() -> String {
    TRAINING.replace("lr: 0.003,", "lr: 0.003, leaves: 8,")
}

/// Lets something befall a training that three machines share, and sees that it costs a step and no byte.
fn costs_a_step(lab: &Lab, befall: impl FnOnce(&str)) {
    let alone = Project::new(lab, &divided());
    alone.tinylm("run x.yaml").success();
    let shared = divided() + "    resources: { nodes: 3 }\n";
    let project = Project::new(lab, &shared);
    let mut run = project.start("run x.yaml --executor slurm -v");
    project.wait_for_words("3 processes share the work");
    project.wait_for_a_checkpoint();
    let job = job_of_base(&project);
    befall(&job);
    assert!(run.wait().unwrap().success(), "{}", project.read("log"));
    let log = project.read("log");
    assert!(log.contains("is gone; step"), "{log}");
    assert_eq!(project.artifact("base"), alone.artifact("base"));
    assert_eq!(job_of_base(&project), job, "the job went on");
}

#[test]
fn three_machines_that_share_a_training_make_the_bytes_of_one_and_a_lost_process_costs_a_step() {
    let Some(lab) = lab() else { return };
    // The step that srun started on another machine.
    costs_a_step(lab, |job| {
        lab.slurm("scancel", &["--signal=KILL", &format!("{job}.0")]);
    });
}

#[test]
fn a_training_that_three_machines_share_outlives_one_of_them() {
    let Some((lab, _alone)) = breakable() else {
        return;
    };
    let mut lost = None;
    costs_a_step(lab, |job| {
        let decides = lab.slurm("squeue", &["--noheader", "--format=%B", "--jobs", job]);
        let mut nodes = ["n1", "n2", "n3"].into_iter();
        let another = nodes.find(|node| *node != decides.trim());
        lost = another.map(|node| lab.without_node(node));
    });
}
