//! What a driver believes of the scheduler and of other drivers: a job that speaks lives, whatever is not said of
//! it; a claim stands until its holder is known to be gone, and its loss is told.

use std::{process::Child, thread, time::Duration};

use rustix::process::Signal;

use crate::{
    lab::{Lab, kill, lab, wait_for},
    project::{Project, TRAINING, Told, undisturbed},
};

const ONE: &str =
    "stages:\n  a: { kind: command, with: { outputs: [x], run: [touch, \"{out}/x\"] } }\n";

/// A project whose one key another machine's driver holds, in this job and as this user.
fn claimed<'a>(lab: &'a Lab, job: &str, user: u32) -> (Project<'a>, String) {
    let project = Project::new(lab, ONE);
    project.tinylm("run x.yaml").success();
    let shown = project.tinylm("show @last/a --json").success().stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let key = shown["stage"]["key"].as_str().expect("its key").to_owned();
    let holder = serde_json::json!({
        "note": "`a` of run calm-heron-1234", "nonce": "n", "host": "node7", "machine": "m", "boot": "b",
        "space": "s", "pid": 7, "started": 7, "user": user, "job": job,
    });
    let claim = format!(".tinylm/work/{key}/claim.json");
    project.write(&claim, &holder.to_string());
    (project, claim)
}

fn forced(project: &Project) -> Child {
    project.start("run x.yaml --executor slurm --force a")
}

/// Longer than a job may be missing from the scheduler's answers.
fn settle() {
    thread::sleep(Duration::from_secs(7));
}

#[test]
fn a_driver_in_a_task_of_somebodys_array_keeps_its_claim_until_the_task_is_gone() {
    let Some(lab) = lab() else { return };
    let place = tempfile::tempdir().unwrap();
    let id = place.path().join("id");
    // What a task calls itself is not what it is listed as.
    let line = format!(
        "echo $SLURM_JOB_ID > {id}.$SLURM_ARRAY_TASK_ID; mv {id}.$SLURM_ARRAY_TASK_ID {id}; exec sleep 300",
        id = id.display()
    );
    let submitted = lab.slurm(
        "sbatch",
        &[
            "--parsable",
            "--array=6,7",
            "--mem=50M",
            "--output=/dev/null",
            "--wrap",
            &line,
        ],
    );
    wait_for("the task's own number", || id.exists());
    let job = std::fs::read_to_string(&id).unwrap().trim().to_owned();
    let (project, _) = claimed(lab, &job, rustix::process::getuid().as_raw());
    let mut driver = forced(&project);
    project.wait_for_words("calm-heron-1234");
    settle();
    assert!(
        driver.try_wait().unwrap().is_none(),
        "it waits:\n{}",
        project.read("log")
    );
    lab.slurm("scancel", &[submitted.trim()]);
    assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    let log = project.read("log");
    assert!(
        log.contains(&format!("in job {job} on node7")) && log.contains("is taken over"),
        "{log}"
    );
}

#[test]
fn the_claim_of_another_user_is_waited_for_since_the_scheduler_may_not_tell_of_it() {
    let Some(lab) = lab() else { return };
    let (project, claim) = claimed(lab, "999999", 54321);
    let mut driver = forced(&project);
    project.wait_for_words("calm-heron-1234");
    settle();
    assert!(
        driver.try_wait().unwrap().is_none(),
        "it waits:\n{}",
        project.read("log")
    );
    project.remove(&claim);
    assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    assert!(!project.read("log").contains("is taken over"));
}

#[test]
fn a_training_that_speaks_is_at_work_though_the_scheduler_does_not_name_it() {
    let Some(lab) = lab() else { return };
    // So long that whoever is not named for that long and says nothing is given up.
    let long = TRAINING.replace("steps: 400", "steps: 1600");
    let whole = Project::new(lab, &long);
    whole.tinylm("run x.yaml").success();
    let project = Project::new(lab, &long);
    project.tinylm("run x.yaml --until shards").success();
    // It is named until it has begun, which may take its time.
    let begun = project.path(".tinylm/work");
    let script = format!(
        "ls {}/*/checkpoints/* >/dev/null 2>&1 && exit 0; exec $REAL \"$@\"",
        begun.display()
    );
    let path = project.instead_of("squeue", &script);
    let mut command = project.command("run x.yaml --executor slurm");
    let told = Told::of(&command.env("PATH", path).output().unwrap()).success();
    assert!(told.stdout.contains("1 made, 4 hit"), "{}", told.stdout);
    assert_eq!(project.artifact("base"), whole.artifact("base"));
    let begun = project.executions().into_iter();
    assert_eq!(begun.filter(|(stage, ..)| stage == "base").count(), 1);
}

#[test]
fn a_driver_whose_node_is_wanted_queues_itself_again_and_its_jobs_go_on() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, TRAINING);
    let driver = project.start_in_a_job();
    project.wait_for_a_checkpoint();
    lab.slurm("scancel", &["--batch", "--signal=USR1", &driver]);
    wait_for("the driver's next start", || {
        let job = lab.slurm("scontrol", &["show", "job", "--oneliner", &driver]);
        job.contains("Restarts=1")
    });
    wait_for("the model", || {
        let all = project.executions();
        all.iter()
            .any(|(stage, status, _)| stage == "base" && status == "done")
    });
    assert_eq!(project.artifact("base"), undisturbed(lab));
    assert_eq!(project.executions().len(), 5, "nothing was begun twice");
    goes_on_with_its_run(&project, &driver);
}

/// Another run would find all the same, and leave this one behind.
fn goes_on_with_its_run(project: &Project, driver: &str) {
    wait_for("the run's end", || {
        project.tinylm("runs").stdout.contains("  done  ")
    });
    let runs = project.tinylm("runs").stdout;
    let log = project.read(&format!(".tinylm/logs/driver-{driver}.out"));
    let n_runs = runs.lines().filter(|line| line.contains("  x  ")).count();
    assert_eq!(n_runs, 1, "{runs}\n{log}");
}

/// Has all claims be of another machine, as where the next start of a job is on another node.
fn move_claims_away(project: &Project) {
    let below = |folder: &str| {
        let entries = std::fs::read_dir(project.path(folder)).into_iter();
        entries.flatten().flatten().map(|entry| entry.path())
    };
    let of_keys = below(".tinylm/work").map(|key| key.join("claim.json"));
    let claims = below(".tinylm/locks/runs").chain(of_keys);
    for claim in claims.filter(|claim| claim.extension().is_some_and(|end| end == "json")) {
        let Ok(text) = std::fs::read_to_string(&claim) else {
            continue;
        };
        let mut holder: serde_json::Value = serde_json::from_str(&text).unwrap();
        for field in ["host", "machine", "boot"] {
            holder[field] = "another".into();
        }
        std::fs::write(claim, holder.to_string()).unwrap();
    }
}

#[test]
fn a_driver_that_is_lost_goes_on_with_its_run_on_another_node() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, TRAINING);
    let driver = project.start_in_a_job();
    project.wait_for_a_checkpoint();
    let process = lab.driver_of(&driver).expect("the driver");
    kill(process, Signal::KILL);
    wait_for("its job's end", || {
        lab.jobs("%A %T").contains(&format!("{driver} FAILED"))
    });
    move_claims_away(&project);
    lab.slurm("scontrol", &["requeue", &driver]);
    goes_on_with_its_run(&project, &driver);
    assert_eq!(project.artifact("base"), undisturbed(lab));
    assert_eq!(project.executions().len(), 5, "nothing was begun twice");
}
