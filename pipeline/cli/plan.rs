//! `tinylm plan`: what would run, and why.

use clap::Args;
use serde_json::json;
use tinylm_pipeline::{
    plan::{self, PlanOptions, Planned, State},
    spec::Experiment,
};
use tinylm_registry::Registry;
use tinylm_reports::block::Tone;

use crate::{
    experiment::FileArgs,
    failure::Failure,
    history::last_recipe,
    output::{Shown, print_json, print_line},
    project::{self, Project},
    shape,
};

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn plan(project: &Project, args: &PlanArgs) -> Result<(), Failure> {
    let experiments = args.file.load_whole(project)?;
    print(project, &experiments, &args.file, args.json)
}

/// Prints the plan of each experiment; writes nothing.
pub(crate) fn print(
    project: &Project,
    experiments: &[Experiment],
    file: &FileArgs,
    as_json: bool,
) -> Result<(), Failure> {
    let mut plans = Vec::new();
    for experiment in experiments {
        plans.push((experiment, planned(project, experiment, &file.force)?));
    }
    if as_json {
        let stages = plans.iter().flat_map(|(experiment, stages)| {
            stages.iter().map(|stage| stage_json(experiment, stage))
        });
        print_json(&serde_json::Value::Array(stages.collect()));
        return Ok(());
    }
    for (idx, (experiment, stages)) in plans.iter().enumerate() {
        if plans.len() > 1 {
            if idx > 0 {
                print_line("");
            }
            let point = experiment.sweep_point.iter();
            let words: Vec<String> = point
                .map(|(path, value)| format!("{path}={value}"))
                .collect();
            print_line(words.join("  "));
        }
        print_plan(project, experiment, stages, file);
    }
    Ok(())
}

fn planned(
    project: &Project,
    experiment: &Experiment,
    force: &[String],
) -> Result<Vec<Planned>, Failure> {
    let context = project.context();
    project.checked_home()?;
    let registry = Registry::open_to_read(&context.home.registry_path())?;
    let registry = std::sync::Mutex::new(registry);
    let history = |stage: &str| {
        let registry = registry.lock().ok()?;
        last_recipe(registry.as_ref()?, &context.home, experiment, stage)
    };
    let options = PlanOptions {
        force: force.to_vec(),
    };
    let planned = plan::plan(experiment, &context, &history, &options);
    context.remember();
    planned.map_err(|error| Failure::from(error).before_running())
}

fn print_plan(project: &Project, experiment: &Experiment, stages: &[Planned], file: &FileArgs) {
    let color = project::stdout_has_color();
    let is_full = project.global.verbose || !std::io::IsTerminal::is_terminal(&std::io::stdout());
    let width = stages
        .iter()
        .map(|stage| stage.name.chars().count())
        .max()
        .unwrap_or(0);
    for stage in stages {
        let (word, tone) = match stage.state {
            State::Fresh(_) => ("fresh", Tone::Quiet),
            State::Dirty => ("dirty", Tone::Warn),
            State::Pending => ("pending", Tone::Series(0)),
        };
        let why = match &stage.state {
            State::Fresh(record) if project.global.verbose => {
                vec![format!(
                    "{} from {}",
                    record.artifact.short(),
                    record.run_name
                )]
            }
            _ => stage.why(is_full),
        };
        let name = &stage.name;
        let first = why.first().map_or("", String::as_str);
        let word = Shown::painted(&format!("{word:<8}"), tone, color);
        let line = word.then(format!(" {name:width$}  {first}"));
        print_line(line.trimmed());
        for reason in why.iter().skip(1) {
            print_line(format!("{:9}{:width$}  {reason}", "", ""));
        }
    }
    print_line(conclusion(&file.words(project), stages));
    if project.global.verbose {
        for stage in &experiment.stages {
            shape::print(&project.home(), stage, stages);
        }
    }
}

/// "`tinylm run tiny.yaml` would run 1 stage, then at most 2 that read it."
fn conclusion(words: &str, stages: &[Planned]) -> String {
    let count =
        |state: fn(&State) -> bool| stages.iter().filter(|stage| state(&stage.state)).count();
    let n_dirty = count(|state| matches!(state, State::Dirty));
    let n_pending = count(|state| matches!(state, State::Pending));
    let command = format!("`tinylm run {words}`");
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    match (n_dirty, n_pending) {
        (0, 0) => format!("{command} has nothing to do."),
        (0, n) => format!("{command} would run at most {n} stage{}.", plural(n)),
        (n, 0) => format!("{command} would run {n} stage{}.", plural(n)),
        (n, m) => {
            let them = if n == 1 { "it" } else { "them" };
            let read = if m == 1 { "reads" } else { "read" };
            format!(
                "{command} would run {n} stage{}, then at most {m} that {read} {them}.",
                plural(n)
            )
        }
    }
}

fn stage_json(experiment: &Experiment, stage: &Planned) -> serde_json::Value {
    let (state, artifact, made_by) = match &stage.state {
        State::Fresh(record) => ("fresh", Some(record.artifact), Some(&record.run_name)),
        State::Dirty => ("dirty", None, None),
        State::Pending => ("pending", None, None),
    };
    let changes = stage.changes.iter();
    let changes: Vec<_> = changes
        .map(|change| json!({"path": change.path, "was": change.was, "now": change.now}))
        .collect();
    json!({
        "experiment": experiment.name,
        "stage": stage.name,
        "kind": stage.kind,
        "state": state,
        "key": stage.key,
        "artifact": artifact,
        "made_by": made_by,
        "why": stage.why(true),
        "changes": changes,
        "waits_for": stage.waits_for,
        "sweep": experiment.sweep_point,
    })
}
