//! A project whose stages run on the cluster, and the real binary in it.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
};

use rusqlite::Connection;

use crate::lab::{Lab, wait_for};

/// Patience of tests: a scheduler that is asked every second.
const SITE: &str = "slurm:
  ask_every: 1s
  settle: 3s
  resources: { cpus: 1, memory: 500M, time: 10m }
";

/// It trains for some seconds and saves as it goes.
pub(crate) const TRAINING: &str = "
stages:
  corpus: { kind: download, with: { path: corpus.txt } }
  chat: { kind: normalize, inputs: { sources: corpus }, with: { format: lines } }
  tokens: { kind: tokenizer, inputs: { documents: chat }, with: { vocab_size: 300 } }
  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens }, with: { validation: 0.2 } }
  base:
    kind: pretrain
    inputs: { shards: shards }
    with:
      model: { preset: mini, context: 64, d_model: 64, n_layers: 2, n_heads: 2 }
      train: { batch: 8, steps: 400, lr: 0.003, validate_every: 200 }
    watch: { log_every: 10, checkpoint_every: 20 }
";

/// An `sbatch` that submits, and whose answer does not arrive.
pub(crate) const LOST_ANSWER: &str = "$REAL \"$@\" >/dev/null; \
    echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1";

/// The digest of the model that comes out on this machine, undisturbed.
pub(crate) fn undisturbed(lab: &Lab) -> String {
    static DIGEST: OnceLock<String> = OnceLock::new();
    let digest = || {
        let project = Project::new(lab, TRAINING);
        project.tinylm("run x.yaml").success();
        project.artifact("base")
    };
    DIGEST.get_or_init(digest).clone()
}

pub(crate) struct Project<'a> {
    /// Its folder as this test sees it: as it is.
    dir: tempfile::TempDir,
    /// And as its commands do, where that is through a mount of their own.
    seen: Option<Seen>,
    /// Where each machine keeps its registry of a home that it shares.
    index: tempfile::TempDir,
    lab: &'a Lab,
}

/// A folder that a command sees through a mount that remembers names.
struct Seen {
    /// Where every command has it, whichever mount that is.
    folder: PathBuf,
    /// The driver's mount of it: what is written here is known there.
    drivers: PathBuf,
}

impl<'a> Project<'a> {
    /// A project in a folder of its own; with `TINYLM_TEST_MOUNTS=apart`, every story is told through two
    /// mounts, which takes too long for each time.
    pub(crate) fn new(lab: &'a Lab, experiment: &str) -> Self {
        if std::env::var_os("TINYLM_TEST_MOUNTS").is_some_and(|mounts| mounts == "apart") {
            return Self::shared(lab, experiment).expect("two mounts were asked for");
        }
        Self::in_folder(lab, tempfile::tempdir().unwrap(), None, experiment)
    }

    /// A project in a folder that the driver and the nodes see through different mounts.
    pub(crate) fn shared(lab: &'a Lab, experiment: &str) -> Option<Self> {
        let [real, shared, drivers] = lab.shared()?;
        let dir = tempfile::tempdir_in(real).unwrap();
        let name = dir.path().file_name().unwrap();
        let seen = Seen {
            folder: shared.join(name),
            drivers: drivers.join(name),
        };
        Some(Self::in_folder(lab, dir, Some(seen), experiment))
    }

    fn in_folder(
        lab: &'a Lab,
        dir: tempfile::TempDir,
        seen: Option<Seen>,
        experiment: &str,
    ) -> Self {
        let index = tempfile::tempdir().unwrap();
        let project = Self {
            dir,
            seen,
            index,
            lab,
        };
        project.write("x.yaml", experiment);
        project.write(".tinylm/site.yaml", SITE);
        let lines =
            (0..3000).map(|n| format!("the {n}th line says {} and {}\n", n * 7 % 13, n % 5));
        project.write("corpus.txt", &lines.collect::<String>());
        project
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn at_the_drivers(&self) -> &Path {
        let drivers = self.seen.as_ref().map(|seen| seen.drivers.as_path());
        drivers.unwrap_or(self.dir.path())
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.at_the_drivers().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Removes a file, as the driver's machine does.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.at_the_drivers().join(name)).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn command(&self, args: &str) -> Command {
        self.command_on("b", args)
    }

    /// A command on the machine that sees a shared home through this mount.
    pub(crate) fn command_on(&self, mount: &str, args: &str) -> Command {
        let program = env!("CARGO_BIN_EXE_tinylm");
        let mut command = match &self.seen {
            None => {
                let mut command = Command::new(program);
                command.current_dir(self.dir.path());
                command
            }
            Some(seen) => {
                let own = self.lab.seen_through(mount);
                let line = format!(
                    "{own} && cd '{}' && exec {program} \"$@\"",
                    seen.folder.display()
                );
                let mut command = Command::new("unshare");
                command.args(["-m", "sh", "-c", &line, "sh"]);
                command
            }
        };
        command.args(args.split_whitespace());
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default());
        command
            .env("SLURM_CONF", self.lab.config())
            .env("TINYLM_INDEX", self.index.path().join(mount))
            .env("TINYLM_OFFLINE", "1")
            .env("NO_COLOR", "1");
        // A person's own views of a queue must not change what is read of it.
        command
            .env("SQUEUE_FORMAT", "%u")
            .env("SQUEUE_STATES", "PENDING")
            .env("SQUEUE_FORMAT2", "user")
            .env("SQUEUE_QOS", "none-of-that-name")
            .env("SCANCEL_STATE", "SUSPENDED");
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn tinylm(&self, args: &str) -> Told {
        Told::of(&self.command(args).output().unwrap())
    }

    /// Starts a run whose driver is in a job of its own; returns the scheduler's number of that.
    #[track_caller]
    pub(crate) fn start_in_a_job(&self) -> String {
        let told = self.tinylm("run x.yaml --executor slurm --driver slurm");
        let told = told.success().stdout;
        let job = told.strip_prefix("the driver is job ");
        let job = job.and_then(|rest| rest.split(':').next());
        job.unwrap_or_else(|| panic!("{told}")).to_owned()
    }

    pub(crate) fn tinylm_on(&self, mount: &str, args: &str) -> Told {
        Told::of(&self.command_on(mount, args).output().unwrap())
    }

    /// Starts `tinylm` and leaves it running; what it says goes to the file `log`.
    pub(crate) fn start(&self, args: &str) -> Child {
        self.started(self.command(args))
    }

    /// Starts a command and leaves it running as [`Project::start`] does.
    pub(crate) fn started(&self, mut command: Command) -> Child {
        let log = || {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.path("log"))
                .unwrap()
        };
        command.stdout(log()).stderr(log()).spawn().unwrap()
    }

    #[track_caller]
    pub(crate) fn wait_for_words(&self, words: &str) {
        wait_for(&format!("`{words}` in the log"), || {
            self.read("log").contains(words)
        });
    }

    /// Waits until a training has saved a checkpoint.
    #[track_caller]
    pub(crate) fn wait_for_a_checkpoint(&self) {
        let is_whole = |name: &String| name.starts_with("step-");
        wait_for("a checkpoint", || self.checkpoints().iter().any(is_whole));
    }

    /// The names of what stands among the checkpoints; one that is being written says so before its step.
    pub(crate) fn checkpoints(&self) -> Vec<String> {
        let work = fs::read_dir(self.path(".tinylm/work"));
        let keys = work.into_iter().flatten().flatten();
        let saved = keys.filter_map(|key| fs::read_dir(key.path().join("checkpoints")).ok());
        let names = saved.flatten().flatten().map(|one| one.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    pub(crate) fn instead_of_sbatch(&self, script: &str) -> String {
        self.instead_of("sbatch", script)
    }

    /// Puts a script before a program of Slurm, which it knows as `$REAL`.
    pub(crate) fn instead_of(&self, program: &str, script: &str) -> String {
        let path = env::var("PATH").unwrap();
        let real = env::split_paths(&path)
            .map(|folder| folder.join(program))
            .find(|file| file.is_file());
        let real = real.unwrap().display().to_string();
        let name = format!("bin/{program}");
        self.write(
            &name,
            &format!(
                "#!/bin/sh\nREAL={real}\ncase $1 in --version) exec $REAL $1;; esac\n{script}\n"
            ),
        );
        let file = self.path(&name);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        format!("{}:{path}", self.path("bin").display())
    }

    /// Adds a line to what the site file says of Slurm.
    pub(crate) fn site_says(&self, line: &str) {
        let site = self.read(".tinylm/site.yaml");
        self.write(".tinylm/site.yaml", &format!("{site}  {line}\n"));
    }

    /// Column of executions by stage, in the order in which they began.
    pub(crate) fn executions(&self) -> Vec<(String, String, String)> {
        let registry = Connection::open(self.registry()).unwrap();
        let select = "SELECT stage, status, ifnull(place, '') FROM executions ORDER BY rowid";
        let mut select = registry.prepare(select).unwrap();
        let rows = select
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    /// The registry, up to date: in the home, or on the driver's own disk if the home is shared.
    fn registry(&self) -> PathBuf {
        if self.seen.is_none() {
            return self.path(".tinylm/registry.sqlite");
        }
        self.tinylm("runs").success();
        let files = fs::read_dir(self.index.path().join("b")).unwrap().flatten();
        let mut files = files.map(|file| file.path());
        let is_registry = |path: &PathBuf| path.extension().is_some_and(|end| end == "sqlite");
        files
            .find(is_registry)
            .expect("a registry of the shared home")
    }

    /// The digest of what a stage made, as the last run says.
    pub(crate) fn artifact(&self, stage: &str) -> String {
        let shown = self.tinylm("show @last --json").success();
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
        let stages = shown["stages"].as_array().unwrap();
        let found = stages.iter().find(|one| one["name"] == stage);
        found.unwrap()["artifact"].as_str().unwrap().to_owned()
    }
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Told {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }
}
