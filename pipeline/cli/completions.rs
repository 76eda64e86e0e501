//! `tinylm completions`: a shell's completions.

use clap::{Args, Command};

use crate::output::print_line;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `command` is the whole command line.
pub(crate) fn print(mut command: Command, args: &CompletionsArgs) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tinylm", &mut script);
    print_line(&String::from_utf8_lossy(&script));
}
