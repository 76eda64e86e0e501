//! `tinylm update`: asking the outside again.

use clap::Args;
use tinylm_pipeline::Resolve;

use crate::{experiment::FileArgs, failure::Failure, output::print_line, project::Project};

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
}

pub(crate) fn update(project: &Project, args: &UpdateArgs) -> Result<(), Failure> {
    let mut context = project.context();
    // A cache may be old: only the hub itself says what is there now.
    context.outside.hf_cache = None;
    let mut n_sources = 0;
    for experiment in args.file.load_whole(project)? {
        for stage in &experiment.stages {
            let before = context.sources(stage, Resolve::Never)?;
            let after = context.sources(stage, Resolve::Always)?;
            for pinned in &after.pins {
                n_sources += 1;
                let known = before.pins.iter().find(|old| old.id == pinned.id);
                let word = match known {
                    None => "new",
                    Some(old) if old.pin == pinned.pin => "same",
                    Some(_) => "changed",
                };
                print_line(format!("{word:<8} {}", pinned.id));
            }
        }
    }
    if n_sources == 0 {
        print_line("nothing in this experiment comes from outside");
    }
    Ok(())
}
