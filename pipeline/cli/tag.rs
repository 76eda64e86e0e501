//! `tinylm tag` and `tinylm note`: what a person adds to a run.

use clap::Args;

use crate::{
    completions,
    failure::Failure,
    lookup::tags,
    output::say,
    project::{Project, now_ms, quoted},
};

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    #[arg(add = completions::runs())]
    pub(crate) run: String,
    #[arg(required = true)]
    pub(crate) tags: Vec<String>,
    /// Take the tags away instead
    #[arg(long, short)]
    pub(crate) delete: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NoteArgs {
    #[arg(add = completions::runs())]
    pub(crate) run: String,
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
}

pub(crate) fn tag(project: &Project, args: &TagArgs) -> Result<(), Failure> {
    let registry = project.registry_to_write()?;
    let run = registry.find_run(&args.run)?;
    // What an older version took can go.
    let checked = args.tags.iter().map(|tag| match args.delete {
        true => Ok(tag.clone()),
        false => tinylm_registry::tag(tag),
    });
    let tags_given: Vec<String> = checked.collect::<Result<_, _>>().map_err(Failure::wrong)?;
    for tag in &tags_given {
        match args.delete {
            false => registry.add_tag(&run.id, tag)?,
            true if registry.remove_tag(&run.id, tag)? => {}
            true => {
                let failure = Failure::wrong(format!("{} has no tag `{tag}`", run.name));
                return Err(failure.help(match run.tags.is_empty() {
                    true => "it has none".to_owned(),
                    false => format!("it has {}", quoted(run.tags.iter().map(String::as_str))),
                }));
            }
        }
    }
    let run = registry.run(&run.id)?;
    let now = match run.tags.is_empty() {
        true => "no tags".to_owned(),
        false => tags(&run),
    };
    say(&project.global, &format!("{}: {now}", run.name));
    Ok(())
}

pub(crate) fn note(project: &Project, args: &NoteArgs) -> Result<(), Failure> {
    let registry = project.registry_to_write()?;
    let run = registry.find_run(&args.run)?;
    registry.add_note(&run.id, &args.text.join(" "), now_ms())?;
    say(&project.global, &format!("{}: noted", run.name));
    Ok(())
}
