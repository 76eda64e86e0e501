//! Facts about a run that take a sentence.

use serde_json::Value;
use tinylm_registry::{Outcome, Run, Status};

use crate::{
    number::{bytes, counted, duration, moment, short_digest},
    report::{Report, Stage},
};

pub(crate) fn time_line(report: &Report) -> String {
    let run = &report.run;
    let verb = match run.status {
        Status::Running => "going on for",
        Status::Interrupted => "broke off after",
        Status::Failed => "failed after",
        Status::Cancelled => "cancelled after",
        Status::Done => "took",
    };
    let elapsed = report.elapsed_seconds;
    // When a run that was killed ended, nobody wrote down.
    if run.status == Status::Interrupted && elapsed <= 0.0 {
        return format!("{}, interrupted", moment(run.started_at));
    }
    format!("{}, {verb} {}", moment(run.started_at), duration(elapsed))
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
    let dirty = if run.git_dirty == Some(true) {
        " with uncommitted changes"
    } else {
        ""
    };
    format!("{commit}{dirty}, tinylm {}", run.version)
}

pub(crate) fn machine_line(run: &Run) -> String {
    let words = ["name", "os", "cpu"].map(|name| run.host[name].as_str());
    let mut parts: Vec<String> = words
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    let figure = |name: &str| run.host.get(name).and_then(Value::as_u64);
    parts.extend(figure("cores").map(|n| counted(n as usize, "core")));
    parts.extend(figure("memory_bytes").map(bytes));
    // What `auto` found is told with each stage.
    if !matches!(run.device.as_str(), "" | "auto") {
        parts.push(format!("on {}", run.device));
    }
    parts.join(", ")
}

/// Says what became of a stage, and for a hit which run made it.
pub(crate) fn outcome_text(report: &Report, stage: &Stage) -> String {
    let is_other = |run_id: &str| run_id != report.run.id && !stage.made_by.is_empty();
    match (stage.row.outcome, stage.execution.as_ref()) {
        (Outcome::Hit, Some(execution)) if is_other(&execution.run_id) => {
            format!("hit {}", stage.made_by)
        }
        (Outcome::Made, Some(execution)) if execution.attempt > 1 => {
            format!("made, attempt {}", execution.attempt)
        }
        // A stage that was running when its run was killed is not running.
        (Outcome::Running, _) if !report.is_going() => report.run.status.to_string(),
        (outcome, _) => outcome.to_string(),
    }
}
