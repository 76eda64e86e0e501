//! `tinylm stop`: asks a run to stop, as Ctrl-C in its own terminal would.

use clap::Args;

use crate::{failure::Failure, output::say, project::Project};

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The run; the last one when nothing is named
    #[arg(default_value = "@last")]
    #[arg(add = crate::completions::runs())]
    pub(crate) run: String,
}

pub(crate) fn stop(project: &Project, args: &StopArgs) -> Result<(), Failure> {
    let registry = project.registry()?;
    let run = registry.find_run(&args.run)?;
    let home = project.checked_home()?;
    home.refuse_read_only()?;
    if !home.ask_to_stop(&run.id)? {
        return Err(Failure::wrong(format!("{} is not going on", run.name)));
    }
    let next = format!("`tinylm resume {}` goes on from there", run.name);
    say(
        &project.global,
        &format!("{} stops at its next safe point; {next}", run.name),
    );
    Ok(())
}
