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
    experiment::{FileArgs, left_out, sweep_point},
    failure::Failure,
    history::last_recipe,
    output::{Shown, print_json, print_line},
    project::{self, Project},
    shape::Shapes,
};

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Print JSON: what stands in it is told by `--help`
    ///
    /// A list of stages: `experiment`, `stage`, `kind`, `state` (`fresh`, `dirty` or `pending`), `key`,
    /// `artifact` and the run that it was `made_by`, `why` in words, `changes` of the recipe (`path`, `was`,
    /// `now`), the stages that it `waits_for`, its point of a `sweep`. `forecast` of a stage that trains has
    /// `parameters`, `flops_per_token`, `memory_bytes` and `memory_available_bytes`, `steps`, `epochs`,
    /// `tokens` (`is_counted`, or else estimated), and if it would run the `seconds` that it would take
    /// at so many `tokens_per_second`, and `because` of what; null is what nobody can tell yet. A stage that is
    /// `left_out` has nothing but `why`.
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
            let shapes = Shapes::of(project, experiment, stages);
            let numbered = stages.iter().enumerate();
            let rows =
                numbered.map(|(idx, stage)| stage_json(experiment, stage, shapes.json(idx, stage)));
            let left_out = experiment.left_out.told().map(|(stage, why)| {
                json!({ "experiment": experiment.name, "stage": stage, "state": "left_out", "why": [why] })
            });
            rows.chain(left_out).collect::<Vec<_>>()
        });
        print_json(&serde_json::Value::Array(stages.collect()));
        return Ok(());
    }
    let words = file.words(project);
    match &plans[..] {
        [(experiment, stages)] => print_stages(project, experiment, stages, &|_| true),
        plans => print_sweep(project, plans),
    }
    print_line(conclusion(&words, &distinct(&plans)));
    let is_whole = |stages: &[Planned]| {
        stages
            .iter()
            .all(|one| matches!(one.state, State::Fresh(_)))
    };
    if let Some(remote) = project
        .remote()?
        .filter(|_| !plans.iter().all(|(_, stages)| is_whole(stages)))
    {
        let shown = remote.shown();
        print_line(format!(
            "{shown} was not asked: `run` takes from there what it has."
        ));
    }
    Ok(())
}

type Plan<'a> = (&'a Experiment, Vec<Planned>);

/// Prints what the points of a sweep have in common, then what each has of its own.
fn print_sweep(project: &Project, plans: &[Plan<'_>]) {
    let shared = shared(plans);
    if let Some((experiment, stages)) = plans.first() {
        print_stages(project, experiment, stages, &|idx| shared[idx]);
    }
    for (idx, (experiment, stages)) in plans.iter().enumerate() {
        if idx > 0 || shared.contains(&true) {
            print_line("");
        }
        let point = sweep_point(experiment).unwrap_or_default();
        print_line(format!("{} of {}: {point}", idx + 1, plans.len()));
        print_stages(project, experiment, stages, &|idx| !shared[idx]);
    }
    print_line("");
}

/// Returns which stages are the same at all points, in the order of the plan.
fn shared(plans: &[Plan<'_>]) -> Vec<bool> {
    let [(first, stages), others @ ..] = plans else {
        return Vec::new();
    };
    let mut shared: Vec<bool> = Vec::new();
    for (idx, stage) in stages.iter().enumerate() {
        let spec = &first.stages[idx];
        let reads_shared = spec.reads().all(|name| {
            let read = first.stages[..idx]
                .iter()
                .position(|read| read.name == name);
            read.is_some_and(|read| shared[read])
        });
        let is_same = |(other, planned): &Plan<'_>| {
            let other = &other.stages[idx];
            let has_seed = !spec.kind.seeded || spec.seed == other.seed;
            stage.key == planned[idx].key
                && (stage.key.is_some() || (reads_shared && has_seed && spec.with == other.with))
        };
        shared.push(others.iter().all(is_same));
    }
    shared
}

/// Returns what all points of a sweep would run, what they share once.
fn distinct<'a>(plans: &'a [Plan<'_>]) -> Vec<&'a Planned> {
    let shared = shared(plans);
    let of_points = plans.iter().enumerate().flat_map(|(point, (_, stages))| {
        let is_counted = |idx: usize| point == 0 || !shared.get(idx).is_some_and(|shared| *shared);
        let stages = stages.iter().enumerate();
        let counted = stages.filter(move |(idx, _)| is_counted(*idx));
        counted.map(|(_, stage)| stage).collect::<Vec<_>>()
    });
    of_points.collect()
}

fn planned(
    project: &Project,
    experiment: &Experiment,
    force: &[String],
) -> Result<Vec<Planned>, Failure> {
    let context = project.context();
    project.checked_home()?;
    let registry = Registry::open_to_read(&context.home)?;
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

/// Prints the stages that are chosen by their places, a line each with the reason.
fn print_stages(
    project: &Project,
    experiment: &Experiment,
    stages: &[Planned],
    is_chosen: &dyn Fn(usize) -> bool,
) {
    let is_full = project.global.verbose || !std::io::IsTerminal::is_terminal(&std::io::stdout());
    let names = stages.iter().map(|stage| stage.name.as_str());
    let widths = names
        .chain(experiment.left_out.names())
        .map(|name| name.chars().count());
    let width = widths.max().unwrap_or(0);
    let chosen = || (0..stages.len()).filter(|idx| is_chosen(*idx));
    for stage in chosen().map(|idx| &stages[idx]) {
        print_stage(project, stage, width, is_full);
    }
    if chosen().next() == Some(0) {
        left_out(experiment, width).for_each(print_line);
    }
    if project.global.verbose {
        let shapes = Shapes::of(project, experiment, stages);
        for idx in chosen() {
            shapes.print(idx, &stages[idx]);
        }
    }
}

fn print_stage(project: &Project, stage: &Planned, width: usize, is_full: bool) {
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
    let word = Shown::painted(&format!("{word:<8}"), tone, project::stdout_has_color());
    let line = word.then(format!(" {name:width$}  {first}"));
    print_line(line.trimmed());
    for reason in why.iter().skip(1) {
        print_line(format!("{:9}{:width$}  {reason}", "", ""));
    }
}

/// "`tinylm run tiny.yaml` would run 1 stage, then at most 2 that read it."
fn conclusion(words: &str, stages: &[&Planned]) -> String {
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

fn stage_json(
    experiment: &Experiment,
    stage: &Planned,
    forecast: serde_json::Value,
) -> serde_json::Value {
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
        "forecast": forecast,
    })
}
