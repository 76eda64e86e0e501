//! This machine and this checkout, as a run records them.

use std::{env, num::NonZero, path::Path, process::Command, thread};

use serde_json::{Value, json};

/// The commit of the repository that the experiment file is in, and whether it is dirty.
pub(crate) fn git_state(folder: Option<&Path>) -> (Option<String>, Option<bool>) {
    let git = |args: &[&str]| {
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        let output = Command::new("git")
            .arg("-C")
            .arg(folder.unwrap_or(Path::new(".")))
            .args(args)
            .stderr(std::process::Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else {
        return (None, None);
    };
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]);
    (Some(commit), dirty.map(|lines| !lines.is_empty()))
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
