//! The parent's side of a stage's process: start it, listen, stop it, account for it.
//!
//! A process rather than a thread, so that a stage that runs out of memory takes
//! nothing with it, a time-out is a signal, and cpu time and peak memory are the
//! kernel's own figures for this stage alone.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use tinylm_registry::Place;

use crate::{
    context::from_registry,
    error::StageError,
    event::Event,
    exec::Order,
    metrics::Metrics,
    sys::{self, Exit, Usage},
};

/// In a stage's environment: `WORK-FOLDER:EXECUTION`, by which a later attempt knows what a dead one
/// left. The folder names home and key: another home may be making the same key this moment.
pub(crate) const ATTEMPT_VAR: &str = "TINYLM_ATTEMPT";

/// How often signals and time-outs are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// How long a stage that was asked to stop may take to reach a safe point.
const GRACE: Duration = Duration::from_secs(60);

/// The same after a time-out: the work is given up anyway.
const TIMEOUT_GRACE: Duration = Duration::from_secs(5);

/// Last lines of a log that an error quotes.
const LOG_LINES_SHOWN: usize = 5;

/// One attempt at a stage.
pub(crate) struct Attempt<'a> {
    /// The program whose `exec-stage` carries out the order.
    pub program: &'a Path,
    pub order: &'a Order,
    /// The value of [`ATTEMPT_VAR`].
    pub mark: String,
    pub log: Place,
    pub timeout: Option<Duration>,
}

/// Whether the stage should go on, as asked by whoever runs the experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    GoOn,
    /// Stop at the next safe point.
    Stop,
    /// Asked twice: stop at once.
    Kill,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub result: Result<Metrics, StageError>,
    pub usage: Usage,
}

impl Attempt<'_> {
    /// Starts the process, passes its events on and returns when it is gone.
    pub(crate) fn run(
        &self,
        wish: &(dyn Fn() -> Wish + Sync),
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Ended, StageError> {
        let (pid, stdout) = self.start()?;
        let (done, is_done) = mpsc::channel::<()>();
        let (last, ended, stopped) = thread::scope(|scope| {
            let watcher = thread::Builder::new()
                .spawn_scoped(scope, || watch(pid, self.timeout, wish, is_done))
                .map_err(|error| {
                    sys::signal_group(pid, Signal::KILL);
                    sys::wait(pid).ok();
                    StageError::no_thread(&error)
                })?;
            let last = listen(stdout, on_event);
            // The exit is awaited while the watcher still enforces time-outs.
            let ended = sys::wait(pid);
            drop(done);
            Ok::<_, StageError>((last, ended, watcher.join().unwrap_or(Stopped::Not)))
        })?;
        let (exit, usage) = ended.map_err(|error| {
            StageError::new("the stage's process could not be waited for").cause(error)
        })?;
        // Whatever the stage started and left behind ends with it.
        sys::signal_group(pid, Signal::KILL);
        Ok(Ended {
            result: self.result(last, exit, stopped, usage),
            usage,
        })
    }

    fn start(&self) -> Result<(u32, ChildStdout), StageError> {
        let log = self
            .log
            .create_file()
            .map_err(|error| from_registry(&error))?;
        let mut command = Command::new(self.program);
        command
            .arg("exec-stage")
            .env(ATTEMPT_VAR, &self.mark)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // A group of its own: a stop or a time-out reaches all that the stage started,
            // and Ctrl-C in the terminal reaches only us.
            .process_group(0);
        let mut child = sys::die_with_parent(&mut command)
            .spawn()
            .map_err(|error| StageError::io(self.program, &error))?;
        let order = serde_json::to_vec(self.order)
            .map_err(|error| StageError::new("the order could not be written").cause(error))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that died at once is told by its exit status.
            stdin.write_all(&order).ok();
        }
        let stdout = child.stdout.take();
        stdout
            .map(|stdout| (child.id(), stdout))
            .ok_or_else(|| StageError::new("the stage's process has no output"))
    }

    fn result(
        &self,
        last: Option<Last>,
        exit: Exit,
        stopped: Stopped,
        usage: Usage,
    ) -> Result<Metrics, StageError> {
        match (last, stopped) {
            (Some(Last::Finished(metrics)), _) if exit == Exit::Code(0) => Ok(metrics),
            (_, Stopped::TimedOut(after)) => Err(StageError::new(format!(
                "it did not finish within its `timeout` of {} s",
                after.as_secs_f64()
            ))
            .help("raise `timeout`, or set `retries`")),
            (Some(Last::Failed(error)), _) => Err(error),
            (_, Stopped::Asked) => Err(StageError::cancelled()),
            _ => Err(self.died(exit, usage)),
        }
    }

    /// The stage said nothing of its end: what the system says instead.
    fn died(&self, exit: Exit, usage: Usage) -> StageError {
        let peak_mb = usage.peak_memory_bytes / 1_000_000;
        match exit {
            Exit::Signal(9) => StageError::new("its process was killed by the system (signal 9)")
                .cause(format!(
                    "most often the machine ran out of memory; it had used {peak_mb} MB"
                ))
                .help(
                    "lower its memory use (a smaller batch, a smaller model), or free some memory",
                ),
            Exit::Signal(signal) => {
                StageError::new(format!("its process was ended by signal {signal}"))
                    .cause(self.log_tail())
            }
            Exit::Code(101) => StageError::new("it panicked, which is a bug in tinylm")
                .cause(self.log_tail())
                .help(format!("please report it with `{}`", self.log.display())),
            Exit::Code(code) => StageError::new(format!(
                "its process ended with exit code {code} and no word"
            ))
            .cause(self.log_tail()),
        }
    }

    fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join(" / ")
    }
}

enum Last {
    Finished(Metrics),
    Failed(StageError),
}

/// Passes events on until the stage closes its output; returns its last word.
fn listen(stdout: ChildStdout, on_event: &mut dyn FnMut(Event)) -> Option<Last> {
    let mut last = None;
    for line in BufReader::new(stdout).split(b'\n') {
        let Ok(line) = line else { break };
        match serde_json::from_slice(&line) {
            Ok(Event::Finished { metrics }) => last = Some(Last::Finished(metrics)),
            Ok(Event::Failed { error }) => last = Some(Last::Failed(error)),
            Ok(event) => on_event(event),
            // A line cut short by a kill, or a library that prints: not an event.
            Err(_) => {}
        }
    }
    last
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stopped {
    Not,
    Asked,
    TimedOut(Duration),
}

/// Ends the process group when it is wished or the time is over.
fn watch(
    pid: u32,
    timeout: Option<Duration>,
    wish: &(dyn Fn() -> Wish + Sync),
    is_done: mpsc::Receiver<()>,
) -> Stopped {
    let started = Instant::now();
    let mut stopped = Stopped::Not;
    let mut kill_at: Option<Instant> = None;
    loop {
        if is_done.recv_timeout(WATCH_EVERY) != Err(mpsc::RecvTimeoutError::Timeout) {
            return stopped;
        }
        let wish = wish();
        let late = timeout.filter(|timeout| started.elapsed() > *timeout);
        if stopped == Stopped::Not && (wish != Wish::GoOn || late.is_some()) {
            stopped = late.map_or(Stopped::Asked, Stopped::TimedOut);
            let grace = if late.is_some() { TIMEOUT_GRACE } else { GRACE };
            kill_at = Some(Instant::now() + grace);
            sys::signal_group(pid, Signal::TERM);
        }
        if wish == Wish::Kill || kill_at.is_some_and(|at| Instant::now() > at) {
            sys::signal_group(pid, Signal::KILL);
        }
    }
}

/// Ends every process that a dead attempt at the same key in the same home left behind.
///
/// Called by the holder of the key's lock: whatever still carries the mark of that
/// key is nobody's any more, and might write into a folder that is about to be used.
pub(crate) fn end_orphans(work_dir: &Path) {
    let wanted = format!("{ATTEMPT_VAR}={}:", work_dir.display());
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    let me = std::process::id();
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid != me && has_mark(&process.path(), wanted.as_bytes()) {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                rustix::process::kill_process(pid, Signal::KILL).ok();
            }
        }
    }
}

fn has_mark(process: &Path, mark: &[u8]) -> bool {
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    environment
        .split(|byte| *byte == 0)
        .any(|variable| variable.starts_with(mark))
}
