//! `tinylm rm`: removing runs from the registry.

use clap::Args;
use tinylm_registry::Status;

use crate::{
    failure::Failure,
    lookup::find_runs,
    output::print_line,
    project::{Project, now_ms},
};

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[arg(required = true)]
    pub(crate) runs: Vec<String>,
}

pub(crate) fn rm(project: &Project, args: &RmArgs) -> Result<(), Failure> {
    let registry = project.registry_to_write()?;
    // All are looked at before any is removed: a typo removes nothing.
    let runs = find_runs(&registry, &args.runs)?;
    let running = runs.iter().filter(|run| run.status == Status::Running);
    let refused = running.map(|run| {
        Failure::wrong(format!("{} is still going on", run.name))
            .help("stop it with Ctrl-C where it runs, then remove it")
    });
    Failure::all(refused.collect())?;
    for run in runs {
        registry.remove_run(&run.id, now_ms())?;
        if !project.global.quiet {
            print_line(&format!(
                "removed {}; `tinylm gc` frees what only it needed",
                run.name
            ));
        }
    }
    Ok(())
}
