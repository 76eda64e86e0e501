//! The command line: what may be said, and nothing of what it does.

use std::{num::NonZero, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};

/// One YAML file in; a trained, measured, talking tiny language model out.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "RUN is a run's name, its uuid, a unique prefix of either, or `@last`.\n\
                  Start with `tinylm run experiments/quickstart.yaml`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that stand before or after the command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The folder of the project's state; without it, `.tinylm` here or above
    #[arg(long, global = true, value_name = "FOLDER", env = "TINYLM_HOME")]
    pub(crate) home: Option<PathBuf>,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Say more: every reason, every warning, a model's table of parameters
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run what an experiment needs and is not there yet
    Run(RunArgs),
    /// Go on with a run that was interrupted, cancelled or failed
    Resume(ResumeArgs),
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
    Report(crate::report::ReportArgs),
    /// Let a model write
    Sample(crate::sample::SampleArgs),
    /// Talk to a model
    Chat(crate::chat::ChatArgs),
    /// List the known datasets and their shapes
    Datasets(ListArgs),
    /// List the stage kinds and their settings
    Stages(StagesArgs),
    /// Look after the artifact store
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Remove what no run needs any more
    Gc(GcArgs),
    /// Write a first experiment file
    Init(InitArgs),
    /// Check this machine and this project
    Doctor(ListArgs),
    /// Ask the outside again what an experiment's sources are now
    Update(UpdateArgs),
    /// Print a shell's completions
    Completions(CompletionsArgs),
    /// Carry out one stage, as told on standard input
    #[command(hide = true)]
    ExecStage,
}

/// The experiment file, and what is changed in it from here.
#[derive(Debug, Clone, Args)]
pub(crate) struct FileArgs {
    /// The experiment file
    pub(crate) file: PathBuf,
    /// Override a setting: STAGE.path=value, seed=N, or vars.NAME=value
    #[arg(short = 'S', long = "set", value_name = "K=V")]
    pub(crate) set: Vec<String>,
    /// One run for each value (for each combination, when given more than once)
    #[arg(long, value_name = "K=A,B")]
    pub(crate) sweep: Vec<String>,
    /// Only these stages and what they read
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) until: Vec<String>,
    /// Run these stages even when they are fresh
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) force: Vec<String>,
}

/// How to run, which never changes what comes out.
#[derive(Debug, Clone, Args)]
pub(crate) struct HowArgs {
    /// Stages running at the same time
    #[arg(short = 'j', long, value_name = "N")]
    pub(crate) jobs: Option<NonZero<usize>>,
    /// Threads, divided among running stages
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZero<usize>>,
    /// Where models are trained: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Finish what does not depend on a failed stage
    #[arg(long)]
    pub(crate) keep_going: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    /// Refuse to ask the outside what a source is: the lock file must know
    #[arg(long)]
    pub(crate) locked: bool,
    /// Say what would run, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Tag the run
    #[arg(long, value_name = "TAG", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) tag: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The run
    #[arg(default_value = "@last")]
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DagArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// How to draw it
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: DagFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DagFormat {
    Text,
    Mermaid,
    Dot,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// Only runs whose name, experiment, tags or notes contain this
    pub(crate) search: Option<String>,
    /// Only runs for which this holds: 'loss < 3 and tag = "baby"'
    #[arg(long = "where", value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Order by a field, setting or metric; `-NAME` for the largest first
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// At most this many
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// RUN or RUN/STAGE
    #[arg(default_value = "@last")]
    pub(crate) run: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    pub(crate) run: String,
    #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) tags: Vec<String>,
    /// Take the tags away instead
    #[arg(long, short)]
    pub(crate) delete: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NoteArgs {
    pub(crate) run: String,
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[arg(required = true)]
    pub(crate) runs: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StagesArgs {
    /// Only this kind, with its settings
    pub(crate) kind: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Hash every artifact again and name the damaged ones
    Verify(ListArgs),
    /// Print where a stage's artifact is: RUN/STAGE, a key or a digest
    Path { what: String },
    /// Say how much room the store takes
    Du(ListArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// List exactly what would go, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The file to write
    #[arg(default_value = "experiment.yaml")]
    pub(crate) file: PathBuf,
    /// Write the quickstart and the small talk that it reads, into `experiments` and `data`
    #[arg(long, conflicts_with = "file")]
    pub(crate) quickstart: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}
