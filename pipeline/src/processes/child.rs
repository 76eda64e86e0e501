//! One stage's process: start it, listen to it, account for it.

use std::{
    fs,
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdout, Command, Stdio},
};

use rustix::process::Signal;

use super::orphans::{ATTEMPT_VAR, mark};
use crate::{
    error::{At, StageError},
    event::Event,
    executor::{End, Job},
    sys::{self, Exit},
    usage::Usage,
};

/// Last lines of a log that an error quotes.
const LOG_LINES_SHOWN: usize = 5;

pub(crate) struct Child {
    pub(crate) pid: u32,
    stdout: ChildStdout,
}

/// Starts the process and hands it the order.
pub(crate) fn start(program: &Path, job: &Job) -> Result<Child, StageError> {
    let order = serde_json::to_vec(&job.order)
        .map_err(|error| StageError::new("the order could not be written").cause(error))?;
    let mut log = job.log.open_or_create()?;
    // A job that is started anew goes on with its log.
    log.seek(SeekFrom::End(0)).at(&job.log)?;
    let mut command = Command::new(program);
    command
        .arg("exec-stage")
        .env(ATTEMPT_VAR, mark(job))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        // A group of its own: a stop reaches all that the stage started, and Ctrl-C in the
        // terminal reaches only us.
        .process_group(0);
    let mut child = sys::die_with_parent(&mut command)
        .spawn()
        .map_err(|error| StageError::io(program, &error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that died at once is told by its exit status.
        stdin.write_all(&order).ok();
    }
    let pid = child.id();
    let stdout = child.stdout.take();
    stdout
        .map(|stdout| Child { pid, stdout })
        .ok_or_else(|| StageError::new("the stage's process has no output"))
}

impl Child {
    /// Passes events on until the process is gone.
    pub(crate) fn listen(self, log: &Path, on_event: &mut dyn FnMut(Event)) -> (End, Usage) {
        let last = last_word(self.stdout, on_event);
        let waited = sys::wait(self.pid);
        // Whatever the stage started and left behind ends with it.
        sys::signal_group(self.pid, Signal::KILL);
        match waited {
            Ok((exit, usage)) => (end(last, exit, usage, log), usage),
            Err(error) => {
                let message = "the stage's process could not be waited for";
                let error = StageError::new(message).cause(error);
                (End::Died(error), Usage::default())
            }
        }
    }
}

fn end(last: Option<End>, exit: Exit, usage: Usage, log: &Path) -> End {
    match last {
        Some(End::Finished(metrics)) if exit == Exit::Code(0) => End::Finished(metrics),
        Some(End::Failed(error)) => End::Failed(error),
        _ => End::Died(died(exit, usage, log)),
    }
}

/// The stage said nothing of its end: what the system says instead.
fn died(exit: Exit, usage: Usage, log: &Path) -> StageError {
    let peak_mb = usage.peak_memory_bytes / 1_000_000;
    match exit {
        Exit::Signal(9) => StageError::new("its process was killed by the system (signal 9)")
            .cause(format!(
                "most often the machine ran out of memory; it had used {peak_mb} MB"
            ))
            .help("lower its memory use (a smaller batch, a smaller model), or free some memory"),
        Exit::Signal(signal) => {
            StageError::new(format!("its process was ended by signal {signal}"))
                .cause(log_tail(log))
        }
        Exit::Code(101) => StageError::new("it panicked, which is a bug in tinylm")
            .cause(log_tail(log))
            .help(format!("please report it with `{}`", log.display())),
        Exit::Code(code) => StageError::new(format!(
            "its process ended with exit code {code} and no word"
        ))
        .cause(log_tail(log)),
    }
}

pub(crate) fn log_tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join(" / ")
}

/// Passes events on until the stage closes its output; returns its last word.
fn last_word(stdout: ChildStdout, on_event: &mut dyn FnMut(Event)) -> Option<End> {
    let mut last = None;
    for line in BufReader::new(stdout).split(b'\n') {
        let Ok(line) = line else { break };
        match serde_json::from_slice(&line) {
            Ok(Event::Finished { metrics }) => last = Some(End::Finished(metrics)),
            Ok(Event::Failed { error }) => last = Some(End::Failed(error)),
            Ok(event) => on_event(event),
            // A line cut short by a kill, or a library that prints: not an event.
            Err(_) => {}
        }
    }
    last
}
