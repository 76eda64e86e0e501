//! `tinylm export`: a model for other programs, with a card made from what the registry knows, or a
//! run's numbers (`numbers.rs`).

use std::path::{Path, PathBuf};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use tinylm_model::folder::Which;
use tinylm_pipeline::{Content, secrets::masked, settings::Choice};
use tinylm_registry::{Run, StageRow};
use tinylm_reports::{ReportOptions, thousands};
use tinylm_stages::{
    datasets,
    shared::export::{Ask, Exported, Numbers, Share, Story, Target, export, in_place},
};

use crate::{
    completions,
    failure::Failure,
    manner::choice,
    model::{Found, find},
    numbers::{self, Form, STDOUT},
    output::print_line,
    project::{Project, now_ms},
};

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// RUN, RUN/STAGE or RUN/STAGE@STEP, or a model folder
    #[arg(add = completions::runs())]
    pub(crate) model: String,
    /// The program that it is for: `hf`, a folder for Hugging Face's transformers, `gguf`, a file for
    /// llama.cpp and ollama, `onnx`, a graph for onnxruntime and transformers.js, `peft`, the adapter of a
    /// finetuned model alone; or not the model but all numbers of the run: `tensorboard`, a folder of event
    /// files, `csv` or `parquet`, a number a row
    #[arg(long, value_parser = to(), default_value = "hf")]
    to: To,
    /// The numbers of a GGUF file
    #[arg(long, value_parser = choice::<Numbers>(), default_value = "f32")]
    precision: Numbers,
    /// `best`, the weights with the lowest validation loss, or `last`, those of the last step
    #[arg(long, value_parser = choice::<Which>(), default_value = "best")]
    weights: Which,
    /// The folder or file to write, or `-` to print `csv`; without it, one here that is named after the model or
    /// the run
    #[arg(short, long, value_name = "PATH")]
    out: Option<PathBuf>,
}

/// Something that is written, and for whom.
#[derive(Debug, Clone, Copy)]
enum To {
    Model(Target),
    Numbers(Form),
}

fn to() -> impl TypedValueParser<Value = To> {
    let models = Target::ALL.iter().map(|to| (to.word(), To::Model(*to)));
    let numbers = Form::ALL.map(|(word, form)| (word, To::Numbers(form)));
    let all: Vec<(&str, To)> = models.chain(numbers).collect();
    let words = all.iter().map(|(word, _)| *word).collect::<Vec<_>>();
    PossibleValuesParser::new(words).try_map(move |word| {
        let found = all.iter().find(|(known, _)| *known == word);
        found.map(|(_, to)| *to).ok_or("it is no choice")
    })
}

pub(crate) fn run(project: &Project, args: &ExportArgs) -> Result<(), Failure> {
    let is_printed = args.out.as_deref() == Some(Path::new(STDOUT));
    if is_printed && !matches!(args.to, To::Numbers(Form::Csv)) {
        return Err(
            Failure::wrong("only `--to csv` can be printed by `--out -`")
                .help("name a file or a folder with `--out`"),
        );
    }
    match args.to {
        To::Model(to) => export_model(project, args, to),
        To::Numbers(form) => numbers::export(project, &args.model, form, args.out.as_deref()),
    }
}

fn export_model(project: &Project, args: &ExportArgs, to: Target) -> Result<(), Failure> {
    let found = find(project, &args.model)?;
    let name = name(&found);
    let out = match &args.out {
        Some(out) => project.current_dir.join(out),
        None => project.current_dir.join(format!("{name}-{}", to.word())),
    };
    let (story, documents) = match &found.made_by {
        None => (
            Story {
                title: name,
                ..Story::default()
            },
            Vec::new(),
        ),
        Some((run, stage)) => (
            story(project, name, run, stage)?,
            documents(project, run, stage)?,
        ),
    };
    let ask = Ask {
        model: &found.folder,
        to,
        weights: found.which(args.weights),
        numbers: args.precision,
        story: &story,
        documents: &documents,
    };
    let exported = in_place(&out, |folder| export(&ask, folder))
        .map_err(|error| Failure::from(error).before_running())?;
    if !project.global.quiet {
        tell(&exported);
        print_line(format!("wrote `{}`", project.shown(&out)));
    }
    Ok(())
}

/// A name for the model: its run's, with the stage where that was made for another's sake.
fn name(found: &Found) -> String {
    match &found.made_by {
        Some((run, stage)) => format!("{}-{}", run.name, stage.name),
        None => base_name(&found.folder),
    }
}

fn base_name(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn tell(exported: &Exported) {
    print_line(exported.told());
    match &exported.share {
        None => print_line("there are no documents here to compare ids with"),
        Some(share) => print_line(told(share)),
    }
}

fn told(share: &Share) -> String {
    let (n_same, n) = (thousands(share.n_same as u64), thousands(share.n as u64));
    let told = format!("{n_same} of {n} documents have the ids that training saw");
    match &share.first_other {
        Some(text) => format!("{told}; the first that has not: {text}"),
        None => told,
    }
}

/// The documents that the model was trained on, as far as they are in the store: what was made
/// into the shards that its stage reads.
fn documents(project: &Project, run: &Run, model: &StageRow) -> Result<Vec<PathBuf>, Failure> {
    let stages = project.registry()?.stages(&run.id)?;
    let shards = read(project, &stages, model, Content::Shards).into_iter();
    let documents = shards.flat_map(|shards| read(project, &stages, shards, Content::Documents));
    let folders = documents.filter_map(|stage| {
        let digest = stage.artifact.as_deref()?.parse().ok()?;
        let folder = project.home().artifact_files(&digest);
        folder.is_dir().then(|| folder.to_path_buf())
    });
    Ok(folders.collect())
}

/// The stages that one reads and that make something of a sort.
fn read<'a>(
    project: &Project,
    stages: &'a [StageRow],
    reader: &StageRow,
    sort: Content,
) -> Vec<&'a StageRow> {
    let names = reader.reads();
    let is_read = |other: &&StageRow| {
        names.contains(&other.name.as_str()) && project.makes(&other.kind) == Some(sort)
    };
    stages.iter().filter(is_read).collect()
}

/// The hub's name of the model that one was finetuned from, where it came from there as it is.
fn base(project: &Project, run: &Run, model: &StageRow) -> Result<Option<String>, Failure> {
    let stages = project.registry()?.stages(&run.id)?;
    let models = read(project, &stages, model, Content::Model);
    let files = models
        .iter()
        .flat_map(|model| read(project, &stages, model, Content::Files));
    let files: Vec<&StageRow> = files.collect();
    Ok(match files[..] {
        [only] => only.settings["hub"].as_str().map(str::to_owned),
        _ => None,
    })
}

fn story(project: &Project, title: String, run: &Run, model: &StageRow) -> Result<Story, Failure> {
    let registry = project.registry()?;
    let options = ReportOptions::for_runs(1, now_ms(), &[]);
    let report = tinylm_reports::read(&registry, run, &options)?;
    let card = tinylm_reports::card(&report, &model.name);
    let licences = licences(&card.datasets);
    let source = registry.source(&run.id)?;
    let stage = format!("It is what the stage `{}` made.\n\n", model.name);
    let history = stage + &card.history + &told_licences(&licences) + &again(run, &source.text);
    Ok(Story {
        title,
        base: base(project, run, model)?,
        licences: licences
            .iter()
            .map(|(_, licence)| licence.clone())
            .collect(),
        datasets: card.datasets,
        figures: card.figures,
        history,
    })
}

fn licences(datasets: &[String]) -> Vec<(String, String)> {
    let known = datasets.iter().filter_map(|name| {
        let licence = datasets::licence_of(name)?;
        Some((name.clone(), licence.to_owned()))
    });
    known.collect()
}

fn told_licences(licences: &[(String, String)]) -> String {
    let mut text = "### Licences of the data\n\n".to_owned();
    for (name, licence) in licences {
        text += &format!("- `{name}`: {licence}\n");
    }
    match licences.is_empty() {
        true => text + "Not known to tinylm: ask where the data comes from.\n\n",
        false => text + "\nOf data that is not named here tinylm does not know the licence.\n\n",
    }
}

/// How to make the model again. Secrets of addresses are masked, since a card is for everybody, and
/// where the program stood is left out.
fn again(run: &Run, experiment: &str) -> String {
    let command = run.command.split_once(' ').map_or("", |(_, words)| words);
    let (command, experiment) = (masked(command), masked(experiment));
    let (version, name) = (&run.version, base_name(Path::new(&run.file)));
    let code = run
        .git_commit
        .as_ref()
        .map(|commit| format!(" (code of {commit})"));
    let (code, experiment, fence) = (code.unwrap_or_default(), experiment.trim_end(), "```");
    format!(
        "### How to make it again\n\nWith tinylm {version}{code}, the data in its place and this file as `{name}`:\n\n\
         {fence}console\n$ tinylm {command}\n{fence}\n\n{fence}yaml\n{experiment}\n{fence}\n"
    )
}
