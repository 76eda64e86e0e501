//! `tinylm export RUN --to tensorboard`, `csv` or `parquet`: a run's numbers for other programs.

use std::path::Path;

use tinylm_registry::{Run, StageRow};
use tinylm_reports::{
    Error, counted,
    tensorboard::{Events, remove_earlier},
    write_csv, write_parquet,
};

use crate::{
    failure::Failure,
    lookup::{find_stage, find_stages},
    output::say,
    project::{Project, now_ms},
};

/// A form that numbers can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    TensorBoard,
    Csv,
    Parquet,
}

impl Form {
    pub(crate) const ALL: [(&'static str, Form); 3] = [
        ("tensorboard", Form::TensorBoard),
        ("csv", Form::Csv),
        ("parquet", Form::Parquet),
    ];
}

/// Writes the numbers of a run, or of one of its stages.
pub(crate) fn export(
    project: &Project,
    name: &str,
    form: Form,
    out: Option<&Path>,
) -> Result<(), Failure> {
    let registry = project.registry()?;
    let (run, stages) = find_stages(&registry, name)?;
    let stage = name.split_once('/').map(|(_, stage)| stage);
    let chosen: Vec<&StageRow> = match stage {
        Some(stage) => vec![find_stage(&stages, &run, stage)?],
        None => stages.iter().collect(),
    };
    let out = match (out, form) {
        (Some(out), _) => project.current_dir.join(out),
        (None, Form::TensorBoard) => project.current_dir.join("tensorboard"),
        (None, Form::Csv) => project.current_dir.join(format!("{}.csv", run.name)),
        (None, Form::Parquet) => project.current_dir.join(format!("{}.parquet", run.name)),
    };
    if form != Form::TensorBoard && out.is_dir() {
        let shown = project.shown(&out);
        return Err(
            Failure::wrong(format!("`{shown}` is a folder")).help("name a file with `--out`")
        );
    }
    let next = match form {
        Form::Csv => {
            write_csv(&registry, &run, &chosen, &out)?;
            String::new()
        }
        Form::Parquet => {
            write_parquet(&registry, &run, &chosen, &out)?;
            String::new()
        }
        Form::TensorBoard => {
            let n = write_events(project, &run, &chosen, &out)?;
            let shown = project.shown(&out);
            format!(
                ": {}; `tensorboard --logdir {shown}` shows them",
                counted(n, "stage")
            )
        }
    };
    say(
        &project.global,
        &format!("wrote `{}`{next}", project.shown(&out)),
    );
    Ok(())
}

/// Writes a folder for each stage that told something, in place of those of an earlier export.
fn write_events(
    project: &Project,
    run: &Run,
    stages: &[&StageRow],
    out: &Path,
) -> Result<usize, Failure> {
    let registry = project.registry()?;
    let mut n_written = 0;
    for stage in stages {
        let Some(execution_id) = stage.execution_id.as_deref() else {
            continue;
        };
        if registry.metric_names(execution_id)?.is_empty() {
            continue;
        }
        let folder = out.join(&run.name).join(&stage.name);
        remove_earlier(&folder).map_err(|error| Error::File(folder.clone(), error))?;
        Events::of(&registry, execution_id, &folder, now_ms())?;
        n_written += 1;
    }
    Ok(n_written)
}
