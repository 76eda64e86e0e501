//! What a terminal and a page say in the same words.

use crate::{
    number::{bytes, counted, duration, moment, short_digest},
    report::{Execution, Report, Run, Stage},
};

/// Returns what a run is called in tables and charts: A, B, ... and numbers after Z.
pub(crate) fn letter(run_idx: usize) -> String {
    match u8::try_from(run_idx) {
        Ok(idx) if idx < 26 => char::from(b'A' + idx).to_string(),
        _ => (run_idx + 1).to_string(),
    }
}

pub(crate) fn time_line(report: &Report) -> String {
    let run = &report.run;
    let verb = match run.status.as_str() {
        "running" => "going on for",
        "interrupted" => "broke off after",
        "failed" => "failed after",
        "cancelled" => "cancelled after",
        _ => "took",
    };
    let elapsed = run.elapsed_seconds;
    // When a run that was killed ended, nobody wrote down.
    if run.status == "interrupted" && elapsed <= 0.0 {
        return format!("{}, interrupted", moment(run.started_ms));
    }
    format!("{}, {verb} {}", moment(run.started_ms), duration(elapsed))
}

pub(crate) fn cost_line(report: &Report) -> String {
    let cost = report.cost();
    let mut parts = Vec::new();
    if cost.cpu_seconds > 0.0 {
        parts.push(format!("cpu {}", duration(cost.cpu_seconds)));
    }
    if cost.peak_memory_bytes > 0 {
        parts.push(format!("peak {}", bytes(cost.peak_memory_bytes)));
    }
    parts.push(format!(
        "{} made, {} hit",
        counted(cost.n_made, "stage"),
        cost.n_hit
    ));
    if cost.n_hit > 0 && cost.stages_seconds > 0.0 {
        parts.push(format!("{} from scratch", duration(cost.stages_seconds)));
    }
    parts.join(", ")
}

pub(crate) fn code_line(run: &Run) -> String {
    let commit = match &run.git_commit {
        Some(commit) => format!("git {}", short_digest(commit)),
        None => "not in git".to_owned(),
    };
    let dirty = if run.git_dirty {
        " with uncommitted changes"
    } else {
        ""
    };
    format!("{commit}{dirty}, tinylm {}", run.version)
}

pub(crate) fn machine_line(run: &Run) -> String {
    let host = &run.host;
    let mut parts: Vec<String> = [&host.name, &host.os, &host.cpu]
        .into_iter()
        .filter(|part| !part.is_empty())
        .cloned()
        .collect();
    parts.extend(host.cores.map(|n| counted(n as usize, "core")));
    parts.extend(host.memory_bytes.map(bytes));
    if !run.device.is_empty() {
        parts.push(format!("on {}", run.device));
    }
    parts.join(", ")
}

/// Says what became of a stage, and for a hit which run made it.
pub(crate) fn outcome_text(report: &Report, stage: &Stage) -> String {
    let made_by = |execution: &Execution| {
        let is_other = execution.run_id != report.run.id && !execution.run_name.is_empty();
        is_other.then(|| execution.run_name.clone())
    };
    match (stage.outcome.as_str(), stage.execution.as_ref()) {
        ("hit", Some(execution)) => match made_by(execution) {
            Some(name) => format!("hit {name}"),
            None => "hit".to_owned(),
        },
        ("made", Some(execution)) if execution.attempt > 1 => {
            format!("made, attempt {}", execution.attempt)
        }
        // A stage that was running when its run was killed is not running.
        ("running", _) if !report.is_going() => report.run.status.clone(),
        (outcome, _) => outcome.to_owned(),
    }
}
