//! `tinylm run`: an experiment, or each point of a sweep.

use clap::{Args, builder::NonEmptyStringValueParser};
use tinylm_pipeline::Resolve;
use tinylm_registry::names;

use crate::{
    driver,
    experiment::{FileArgs, sweep_point},
    failure::Failure,
    job::{HowArgs, Job},
    output::print_line,
    plan,
    project::Project,
    signals::listen_for_signals,
    sweep,
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
    if driver::is_elsewhere(project, &args.how)? {
        return Ok(());
    }
    let n = experiments.len();
    let sweep = (n > 1).then(names::new_id);
    let interrupt = listen_for_signals()?;
    let (mut worst, mut is_stopped) = (0, false);
    for (idx, experiment) in experiments.iter().enumerate() {
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
            site: project.site(args.how.executor.as_deref())?,
            anew: format!("tinylm run {}", args.file.words(project)),
        };
        if is_stopped {
            job.put_off()?;
            continue;
        }
        if let Some(point) = sweep_point(experiment) {
            let gap = if idx > 0 { "\n" } else { "" };
            print_line(format!("{gap}{} of {n}: {point}", idx + 1));
        }
        let code = job.run()?;
        worst = worst.max(code);
        is_stopped = args.how.stops_after(code);
    }
    if let Some(sweep) = sweep {
        sweep::print(project, &sweep)?;
    }
    match worst {
        0 => Ok(()),
        code => Err(Failure::said(code)),
    }
}
