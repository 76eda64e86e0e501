//! `tinylm completions`: a shell's completions.

use std::io;

use clap::{Args, Command};

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `command` is the whole command line.
pub(crate) fn print(mut command: Command, args: &CompletionsArgs) {
    clap_complete::generate(args.shell, &mut command, "tinylm", &mut io::stdout());
}
