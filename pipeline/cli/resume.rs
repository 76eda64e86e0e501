//! `tinylm resume`: going on with a run that did not end well.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::Value;
use tinylm_pipeline::{
    Context, Interrupt, Resolve,
    secrets::{MASK, Secrets},
    spec::{self, Experiment},
};
use tinylm_registry::{Life, Registry, Run, RunQuery, Status};

use crate::{
    completions,
    device::device_of,
    driver,
    experiment::shell_word,
    failure::Failure,
    job::{Ground, HowArgs, Job, all_settings, local_digests},
    lookup::runs_of_its_sweep,
    output::{print_line, say},
    project::{Project, quoted},
    signals::listen_for_signals,
    sweep,
};

/// How often it is looked whether a driver has turned out to be dead.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The run; without one, the last that did not end well
    #[arg(add = completions::runs())]
    pub(crate) run: Option<String>,
    /// Go on with all runs of its sweep that did not end well
    #[arg(long)]
    pub(crate) sweep: bool,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

pub(crate) fn resume(project: &Project, args: &ResumeArgs) -> Result<(), Failure> {
    if driver::is_elsewhere(project, &args.how, false)? {
        return Ok(());
    }
    let registry = project.registry_to_write()?;
    let Some(run) = named(&registry, args.run.as_deref())? else {
        say(&project.global, "every run is done: nothing is left to do");
        return Ok(());
    };
    if args.sweep {
        return resume_sweep(project, &registry, &run, &args.how);
    }
    resume_one(project, &registry, run, &args.how)
}

/// Goes on with the run of this id.
pub(crate) fn resume_id(project: &Project, id: &str, how: &HowArgs) -> Result<(), Failure> {
    let registry = project.registry_to_write()?;
    let run = registry.run(id)?;
    resume_one(project, &registry, run, how)
}

fn resume_one(
    project: &Project,
    registry: &Registry,
    run: Run,
    how: &HowArgs,
) -> Result<(), Failure> {
    if run.status == Status::Done {
        let told = format!("{} is done: nothing is left to do", run.name);
        say(&project.global, &told);
        return Ok(());
    }
    let ground = ground(project, registry, &run, how)?;
    if run.status == Status::Running && !is_known_to_be_over(project, &run, &ground)? {
        return Err(Failure::wrong(format!("{} is still going on", run.name))
            .help(format!("follow it with `tinylm show {}`", run.name)));
    }
    let interrupt = listen_for_signals()?;
    match go_on(project, registry, run, how, &ground, None, &interrupt)? {
        0 => Ok(()),
        code => Err(Failure::said(code)),
    }
}

/// Whether a run that nobody here sees the end of has lost its driver all the same: a scheduler knows its job.
fn is_known_to_be_over(project: &Project, run: &Run, ground: &Ground) -> Result<bool, Failure> {
    let home = project.checked_home()?;
    let executor = ground.executor();
    let until = Instant::now() + executor.settle();
    let mut is_told = false;
    loop {
        let Some(holder) = home.holder_of_run(&run.id)? else {
            return Ok(true);
        };
        match executor.life(&holder) {
            Life::Dead => return Ok(true),
            Life::Unknown if holder.job.is_some() && Instant::now() < until => {}
            _ => return Ok(false),
        }
        if !is_told {
            say(
                &project.global,
                &format!("asking the scheduler whether it lives: {}", holder.words()),
            );
            is_told = true;
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn named(registry: &Registry, name: Option<&str>) -> Result<Option<Run>, Failure> {
    let newest_first = || registry.runs(&RunQuery::default());
    match name {
        // Here the last run is the newest one, whatever came of it: that is what is gone on with.
        Some("@last") => Ok(newest_first()?.into_iter().next()),
        Some(name) => Ok(Some(registry.find_run(name)?)),
        None => Ok(newest_first()?.into_iter().find(is_resumable)),
    }
}

fn is_resumable(run: &Run) -> bool {
    !matches!(run.status, Status::Done | Status::Running)
}

fn resume_sweep(
    project: &Project,
    registry: &Registry,
    run: &Run,
    how: &HowArgs,
) -> Result<(), Failure> {
    let mut runs = runs_of_its_sweep(registry, run)?;
    runs.retain(is_resumable);
    let interrupt = listen_for_signals()?;
    let ground = ground(project, registry, run, how)?;
    let n_at_once = ground.n_side_by_side(how).min(runs.len());
    let carry_out = |idx: usize, is_stopped: bool| {
        let run: &Run = &runs[idx];
        if is_stopped {
            return Ok(0);
        }
        if n_at_once == 1 {
            let gap = if idx > 0 { "\n" } else { "" };
            print_line(format!("{gap}{}", run.name));
        }
        let label = (n_at_once > 1).then(|| run.name.clone());
        // A connection belongs to the thread that opened it.
        go_on(
            project,
            &project.registry_to_write()?,
            run.clone(),
            how,
            &ground,
            label,
            &interrupt,
        )
    };
    let worst = sweep::carry_out(runs.len(), n_at_once, how, &carry_out)?;
    sweep::print(project, run.sweep.as_deref().unwrap_or_default())?;
    match worst {
        0 => Ok(()),
        code => Err(Failure::said(code)),
    }
}

/// Where a run goes on: where the command says, or without a word where it began.
fn ground(
    project: &Project,
    registry: &Registry,
    run: &Run,
    how: &HowArgs,
) -> Result<Ground, Failure> {
    let resolved = resolved(registry, run)?;
    Ground::of(
        project,
        how.executor.as_deref().or(resolved["executor"].as_str()),
    )
}

fn resolved(registry: &Registry, run: &Run) -> Result<Value, Failure> {
    let text = registry.source(&run.id)?.resolved;
    serde_json::from_str(&text)
        .map_err(|error| Failure::wrong(format!("the record of {} is damaged: {error}", run.name)))
}

/// A run's experiment as it began.
pub(crate) fn recorded_experiment(
    project: &Project,
    registry: &Registry,
    run: &Run,
) -> Result<Experiment, Failure> {
    let resolved = resolved(registry, run)?;
    let mut experiment = Experiment::from_resolved(&resolved, &project.catalog)
        .map_err(|error| Failure::wrong(format!("{} cannot be carried out: {error}", run.name)))?;
    take_secrets(project, &mut experiment);
    Ok(experiment)
}

/// Goes on with a run; returns the exit code.
fn go_on(
    project: &Project,
    registry: &Registry,
    run: Run,
    how: &HowArgs,
    ground: &Ground,
    label: Option<String>,
    interrupt: &Arc<Interrupt>,
) -> Result<u8, Failure> {
    let how = &HowArgs {
        device: device_of(project, registry, &how.device, &run)?,
        ..how.clone()
    };
    let resolved = resolved(registry, &run)?;
    let experiment = recorded_experiment(project, registry, &run)?;
    refuse_foreign_programs(registry, &experiment, &run)?;
    refuse_changed_files(&project.context(), &experiment, &resolved, &run.name)?;
    let job = Job {
        project,
        experiment: &experiment,
        how,
        force: &[],
        resolve: Resolve::IfNew,
        run_id: run.id,
        is_resumed: true,
        sweep: run.sweep,
        tags: &[],
        interrupt,
        ground,
        label,
        anew: format!(
            "tinylm run {}",
            shell_word(&project.shown(&experiment.file))
        ),
    };
    job.run()
}

/// Programs that nobody here has written are not carried out from a record that came with a run.
fn refuse_foreign_programs(
    registry: &Registry,
    experiment: &Experiment,
    run: &Run,
) -> Result<(), Failure> {
    let mut stages = experiment.stages.iter();
    let program = stages.find(|stage| stage.kind.name == "command");
    match program.filter(|_| registry.came_from_elsewhere(&run.id).unwrap_or(true)) {
        None => Ok(()),
        Some(stage) => {
            let message = format!(
                "{} came from another home, and its `{}` runs a program",
                run.name, stage.name
            );
            Err(Failure::wrong(message).help("read its file, then `tinylm run` that"))
        }
    }
}

/// Secrets of addresses were not written down: they are taken from the experiment file, where that
/// still says the same.
fn take_secrets(project: &Project, experiment: &mut Experiment) {
    if !all_settings(experiment).contains(MASK) {
        return;
    }
    let request = spec::Request {
        file: experiment.file.clone(),
        current_dir: project.current_dir.clone(),
        ..spec::Request::default()
    };
    // Without it a stage that needs a secret says so.
    for now in spec::load(&request, &project.catalog).unwrap_or_default() {
        let secrets = Secrets::of(&all_settings(&now));
        for stage in &mut experiment.stages {
            if let Some(now) = now.stages.iter().find(|now| now.name == stage.name) {
                unmask(&mut stage.with, &now.with, &secrets);
            }
        }
    }
}

/// Replaces texts by those that they are the masked form of.
fn unmask(masked: &mut Value, now: &Value, secrets: &Secrets) {
    match (masked, now) {
        (Value::String(masked), Value::String(now)) if *masked == secrets.mask(now) => {
            now.clone_into(masked);
        }
        (Value::Array(masked), Value::Array(now)) => {
            let pairs = masked.iter_mut().zip(now);
            pairs.for_each(|(masked, now)| unmask(masked, now, secrets));
        }
        (Value::Object(masked), Value::Object(now)) => {
            for (name, masked) in masked {
                unmask(masked, &now[name], secrets);
            }
        }
        _ => {}
    }
}

fn refuse_changed_files(
    context: &Context,
    experiment: &Experiment,
    resolved: &Value,
    run_name: &str,
) -> Result<(), Failure> {
    let now = local_digests(context, experiment)?;
    let empty = serde_json::Map::new();
    let then = resolved["local_files"].as_object().unwrap_or(&empty);
    let is_changed = |path: &&String| now.get(path.as_str()) != then.get(path.as_str());
    let names: Vec<&str> = then.keys().filter(is_changed).map(String::as_str).collect();
    let added = now.as_object().into_iter().flat_map(|now| now.keys());
    let added: Vec<&str> = added
        .filter(|path| !then.contains_key(*path))
        .map(String::as_str)
        .collect();
    if names.is_empty() && added.is_empty() {
        return Ok(());
    }
    let changed = quoted(names.into_iter().chain(added));
    Err(
        Failure::wrong(format!("{changed} changed since {run_name} began")).help(
            "put the file back, or start a new run with `tinylm run`: what did not change is a hit",
        ),
    )
}
