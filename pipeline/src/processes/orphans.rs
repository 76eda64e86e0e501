//! Processes that a dead attempt left behind.
//!
//! A child dies with its parent, but what it started may not. Every process of an attempt carries
//! the attempt's mark in its environment, and whoever claims the key next ends all that carry it.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal};

use crate::executor::Job;

/// In a stage's environment: `WORK-FOLDER:EXECUTION`. The folder names home and key, since another
/// home may be making the same key this moment.
pub(super) const ATTEMPT_VAR: &str = "TINYLM_ATTEMPT";

/// Returns the value of [`ATTEMPT_VAR`] for a job.
pub(super) fn mark(job: &Job) -> String {
    format!("{}:{}", job.work.display(), job.draft.execution_id)
}

/// Ends every process that a dead attempt in this folder left behind.
///
/// Called by the holder of the key's lock: whatever still carries the mark is nobody's any more,
/// and might write into a folder that is about to be used.
pub(super) fn end(work: &Path) {
    let wanted = format!("{ATTEMPT_VAR}={}:", work.display());
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
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
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
