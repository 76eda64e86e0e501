//! A temporary project, and the real binary run in it.

use std::{
    fmt, fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long a test waits for something that takes a fraction of a second.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Three stages in a row that need nothing but a shell.
pub(crate) const CHAIN: &str = "\
name: chain
stages:
  corpus:
    kind: download
    with: { path: corpus.txt }
  sorted:
    kind: command
    inputs: [corpus]
    with:
      run: [sh, -c, \"sort '{in.corpus}/corpus.txt' > '{out}/sorted.txt'\"]
      outputs: [sorted.txt]
  first:
    kind: command
    inputs: [sorted]
    with:
      run: [sh, -c, \"head -n 1 '{in.sorted}/sorted.txt' > '{out}/first.txt'\"]
      outputs: [first.txt]
";

pub(crate) struct Project {
    dir: tempfile::TempDir,
}

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Project {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    /// A project with `chain.yaml` and its corpus.
    pub(crate) fn chain() -> Self {
        let project = Self::new();
        project.write("chain.yaml", CHAIN);
        project.write("corpus.txt", "cherry\napple\nbanana\n");
        project
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    #[track_caller]
    pub(crate) fn replace(&self, name: &str, old: &str, new: &str) {
        let text = self.read(name);
        assert!(text.contains(old), "`{old}` is not in {name}");
        self.write(name, &text.replace(old, new));
    }

    /// A command cut off from the caller's environment and network.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.cut_off(env!("CARGO_BIN_EXE_tinylm"));
        command.args(args);
        command
    }

    /// A line for a shell that is cut off in the same way, and in which `tinylm` is the binary.
    pub(crate) fn shell(&self, line: &str) -> Command {
        let mut command = self.cut_off("sh");
        command.args(["-c", line]);
        command
    }

    fn cut_off(&self, program: &str) -> Command {
        let mut path = Path::new(env!("CARGO_BIN_EXE_tinylm"))
            .parent()
            .unwrap()
            .as_os_str()
            .to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", path)
            .env("HF_HOME", self.path("hf"))
            .env("TINYLM_OFFLINE", "1")
            // Whatever this machine has: tests of GPUs bring their own.
            .env("CUDA_VISIBLE_DEVICES", "")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs `tinylm` with the words of `args`.
    #[must_use = "snapshot the output, or call `.success()`"]
    pub(crate) fn tinylm(&self, args: &str) -> Output {
        let words: Vec<&str> = args.split_whitespace().collect();
        self.tinylm_words(&words)
    }

    #[must_use = "snapshot the output, or call `.success()`"]
    pub(crate) fn tinylm_words(&self, args: &[&str]) -> Output {
        self.output(&mut self.command(args))
    }

    /// Starts `tinylm` and leaves it running.
    pub(crate) fn start(&self, args: &str) -> Child {
        let words: Vec<&str> = args.split_whitespace().collect();
        let mut command = self.command(&words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Starts `tinylm` with what it says on standard error in the file `log`, to be read meanwhile.
    pub(crate) fn start_saying(&self, args: &str, log: &str) -> Child {
        let words: Vec<&str> = args.split_whitespace().collect();
        let log = fs::File::create(self.path(log)).unwrap();
        let mut command = self.command(&words);
        command.stdout(Stdio::piped()).stderr(log);
        command.spawn().unwrap()
    }

    /// Starts `tinylm` with its result in a file, to be read meanwhile.
    pub(crate) fn start_printing(&self, args: &str, file: &str) -> Child {
        let words: Vec<&str> = args.split_whitespace().collect();
        let file = fs::File::create(self.path(file)).unwrap();
        let mut command = self.command(&words);
        command.stdout(file).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Waits until a file holds some words.
    #[track_caller]
    pub(crate) fn wait_for_words(&self, name: &str, words: &str) {
        wait_until(words, || self.read(name).contains(words));
    }

    /// Runs a command that was made by [`Project::command`] and changed since.
    #[must_use = "snapshot the output, or call `.success()`"]
    pub(crate) fn output(&self, command: &mut Command) -> Output {
        self.finished(command.output().unwrap())
    }

    /// Runs `line` in a shell with a mount of its own that ends with it, made by `mount`; nothing
    /// where that is not allowed.
    pub(crate) fn with_mount(&self, mount: &str, line: &str) -> Option<Output> {
        const NOT_ALLOWED: i32 = 77;
        let own = if rustix::process::geteuid().is_root() {
            "-m"
        } else {
            "-rm"
        };
        let script = format!("{{ {mount}; }} || exit {NOT_ALLOWED}; {line}");
        let mut command = self.cut_off("unshare");
        command.args([own, "sh", "-c", &script]);
        let output = self.output(&mut command);
        let is_refused = output.code == Some(NOT_ALLOWED) || output.stderr.contains("unshare:");
        (!is_refused).then_some(output)
    }

    pub(crate) fn wait(&self, child: Child) -> Output {
        self.finished(child.wait_with_output().unwrap())
    }

    fn finished(&self, output: std::process::Output) -> Output {
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(&*self.dir.path().to_string_lossy(), "[ROOT]")
        };
        let code = output.status.code();
        Output {
            code: code.or(output.status.signal().map(|signal| -signal)),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn shown(&self) -> serde_json::Value {
        let name = self.newest();
        let shown = self.tinylm(&format!("show {name} --json")).success();
        serde_json::from_str(&shown.stdout).unwrap()
    }

    /// The run that began last, whatever came of it: `@last` passes over what came to nothing.
    pub(crate) fn newest(&self) -> String {
        let runs = self.tinylm("runs --limit 1 --json").success();
        let runs: serde_json::Value = serde_json::from_str(&runs.stdout).unwrap();
        runs[0]["name"].as_str().unwrap().to_owned()
    }

    /// The outcome of each stage of the newest run: `corpus hit, sorted made`.
    pub(crate) fn outcomes(&self) -> String {
        let run = self.shown();
        let words: Vec<String> = run["stages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stage| {
                let text = |name: &str| stage[name].as_str().unwrap();
                format!("{} {}", text("name"), text("outcome"))
            })
            .collect();
        words.join(", ")
    }

    /// A field of the newest run.
    pub(crate) fn last_run(&self, field: &str) -> String {
        self.shown()[field].as_str().unwrap_or_default().to_owned()
    }

    /// The folder of an artifact of the newest run.
    pub(crate) fn artifact_folder(&self, stage: &str) -> PathBuf {
        let run = self.newest();
        let place = self.tinylm(&format!("cache path {run}/{stage}")).success();
        let root = self.dir.path().to_string_lossy();
        PathBuf::from(place.stdout.trim().replace("[ROOT]", &root))
    }

    /// A file of an artifact of the newest run.
    pub(crate) fn artifact(&self, stage: &str, file: &str) -> String {
        fs::read_to_string(self.artifact_folder(stage).join(file)).unwrap()
    }

    pub(crate) fn wait_for(&self, name: &str) {
        wait_until(name, || self.path(name).exists());
    }
}

impl Output {
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    #[track_caller]
    pub(crate) fn failure(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.stdout, self.stderr)
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Lets other users into a project's folder, with these rights, and puts the binary there: they may
/// not reach the folder that it is built in.
pub(crate) fn copy_for_others(project: &Project, mode: u32) -> PathBuf {
    let rights = fs::Permissions::from_mode(mode);
    fs::set_permissions(project.path(""), rights).unwrap();
    let binary = project.path("tinylm");
    let built = env!("CARGO_BIN_EXE_tinylm");
    fs::hard_link(built, &binary)
        .or_else(|_| fs::copy(built, &binary).map(drop))
        .unwrap();
    binary
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Sends a signal by name to a process by number; a stop is waited for.
pub(crate) fn signal(pid: u32, name: &str) {
    sent(pid, name).unwrap();
    if name == "STOP" {
        wait_until("the process has stopped", || is_stopped(pid));
    }
}

/// The same where the process may be gone already. No other program is started for it, which might come late.
pub(crate) fn sent(pid: u32, name: &str) -> rustix::io::Result<()> {
    let signal = match name {
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "KILL" => Signal::KILL,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        other => panic!("no signal is called {other}"),
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.unwrap(), signal)
}

/// Whether each thread of a process has stopped.
fn is_stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut states = threads.flatten().map(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
        after_name.unwrap_or_default()
    });
    states.all(|state| state.starts_with('T'))
}

/// Returns the processes whose environment or command line mentions `mark`.
pub(crate) fn processes_with(mark: &Path) -> Vec<u32> {
    let mark = mark.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&words).contains(&mark) {
            found.push(pid);
        }
    }
    found
}

/// The processes that a process has started.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    pids.filter(is_child).collect()
}
