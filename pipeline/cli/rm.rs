//! `tinylm rm`: removing runs from the registry.

use clap::Args;
use tinylm_registry::{Registry, RunQuery, Status};

use crate::{
    failure::Failure,
    lookup::{find_runs, tags},
    output::say,
    project::{Project, now_ms},
};

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[arg(required = true)]
    pub(crate) runs: Vec<String>,
    /// Remove runs that have tags, too
    #[arg(long)]
    pub(crate) tagged: bool,
}

pub(crate) fn rm(project: &Project, args: &RmArgs) -> Result<(), Failure> {
    let registry = project.registry_to_write()?;
    // All are looked at before any is removed: a typo removes nothing.
    let runs = find_runs(&registry, &args.runs)?;
    if args.runs.iter().any(|name| name == "@last") {
        refuse_passed_over(&registry)?;
    }
    let running = runs.iter().filter(|run| run.status == Status::Running);
    let refused = running.map(|run| {
        Failure::wrong(format!("{} is still going on", run.name))
            .help("stop it with Ctrl-C where it runs, then remove it")
    });
    let tagged = runs
        .iter()
        .filter(|run| !args.tagged && !run.tags.is_empty());
    let kept = tagged.map(|run| {
        Failure::wrong(format!("{} is tagged: {}", run.name, tags(run)))
            .help("`--tagged` removes it all the same")
    });
    Failure::all(refused.chain(kept).collect())?;
    for run in runs {
        registry.remove_run(&run.id, now_ms())?;
        let freed = "`tinylm gc` frees what only it needed";
        say(&project.global, &format!("removed {}; {freed}", run.name));
    }
    Ok(())
}

/// Refuses `@last` where it means a run before the newest: who has just run something would lose
/// another one.
fn refuse_passed_over(registry: &Registry) -> Result<(), Failure> {
    let last = registry.find_run("@last")?;
    let query = RunQuery {
        limit: Some(1),
        ..RunQuery::default()
    };
    match registry.runs(&query)?.first() {
        Some(newest) if newest.id != last.id => {
            let (last, newest) = (&last.name, &newest.name);
            let message = format!("`@last` is {last}, and {newest} began after it");
            Err(Failure::wrong(message).help("name the run that is to go"))
        }
        _ => Ok(()),
    }
}
