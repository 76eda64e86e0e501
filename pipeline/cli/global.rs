//! The flags that every command has.

use std::path::PathBuf;

use clap::Args;

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
