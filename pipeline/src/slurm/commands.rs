//! Slurm's own programs, and what their answers mean.
//!
//! Two rules, both learned from a real controller: an exit status other than 0 means that nothing is
//! known, and a job that an answer does not name may be done, forgotten or never submitted. Neither
//! is ever read as news of a job by itself.

use std::{
    env,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    fate,
    folder::{OUTPUT, Submission},
    site::Site,
};
use crate::{
    error::StageError,
    resources::{Resources, Time},
};

/// A controller that is away lets its clients wait for 18 s before they give up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A person's own formats and filters begin so. They would change what is read here: which jobs there are, and
/// which of them is cancelled.
const FOREIGN: [&str; 3] = ["SQUEUE_", "SCANCEL_", "SCONTROL_"];

/// A job as the scheduler lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: String,
    /// What the job itself knows it by: of a task of an array another number than its own.
    number: String,
    pub(crate) state: String,
    pub(crate) node: String,
    pub(crate) reason: String,
    /// Its comment: for a job of ours, the mark of its submission.
    pub(crate) mark: String,
}

impl Row {
    pub(crate) fn is_alive(&self) -> bool {
        fate::is_alive(&self.state)
    }
}

/// All jobs of this user.
#[derive(Debug, Default)]
pub(crate) struct Rows(Vec<Row>);

impl Rows {
    pub(crate) fn of_mark(&self, mark: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.mark == mark)
    }

    pub(crate) fn of_id(&self, id: &str) -> Option<&Row> {
        let mut rows = self.0.iter();
        rows.find(|row| row.id == id || row.number == id)
    }
}

/// What came of asking for a job.
#[derive(Debug, Clone)]
pub(crate) enum Submitted {
    Job(String),
    /// It may be in the queue or not: the mark will tell.
    Unknown(String),
    /// The scheduler does not want it, whenever it is asked.
    Refused(String),
}

/// Everything about a job that `sbatch` is told.
pub(crate) struct Request<'a> {
    pub(crate) site: &'a Site,
    pub(crate) program: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) submission: &'a Submission,
    pub(crate) name: &'a str,
    pub(crate) mark: &'a str,
}

pub(crate) fn sbatch(request: &Request) -> Submitted {
    let words = format!(
        "exec-job {} {}",
        quoted(&request.folder.display().to_string()),
        request.submission.number
    );
    submit(
        &flags(request),
        &script(request.site, request.program, &words),
    )
}

/// Hands a script to `sbatch`.
pub(crate) fn submit(flags: &[String], script: &str) -> Submitted {
    let mut command = Command::new("sbatch");
    command.args(flags);
    match answer(command, script.as_bytes()) {
        Ok(text) => {
            let id = text.lines().last().unwrap_or_default();
            let id = id.split(';').next().unwrap_or_default().trim();
            match id.bytes().all(|byte| byte.is_ascii_digit()) && !id.is_empty() {
                true => Submitted::Job(id.to_owned()),
                false => Submitted::Unknown(format!("`sbatch` said `{}`", text.trim())),
            }
        }
        Err(Mute::NotThere(error)) => Submitted::Refused(error),
        Err(Mute::Said(error)) if may_pass(&error) => Submitted::Unknown(error),
        Err(Mute::Said(error)) => Submitted::Refused(error),
    }
}

fn flags(request: &Request) -> Vec<String> {
    let Request {
        site, submission, ..
    } = request;
    let mut flags = usual_flags(request.name, request.mark, &request.folder.join(OUTPUT));
    flags.extend(flags_of(site, &submission.resources));
    flags
}

/// What a job asks for, and what its site asks of every job.
pub(crate) fn flags_of(site: &Site, resources: &Resources) -> Vec<String> {
    let mut flags = asked(resources);
    flags.push(early(site, resources.time.map(|time| time.from)));
    flags.extend(site.options.iter().cloned());
    flags
}

/// What every job of ours is asked for with.
pub(crate) fn usual_flags(name: &str, mark: &str, output: &Path) -> Vec<String> {
    let usual = [
        "--parsable",
        "--nodes=1",
        "--ntasks=1",
        "--requeue",
        "--open-mode=append",
    ];
    let mut flags: Vec<String> = usual.map(str::to_owned).into();
    flags.push(format!("--job-name={name}"));
    flags.push(format!("--comment={mark}"));
    flags.push(format!("--output={}", output.display()));
    flags
}

/// The signal before the time is up: to the job alone, who tells its stage.
pub(crate) fn early(site: &Site, time: Option<Time>) -> String {
    let early = time.map_or(site.stop_before.0, |time| {
        site.stop_before.0.min(time.0 / 2)
    });
    format!("--signal=B:USR1@{}", early.as_secs().max(1))
}

pub(crate) fn refused(why: String) -> StageError {
    StageError::new("the scheduler refuses its job")
        .cause(why)
        .help("correct `resources` of the stage, or `options` in the site file (`tinylm doctor` names it)")
        .is_final()
}

/// Resources as `sbatch` is asked for them.
pub(crate) fn asked(resources: &Resources) -> Vec<String> {
    let Resources {
        cpus,
        memory,
        time,
        gpus,
        nodes,
        ranks: _,
    } = resources;
    let cpus = cpus.map(|cpus| format!("--cpus-per-task={cpus}"));
    let memory = memory.map(|memory| format!("--mem={}M", memory.from.megabytes()));
    let gpus = gpus
        .filter(|gpus| *gpus > 0)
        .map(|gpus| format!("--gpus={gpus}"));
    // The scheduler counts in minutes.
    let time = time.map(|time| format!("--time={}", time.from.0.as_secs().div_ceil(60)));
    let nodes = nodes.filter(|nodes| *nodes > 1).into_iter();
    // One that is lost costs a step, not the job.
    let nodes = nodes.flat_map(|n| {
        let asked = [format!("--nodes={n}"), format!("--ntasks={n}")];
        asked.into_iter().chain(["--no-kill".to_owned()])
    });
    let asked = [cpus, memory, gpus, time].into_iter().flatten();
    asked.chain(nodes).collect()
}

/// `exec`, so that the scheduler's signals reach tinylm and no shell stands between.
pub(crate) fn script(site: &Site, program: &Path, words: &str) -> String {
    let program = site.program.as_deref().unwrap_or(program);
    let program = quoted(&program.display().to_string());
    let (setup, container) = (&site.setup, &site.container);
    format!("#!/bin/sh\n{setup}\nexec {container} {program} {words}\n")
}

/// A word of a shell.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Asks for all jobs of this user at once.
pub(crate) fn squeue() -> Result<Rows, String> {
    let mut command = Command::new("squeue");
    command.args([
        "--me",
        "--noheader",
        "--states=all",
        // Each task of an array on a line of its own.
        "--array",
        "--format=%A|%F|%T|%N|%r|%K|%k",
    ]);
    match answer(command, b"") {
        Ok(text) => Ok(Rows(text.lines().filter_map(row).collect())),
        Err(Mute::NotThere(error) | Mute::Said(error)) => Err(error),
    }
}

fn row(line: &str) -> Option<Row> {
    let mut parts = line.splitn(7, '|').map(|part| part.trim().to_owned());
    let (own, array) = (parts.next()?, parts.next()?);
    let mut row = Row {
        id: own.clone(),
        number: own,
        state: parts.next()?,
        node: parts.next()?,
        reason: parts.next()?,
        mark: String::new(),
    };
    // What is no task of an array has no number there.
    let task: Option<u32> = parts.next()?.parse().ok();
    let comment = parts.next()?;
    row.mark = comment;
    if let Some(task) = task {
        // Of a task that waits, the array's own number may stand for all of them.
        row.id = format!("{array}_{task}");
        row.mark.push_str(&format!("/{task}"));
    }
    Some(row)
}

/// Cancels a job; `only_pending` leaves one alone that is at work. That it is gone is no error.
pub(crate) fn scancel(id: &str, only_pending: bool) {
    let mut command = Command::new("scancel");
    if only_pending {
        command.arg("--state=PENDING");
    }
    command.arg(id);
    // Who asked finds out by what follows.
    answer(command, b"").ok();
}

/// Puts this very job back into the queue; returns whether the scheduler agreed.
pub(crate) fn requeue_self() -> bool {
    let Ok(id) = env::var("SLURM_JOB_ID") else {
        return false;
    };
    let mut command = Command::new("scontrol");
    command.args(["requeue", &id]);
    answer(command, b"").is_ok()
}

/// Whether this very job is told to end because another one needs its node. That signal is the same as the
/// one before the time is up.
pub(crate) fn is_preempted() -> bool {
    let Ok(id) = env::var("SLURM_JOB_ID") else {
        return false;
    };
    let mut command = Command::new("scontrol");
    command.args(["show", "job", "--oneliner", &id]);
    answer(command, b"").is_ok_and(|job| says_preempted(&job))
}

fn says_preempted(job: &str) -> bool {
    let mut fields = job.split_whitespace();
    let when = fields.find_map(|field| field.strip_prefix("PreemptTime="));
    when.is_some_and(|when| !matches!(when, "None" | "Unknown"))
}

/// The cluster's own name of its version, where jobs can be submitted from here.
pub fn version() -> Option<String> {
    let mut command = Command::new("sbatch");
    command.arg("--version");
    answer(command, b"").ok().map(|text| text.trim().to_owned())
}

/// Fails where Slurm's programs are not there.
pub(crate) fn check() -> Result<(), StageError> {
    version().map(drop).ok_or_else(|| {
        StageError::new("`sbatch` cannot be started")
            .help("`--executor slurm` needs a machine from which jobs are submitted; without it stages run here")
            .is_final()
    })
}

/// No answer.
enum Mute {
    NotThere(String),
    Said(String),
}

/// Whether trying again may help.
fn may_pass(error: &str) -> bool {
    const PASSING: [&str; 9] = [
        "contact slurm controller",
        "timed out",
        "Zero Bytes",
        "temporarily unable",
        "Resource temporarily unavailable",
        "Connection refused",
        "SubmitJobLimit",
        "SubmitJobPerUserLimit",
        "did not answer",
    ];
    PASSING.iter().any(|known| error.contains(known))
}

fn answer(mut command: Command, input: &[u8]) -> Result<String, Mute> {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if FOREIGN.iter().any(|start| text.starts_with(start)) {
            command.env_remove(name);
        }
    }
    let name = command.get_program().to_string_lossy().into_owned();
    let not_there = |error| Mute::NotThere(format!("`{name}` cannot be started: {error}"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(not_there)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).ok();
    }
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut text).ok();
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = read(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let err = read(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => {
                child.kill().ok();
                child.wait().ok();
                return Err(Mute::Said(format!(
                    "`{name}` did not answer for {} s",
                    PATIENCE.as_secs()
                )));
            }
        }
    };
    let (out, err) = (
        out.join().unwrap_or_default(),
        err.join().unwrap_or_default(),
    );
    match status.success() {
        true => Ok(out),
        false => Err(Mute::Said(
            err.lines()
                .last()
                .unwrap_or("it said nothing")
                .trim()
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::folder::mark, *};

    #[test]
    fn a_job_is_found_by_its_mark_and_by_its_number_and_half_a_line_is_none() {
        let lines = [
            "17|17|RUNNING|n1|None|N/A|tinylm:01ab:2",
            "18|18|TIMEOUT|n2|None|N/A|a note | of mine",
            "19|19|RUN",
            "20|20|PENDING||None|7|tinylm:array-02cd:1",
            "35|28|RUNNING|n7|None|7|a driver's own array",
        ];
        let rows = Rows(lines.into_iter().filter_map(row).collect());
        let ours = rows.of_mark(&mark("01ab", 2)).unwrap();
        assert_eq!(
            (ours.id.as_str(), ours.node.as_str(), ours.is_alive()),
            ("17", "n1", true)
        );
        assert!(!rows.of_id("18").unwrap().is_alive());
        assert_eq!(rows.of_mark(&mark("01ab", 1)), None);
        assert_eq!(rows.of_id("19"), None);
        assert_eq!(rows.of_mark("tinylm:array-02cd:1/7").unwrap().id, "20_7");
        // Whoever is in a task knows it by its number alone.
        assert_eq!(rows.of_id("35").unwrap().id, "28_7");
        assert_eq!(rows.of_id("28_7").unwrap().id, "28_7");
    }

    #[test]
    fn a_job_makes_room_for_another_only_where_a_time_of_that_is_said() {
        let job = |when: &str| {
            format!("JobId=7 PreemptEligibleTime=2026-11-29T22:39:31 {when} SuspendTime=None")
        };
        assert!(says_preempted(&job("PreemptTime=2026-11-29T22:39:32")));
        assert!(!says_preempted(&job("PreemptTime=None")));
        assert!(!says_preempted(&job("")));
    }

    #[test]
    fn a_controller_that_is_away_refuses_nothing() {
        assert!(may_pass(
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
        ));
        assert!(!may_pass(
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified"
        ));
    }
}
