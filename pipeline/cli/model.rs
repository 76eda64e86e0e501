//! Finding and opening the model that a person names, and which of its weights: those of any step that is kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tinylm_model::{
    checkpoint::{kept, newest},
    folder::{SHAPE_NAME, TRAINING_NAME, Which},
};
use tinylm_pipeline::{Content, open_plain};
use tinylm_registry::{Run, StageRow};
use tinylm_stages::shared::speak::{SpeakError, Speaker};

use crate::{
    failure::Failure,
    lookup::find_stage,
    manner::MannerArgs,
    project::{Project, quoted},
};

/// A model that a person named, where it is.
pub(crate) struct Found {
    pub(crate) folder: PathBuf,
    /// The run and its stage that made it; none of a folder.
    pub(crate) made_by: Option<(Run, StageRow)>,
    /// As a sentence says it: a stage of a run, or a folder.
    pub(crate) name: String,
    /// The step that was named.
    step: Option<u64>,
    /// The weights that are those of this step, where the folder has several.
    of_step: Option<Which>,
    /// The run's other models as RUN/STAGE, where nothing said which one is meant.
    others: Vec<String>,
}

impl Found {
    pub(crate) fn open(&self, args: &MannerArgs) -> Result<Speaker, Failure> {
        let weights = (self.which(args.weights), args.precision());
        let (device, n_threads) = (args.device()?, args.n_threads());
        Ok(Speaker::open_on(device, &self.folder, weights, n_threads)?)
    }

    /// Returns which of the folder's weights are meant, where these are asked for without a step.
    pub(crate) fn which(&self, asked: Which) -> Which {
        self.of_step.unwrap_or(asked)
    }

    /// Returns the steps whose weights are kept.
    pub(crate) fn steps(&self) -> Vec<u64> {
        let steps = steps_of(&self.folder).into_iter();
        steps.map(|(step, ..)| step).collect()
    }

    /// Returns what weights these are, as far as the folder says it.
    pub(crate) fn weights(&self, which: Which) -> String {
        let course = fs::read_to_string(self.folder.join(TRAINING_NAME)).unwrap_or_default();
        let course: Value = serde_json::from_str(&course).unwrap_or_default();
        let Some(n_steps) = course["steps"].as_u64() else {
            let under_way = newest(&self.folder).filter(|_| self.made_by.is_some());
            let step = self.step.or(under_way.map(|(step, _)| step));
            return step.map_or_else(String::new, |step| {
                format!(": the checkpoint of step {step}, of a training that has not finished")
            });
        };
        let best = course["best"]["step"].as_u64();
        match best.filter(|_| self.which(which) == Which::Best) {
            Some(step) => format!(": the best weights, of step {step} of {n_steps}"),
            None => format!(": the weights of the last step, {n_steps}"),
        }
    }

    /// Whether documents were made for it, and none of them holds a turn. Of a folder nobody knows.
    pub(crate) fn has_heard_no_talk(&self, project: &Project) -> bool {
        let turns = self
            .made_by
            .as_ref()
            .and_then(|(run, stage)| turns_before(project, run, stage));
        turns.is_some_and(|turns| !turns.is_empty() && turns.iter().all(|n_turns| *n_turns == 0.0))
    }

    /// Says how to take another model of the run with this command, if there was a choice.
    pub(crate) fn others(&self, command: &str) -> Option<String> {
        let commands = self.others.iter();
        let commands: Vec<String> = commands
            .map(|model| format!("`tinylm {command} {model}`"))
            .collect();
        (!commands.is_empty()).then(|| format!("the run has others: {}", commands.join(", ")))
    }
}

/// Returns how many turns each stage counted that a stage was made from, if that is on record.
fn turns_before(project: &Project, run: &Run, stage: &StageRow) -> Option<Vec<f64>> {
    let registry = project.registry().ok()?;
    let stages = registry.stages(&run.id).ok()?;
    let metrics = registry.final_metrics(&run.id).ok()?;
    let mut before = vec![stage.name.as_str()];
    let mut idx = 0;
    while let Some(name) = before.get(idx) {
        let reads = stages.iter().find(|stage| stage.name == *name);
        let reads = reads.map_or_else(Vec::new, StageRow::reads);
        let new: Vec<&str> = reads
            .into_iter()
            .filter(|name| !before.contains(name))
            .collect();
        before.extend(new);
        idx += 1;
    }
    let turns = metrics
        .iter()
        .filter(|metric| metric.name == "turns" && before.contains(&metric.stage.as_str()));
    Some(turns.map(|metric| metric.value).collect())
}

/// Finds RUN, RUN/STAGE, RUN/STAGE@STEP or a folder.
pub(crate) fn find(project: &Project, model: &str) -> Result<Found, Failure> {
    let path = project.current_dir.join(model);
    if path.is_dir() {
        return Ok(Found {
            folder: plain_folder(path)?,
            made_by: None,
            name: format!("`{model}`"),
            step: None,
            of_step: None,
            others: Vec::new(),
        });
    }
    if path.is_file() {
        let failure = Failure::wrong(format!("`{model}` is a file, and a model is a folder"));
        return Err(failure.help("give the folder that holds it"));
    }
    if model.starts_with(['.', '/', '~']) {
        return Err(Failure::wrong(format!("there is no folder `{model}`")));
    }
    let no_folder =
        |failure: Failure| failure.note("note", format!("`{model}` is no folder either"));
    let registry = project.registry().map_err(no_folder)?;
    let (name, stage) = match model.split_once('/') {
        Some((run, stage)) => (run, Some(stage)),
        None => (model, None),
    };
    let (stage, step) = match stage.and_then(|stage| stage.split_once('@')) {
        Some((stage, step)) => (Some(stage), Some(read_step(model, step)?)),
        None => (stage, None),
    };
    let run = registry
        .find_run(name)
        .map_err(|error| no_folder(error.into()))?;
    let stages = registry.stages(&run.id)?;
    let is_model = |stage: &&StageRow| project.makes(&stage.kind) == Some(Content::Model);
    let models: Vec<&StageRow> = stages.iter().filter(is_model).collect();
    let taken = match stage {
        Some(stage) => find_stage(&stages, &run, stage)?,
        None => last_made(project, &models, &run)?,
    };
    if !is_model(&taken) {
        return Err(no_model(project, &models, &run, taken));
    }
    let is_other = |other: &&&StageRow| {
        stage.is_none() && other.artifact.is_some() && other.name != taken.name
    };
    let others = models.iter().filter(is_other);
    let folder = artifact(project, &run, taken)?;
    let (folder, of_step) = match step {
        Some(step) => at_step(&folder, step, &run, taken)?,
        None => (folder, None),
    };
    Ok(Found {
        folder,
        step,
        of_step,
        name: format!("`{}` of {}", taken.name, run.name),
        others: others
            .map(|other| format!("{}/{}", run.name, other.name))
            .collect(),
        made_by: Some((run.clone(), taken.clone())),
    })
}

fn read_step(model: &str, step: &str) -> Result<u64, Failure> {
    step.parse().map_err(|_| {
        Failure::wrong(format!("`{step}` in `{model}` is no step"))
            .help("a step is a number: RUN/STAGE@500")
    })
}

/// The steps whose weights a folder keeps, in order, each with the folder that they open from and which of its weights
/// they are: of a training that has not finished its checkpoints, of one that has the best and the last.
fn steps_of(folder: &Path) -> Vec<(u64, PathBuf, Option<Which>)> {
    let course = fs::read_to_string(folder.join(TRAINING_NAME)).unwrap_or_default();
    let course: Value = serde_json::from_str(&course).unwrap_or_default();
    let ends = [
        (course["best"]["step"].as_u64(), Which::Best),
        (course["steps"].as_u64(), Which::Last),
    ];
    let ends = ends.into_iter();
    let ends = ends.filter_map(|(step, which)| Some((step?, folder.to_owned(), Some(which))));
    let saved = kept(folder).into_iter();
    let saved = saved.map(|(step, folder)| (step, folder, None));
    let mut steps: Vec<(u64, PathBuf, Option<Which>)> = ends.chain(saved).collect();
    // Where the best are the last, they are the best.
    steps.dedup_by_key(|(step, ..)| *step);
    steps
}

/// Returns where the weights of a step are.
fn at_step(
    folder: &Path,
    step: u64,
    run: &Run,
    stage: &StageRow,
) -> Result<(PathBuf, Option<Which>), Failure> {
    let steps = steps_of(folder);
    let names: Vec<String> = steps.iter().map(|(step, ..)| step.to_string()).collect();
    let found = steps.into_iter().find(|(kept, ..)| *kept == step);
    if let Some((_, folder, which)) = found {
        return Ok((folder, which));
    }
    let (name, run) = (&stage.name, &run.name);
    let failure = Failure::wrong(format!("`{name}` of {run} keeps no weights of step {step}"));
    Err(match names.as_slice() {
        [] => failure.help("it was not trained here, and has no steps"),
        [one] => failure.help(format!("it keeps those of step {one}")),
        [most @ .., last] => {
            let most = most.join(", ");
            failure.help(format!("it keeps those of steps {most} and {last}"))
        }
    })
}

/// The last model that is there; before any is, one that is still learning.
fn last_made<'a>(
    project: &Project,
    models: &[&'a StageRow],
    run: &Run,
) -> Result<&'a StageRow, Failure> {
    let made = models.iter().rfind(|stage| stage.artifact.is_some());
    let learning = || {
        models
            .iter()
            .rfind(|stage| checkpoints(project, stage).is_some())
    };
    let made = made.or_else(learning);
    made.copied().ok_or_else(|| match models.first() {
        Some(stage) => Failure::wrong(format!("`{}` of {} has not finished", stage.name, run.name))
            .help(format!("`tinylm resume {}`", run.name)),
        None => Failure::wrong(format!("{} has no stage that makes a model", run.name))
            .help("name another run; `tinylm runs` lists them"),
    })
}

fn no_model(project: &Project, models: &[&StageRow], run: &Run, stage: &StageRow) -> Failure {
    let made = project.makes(&stage.kind);
    let made = made.map_or_else(|| "something".to_owned(), |made| made.to_string());
    let (name, run) = (&stage.name, &run.name);
    let failure = Failure::wrong(format!("`{name}` of {run} makes {made}, not a model"));
    match quoted(models.iter().map(|stage| stage.name.as_str())) {
        names if names.is_empty() => failure.help("name another run; `tinylm runs` lists them"),
        names => failure.help(format!("its models: {names}")),
    }
}

/// Returns the folder of a training's checkpoints, where it has not finished and there is one.
fn checkpoints(project: &Project, stage: &StageRow) -> Option<PathBuf> {
    let key = stage.key.as_deref().filter(|_| stage.artifact.is_none())?;
    let folder = project.home().checkpoints_dir(&key.parse().ok()?);
    newest(&folder)?;
    folder
        .join(SHAPE_NAME)
        .exists()
        .then(|| folder.to_path_buf())
}

fn artifact(project: &Project, run: &Run, stage: &StageRow) -> Result<PathBuf, Failure> {
    let (name, run_name) = (&stage.name, &run.name);
    let digest = stage.artifact.as_deref();
    let digest = digest.and_then(|digest| digest.parse().ok());
    if let (None, Some(folder)) = (&digest, checkpoints(project, stage)) {
        return Ok(folder);
    }
    let digest = digest.ok_or_else(|| {
        Failure::wrong(format!("`{name}` of {run_name} has not finished"))
            .help(format!("`tinylm resume {run_name}`"))
    })?;
    let files = project.home().artifact_files(&digest);
    if !files.is_dir() {
        let message = format!("the model of `{name}` of {run_name} is no longer in the store");
        let help = format!("`tinylm run {}` makes it again", run.file);
        return Err(Failure::wrong(message).help(help));
    }
    Ok(files.to_path_buf())
}

/// Refuses a folder in which something else than a file stands where a model's file would.
fn plain_folder(path: PathBuf) -> Result<PathBuf, Failure> {
    let at =
        |path: &Path, error: io::Error| Failure::wrong(format!("`{}`: {error}", path.display()));
    let entries = fs::read_dir(&path).map_err(|error| at(&path, error))?;
    for entry in entries.filter_map(Result::ok) {
        let file = entry.path();
        match open_plain(&file) {
            Err(error) if error.kind() == io::ErrorKind::Other => return Err(at(&file, error)),
            // Whoever needs the file says what is wrong with it.
            _ => {}
        }
    }
    Ok(path)
}

impl From<SpeakError> for Failure {
    fn from(error: SpeakError) -> Self {
        let mut failure = Failure::wrong(error.to_string());
        if let Some(help) = error.help() {
            failure = failure.help(help);
        }
        let source = std::error::Error::source(&error).map(ToString::to_string);
        match source.filter(|source| *source != error.to_string()) {
            Some(source) => failure.note("cause", source),
            None => failure,
        }
    }
}
