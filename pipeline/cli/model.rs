//! Finding and opening the model that a person names.

use std::{
    fs, io,
    path::{Path, PathBuf},
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

/// Opens RUN, RUN/STAGE or a folder.
pub(crate) fn open(project: &Project, model: &str, args: &MannerArgs) -> Result<Speaker, Failure> {
    let found = find(project, model)?;
    Ok(Speaker::open(
        &found.folder,
        args.precision(),
        args.n_threads(),
    )?)
}

/// A model where it stands.
pub(crate) struct Found {
    pub(crate) folder: PathBuf,
    /// The run and its stage that made it; none of a folder.
    pub(crate) made_by: Option<(Run, StageRow)>,
}

/// Finds RUN, RUN/STAGE or a folder.
pub(crate) fn find(project: &Project, model: &str) -> Result<Found, Failure> {
    let path = project.current_dir.join(model);
    if path.is_dir() {
        let folder = plain_folder(path)?;
        let made_by = None;
        return Ok(Found { folder, made_by });
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
    let run = registry
        .find_run(name)
        .map_err(|error| no_folder(error.into()))?;
    let stages = registry.stages(&run.id)?;
    let makes_model = |kind: &str| project.makes(kind) == Some(Content::Model);
    let stage = match stage {
        Some(stage) => find_stage(&stages, &run, stage)?,
        None => {
            let models = stages.iter().filter(|stage| makes_model(&stage.kind));
            let made = models.clone().rfind(|stage| stage.artifact.is_some());
            made.ok_or_else(|| match models.clone().next() {
                Some(stage) => {
                    Failure::wrong(format!("`{}` of {} has not finished", stage.name, run.name))
                        .help(format!("`tinylm resume {}`", run.name))
                }
                None => Failure::wrong(format!("{} has no stage that makes a model", run.name))
                    .help("name another run; `tinylm runs` lists them"),
            })?
        }
    };
    let digest = stage
        .artifact
        .as_deref()
        .and_then(|digest| digest.parse().ok());
    let Some(digest) = digest else {
        return Err(Failure::wrong(format!(
            "`{}` of {} has no artifact",
            stage.name, run.name
        )));
    };
    if !makes_model(&stage.kind) {
        let models = stages.iter().filter(|stage| makes_model(&stage.kind));
        let made = project.makes(&stage.kind);
        let made = made.map_or_else(|| "something".to_owned(), |made| made.to_string());
        let failure = Failure::wrong(format!(
            "`{}` of {} makes {}, not a model",
            stage.name, run.name, made
        ));
        return Err(failure.help(format!(
            "its models: {}",
            quoted(models.map(|stage| stage.name.as_str()))
        )));
    }
    let files = project.home().artifact_files(&digest);
    if !files.is_dir() {
        let failure = Failure::wrong(format!(
            "the model of `{}` of {} is no longer in the store",
            stage.name, run.name
        ));
        return Err(failure.help(format!("`tinylm run {}` makes it again", run.file)));
    }
    let folder = files.to_path_buf();
    let made_by = Some((run.clone(), stage.clone()));
    Ok(Found { folder, made_by })
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
        let failure = Failure::wrong(error.to_string());
        let source = std::error::Error::source(&error).map(ToString::to_string);
        match source.filter(|source| *source != error.to_string()) {
            Some(source) => failure.note("cause", source),
            None => failure,
        }
    }
}
