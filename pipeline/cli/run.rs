//! `tinylm run`: an experiment, or each point of a sweep.

use clap::{Args, builder::NonEmptyStringValueParser};
use tinylm_pipeline::{Resolve, secrets::masked, spec::Experiment};
use tinylm_registry::names;

use crate::{
    experiment::FileArgs,
    failure::{Failure, STAGE_FAILED},
    job::{HowArgs, Job},
    output::print_line,
    plan,
    project::Project,
    runs,
    signals::listen_for_signals,
};

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    /// Refuse to ask the outside what a source is: the lock file must know
    #[arg(long)]
    pub(crate) locked: bool,
    /// Say what would run, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Tag the run
    #[arg(long, value_name = "TAG", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) tag: Vec<String>,
}

pub(crate) fn run(project: &Project, args: &RunArgs) -> Result<(), Failure> {
    let experiments = args.file.load_whole(project)?;
    if args.dry_run {
        return plan::print(project, &experiments, &args.file, false);
    }
    let sweep = (experiments.len() > 1).then(names::new_id);
    let interrupt = listen_for_signals()?;
    let mut worst = 0;
    for (idx, experiment) in experiments.iter().enumerate() {
        if let Some(point) = sweep_point(experiment) {
            if idx > 0 {
                println(project, "");
            }
            println(
                project,
                &format!("{} of {}: {point}", idx + 1, experiments.len()),
            );
        }
        let job = Job {
            project,
            experiment,
            how: &args.how,
            force: &args.file.force,
            resolve: if args.locked {
                Resolve::Refuse
            } else {
                Resolve::IfNew
            },
            run_id: names::new_id(),
            is_resumed: false,
            sweep: sweep.clone(),
            tags: &args.tag,
            interrupt: &interrupt,
        };
        let code = job.run()?;
        worst = worst.max(code);
        if code > STAGE_FAILED || (code > 0 && !args.how.keep_going) {
            break;
        }
    }
    if let Some(sweep) = sweep
        && !project.global.quiet
    {
        runs::print_sweep(project, &sweep)?;
    }
    match worst {
        0 => Ok(()),
        code => Err(Failure::said(code)),
    }
}

fn sweep_point(experiment: &Experiment) -> Option<String> {
    let point = experiment.sweep_point.iter();
    let words: Vec<String> = point
        .map(|(path, value)| masked(&format!("{path}={value}")))
        .collect();
    (!words.is_empty()).then(|| words.join("  "))
}

fn println(project: &Project, line: &str) {
    if !project.global.quiet {
        print_line(line);
    }
}
