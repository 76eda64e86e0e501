//! `tinylm init`: a first experiment file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use tinylm_pipeline::read_plain;

use crate::{failure::Failure, output::print_line, project::Project};

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The file to write
    #[arg(default_value = "experiment.yaml")]
    pub(crate) file: PathBuf,
    /// Write the quickstart and the small talk that it reads, into `experiments` and `data`
    #[arg(long, conflicts_with = "file")]
    pub(crate) quickstart: bool,
}

/// The first experiment: it runs as it is, on rows written in it.
const FIRST: &str = include_str!("first.yaml");

/// The quickstart and what it reads, for those who have no checkout.
const QUICKSTART: [(&str, &str); 3] = [
    (
        "experiments/quickstart.yaml",
        include_str!("../../experiments/quickstart.yaml"),
    ),
    (
        "data/chitchat.jsonl",
        include_str!("../../data/chitchat.jsonl"),
    ),
    (
        "data/dialogues.txt",
        include_str!("../../data/dialogues.txt"),
    ),
];

pub(crate) fn init(project: &Project, args: &InitArgs) -> Result<(), Failure> {
    if args.quickstart {
        for (name, text) in QUICKSTART {
            write_new(project, Path::new(name), text)?;
        }
    } else {
        write_new(project, &args.file, FIRST)?;
    }
    let file = match args.quickstart {
        true => QUICKSTART[0].0.to_owned(),
        false => args.file.display().to_string(),
    };
    print_line(format!(
        "try `tinylm plan {file}`, then `tinylm run {file}`"
    ));
    Ok(())
}

/// Writes a file that is not there yet, and the folders that it is in. One that says the same
/// already is left as it is.
fn write_new(project: &Project, file: &Path, text: &str) -> Result<(), Failure> {
    let path = project.current_dir.join(file);
    let shown = file.display();
    if read_plain(&path).is_ok_and(|there| there == text.as_bytes()) {
        print_line(format!("found {shown}"));
        return Ok(());
    }
    let folder = path.parent().unwrap_or(&project.current_dir);
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::File::create_new(&path))
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|error| {
        let failure = Failure::wrong(format!("`{shown}`: {error}"));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.help(
                "it says something else already: give another name, or begin in another folder",
            ),
            _ => failure,
        }
    })?;
    print_line(format!("wrote {shown}"));
    Ok(())
}
