//! The ordinary days of a cluster.

use rustix::process::Signal;

use crate::{
    lab::{kill, lab, wait_for},
    project::{Project, TRAINING, undisturbed},
};

#[test]
fn the_same_file_makes_the_same_bytes_on_a_cluster_and_says_where() {
    let Some(lab) = lab() else { return };
    let there = Project::new(lab, TRAINING);
    let told = there.tinylm("run x.yaml --executor slurm").success();
    assert!(told.stdout.contains("5 made"), "{}", told.stdout);
    assert_eq!(there.artifact("base"), undisturbed(lab));
    let mut jobs = Vec::new();
    for (stage, status, place) in there.executions() {
        assert_eq!(status, "done", "{stage}");
        assert!(place.starts_with("job "), "{stage}: `{place}`");
        jobs.push(place.split(' ').nth(1).unwrap().to_owned());
    }
    let (of_base, of_light) = jobs.split_last().unwrap();
    assert!(
        of_light.iter().all(|job| job == &of_light[0]),
        "light stages share one: {jobs:?}"
    );
    assert_ne!(of_base, &of_light[0], "and the training has its own");
    wait_for("the shared job's end", || {
        !lab.slurm("squeue", &["--noheader", "--format=%A"])
            .lines()
            .any(|job| job == of_light[0])
    });
    let pools = std::fs::read_dir(there.path(".tinylm/pools"))
        .unwrap()
        .count();
    assert_eq!(pools, 0, "it waits for nobody once the run is over");
    let again = there.tinylm("run x.yaml --executor slurm").success();
    assert!(again.stdout.contains("5 hit"), "{}", again.stdout);
}

#[test]
fn a_job_opens_no_index_of_the_registry_on_its_node() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, TRAINING);
    project.write(".tinylm/shared", "");
    let node = tempfile::tempdir().unwrap();
    let [index, began] = ["index", "began"].map(|name| node.path().join(name));
    let setup = format!(
        "  setup: \"export TINYLM_INDEX='{}'; touch '{}'\"\n",
        index.display(),
        began.display()
    );
    let site = project.read(".tinylm/site.yaml") + &setup;
    project.write(".tinylm/site.yaml", &site);
    let told = project.tinylm("run x.yaml --executor slurm").success();
    assert!(told.stdout.contains("5 made"), "{}", told.stdout);
    assert!(
        began.exists(),
        "its jobs were to have an index of their own"
    );
    // Whoever opens a registry makes one: on its own disk, or in the home if it knows no better.
    assert!(!index.exists());
    assert!(!project.path(".tinylm/registry.sqlite").exists());
}

#[test]
fn a_driver_that_is_killed_leaves_its_job_at_work_and_resume_adopts_it() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, TRAINING);
    let mut driver = project.start("run x.yaml --executor slurm");
    project.wait_for_a_checkpoint();
    wait_for("its job in the list of runs", || {
        let runs = project.tinylm("runs").success();
        runs.stdout.contains("base: job ")
    });
    kill(driver.id(), Signal::KILL);
    driver.wait().unwrap();
    let told = project.tinylm("resume @last").success();
    assert!(told.stdout.contains("1 made, 4 hit"), "{}", told.stdout);
    let bases = project
        .executions()
        .into_iter()
        .filter(|(stage, ..)| stage == "base");
    assert_eq!(
        bases.count(),
        1,
        "the job that was at work is the one that made it"
    );
}

#[test]
fn ctrl_c_stops_a_job_at_a_safe_point_and_resume_goes_on_to_the_same_bytes() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, TRAINING);
    let mut driver = project.start("run x.yaml --executor slurm");
    project.wait_for_a_checkpoint();
    kill(driver.id(), Signal::INT);
    assert_eq!(
        driver.wait().unwrap().code(),
        Some(130),
        "{}",
        project.read("log")
    );
    let (stage, status, _) = project.executions().pop().unwrap();
    assert_eq!((stage.as_str(), status.as_str()), ("base", "cancelled"));
    project.tinylm("resume @last").success();
    assert_eq!(project.artifact("base"), undisturbed(lab));
}

#[test]
fn a_stage_that_ran_out_of_memory_is_given_twice_as_much_up_to_its_span() {
    let Some(lab) = lab() else { return };
    let hungry = |memory: &str| {
        let line = "import time; x = bytearray(300 << 20); x[::4096] = b'1' * len(x[::4096]); time.sleep(3); open('{out}/x', 'w').write('fed')";
        format!(
            "stages:\n  a:\n    kind: command\n    with: {{ run: [python3, -c, \"{line}\"], outputs: [x] }}\n    resources: {{ memory: {memory} }}\n"
        )
    };
    let project = Project::new(lab, &hungry("150M..600M"));
    let told = project.tinylm("run x.yaml --executor slurm").success();
    assert!(
        told.stderr
            .contains("it ran out of memory; submitted again with 300M"),
        "{}",
        told.stderr
    );
    assert!(
        told.stderr.contains("submitted again with 600M"),
        "{}",
        told.stderr
    );

    project.write("x.yaml", &hungry("160M"));
    let told = project.tinylm("run x.yaml --executor slurm --force a");
    assert_eq!(told.code, Some(1));
    assert!(
        told.stderr.contains("it ran out of memory (160M)"),
        "{}",
        told.stderr
    );
    assert!(
        told.stderr.contains("resources: { memory:"),
        "{}",
        told.stderr
    );
}

#[test]
fn what_the_scheduler_refuses_is_told_in_its_own_words() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, TRAINING);
    project.write(
        ".tinylm/site.yaml",
        "slurm: { options: [--partition=nowhere] }\n",
    );
    let told = project.tinylm("run x.yaml --executor slurm");
    assert_eq!(told.code, Some(1));
    assert!(
        told.stderr.contains("the scheduler refuses its job"),
        "{}",
        told.stderr
    );
    assert!(told.stderr.contains("Invalid partition"), "{}", told.stderr);
}

#[test]
fn a_driver_in_a_job_of_its_own_needs_no_terminal() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, TRAINING);
    project.start_in_a_job();
    wait_for("the run's end", || {
        project
            .tinylm("runs --json")
            .stdout
            .contains("\"status\":\"done\"")
            || project
                .tinylm("runs --json")
                .stdout
                .contains("\"status\": \"done\"")
    });
    assert_eq!(project.executions().len(), 5);
}

#[test]
fn the_points_of_a_sweep_run_side_by_side() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, "");
    let here = project.path("").display().to_string();
    // Each waits for the other, so that one after the other would never end.
    let point = |n: u8| {
        format!(
            "[sh, -c, \"touch {here}started-{n}; while [ ! -e {here}started-1 ] || [ ! -e {here}started-2 ]; \
             do sleep 0.1; done; touch '{{out}}/x'\"]"
        )
    };
    let stage = format!(
        "sweep: {{ a.run: [{}, {}] }}\nstages: {{ a: {{ kind: command, with: {{ outputs: [x] }} }} }}\n",
        point(1),
        point(2)
    );
    project.write("x.yaml", &stage);
    let told = project.tinylm("run x.yaml --executor slurm").success();
    assert_eq!(told.stdout.matches(" 1 made").count(), 2, "{}", told.stdout);
    assert!(told.stdout.contains("report --sweep"), "{}", told.stdout);
}
