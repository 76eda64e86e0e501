//! `tinylm rm`: removing runs from the registry.

use clap::Args;
use tinylm_registry::{Filter, Registry, Run, RunQuery, Status};
use tinylm_reports::counted;

use crate::{
    completions,
    failure::Failure,
    lookup::{find_runs, tags},
    output::{print_line, say},
    project::{Project, now_ms},
    runs::listed,
};

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[arg(required_unless_present = "filter", add = completions::runs())]
    pub(crate) runs: Vec<String>,
    /// List the runs for which this holds, such as 'status = failed'; with `--yes`, remove them
    #[arg(long = "where", value_name = "FILTER", conflicts_with = "runs")]
    pub(crate) filter: Option<String>,
    /// Remove what `--where` finds
    #[arg(long, requires = "filter")]
    pub(crate) yes: bool,
    /// Remove runs that have tags, too
    #[arg(long)]
    pub(crate) tagged: bool,
}

pub(crate) fn rm(project: &Project, args: &RmArgs) -> Result<(), Failure> {
    let registry = project.registry_to_write()?;
    match &args.filter {
        Some(filter) => rm_where(project, &registry, args, filter),
        None => rm_named(project, &registry, args),
    }
}

/// Removes the runs that fit, or says which they are. Unlike one that is named, a run that is going
/// on or tagged is passed over.
fn rm_where(
    project: &Project,
    registry: &Registry,
    args: &RmArgs,
    filter: &str,
) -> Result<(), Failure> {
    let query = RunQuery {
        filter: Some(Filter::parse(filter)?),
        ..RunQuery::default()
    };
    let is_kept =
        |run: &Run| run.status == Status::Running || (!args.tagged && !run.tags.is_empty());
    let (kept, going): (Vec<Run>, Vec<Run>) = registry.runs(&query)?.into_iter().partition(is_kept);
    if args.yes {
        remove(project, registry, &going)?;
    } else if !going.is_empty() {
        print_line(listed(project, registry, &going, &[])?);
    }
    let n_kept = match kept.len() {
        0 => String::new(),
        n => format!("; {n} passed over, going on or tagged"),
    };
    let told = match (going.len(), args.yes) {
        (0, _) => format!("no run to remove{n_kept}"),
        (n, true) => format!("{n} removed{n_kept}"),
        (n, false) => format!("`--yes` removes {}{n_kept}", counted(n, "run")),
    };
    say(&project.global, &told);
    Ok(())
}

fn rm_named(project: &Project, registry: &Registry, args: &RmArgs) -> Result<(), Failure> {
    // All are looked at before any is removed: a typo removes nothing.
    let runs = find_runs(registry, &args.runs)?;
    if args.runs.iter().any(|name| name == "@last") {
        refuse_passed_over(registry)?;
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
    remove(project, registry, &runs)
}

fn remove(project: &Project, registry: &Registry, runs: &[Run]) -> Result<(), Failure> {
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
