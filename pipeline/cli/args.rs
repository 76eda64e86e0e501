//! The command line: the list of commands. What each may be told stands beside it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{
    cache::CacheCommand,
    chat::ChatArgs,
    completions::CompletionsArgs,
    dag::DagArgs,
    doctor::DoctorArgs,
    export::ExportArgs,
    gc::GcArgs,
    global::Global,
    init::InitArgs,
    list::ListArgs,
    pack::{PackArgs, UnpackArgs},
    plan::PlanArgs,
    push::{PullArgs, PushArgs},
    report::ReportArgs,
    resume::ResumeArgs,
    rm::RmArgs,
    run::RunArgs,
    runs::RunsArgs,
    sample::SampleArgs,
    serve::ServeArgs,
    show::ShowArgs,
    stages::StagesArgs,
    stop::StopArgs,
    tag::{NoteArgs, TagArgs},
    ui::UiArgs,
    update::UpdateArgs,
    verify::VerifyArgs,
    watch::WatchArgs,
};

/// One YAML file in; a trained, measured, talking tiny language model out.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "RUN is a run's name, its uuid, a unique prefix of either, or `@last`: the last run that\n\
                  made something. An attempt that failed before that does not count, and a run that\n\
                  found all there stands for the one that made it. `@last~1` is the one before.\n\n\
                  Start with `tinylm run experiments/quickstart.yaml`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run what an experiment needs and is not there yet
    Run(RunArgs),
    /// Go on with a run that was interrupted, cancelled or failed
    Resume(ResumeArgs),
    /// Follow a run that goes on elsewhere until it ends
    Watch(WatchArgs),
    /// Ask a run to stop at a safe point, as Ctrl-C does
    Stop(StopArgs),
    /// Say what would run, and why
    Plan(PlanArgs),
    /// Draw an experiment's graph
    Dag(DagArgs),
    /// List the runs
    Runs(RunsArgs),
    /// Show a run or one of its stages
    Show(ShowArgs),
    /// Tag a run, or take a tag away
    Tag(TagArgs),
    /// Write a note on a run
    Note(NoteArgs),
    /// Remove runs; what only they needed goes with the next `gc`
    Rm(RmArgs),
    /// Report on a run, or compare several
    Report(ReportArgs),
    /// Let a model write
    Sample(SampleArgs),
    /// Talk to a model
    Chat(ChatArgs),
    /// Let models answer through OpenAI's API
    Serve(ServeArgs),
    /// Show the runs as a page that lives
    Ui(UiArgs),
    /// Write a model as other programs load it
    Export(ExportArgs),
    /// List the known datasets and their shapes
    Datasets(ListArgs),
    /// List the stage kinds and their settings
    Stages(StagesArgs),
    /// Print all that an experiment file may say
    Language,
    /// Print a JSON schema of experiment files, for editors
    Schema,
    /// Look after the artifact store
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Give what a run made to the team's store
    Push(PushArgs),
    /// Fetch what a run made from the team's store
    Pull(PullArgs),
    /// Write a run into one file, for whoever shares no store
    Pack(PackArgs),
    /// Take a run from a file that `pack` wrote
    Unpack(UnpackArgs),
    /// Make a run's stages again and say whether the same comes out
    Verify(VerifyArgs),
    /// Remove what no run needs any more
    Gc(GcArgs),
    /// Write a first experiment file
    Init(InitArgs),
    /// Check this machine and this project
    Doctor(DoctorArgs),
    /// Ask the outside again what an experiment's sources are now
    Update(UpdateArgs),
    /// Print a shell's completions
    Completions(CompletionsArgs),
    /// Carry out one stage, as told on standard input
    #[command(hide = true)]
    ExecStage,
    /// Say whether the first GPU computes what this processor does
    #[command(hide = true)]
    TryGpu,
    /// Carry out the light stages of a pool, on a node of a cluster
    #[command(hide = true)]
    ExecPool {
        folder: PathBuf,
        linger_seconds: u64,
    },
    /// Carry out a task of an array, on a node of a cluster
    #[command(hide = true)]
    ExecArray { folder: PathBuf },
    /// Carry out the job of a folder, on a node of a cluster
    #[command(hide = true)]
    ExecJob { folder: PathBuf, submission: u32 },
}
