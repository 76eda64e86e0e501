//! This machine and this checkout, as a run records them.

use std::{
    env,
    num::NonZero,
    path::Path,
    process::{Command, Stdio},
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};
use tinylm_pipeline::threads;

/// The commit of the repository that a folder is in, and whether files differ from it.
type Git = (Option<String>, Option<bool>);

/// What git says of a folder: asked when a run begins and heard when it is written down, since git
/// takes as long as the rest of a run that finds all there.
pub(crate) enum GitState {
    Asked(JoinHandle<Git>),
    Known(Git),
}

impl GitState {
    /// Begins to ask, if the folder is in a repository.
    pub(crate) fn ask(folder: Option<&Path>) -> Self {
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_owned();
        if !is_in_repository(&folder) {
            return Self::Known((None, None));
        }
        let asked = folder.clone();
        match threads::spawn(move || git_of(&asked)) {
            Ok(thread) => Self::Asked(thread),
            Err(_) => Self::Known(git_of(&folder)),
        }
    }

    pub(crate) fn answer(self) -> Git {
        match self {
            Self::Asked(thread) => thread.join().unwrap_or_default(),
            Self::Known(git) => git,
        }
    }
}

fn git_of(folder: &Path) -> Git {
    let status = git(folder)
        .args(["status", "--porcelain=v2", "--branch", "--no-ahead-behind"])
        .arg("--untracked-files=no")
        .output();
    let status = status.ok().filter(|output| output.status.success());
    let Some(status) = status else {
        return (commit(folder), None);
    };
    let text = String::from_utf8_lossy(&status.stdout);
    let mut commits = text
        .lines()
        .filter_map(|line| line.strip_prefix("# branch.oid "));
    // A repository without a commit says `(initial)`.
    let Some(commit) = commits.next().filter(|commit| !commit.starts_with('(')) else {
        return (None, None);
    };
    let is_dirty = text.lines().any(|line| !line.starts_with('#'));
    (Some(commit.to_owned()), Some(is_dirty))
}

/// The commit alone, which git knows of repositories too whose files it cannot compare.
fn commit(folder: &Path) -> Option<String> {
    let output = git(folder).args(["rev-parse", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.args(["--no-optional-locks", "-C"]).arg(folder);
    git.stdin(Stdio::null()).stderr(Stdio::null());
    git
}

/// Whether git would find a repository, as far as can be seen without it.
fn is_in_repository(folder: &Path) -> bool {
    let folder = folder.canonicalize().unwrap_or_default();
    env::var_os("GIT_DIR").is_some()
        || folder
            .ancestors()
            .any(|folder| folder.join(".git").exists())
}

pub(crate) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

pub(crate) fn host() -> Value {
    let uname = rustix::system::uname();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|line| {
        let kilobytes = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kilobytes.parse::<u64>().ok()
    });
    json!({
        "name": host_name(),
        "os": format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
        "cpu": cpu.map(|(_, name)| name.to_owned()),
        "cores": thread::available_parallelism().map_or(1, NonZero::get),
        "memory_bytes": memory.map(|kilobytes| kilobytes * 1024),
    })
}

/// The command line as far as it is text: the program itself may stand anywhere.
pub(crate) fn command_line() -> String {
    let words = env::args_os().map(|word| word.to_string_lossy().into_owned());
    words.collect::<Vec<_>>().join(" ")
}
