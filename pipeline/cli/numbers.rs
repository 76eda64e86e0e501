//! `tinylm export RUN --to tensorboard`, `csv` or `parquet`: a run's numbers for other programs.

use std::path::Path;

use tinylm_registry::{Run, StageRow};
use tinylm_reports::{
    Error, counted, csv,
    tensorboard::{Events, earlier, is_written},
    write_csv, write_parquet,
};

use crate::{
    failure::Failure,
    lookup::{find_stage, find_stages},
    output::{print_text, say},
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

/// What stands for standard output, which a table in plain text can go to.
pub(crate) const STDOUT: &str = "-";

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
    if form == Form::Csv && out == Some(Path::new(STDOUT)) {
        for piece in csv(&registry, &run, &chosen) {
            print_text(piece?);
        }
        return Ok(());
    }
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
    if form != Form::TensorBoard && is_written(&out) {
        return Err(is_taken(project, &out));
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

/// Nobody pulls a file from under a run that writes it as it goes on.
fn is_taken(project: &Project, file: &Path) -> Failure {
    let shown = project.shown(file);
    Failure::wrong(format!("a run that goes on writes `{shown}` just now"))
        .help("it has all numbers by itself; write elsewhere with `--out`, or wait until the run has ended")
}

/// Writes a folder for each stage that told something, in place of those of an earlier export.
fn write_events(
    project: &Project,
    run: &Run,
    stages: &[&StageRow],
    out: &Path,
) -> Result<usize, Failure> {
    let registry = project.registry()?;
    let mut told = Vec::new();
    let mut there = Vec::new();
    for stage in stages {
        let Some(execution_id) = stage.execution_id.as_deref() else {
            continue;
        };
        if !registry.metric_names(execution_id)?.is_empty() {
            let folder = out.join(&run.name).join(&stage.name);
            there.extend(earlier(&folder).map_err(|error| Error::File(folder.clone(), error))?);
            told.push((execution_id, folder));
        }
    }
    if let Some(taken) = there.iter().find(|file| is_written(file)) {
        return Err(is_taken(project, taken));
    }
    for file in there {
        std::fs::remove_file(&file).map_err(|error| Error::File(file, error))?;
    }
    for (execution_id, folder) in &told {
        Events::of(&registry, execution_id, folder, now_ms())?;
    }
    Ok(told.len())
}
