//! `tinylm run`: an experiment, or each point of a sweep.

use clap::Args;
use tinylm_pipeline::Resolve;
use tinylm_registry::names;

use crate::{
    driver,
    experiment::{FileArgs, sweep_point},
    failure::Failure,
    job::{Ground, HowArgs, Job},
    output::print_line,
    plan,
    project::Project,
    resume::resume_id,
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
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
}

pub(crate) fn run(project: &Project, args: &RunArgs) -> Result<(), Failure> {
    // Not by clap, which would print what is wrong with it.
    let tags = args.tag.iter().map(|tag| tinylm_registry::tag(tag));
    let tags: Vec<String> = tags.collect::<Result<_, _>>().map_err(Failure::wrong)?;
    let experiments = args.file.load_whole(project)?;
    if args.dry_run {
        return plan::print(project, &experiments, &args.file, false);
    }
    if driver::is_elsewhere(project, &args.how, !args.file.force.is_empty())? {
        return Ok(());
    }
    let n = experiments.len();
    // A sweep is gone through again: of the points that had not begun nothing is recorded.
    if n == 1
        && let Some(run_id) = driver::begun_before(project)?
    {
        return resume_id(project, &run_id, &args.how);
    }
    let sweep = (n > 1).then(names::new_id);
    let interrupt = listen_for_signals()?;
    let ground = Ground::of(project, args.how.executor.as_deref())?;
    let n_at_once = ground.n_side_by_side(&args.how).min(n);
    let run_ids: Vec<String> = experiments.iter().map(|_| names::new_id()).collect();
    if let [run_id] = run_ids.as_slice() {
        driver::begins(project, run_id)?;
    }
    let carry_out = |idx: usize, is_stopped: bool| {
        let experiment = &experiments[idx];
        let point = sweep_point(experiment);
        let label = point.as_ref().filter(|_| n_at_once > 1);
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
            run_id: run_ids[idx].clone(),
            is_resumed: false,
            sweep: sweep.clone(),
            tags: &tags,
            interrupt: &interrupt,
            ground: &ground,
            label: label.map(|point| format!("{} of {n}: {point}", idx + 1)),
            anew: format!("tinylm run {}", args.file.words(project)),
        };
        if is_stopped {
            job.put_off()?;
            return Ok(0);
        }
        if let Some(point) = point.filter(|_| n_at_once == 1) {
            let gap = if idx > 0 { "\n" } else { "" };
            print_line(format!("{gap}{} of {n}: {point}", idx + 1));
        }
        job.run()
    };
    let worst = sweep::carry_out(n, n_at_once, &args.how, &carry_out)?;
    if let Some(sweep) = sweep {
        sweep::print(project, &sweep)?;
    }
    match worst {
        0 => Ok(()),
        code => Err(Failure::said(code)),
    }
}
