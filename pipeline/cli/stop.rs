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
    let name = &run.name;
    say(
        &project.global,
        &format!("{name} stops at its next safe point"),
    );
    let next = format!("`tinylm resume {name}` goes on from there");
    say(&project.global, &next);
    Ok(())
}
