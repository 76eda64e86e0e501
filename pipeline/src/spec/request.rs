//! The file and the edits that one command line names.

use std::path::PathBuf;

/// All that reading an experiment depends on, apart from the files themselves.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub file: PathBuf,
    /// `-S STAGE.path=value`, `-S seed=1`, `-S vars.x=value`.
    pub overrides: Vec<String>,
    /// `--sweep STAGE.path=a,b`.
    pub sweep: Vec<String>,
    /// The folder that `file` and the paths in `overrides` count from; absolute.
    pub current_dir: PathBuf,
}
