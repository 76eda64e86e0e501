//! The job's side, on the node: it carries out one order and commits what it made.
//!
//! The stage runs in a child, as on one machine. The job commits on the node and writes the key
//! record there, so that what was made counts even if no driver lives to see it. Its last report is
//! its last word; how it exits is only for those who read the scheduler's own lists.
//!
//! A signal means one of three things. SIGUSR1 comes before the time is up, or before a job that
//! matters more takes the node, which the scheduler is then asked about: the stage saves what it has and the
//! job asks to be queued again. That its time was too short is said only where that was so.
//! SIGTERM comes from whoever cancels or preempts: the stage saves, and the scheduler knows what
//! follows. A `stop` in the folder is the driver's wish, which reaches a job also while the scheduler's
//! controller is away.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use tinylm_registry::{Condition, Home, KeyRecord, Place, Store, keys::read_key};

use super::{
    commands,
    folder::{JobFile, JobFolder, Last, Line, Wished, report_name},
};
use crate::{
    commit::Told,
    error::StageError,
    event::{Event, joined},
    executor::{End, Job},
    metrics::Metrics,
    processes::child::{self, Child},
    sys, threads,
    usage::Usage,
};

/// How often the folder is looked at for a wish.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often signals are looked for.
const HEAR_EVERY: Duration = Duration::from_millis(100);

/// Reports come at least this far apart, and further apart the longer the job runs.
const REPORT_EVERY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Carries out the job of a folder; returns the exit code. The error is told to whoever reads the
/// job's own output: there is nobody else, or the folder is no job's.
pub fn exec_job(program: &Path, folder: &Path, submission: u32) -> Result<i32, StageError> {
    let here = Here::of(folder)?;
    // A finished job can be queued again, by hand or by its cluster.
    if let Some(last) = here.folder.last_word(submission)? {
        return Ok(code(&last));
    }
    let job = here.folder.job()?;
    let reports = Reports::begin(&here.folder, submission)?;
    let (last, usage) = match here.made(&job)? {
        Some(record) => (Some(Last::Committed(Box::new(record))), Usage::default()),
        None => here.carry_out(program, &job, &reports),
    };
    let code = last.as_ref().map_or(143, code);
    match last {
        Some(last) => reports.end(last, usage)?,
        None => reports.flush()?,
    }
    Ok(code)
}

fn code(last: &Last) -> i32 {
    i32::from(!matches!(last, Last::Committed(_)))
}

/// Where the job stands.
struct Here {
    home: Home,
    folder: JobFolder,
}

impl Here {
    /// The folder is `HOME/work/KEY/EXECUTION`.
    fn of(folder: &Path) -> Result<Self, StageError> {
        let no_job = || StageError::new(format!("`{}` is no folder of a job", folder.display()));
        let parts: Option<(PathBuf, &str, &str)> = (|| {
            let key = folder.parent()?;
            let root = key.parent()?.parent()?.to_owned();
            Some((
                root,
                key.file_name()?.to_str()?,
                folder.file_name()?.to_str()?,
            ))
        })();
        let (root, key, execution) = parts.ok_or_else(no_job)?;
        let home = Home::at(root);
        home.check()?;
        let key = key.parse().map_err(|_| no_job())?;
        let folder = JobFolder::new(home.attempt_dir(&key, execution));
        Ok(Self { home, folder })
    }

    /// Returns the record of the key if its artifact is there: another job, or this one before its
    /// node was lost, may have come so far.
    fn made(&self, job: &JobFile) -> Result<Option<KeyRecord>, StageError> {
        let Some(record) = read_key(&self.home, &job.draft.key)? else {
            return Ok(None);
        };
        let is_ours = record.execution_id == job.draft.execution_id;
        let condition = Store::new(self.home.clone()).condition(&record.artifact)?;
        Ok((is_ours && matches!(condition, Condition::Whole(_))).then_some(record))
    }

    /// Returns the last word, or none where the scheduler starts this job again.
    fn carry_out(
        &self,
        program: &Path,
        file: &JobFile,
        reports: &Arc<Reports>,
    ) -> (Option<Last>, Usage) {
        let begun = Instant::now();
        let saved = self.folder.saved();
        let out = self.out(reports.restart);
        let started = out.and_then(|out| {
            let job = self.job(file, &out)?;
            let child = child::start(program, &job)?;
            Ok((out, job, child))
        });
        let (out, job, child) = match started {
            Ok(started) => started,
            Err(error) => return (Some(Last::Failed(error)), Usage::default()),
        };
        let kills = out_of_memory_kills(Path::new("/"));
        let ears = Ears::listen(&self.folder, child.pid, reports);
        let mut origin = None;
        let (end, usage) = attend(child, &job, reports, &mut origin);
        let heard = ears.stop();
        let was_out_of_memory = out_of_memory_kills(Path::new("/")) > kills;
        let last = match end {
            // A grandchild may be killed and its parent end well, with half of its work.
            End::Finished(_) if was_out_of_memory => {
                let error = StageError::new("a program that it started was killed for its memory");
                Some(Last::OutOfMemory(error))
            }
            End::Failed(error) | End::Died(error) if was_out_of_memory => {
                Some(Last::OutOfMemory(error))
            }
            End::Finished(metrics) => Some(self.commit(file, &out, metrics, origin, begun)),
            End::Committed(record) => Some(Last::Committed(record)),
            End::Failed(error) if error.cancelled => self.after_stop(heard, &saved, error),
            End::Failed(error) => Some(Last::Failed(error)),
            End::Died(error) if heard == Heard::Nothing => Some(Last::Died(error)),
            // Killed because the driver wished it.
            End::Died(_) if heard == Heard::Wish => Some(Last::Failed(StageError::cancelled())),
            End::Died(error) => self.after_stop(heard, &saved, error),
        };
        (last, usage)
    }

    /// An empty folder for the outputs. A job that was started anew does not write where an earlier
    /// one, on a node that was only out of sight, may still be writing.
    fn out(&self, restart: u32) -> Result<Place, StageError> {
        let out = self.folder.place().below(format!("out-{restart}"));
        out.remove()?;
        out.create_folder()?;
        Ok(out)
    }

    fn job(&self, file: &JobFile, out: &Place) -> Result<Job, StageError> {
        let mut order = file.order.clone();
        order.assignment.out = out.to_path_buf();
        let cpus = env::var("SLURM_CPUS_PER_TASK").or_else(|_| env::var("SLURM_CPUS_ON_NODE"));
        if let Some(cpus) = cpus.ok().and_then(|cpus| cpus.parse().ok()) {
            order.assignment.threads = cpus;
        }
        let nodes = env::var("SLURM_JOB_NUM_NODES").ok();
        order.assignment.ranks.nodes = nodes.and_then(|n| n.parse().ok()).unwrap_or(1);
        let folder = self.folder.place().clone();
        Ok(Job {
            order,
            work: folder.parent().to_path_buf(),
            folder,
            log: self.home.log_path(&file.draft.execution_id),
            draft: file.draft.clone(),
            resources: file.resources.clone(),
            is_light: false,
            home: self.home.clone(),
            together: None,
        })
    }

    fn commit(
        &self,
        file: &JobFile,
        out: &Place,
        metrics: Metrics,
        origin: Option<Value>,
        begun: Instant,
    ) -> Last {
        let told = Told {
            metrics,
            origin,
            took: begun.elapsed(),
        };
        let mut draft = file.draft.clone();
        draft.host = node_name();
        let committed = draft
            .check_inputs(&self.home, &file.order.assignment.inputs)
            .and_then(|()| draft.commit(&self.home, out, told));
        committed.map_or_else(Last::Failed, |record| Last::Committed(Box::new(record)))
    }

    /// `before` are the checkpoints that there were when this start began.
    fn after_stop(&self, heard: Heard, before: &[String], error: StageError) -> Option<Last> {
        match heard {
            Heard::TimeIsUp => {
                // A start that saved nothing new would be made again as it was, and never end.
                let saved = self.folder.saved();
                let has_advanced = saved.iter().any(|saved| !before.contains(saved));
                let is_queued = has_advanced && commands::requeue_self();
                (!is_queued).then_some(Last::OutOfTime)
            }
            // Whoever only makes room begins anew, if need be, as often as that happens.
            Heard::MakeRoom => (!commands::requeue_self()).then_some(Last::Taken),
            // The scheduler signals every process of a job, so the stage may hear of it first.
            Heard::Terminated | Heard::Nothing => None,
            Heard::Wish => Some(Last::Failed(error)),
        }
    }
}

/// Passes on what the stage says, until its process is gone.
fn attend(
    child: Child,
    job: &Job,
    reports: &Arc<Reports>,
    origin: &mut Option<Value>,
) -> (End, Usage) {
    child.listen(&job.log, &mut |event: Event| {
        if let Event::Origin { origin: told } = &event {
            *origin = Some(joined(origin.take(), told));
        }
        reports.say(event);
    })
}

fn node_name() -> String {
    let of_slurm = env::var("SLURMD_NODENAME").ok();
    of_slurm.unwrap_or_else(|| {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    })
}

/// The name that the scheduler's own programs print: an array's number and the task's, or the job's.
fn job_name() -> Option<String> {
    let said = |name: &str| env::var(name).ok();
    let task = said("SLURM_ARRAY_JOB_ID").zip(said("SLURM_ARRAY_TASK_ID"));
    let task = task.map(|(array, task)| format!("{array}_{task}"));
    task.or_else(|| said("SLURM_JOB_ID"))
}

/// The reports of one start of a job.
struct Reports {
    folder: JobFolder,
    submission: u32,
    restart: u32,
    begun: Instant,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    lines: Vec<Line>,
    written: u32,
    last: Instant,
}

impl Reports {
    fn begin(folder: &JobFolder, submission: u32) -> Result<Arc<Self>, StageError> {
        let restart = folder.n_begun(submission)?;
        let began = Line::Began {
            node: node_name(),
            job: job_name(),
        };
        let waiting = Waiting {
            lines: vec![began],
            written: 0,
            last: Instant::now(),
        };
        let reports = Self {
            folder: folder.clone(),
            submission,
            restart,
            begun: Instant::now(),
            waiting: Mutex::new(waiting),
        };
        reports.flush()?;
        Ok(Arc::new(reports))
    }

    fn say(&self, event: Event) {
        let mut waiting = self.waiting();
        if matches!(event, Event::Progress { .. } | Event::Using { .. }) {
            // Of what only says how things are, the last word is enough.
            waiting.lines.retain(|line| !is_like(line, &event));
        }
        waiting.lines.push(Line::Said(event));
    }

    /// Writes what waits, if the last report is long enough ago.
    fn flush_if_due(&self) {
        let (least, most) = REPORT_EVERY;
        let pause = (self.begun.elapsed() / 60).clamp(least, most);
        let is_due = {
            let waiting = self.waiting();
            !waiting.lines.is_empty() && waiting.last.elapsed() >= pause
        };
        if is_due {
            // What cannot be written now is tried again with what comes next.
            self.flush().ok();
        }
    }

    fn flush(&self) -> Result<(), StageError> {
        let mut waiting = self.waiting();
        self.write(&mut waiting, false)
    }

    fn end(&self, last: Last, usage: Usage) -> Result<(), StageError> {
        let mut waiting = self.waiting();
        waiting.lines.push(Line::Ended { last, usage });
        self.write(&mut waiting, true)
    }

    fn write(&self, waiting: &mut Waiting, is_last: bool) -> Result<(), StageError> {
        if waiting.lines.is_empty() {
            return Ok(());
        }
        let name = report_name(self.submission, self.restart, waiting.written);
        self.folder.write_report(&name, &waiting.lines, is_last)?;
        waiting.lines.clear();
        waiting.written += 1;
        waiting.last = Instant::now();
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_like(line: &Line, event: &Event) -> bool {
    matches!(
        (line, event),
        (Line::Said(Event::Progress { .. }), Event::Progress { .. })
            | (Line::Said(Event::Using { .. }), Event::Using { .. })
    )
}

/// Why the stage was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing = 0,
    TimeIsUp = 1,
    MakeRoom = 2,
    Terminated = 3,
    Wish = 4,
}

impl Heard {
    fn of(number: u32) -> Self {
        let all = [
            Self::Nothing,
            Self::TimeIsUp,
            Self::MakeRoom,
            Self::Terminated,
            Self::Wish,
        ];
        all[number as usize % all.len()]
    }

    /// One signal says both that the time is nearly up and that another job needs the node. The scheduler
    /// knows which it was as long as the job is there.
    fn looked_into(self) -> Self {
        match self {
            Self::TimeIsUp if commands::is_preempted() => Self::MakeRoom,
            heard => heard,
        }
    }
}

/// Listens for signals and wishes while the stage works, and sees to it that reports go out.
struct Ears {
    is_over: Arc<AtomicBool>,
    heard: Arc<AtomicU32>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ears {
    fn listen(folder: &JobFolder, pid: u32, reports: &Arc<Reports>) -> Self {
        let (is_over, heard) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let signals = [
            (signal_hook::consts::SIGUSR1, Heard::TimeIsUp),
            (signal_hook::consts::SIGTERM, Heard::Terminated),
        ]
        .map(|(signal, meaning)| {
            let flag = Arc::new(AtomicBool::new(false));
            // Without the handler the job would end at once, which its successor survives.
            signal_hook::flag::register(signal, Arc::clone(&flag)).ok();
            (flag, meaning)
        });
        let (folder, reports) = (folder.clone(), Arc::clone(reports));
        let (over, first) = (Arc::clone(&is_over), Arc::clone(&heard));
        let listen = move || {
            let stop = |why: Heard, signal| {
                sys::signal_group(pid, signal);
                if first.load(Ordering::Relaxed) == Heard::Nothing as u32 {
                    first.store(why.looked_into() as u32, Ordering::Relaxed);
                }
            };
            let mut looked = Instant::now();
            let mut wished = None;
            while !over.load(Ordering::Relaxed) {
                for (flag, why) in &signals {
                    if flag.swap(false, Ordering::Relaxed) {
                        stop(*why, Signal::TERM);
                    }
                }
                if looked.elapsed() >= LOOK_EVERY {
                    looked = Instant::now();
                    let wish = folder.wished();
                    if wish != wished {
                        wished = wish;
                        match wish {
                            Some(Wished::Stop) => stop(Heard::Wish, Signal::TERM),
                            Some(Wished::StopNow) => stop(Heard::Wish, Signal::KILL),
                            None => {}
                        }
                    }
                }
                reports.flush_if_due();
                thread::sleep(HEAR_EVERY);
            }
        };
        // Where no thread is to be had, the job works on and hears nothing.
        let thread = threads::spawn(listen).ok();
        Self {
            is_over,
            heard,
            thread,
        }
    }

    fn stop(self) -> Heard {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread {
            thread.join().ok();
        }
        Heard::of(self.heard.load(Ordering::Relaxed))
    }
}

/// How often the kernel has killed something of this job for its memory; 0 where it does not say.
///
/// A stage of somebody else's program may lose a grandchild to it and end well, or with an error that
/// says nothing of memory.
fn out_of_memory_kills(root: &Path) -> u64 {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let counts = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let file = match controllers {
            "" => format!("sys/fs/cgroup{path}/memory.events"),
            "memory" => format!("sys/fs/cgroup/memory{path}/memory.oom_control"),
            _ => return None,
        };
        let text = fs::read_to_string(root.join(file)).ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))?;
        line.trim().parse::<u64>().ok()
    });
    counts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says in a tree of these files.
    fn kills(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        out_of_memory_kills(root.path())
    }

    const GROUPS: &str = "proc/self/cgroup";
    /// As version 1 has it.
    const CONTROL: &str = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
    /// As version 2 has it: twice was there no room, and three processes went.
    const EVENTS: &str =
        "low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\noom_group_kill 1\nsock_throttled 0\n";

    #[test]
    fn kills_for_memory_are_counted_in_either_version_of_control_groups() {
        let first = [
            (GROUPS, "9:cpuset:/\n5:memory:/slurm/job_7/step_0\n"),
            (
                "sys/fs/cgroup/memory/slurm/job_7/step_0/memory.oom_control",
                CONTROL,
            ),
        ];
        assert_eq!(kills(&first), 2);
        let second = [
            (GROUPS, "0::/system.slice/slurmstepd.scope/job_7\n"),
            (
                "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.events",
                EVENTS,
            ),
            ("sys/fs/cgroup/memory.events", "oom_kill 70\n"),
        ];
        assert_eq!(kills(&second), 3);
        // Both at once, where only the first has the memory.
        let mixed = [
            (
                GROUPS,
                "5:memory:/job_7\n1:name=systemd:/job_7\n0::/job_7\n",
            ),
            ("sys/fs/cgroup/memory/job_7/memory.oom_control", CONTROL),
            ("sys/fs/cgroup/job_7/cgroup.procs", ""),
        ];
        assert_eq!(kills(&mixed), 2);
    }

    #[test]
    fn a_kernel_that_does_not_say_has_killed_nothing() {
        assert_eq!(kills(&[]), 0);
        assert_eq!(kills(&[(GROUPS, "0::/job_7\n")]), 0);
        let old = "oom_kill_disable 0\nunder_oom 0\n";
        let file = "sys/fs/cgroup/memory/a/memory.oom_control";
        assert_eq!(kills(&[(GROUPS, "5:memory:/a\n"), (file, old)]), 0);
    }
}
