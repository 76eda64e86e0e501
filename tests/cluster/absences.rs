//! Absences: something is away for longer than anybody remembers it, comes back, and must fit in.
//!
//! The controller, a driver, the processes of a job, a whole machine. In `faults.rs` what is lost stays
//! lost and somebody sees it go; here nobody looks while it happens, or what was given up is at work again.
//! Where a moment matters, a process is held in it by a signal, so that no story hopes for its luck.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    faults::{counting, job_of_base},
    lab::{Lab, breakable, give_way, kill, lab, wait_for},
    project::{Project, TRAINING, undisturbed},
};

/// How long the controller is away: with `TINYLM_TEST_LONG=1` as long as an upgrade takes.
fn long() -> Duration {
    let is_long = env::var_os("TINYLM_TEST_LONG").is_some_and(|long| long == "1");
    Duration::from_secs(if is_long { 300 } else { 40 })
}

/// A stage in a job of its own, which says outside of its outputs that it ran, and works until it may end.
fn stage(project: &Project, name: &str, more: &str) -> String {
    let here = project.path("").display().to_string();
    let line = format!(
        "echo x >> {here}{name}; while [ ! -f {here}{name}-may-end ]; do sleep 0.1; done; echo made > '{{out}}/x'"
    );
    format!(
        "  {name}: {{ kind: command, with: {{ outputs: [x], run: [sh, -c, \"{line}\"] }}, {more} }}\n"
    )
}

/// The scheduler's number of the job of a stage whose name no other story uses.
fn job_of(lab: &Lab, stage: &str) -> String {
    let found = || {
        let jobs = lab.jobs("%A %T %j");
        let job = jobs
            .iter()
            .find(|job| job.contains(&format!(" RUNNING {stage}.")))?;
        Some(job.split(' ').next()?.to_owned())
    };
    wait_for("its job at work", || found().is_some());
    found().unwrap()
}

/// Ends the processes of a job before they can say a word.
fn silence(lab: &Lab, job: &str) {
    let processes = [lab.committer_of(job), lab.stage_of(job)];
    assert!(
        processes.iter().all(Option::is_some),
        "job {job} is at work"
    );
    let both = || processes.into_iter().flatten();
    both().for_each(|pid| kill(pid, Signal::STOP));
    both().for_each(|pid| kill(pid, Signal::KILL));
}

fn wait_until_forgotten(lab: &Lab, job: &str) {
    wait_for("the scheduler to forget the job", || {
        !lab.jobs("%A").iter().any(|known| known == job)
    });
}

#[test]
fn a_controller_that_comes_back_after_long_finds_a_run_that_makes_every_stage_once() {
    let Some((lab, _alone)) = breakable() else {
        return;
    };
    let project = Project::new(lab, "");
    // `waits` is asked for once two of four processors are at work and wants three, `follows` while nobody
    // answers.
    project.site_says("options: [--nodelist=n1]");
    let stages = [
        stage(&project, "opens", "resources: { cpus: 1 }"),
        stage(&project, "ends", "resources: { cpus: 1 }"),
        stage(&project, "stays", "resources: { cpus: 1 }"),
        stage(
            &project,
            "waits",
            "inputs: { a: opens }, resources: { cpus: 3 }",
        ),
        stage(
            &project,
            "follows",
            "inputs: { a: ends }, resources: { cpus: 1 }",
        ),
    ];
    project.write("x.yaml", &format!("stages:\n{}", stages.concat()));
    let may_end = |name: &str| project.write(&format!("{name}-may-end"), "");
    let has_begun = |name: &str| project.path(name).exists();
    let mut driver = project.start("run x.yaml --executor slurm");
    wait_for("three at work", || {
        ["opens", "ends", "stays"].into_iter().all(has_begun)
    });
    ["opens", "waits", "follows"].into_iter().for_each(may_end);
    wait_for("one in the queue", || {
        let jobs = lab.jobs("%T %j");
        jobs.iter().any(|job| job.starts_with("PENDING waits."))
    });

    let away = lab.without_controller();
    let since = Instant::now();
    project.wait_for_words("nobody knows at the moment whether it still runs");
    may_end("ends");
    project.wait_for_words("made     ends");
    thread::sleep(long().saturating_sub(since.elapsed()));
    assert_eq!(driver.try_wait().unwrap(), None, "{}", project.read("log"));
    drop(away);

    wait_for("the turn of the one in the queue", || has_begun("waits"));
    may_end("stays");
    assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    for name in ["opens", "ends", "stays", "waits", "follows"] {
        assert_eq!(project.read(name), "x\n", "{name}: {}", project.read("log"));
    }
    let executions = project.executions();
    assert!(executions.iter().all(|(_, status, _)| status == "done"));
    assert_eq!(executions.len(), 5, "{executions:?}");
}

#[test]
fn a_job_that_dies_and_is_forgotten_while_no_driver_looks_is_made_anew_from_its_checkpoint() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, TRAINING);
    let mut driver = project.start("run x.yaml --executor slurm");
    project.wait_for_a_checkpoint();
    let job = job_of_base(&project);
    kill(driver.id(), Signal::KILL);
    driver.wait().unwrap();
    silence(lab, &job);
    wait_until_forgotten(lab, &job);
    let told = project.tinylm("resume @last -v").success();
    let words = format!("its job {job} ended without a word while no run looked");
    for words in [words.as_str(), "going on from step"] {
        assert_eq!(told.stderr.matches(words).count(), 1, "{}", told.stderr);
    }
    assert!(told.stdout.contains("1 made, 4 hit"), "{}", told.stdout);
    assert_eq!(project.artifact("base"), undisturbed(lab));
}

#[test]
fn a_job_that_dies_and_is_forgotten_while_the_scheduler_cannot_be_asked_fails_with_a_clear_line() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, "");
    let silent = stage(&project, "silent", "resources: { cpus: 1 }");
    project.write("x.yaml", &format!("stages:\n{silent}"));
    let away = project.path("away");
    let script = format!(
        "[ ! -e {} ] || {{ echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }}\n\
         exec $REAL \"$@\"",
        away.display()
    );
    let path = project.instead_of("squeue", &script);
    let mut command = project.command("run x.yaml --executor slurm");
    command.env("PATH", path);
    let mut driver = project.started(command);
    wait_for("the job", || project.path("silent").exists());
    let job = job_of(lab, "silent");
    project.write("away", "");
    project.wait_for_words("nobody knows at the moment whether it still runs");
    silence(lab, &job);
    wait_until_forgotten(lab, &job);
    fs::remove_file(away).unwrap();
    assert_eq!(driver.wait().unwrap().code(), Some(1));
    let log = project.read("log");
    let told = "error: stage `silent` failed: its job ended without a word\n  cause: the scheduler has forgotten it\n";
    assert_eq!(log.matches(told).count(), 1, "{log}");
    project.write("silent-may-end", "");
    project.tinylm("resume @last").success();
    assert_eq!(project.read("silent"), "x\nx\n");
}

/// Holds a process in a moment: it goes on by small steps until `is_now` is true of what it has done.
/// Returns whether it was caught there, and not gone before.
fn hold(pid: u32, is_now: impl Fn() -> bool) -> bool {
    give_way(pid);
    loop {
        kill(pid, Signal::STOP);
        loop {
            match state(pid) {
                Some('T') => break,
                None | Some('Z') => return false,
                _ => thread::yield_now(),
            }
        }
        if is_now() {
            return true;
        }
        kill(pid, Signal::CONT);
        thread::sleep(Duration::from_micros(200));
    }
}

/// What a process does, in the kernel's letter for it; nothing once it is gone.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.trim_start().chars().next()
}

/// What a folder holds; files that are being written have names that are hidden.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_hidden = |path: &PathBuf| path.file_name().unwrap().as_encoded_bytes()[0] == b'.';
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| !is_hidden(path)).collect()
}

fn staged(project: &Project) -> Vec<PathBuf> {
    below(&project.path(".tinylm/store/staging"))
}

/// How many artifacts and how many key records there are.
fn made(project: &Project) -> (usize, usize) {
    let count = |kind: &str| {
        let fans = below(&project.path(&format!(".tinylm/store/{kind}")));
        fans.iter().map(|fan| below(fan).len()).sum()
    };
    (count("artifacts"), count("keys"))
}

/// A run whose job is held in a moment of its commit, with the job and the process that is held.
struct Held<'a> {
    project: Project<'a>,
    driver: Child,
    job: String,
    committer: u32,
}

fn held_in_commit<'a>(
    lab: &Lab,
    project: impl Fn() -> Project<'a>,
    is_now: impl Fn(&Project) -> bool,
) -> Held<'a> {
    for _ in 0..20 {
        let project = project();
        let slow = stage(&project, "slow", "resources: { cpus: 1 }");
        project.write("x.yaml", &format!("stages:\n{slow}"));
        let mut driver = project.start("run x.yaml --executor slurm");
        wait_for("the job", || project.path("slow").exists());
        let job = job_of(lab, "slow");
        let committer = lab.committer_of(&job).expect("the job's process");
        project.write("slow-may-end", "");
        if hold(committer, || is_now(&project)) {
            return Held {
                project,
                driver,
                job,
                committer,
            };
        }
        assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    }
    panic!("no commit was met in its middle");
}

impl Held<'_> {
    fn goes_on(&self) {
        kill(self.committer, Signal::CONT);
    }

    fn wait_for_its_end(&self) {
        wait_for("its end", || {
            matches!(state(self.committer), None | Some('Z'))
        });
    }

    #[track_caller]
    fn wait_for_the_run(&mut self) {
        let is_well = self.driver.wait().unwrap().success();
        assert!(is_well, "{}", self.project.read("log"));
    }
}

fn is_staged(project: &Project) -> bool {
    !staged(project).is_empty()
}

/// The node of a job.
fn node_of(lab: &Lab, job: &str) -> String {
    let jobs = lab.jobs("%A %N");
    let of_it = jobs
        .iter()
        .find_map(|line| line.strip_prefix(&format!("{job} ")));
    of_it.expect("a job at work").to_owned()
}

/// One artifact, one record, one execution, what is made undisturbed, and nothing that `gc` leaves.
fn is_made_once(lab: &Lab, project: &Project) {
    assert_eq!(project.read("slow"), "x\nx\n", "it began on each node");
    let alone = Project::new(lab, "");
    let slow = stage(&alone, "slow", "resources: { cpus: 1 }");
    alone.write("x.yaml", &format!("stages:\n{slow}"));
    alone.write("slow-may-end", "");
    alone.tinylm("run x.yaml").success();
    assert_eq!(project.artifact("slow"), alone.artifact("slow"));
    assert_eq!(made(project), (1, 1));
    let executions = project.executions();
    let status: Vec<&str> = executions
        .iter()
        .map(|(_, status, _)| status.as_str())
        .collect();
    assert_eq!(status, ["done"]);
    let again = project.tinylm("run x.yaml --executor slurm").success();
    assert!(again.stdout.contains("1 hit"), "{}", again.stdout);
    // Where the driver's machine remembers that a folder was gone, a little later.
    wait_for("`gc` to clear everything away", || {
        project.tinylm("gc").success();
        !is_staged(project) && below(&project.path(".tinylm/work")).is_empty()
    });
    assert_eq!(made(project), (1, 1));
}

#[test]
fn a_machine_that_hangs_before_it_moves_an_artifact_in_and_wakes_disturbs_nobody() {
    let Some((lab, _alone)) = breakable() else {
        return;
    };
    let mut held = held_in_commit(lab, || Project::new(lab, ""), is_staged);
    let hung = lab.with_hung_node(&node_of(lab, &held.job));
    // Here both machines have one kernel, whose lock the first one holds.
    let second = || held.project.read("slow") == "x\nx\n";
    wait_for("a second start", second);
    wait_for("its commit", || lab.stage_of(&held.job).is_none());
    thread::sleep(Duration::from_millis(500));
    held.goes_on();
    held.wait_for_the_run();
    held.wait_for_its_end();
    drop(hung);
    is_made_once(lab, &held.project);
}

#[test]
fn a_machine_that_hangs_before_it_writes_its_record_and_wakes_once_it_is_made_says_the_same() {
    let Some((lab, _alone)) = breakable() else {
        return;
    };
    // Its record is being written, so that it holds the lock on the artifact no more.
    let is_between = |project: &Project| {
        let has_folder = !below(&project.path(".tinylm/store/keys")).is_empty();
        has_folder && made(project) == (1, 0)
    };
    let mut held = held_in_commit(lab, || Project::new(lab, ""), is_between);
    let hung = lab.with_hung_node(&node_of(lab, &held.job));
    held.wait_for_the_run();
    assert_eq!(made(&held.project), (1, 1));
    held.goes_on();
    held.wait_for_its_end();
    drop(hung);
    is_made_once(lab, &held.project);
}

#[test]
fn a_machine_that_is_lost_before_it_moves_an_artifact_in_leaves_what_gc_clears_away() {
    let Some((lab, _alone)) = breakable() else {
        return;
    };
    let mut held = held_in_commit(lab, || Project::new(lab, ""), is_staged);
    drop(lab.with_hung_node(&node_of(lab, &held.job)));
    held.wait_for_the_run();
    assert!(is_staged(&held.project), "what the lost one had begun");
    is_made_once(lab, &held.project);
}

#[test]
fn two_machines_that_make_the_same_bytes_at_once_keep_them_once() {
    let Some(lab) = lab() else { return };
    if lab.shared().is_none() {
        return;
    }
    let with_old_folders = || {
        let project = Project::shared(lab, "").unwrap();
        // As in a store of many artifacts, so that the absence of this one can be remembered.
        for fan in 0..=u8::MAX {
            let fan = project.path(&format!(".tinylm/store/artifacts/{fan:02x}"));
            fs::create_dir_all(fan).unwrap();
        }
        project
    };
    let mut held = held_in_commit(lab, with_old_folders, is_staged);
    let other = stage(&held.project, "other", "retries: 0");
    held.project.write("y.yaml", &format!("stages:\n{other}"));
    held.project.write("other-may-end", "");
    // Its key is another, and no lock of the one machine holds on the other.
    held.project.tinylm_on("b", "run y.yaml").success();
    held.goes_on();
    held.wait_for_the_run();
    assert_eq!(made(&held.project), (1, 2));
    assert!(!is_staged(&held.project));
}

/// Whether a process that is stopped will hear that it is to end.
fn is_to_end(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let waiting = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let waiting = waiting.and_then(|waiting| u64::from_str_radix(waiting.trim(), 16).ok());
    waiting.is_some_and(|waiting| waiting >> (Signal::TERM.as_raw() - 1) & 1 == 1)
}

#[test]
fn a_training_that_slurm_itself_tells_that_its_time_is_nearly_up_queues_itself_again() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, &format!("{TRAINING}    resources: {{ time: 1m }}\n"));
    project.site_says("stop_before: 50s");
    let mut driver = project.start("run x.yaml --executor slurm -v");
    project.wait_for_a_checkpoint();
    let job = job_of_base(&project);
    // Held, so that its work is not done before Slurm looks at its time, which it does twice a minute.
    let mut stage = None;
    wait_for("the stage's process", || {
        stage = lab.stage_of(&job);
        stage.is_some()
    });
    let stage = stage.unwrap();
    kill(stage, Signal::STOP);
    wait_for("the signal", || is_to_end(stage));
    kill(stage, Signal::CONT);
    let restarts = || {
        lab.slurm("scontrol", &["show", "job", &job])
            .contains("Restarts=1 ")
    };
    wait_for("its second turn", restarts);
    assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    let log = project.read("log");
    assert!(log.contains("going on from step"), "{log}");
    assert!(!log.contains("submitted again"), "{log}");
    assert_eq!(project.artifact("base"), undisturbed(lab));
    let executions = project.executions().into_iter();
    assert_eq!(executions.filter(|(stage, ..)| stage == "base").count(), 1);
}

#[test]
fn two_drivers_on_two_machines_that_want_one_key_make_it_once() {
    let Some(lab) = lab() else { return };
    let Some(project) = Project::shared(lab, "") else {
        return;
    };
    counting(&project);
    // A lock reaches no further than a mount, so that only the claim decides.
    let mut drivers = ["a", "b"]
        .map(|mount| project.started(project.command_on(mount, "run x.yaml --executor slurm")));
    for driver in &mut drivers {
        assert!(driver.wait().unwrap().success(), "{}", project.read("log"));
    }
    assert_eq!(project.read("count"), "x\n");
    let log = project.read("log");
    assert_eq!(log.matches("a: waiting for").count(), 1, "{log}");
}

#[test]
fn whoever_insists_cancels_a_job_that_is_at_work_and_does_not_stop() {
    let Some(lab) = lab() else { return };
    let project = Project::new(lab, "");
    let deaf = stage(&project, "deaf", "resources: { cpus: 1 }");
    project.write("x.yaml", &format!("stages:\n{deaf}"));
    let mut driver = project.start("run x.yaml --executor slurm");
    wait_for("the job", || project.path("deaf").exists());
    let job = job_of(lab, "deaf");
    // Neither a signal nor a wish in its folder reaches them; what the scheduler ends it wakes.
    for pid in [lab.stage_of(&job), lab.committer_of(&job)] {
        kill(pid.expect("a process of the job"), Signal::STOP);
    }
    kill(driver.id(), Signal::INT);
    project.wait_for_words("stopping at the next safe point");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(driver.try_wait().unwrap(), None, "{}", project.read("log"));
    let since = Instant::now();
    kill(driver.id(), Signal::INT);
    let code = driver.wait().unwrap().code();
    assert_eq!(code, Some(130), "{}", project.read("log"));
    assert!(
        since.elapsed() < Duration::from_secs(30),
        "{:?}",
        since.elapsed()
    );
    wait_for("the job's end", || {
        let jobs = lab.jobs("%A %T");
        let known = jobs
            .iter()
            .find(|known| known.starts_with(&format!("{job} ")));
        known.is_none_or(|known| known.ends_with("CANCELLED"))
    });
    let executions = project.executions();
    let status: Vec<&str> = executions
        .iter()
        .map(|(_, status, _)| status.as_str())
        .collect();
    assert_eq!(status, ["cancelled"]);
    assert_eq!(project.read("deaf"), "x\n");
}
