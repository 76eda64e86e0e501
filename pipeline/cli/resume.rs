//! `tinylm resume`: going on with a run that did not end well.

use clap::Args;
use serde_json::Value;
use tinylm_pipeline::{
    Context, Resolve,
    secrets::{MASK, Secrets},
    spec::{self, Experiment},
};
use tinylm_registry::Status;

use crate::{
    failure::Failure,
    job::{HowArgs, Job, all_settings, local_digests},
    output::print_line,
    project::{Project, quoted},
    signals::listen_for_signals,
};

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The run
    #[arg(default_value = "@last")]
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

pub(crate) fn resume(project: &Project, args: &ResumeArgs) -> Result<(), Failure> {
    let registry = project.registry_to_write()?;
    let run = registry.find_run(&args.run)?;
    match run.status {
        Status::Done => {
            if !project.global.quiet {
                print_line(format!("{} is done: nothing is left to do", run.name));
            }
            return Ok(());
        }
        Status::Running => {
            return Err(Failure::wrong(format!("{} is still going on", run.name))
                .help(format!("follow it with `tinylm show {}`", run.name)));
        }
        Status::Failed | Status::Cancelled | Status::Interrupted => {}
    }
    let resolved: Value =
        serde_json::from_str(&registry.source(&run.id)?.resolved).map_err(|error| {
            Failure::wrong(format!("the record of {} is damaged: {error}", run.name))
        })?;
    let mut experiment = Experiment::from_resolved(&resolved, &project.catalog)
        .map_err(|error| Failure::wrong(format!("{} cannot go on: {error}", run.name)))?;
    drop(registry);
    take_secrets(project, &mut experiment);
    let context = project.context();
    refuse_changed_files(&context, &experiment, &resolved, &run.name)?;
    let interrupt = listen_for_signals()?;
    let job = Job {
        project,
        experiment: &experiment,
        how: &args.how,
        force: &[],
        resolve: Resolve::IfNew,
        run_id: run.id,
        is_resumed: true,
        sweep: run.sweep,
        tags: &[],
        interrupt: &interrupt,
    };
    match job.run()? {
        0 => Ok(()),
        code => Err(Failure::said(code)),
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
