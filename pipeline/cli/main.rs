//! `tinylm`: the only part that prints, reads the environment and exits.
//!
//! Each command is a function from its arguments to nothing or a `Failure`; `main`
//! turns a failure into a message and an exit code, and that is all there is here.

mod args;
mod chat;
mod console;
mod dag;
mod failure;
mod outcome;
mod plan;
mod project;
mod report;
mod run;
mod runs;
mod sample;
mod setup;
mod shape;
mod store;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};

use crate::{
    args::{Cli, Command},
    failure::Failure,
    project::Project,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match carry_out(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.render(project::stderr_has_color());
            if !text.is_empty() {
                eprint(&text);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn carry_out(cli: Cli) -> Result<(), Failure> {
    if let Command::ExecStage = cli.command {
        return exec_stage();
    }
    let project = Project::new(cli.global)?;
    match &cli.command {
        Command::Run(args) => run::run(&project, args),
        Command::Resume(args) => run::resume(&project, args),
        Command::Plan(args) => plan::plan(&project, args),
        Command::Dag(args) => dag::dag(&project, args),
        Command::Runs(args) => runs::runs(&project, args),
        Command::Show(args) => runs::show(&project, args),
        Command::Tag(args) => runs::tag(&project, args),
        Command::Note(args) => runs::note(&project, args),
        Command::Rm(args) => runs::rm(&project, args),
        Command::Report(args) => report::run(&project, args),
        Command::Sample(args) => sample::run(&project, args),
        Command::Chat(args) => chat::run(&project, args),
        Command::Datasets(args) => setup::datasets(args),
        Command::Stages(args) => setup::stages(&project, args),
        Command::Cache(command) => store::cache(&project, command),
        Command::Gc(args) => store::gc(&project, args),
        Command::Init(args) => setup::init(&project, args),
        Command::Doctor(args) => setup::doctor(&project, args),
        Command::Update(args) => setup::update(&project, args),
        Command::Completions(args) => {
            completions(args.shell);
            Ok(())
        }
        Command::ExecStage => Ok(()),
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

fn completions(shell: clap_complete::Shell) {
    let mut command = Cli::command();
    clap_complete::generate(shell, &mut command, "tinylm", &mut io::stdout());
}

/// Prints a line of the result. A closed pipe (`| head`) ends the program quietly.
fn print_line(line: &str) {
    if writeln!(io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

/// Prints a line that is no result. Nobody may be listening any more; that is no reason to stop.
fn eprint(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}
