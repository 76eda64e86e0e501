//! The experiment file that a command is given, and what is changed in it from the command line.

use std::path::PathBuf;

use clap::Args;
use tinylm_pipeline::{secrets::masked, spec};

use crate::{
    completions,
    failure::Failure,
    project::{Project, quoted},
};

/// The experiment file, and what is changed in it from here.
#[derive(Debug, Clone, Args)]
pub(crate) struct FileArgs {
    /// The experiment file
    pub(crate) file: PathBuf,
    /// Override a setting: STAGE.path=value, seed=N, vars.NAME=value, or without=STAGE
    #[arg(short = 'S', long = "set", value_name = "K=V")]
    pub(crate) set: Vec<String>,
    /// One run for each value (for each combination, when given more than once)
    #[arg(long, value_name = "K=A,B")]
    pub(crate) sweep: Vec<String>,
    /// Only these stages and what they read
    #[arg(long, value_name = "STAGE", value_delimiter = ',', add = completions::stages())]
    pub(crate) until: Vec<String>,
    /// Run these stages even when they are fresh
    #[arg(long, value_name = "STAGE", value_delimiter = ',', add = completions::stages())]
    pub(crate) force: Vec<String>,
}

impl FileArgs {
    /// Returns the words that name the same experiment and the same stages on a command line,
    /// secrets masked.
    pub(crate) fn words(&self, project: &Project) -> String {
        let mut words = vec![shell_word(&project.shown(&self.file))];
        let given = [
            ("-S", &self.set),
            ("--sweep", &self.sweep),
            ("--until", &self.until),
            ("--force", &self.force),
        ];
        for (flag, values) in given {
            for value in values {
                words.push(flag.to_owned());
                words.push(shell_word(&masked(value)));
            }
        }
        words.join(" ")
    }

    /// Reads an experiment whose stages are about to be looked at: what they name must be there.
    pub(crate) fn load_whole(&self, project: &Project) -> Result<Vec<spec::Experiment>, Failure> {
        let experiments = self.load(project)?;
        for experiment in &experiments {
            experiment.check_paths()?;
        }
        Ok(experiments)
    }

    /// Reads an experiment file; one experiment for each point of a sweep.
    pub(crate) fn load(&self, project: &Project) -> Result<Vec<spec::Experiment>, Failure> {
        let request = spec::Request {
            file: self.file.clone(),
            overrides: self.set.clone(),
            sweep: self.sweep.clone(),
            current_dir: project.current_dir.clone(),
        };
        let mut experiments = spec::load(&request, &project.catalog)?;
        // The points of a sweep have the same stages.
        if let Some(first) = experiments.first() {
            check_stages(self.force.iter().chain(&self.until), first)?;
        }
        if !self.until.is_empty() {
            for experiment in &mut experiments {
                keep_until(experiment, &self.until);
            }
        }
        Ok(experiments)
    }
}

/// Returns the settings that make an experiment a point of a sweep, if it is one.
pub(crate) fn sweep_point(experiment: &spec::Experiment) -> Option<String> {
    let point = experiment.sweep_point.iter();
    let words: Vec<String> = point
        .map(|(path, value)| masked(&format!("{path}={value}")))
        .collect();
    (!words.is_empty()).then(|| words.join("  "))
}

/// Returns a line for each stage that is left out, its name as wide as the others'.
pub(crate) fn left_out(
    experiment: &spec::Experiment,
    width: usize,
) -> impl Iterator<Item = String> {
    let told = experiment.left_out.told();
    told.map(move |(name, why)| format!("left out {name:width$}  {why}"))
}

/// A word as a shell takes it for itself.
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./=,:@+%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn check_stages<'a>(
    names: impl Iterator<Item = &'a String>,
    experiment: &spec::Experiment,
) -> Result<(), Failure> {
    let known = || experiment.stages.iter().map(|stage| stage.name.as_str());
    let unknown = names.filter(|name| !known().any(|stage| stage == *name));
    let failures = unknown.map(|name| {
        if experiment.left_out.names().any(|gone| gone == name) {
            return Failure::wrong(format!("`without` leaves `{name}` out"));
        }
        let failure = Failure::wrong(format!("`{}` has no stage `{name}`", experiment.name));
        match spec::nearest(name, known()) {
            Some(near) => failure.help(format!("did you mean `{near}`?")),
            None => failure.help(format!("it has {}", quoted(known()))),
        }
    });
    Failure::all(failures.collect())
}

/// Keeps the named stages and what they read, directly or not.
fn keep_until(experiment: &mut spec::Experiment, until: &[String]) {
    let mut kept: Vec<String> = until.to_vec();
    // Stages stand after what they read, so one pass from the end finds all.
    for stage in experiment.stages.iter().rev() {
        if kept.contains(&stage.name) {
            kept.extend(stage.reads().map(str::to_owned));
        }
    }
    experiment.stages.retain(|stage| kept.contains(&stage.name));
}
