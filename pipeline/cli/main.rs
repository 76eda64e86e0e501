//! `tinylm`: the only part that prints, reads the environment and exits.
//!
//! Each command is a function from its arguments to nothing or a `Failure`; `main`
//! turns a failure into a message and an exit code, and that is all there is here.

mod args;
mod cache;
mod chat;
mod completions;
mod console;
mod dag;
mod datasets;
mod device;
mod digests;
mod doctor;
mod driver;
mod experiment;
mod export;
mod failure;
mod gc;
mod global;
mod history;
mod host;
mod init;
mod job;
mod language;
mod law;
mod list;
mod lookup;
mod manner;
mod model;
mod numbers;
mod outcome;
mod output;
mod own;
mod pack;
mod pager;
mod plan;
mod project;
mod push;
mod report;
mod resume;
mod rm;
mod run;
mod runs;
mod sample;
mod schema;
mod serve;
mod shape;
mod shared;
mod shared_run;
mod show;
mod signals;
mod speed;
mod stages;
mod stop;
mod sweep;
mod tag;
mod tensorboard;
mod ui;
mod update;
mod verdict;
mod verify;
mod watch;
mod wrap;

use std::{path::Path, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser};

use crate::{
    args::{Cli, Command},
    failure::Failure,
    output::eprint,
    project::Project,
};

fn main() -> ExitCode {
    signals::survive_file_limits();
    tinylm_pipeline::sys::share_one_heap_where_addresses_are_few();
    tinylm_pipeline::sys::look_for_no_screen();
    clap_complete::CompleteEnv::with_factory(Cli::command)
        .var(completions::ASKS)
        .complete();
    let cli = Cli::parse();
    match carry_out(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.render(project::stderr_has_color());
            if !text.is_empty() {
                eprint(text);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn carry_out(cli: Cli) -> Result<(), Failure> {
    if let Command::ExecStage = cli.command {
        return exec_stage();
    }
    if let Command::TryGpu = cli.command {
        device::try_gpu();
        return Ok(());
    }
    if let Command::ExecJob { folder, submission } = &cli.command {
        return exec_job(folder, *submission);
    }
    if let Command::ExecArray { folder } = &cli.command {
        return exec_array(folder);
    }
    if let Command::ExecPool {
        folder,
        linger_seconds,
    } = &cli.command
    {
        let linger = Duration::from_secs(*linger_seconds);
        return Ok(tinylm_pipeline::slurm::exec_pool(
            &job::this_program()?,
            folder,
            linger,
        )?);
    }
    let project = Project::new(cli.global)?;
    match &cli.command {
        Command::Run(args) => run::run(&project, args),
        Command::Resume(args) => resume::resume(&project, args),
        Command::Plan(args) => plan::plan(&project, args),
        Command::Dag(args) => dag::dag(&project, args),
        Command::Watch(args) => watch::watch(&project, args),
        Command::Stop(args) => stop::stop(&project, args),
        Command::Runs(args) => runs::runs(&project, args),
        Command::Show(args) => show::show(&project, args),
        Command::Tag(args) => tag::tag(&project, args),
        Command::Note(args) => tag::note(&project, args),
        Command::Rm(args) => rm::rm(&project, args),
        Command::Report(args) => report::run(&project, args),
        Command::Sample(args) => sample::run(&project, args),
        Command::Chat(args) => chat::run(&project, args),
        Command::Serve(args) => serve::run(&project, args),
        Command::Ui(args) => ui::ui(&project, args),
        Command::Export(args) => export::run(&project, args),
        Command::Datasets(args) => datasets::datasets(args),
        Command::Stages(args) => stages::stages(&project, args),
        Command::Language => {
            language::language(&project);
            Ok(())
        }
        Command::Schema => {
            schema::schema(&project);
            Ok(())
        }
        Command::Cache(command) => cache::cache(&project, command),
        Command::Push(args) => push::push(&project, args),
        Command::Pull(args) => push::pull(&project, args),
        Command::Pack(args) => pack::pack(&project, args),
        Command::Verify(args) => verify::verify(&project, args),
        Command::Unpack(args) => pack::unpack(&project, args),
        Command::Gc(args) => gc::gc(&project, args),
        Command::Init(args) => init::init(&project, args),
        Command::Doctor(args) => doctor::doctor(&project, args),
        Command::Update(args) => update::update(&project, args),
        Command::Completions(args) => completions::print(args),
        Command::ExecStage
        | Command::TryGpu
        | Command::ExecJob { .. }
        | Command::ExecPool { .. }
        | Command::ExecArray { .. } => Ok(()),
    }
}

fn exec_job(folder: &Path, submission: u32) -> Result<(), Failure> {
    let program = job::this_program()?;
    ended(tinylm_pipeline::slurm::exec_job(
        &program, folder, submission,
    )?)
}

fn exec_array(folder: &Path) -> Result<(), Failure> {
    let program = job::this_program()?;
    ended(tinylm_pipeline::slurm::exec_array(&program, folder)?)
}

/// How a process ends that somebody else watches.
fn ended(code: i32) -> Result<(), Failure> {
    match u8::try_from(code) {
        Ok(0) => Ok(()),
        code => Err(Failure::said(code.unwrap_or(1))),
    }
}

fn exec_stage() -> Result<(), Failure> {
    let code = tinylm_pipeline::exec::exec_stage(&tinylm_stages::catalog(), &project::outside());
    match u8::try_from(code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Failure::said(code)),
        Err(_) => Err(Failure::said(1)),
    }
}
