//! `tinylm init`: a first experiment file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use tinylm_model::config::Precision;
use tinylm_pipeline::read_plain;
use tinylm_reports::duration;

use crate::{
    failure::Failure,
    output::print_line,
    own::{self, Budget, Own, guessed_speed},
    project::Project,
    schema,
    speed::Speed,
};

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The file to write
    #[arg(default_value = "experiment.yaml")]
    pub(crate) file: PathBuf,
    /// Write the quickstart and the small talk that it reads, into `experiments` and `data`
    #[arg(long, conflicts_with = "file")]
    pub(crate) quickstart: bool,
    /// Write an experiment for your own dialogues: a chat export, a table of turns, `Name: words`
    #[arg(long, value_name = "FILE", conflicts_with = "quickstart")]
    pub(crate) chat: Option<PathBuf>,
    /// Write an experiment for your own text
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quickstart", "chat"])]
    pub(crate) text: Option<PathBuf>,
    /// With `--chat` or `--text`: about how long training may take here
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = minutes)]
    pub(crate) minutes: f64,
}

fn minutes(word: &str) -> Result<f64, String> {
    let minutes: f64 = word.parse().map_err(|_| "no number".to_owned())?;
    match minutes > 0.0 && minutes.is_finite() {
        true => Ok(minutes),
        false => Err("must be above 0".to_owned()),
    }
}

/// The first experiment: it runs as it is, on rows written in it.
const FIRST: &str = include_str!("first.yaml");

/// By this an editor finds the schema. Some look for it above the first key only, and what stands there is the file's
/// question down to an empty line.
const EDITORS: &str = "#\n# yaml-language-server: $schema=";

/// The quickstart and what it reads, for those who have no checkout.
const QUICKSTART: [(&str, &str); 3] = [
    (
        "experiments/quickstart.yaml",
        include_str!("../../experiments/quickstart.yaml"),
    ),
    (
        "data/smalltalk.txt",
        include_str!("../../data/smalltalk.txt"),
    ),
    ("data/unseen.txt", include_str!("../../data/unseen.txt")),
];

pub(crate) fn init(project: &Project, args: &InitArgs) -> Result<(), Failure> {
    if args.quickstart {
        for (name, text) in QUICKSTART {
            write_new(project, Path::new(name), text)?;
        }
    } else {
        let own = args.chat.as_ref().map(|file| (Own::Chat, file));
        let own = own.or(args.text.as_ref().map(|file| (Own::Text, file)));
        let (text, sized) = match own {
            None => (FIRST.to_owned(), None),
            Some((own, data)) => {
                let (text, line) = of_own(project, args, own, data)?;
                (text, Some(line))
            }
        };
        write_new(project, &args.file, &for_editors(&text))?;
        sized.into_iter().for_each(print_line);
        write_schema(project, &args.file)?;
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

/// Returns an experiment for a person's own file, sized by what trainings here have done, and a line that says so.
fn of_own(
    project: &Project,
    args: &InitArgs,
    own: Own,
    data: &Path,
) -> Result<(String, String), Failure> {
    let history = Speed::of(project);
    let remembered = |n_weights: f64| history.remembered(Precision::F32, n_weights);
    let speed = |n_weights: f64| {
        let known = remembered(n_weights).map(|known| known.tokens_per_second);
        known.unwrap_or_else(|| guessed_speed(n_weights))
    };
    let budget = Budget {
        minutes: args.minutes,
        speed: &speed,
    };
    let path = project.current_dir.join(data);
    let shown = beside(project, &args.file, data);
    let fitting = own::experiment(own, &path, &shown, &budget)?;
    if let Some(told) = &fitting.told {
        print_line(format!("{}: {told}", data.display()));
    }
    let because = remembered(fitting.n_weights).map_or_else(
        || "by a guess of its speed, since no training has been here".to_owned(),
        |known| known.told,
    );
    let line = match fitting.minutes > args.minutes * 1.2 {
        false => format!(
            "sized for {} of training here, {because}",
            duration(args.minutes * 60.0)
        ),
        true => format!(
            "the smallest that is worth its while, read once, takes about {} of training here, {because}",
            duration(fitting.minutes * 60.0)
        ),
    };
    Ok((fitting.text, line))
}

/// Writes the schema that the experiment names beside it, as it is now: nobody else writes that file.
fn write_schema(project: &Project, experiment: &Path) -> Result<(), Failure> {
    let path = project.current_dir.join(experiment);
    let path = path.with_file_name(schema::NAME);
    let text = schema::of(&project.catalog).to_string();
    if read_plain(&path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    let shown = project.shown(&path);
    fs::write(&path, text).map_err(|error| Failure::wrong(format!("`{shown}`: {error}")))?;
    print_line(format!(
        "wrote {shown}, for editors that complete and check"
    ));
    Ok(())
}

/// The path of a person's data as an experiment file has it: from that file's folder on.
fn beside(project: &Project, experiment: &Path, data: &Path) -> String {
    let folder = experiment.parent().unwrap_or(Path::new(""));
    match data.is_absolute() || folder.as_os_str().is_empty() {
        true => data.display().to_string(),
        false => project.current_dir.join(data).display().to_string(),
    }
}

/// The text with the line by which editors find its schema.
fn for_editors(text: &str) -> String {
    let schema = schema::NAME;
    text.replacen("\nname: ", &format!("\n{EDITORS}{schema}\nname: "), 1)
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
