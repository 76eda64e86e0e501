//! `tinylm run` and `tinylm resume`.

use std::{
    env,
    error::Error as _,
    io,
    num::NonZero,
    path::Path,
    process::Command,
    sync::{Arc, atomic::Ordering},
    thread,
};

use serde_json::{Value, json};
use tinylm_pipeline::{
    Context, Happened, Interrupt, Observer, Outcome, Processes, Recorder, Resolve, RunOptions,
    Runner, Settled, StageError, spec::Experiment,
};
use tinylm_registry::{Home, Lock, NewRun, Registry, Status, keys, names};

use crate::{
    args::{HowArgs, ResumeArgs, RunArgs},
    console::Console,
    eprint,
    failure::{DAMAGED, Failure, STAGE_FAILED},
    plan,
    project::{Project, now_ms},
};

pub(crate) fn run(project: &Project, args: &RunArgs) -> Result<(), Failure> {
    let experiments = project.load(&args.file)?;
    if args.dry_run {
        return plan::print(project, &experiments, &args.file.force, false);
    }
    let sweep = (experiments.len() > 1).then(names::new_id);
    let interrupt = listen_for_signals()?;
    let mut worst = 0;
    for (idx, experiment) in experiments.iter().enumerate() {
        if let Some(point) = sweep_point(experiment) {
            if idx > 0 {
                println(project, "");
            }
            println(
                project,
                &format!("{} of {}: {point}", idx + 1, experiments.len()),
            );
        }
        let job = Job {
            project,
            experiment,
            how: &args.how,
            force: &args.file.force,
            resolve: if args.locked {
                Resolve::Refuse
            } else {
                Resolve::IfNew
            },
            run_id: names::new_id(),
            is_resumed: false,
            sweep: sweep.clone(),
            tags: &args.tag,
            interrupt: &interrupt,
        };
        let code = job.run()?;
        worst = worst.max(code);
        if code > STAGE_FAILED || (code > 0 && !args.how.keep_going) {
            break;
        }
    }
    match worst {
        0 => Ok(()),
        code => Err(Failure::said(code)),
    }
}

pub(crate) fn resume(project: &Project, args: &ResumeArgs) -> Result<(), Failure> {
    let registry = project.registry_to_write()?;
    let run = registry.find_run(&args.run)?;
    match run.status {
        Status::Done => {
            println(
                project,
                &format!("{} is done: nothing is left to do", run.name),
            );
            return Ok(());
        }
        Status::Running => {
            return Err(Failure::wrong(format!("{} is still going on", run.name))
                .help(format!("follow it with `tinylm show {}`", run.name)));
        }
        Status::Failed | Status::Cancelled | Status::Interrupted => {}
    }
    let resolved: Value =
        serde_json::from_str(&registry.source(&run.id)?.resolved).map_err(|error| {
            Failure::wrong(format!("the record of {} is damaged: {error}", run.name))
        })?;
    let experiment = Experiment::from_resolved(&resolved, &project.catalog)
        .map_err(|error| Failure::wrong(format!("{} cannot go on: {error}", run.name)))?;
    drop(registry);
    let context = project.context();
    refuse_changed_files(&context, &experiment, &resolved, &run.name)?;
    let interrupt = listen_for_signals()?;
    let job = Job {
        project,
        experiment: &experiment,
        how: &args.how,
        force: &[],
        resolve: Resolve::IfNew,
        run_id: run.id,
        is_resumed: true,
        sweep: run.sweep,
        tags: &[],
        interrupt: &interrupt,
    };
    match job.run()? {
        0 => Ok(()),
        code => Err(Failure::said(code)),
    }
}

/// One run of one experiment, first or resumed.
struct Job<'a> {
    project: &'a Project,
    experiment: &'a Experiment,
    how: &'a HowArgs,
    force: &'a [String],
    resolve: Resolve,
    run_id: String,
    is_resumed: bool,
    sweep: Option<String>,
    tags: &'a [String],
    interrupt: &'a Arc<Interrupt>,
}

impl Job<'_> {
    /// Runs the experiment, tells how it went, and returns the exit code.
    fn run(&self) -> Result<u8, Failure> {
        self.project.checked_home()?;
        start_hashing_threads()?;
        let mut context = self.project.context();
        context.outside.stop = Arc::clone(&self.interrupt.asked);
        let is_writable = prepare_home(&context.home)?;
        let _locks = match is_writable {
            true => Some(self.lock(&context.home)?),
            false => None,
        };
        let (registry, unrecorded) = self.open_registry(&context.home, is_writable)?;
        let run_name = match &registry {
            Some(registry) => self.record(registry, &context)?,
            None => names::run_name(&self.run_id),
        };
        let stage_names: Vec<&str> = self
            .experiment
            .stages
            .iter()
            .map(|s| s.name.as_str())
            .collect();
        let console = Console::new(&self.project.global, &stage_names);
        let recorder = match registry {
            Some(_) => Some(Recorder::start(
                Registry::open(&context.home.registry_path())?,
                &self.run_id,
                self.experiment,
            )?),
            None => None,
        };
        let observer = Both(&console, recorder.as_ref());
        let history = |stage: &str| {
            let path = context.home.registry_path();
            let registry = Registry::open_to_read(&path).ok().flatten()?;
            last_recipe(&registry, &context.home, self.experiment, stage)
        };
        let settled = Runner {
            context: &context,
            experiment: self.experiment,
            options: &self.options(&run_name)?,
            executor: &executor()?,
            observer: &observer,
            interrupt: self.interrupt,
            history: &history,
        }
        .run();
        let status = status(&settled);
        let problem = recorder.and_then(|recorder| recorder.finish(status));
        self.tell(&console, &run_name, &settled, status);
        if let Some(why) = unrecorded.or(problem.map(|error| error.to_string())) {
            console.say(&format!("warning: this run was not recorded: {why}"));
        }
        let is_damage =
            |one: &Settled| matches!(&one.outcome, Outcome::Failed(error) if error.is_damage);
        match settled.iter().any(is_damage) {
            true => Ok(DAMAGED),
            false => Ok(self.exit_code(status)),
        }
    }

    /// Holds the run's own lock (it is alive) and the store's (nothing is collected).
    fn lock(&self, home: &Home) -> Result<[Lock; 2], Failure> {
        let name = names::run_name(&self.run_id);
        let note = format!("run {name} (process {})", std::process::id());
        let run = Lock::try_exclusive(&home.run_lock(&self.run_id), &note)?
            .ok_or_else(|| Failure::wrong("this run is still going on in another process"))?;
        let on_wait = |holder: &str| {
            if !self.project.global.quiet {
                eprint(&format!("waiting for {holder}"));
            }
        };
        let asked = &self.interrupt.asked;
        let store = Lock::wait_shared(&home.store_lock(), &note, asked, on_wait)?;
        let store = store.ok_or_else(|| Failure::said(self.exit_code(Status::Cancelled)))?;
        Ok([run, store])
    }

    /// Opens the registry. One that is damaged ends the command before anything runs; one
    /// that cannot be written to does not, since it is only history.
    fn open_registry(
        &self,
        home: &Home,
        is_writable: bool,
    ) -> Result<(Option<Registry>, Option<String>), Failure> {
        if !is_writable {
            let why = format!("`{}` cannot be written to", home.root().display());
            return Ok((None, Some(why)));
        }
        match Registry::open(&home.registry_path()) {
            Ok(registry) => Ok((Some(registry), None)),
            Err(error) if error.is_damage() => Err(error.into()),
            Err(error) => Ok((None, Some(error.to_string()))),
        }
    }

    /// Writes down what is about to run; returns the run's name.
    fn record(&self, registry: &Registry, context: &Context) -> Result<String, Failure> {
        let (git_commit, git_dirty) = git_state(self.experiment.file.parent());
        let name = registry.insert_run(&NewRun {
            id: self.run_id.clone(),
            experiment: self.experiment.name.clone(),
            file: self.experiment.file.display().to_string(),
            text: self.experiment.text.clone(),
            resolved: self.resolved(context)?.to_string(),
            seed: Some(self.experiment.seed),
            started_at: now_ms(),
            host: host().to_string(),
            device: device(&self.how.device)?,
            git_commit,
            git_dirty,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: command_line(),
            sweep: self.sweep.clone(),
        })?;
        if !self.is_resumed {
            registry.insert_params(&self.run_id, &params(self.experiment))?;
        }
        for tag in self.tags {
            registry.add_tag(&self.run_id, tag)?;
        }
        Ok(name)
    }

    /// The experiment as plain data, with what its local files held.
    fn resolved(&self, context: &Context) -> Result<Value, Failure> {
        let mut resolved = self.experiment.resolved();
        resolved["local_files"] = local_digests(context, self.experiment)?;
        Ok(resolved)
    }

    fn options(&self, run_name: &str) -> Result<RunOptions, Failure> {
        let n_cores = thread::available_parallelism().map_or(1, NonZero::get);
        Ok(RunOptions {
            run_id: self.run_id.clone(),
            run_name: run_name.to_owned(),
            host: host_name(),
            force: self.force.to_vec(),
            n_jobs: self.how.jobs.map_or(n_cores, NonZero::get),
            n_threads: self.how.threads.map_or(n_cores, NonZero::get),
            device: device(&self.how.device)?,
            keep_going: self.how.keep_going,
            resolve: self.resolve,
        })
    }

    fn tell(&self, console: &Console, run_name: &str, settled: &[Settled], status: Status) {
        for one in settled {
            if let Outcome::Failed(error) = &one.outcome {
                let mut told = error.clone();
                told.message = format!("stage `{}` failed: {}", one.stage, error.message);
                let failure = Failure::from(told);
                console.say("");
                eprint(&failure.render(crate::project::stderr_has_color()));
            }
        }
        if self.project.global.quiet {
            return;
        }
        if status == Status::Done {
            crate::outcome::print(console, &self.project.home(), self.experiment, settled);
        }
        console.result("");
        console.result(&closing_line(run_name, settled, status));
    }

    fn exit_code(&self, status: Status) -> u8 {
        match status {
            Status::Done => 0,
            Status::Cancelled if self.interrupt.asked.load(Ordering::Relaxed) => {
                if TERMINATED.load(Ordering::Relaxed) {
                    143
                } else {
                    130
                }
            }
            _ => STAGE_FAILED,
        }
    }
}

/// Starts the threads that hash files, which otherwise start at first use and panic where the
/// system allows none. A few are enough to be faster than a disk.
fn start_hashing_threads() -> Result<(), Failure> {
    let n_cores = thread::available_parallelism().map_or(1, NonZero::get);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_cores.min(8));
    match pool.build_global() {
        Err(error) if error.source().is_some() => {
            let error = io::Error::other(error.to_string());
            Err(Failure::from(StageError::no_thread(&error)))
        }
        // Of several runs of a sweep only the first starts them.
        _ => Ok(()),
    }
}

/// Carries stages out in children of this process, which are this binary again.
fn executor() -> Result<Processes, Failure> {
    let program = env::current_exe()
        .map_err(|error| Failure::wrong(format!("this program cannot be found: {error}")))?;
    Ok(Processes::new(program))
}

/// Makes the home if it can; returns whether it can be written to.
fn prepare_home(home: &Home) -> Result<bool, Failure> {
    match home.create() {
        Ok(()) => Ok(home.is_writable()),
        Err(error) if error.is_damage() => Err(error.into()),
        // A home that is there and may only be read still serves hits.
        Err(_) if home.root().is_dir() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn closing_line(run_name: &str, settled: &[Settled], status: Status) -> String {
    let count = |word: &str| {
        let n = settled
            .iter()
            .filter(|one| one.outcome.word() == word)
            .count();
        (n > 0).then(|| format!("{n} {word}"))
    };
    let counts: Vec<String> = ["made", "hit", "failed", "skipped", "cancelled"]
        .into_iter()
        .filter_map(count)
        .collect();
    let next = match status {
        Status::Done => format!("`tinylm report {run_name}`"),
        _ => format!("go on with `tinylm resume {run_name}`"),
    };
    format!("{run_name}: {}; {next}", counts.join(", "))
}

fn status(settled: &[Settled]) -> Status {
    let any = |is: fn(&Outcome) -> bool| settled.iter().any(|one| is(&one.outcome));
    if any(|outcome| matches!(outcome, Outcome::Failed(_))) {
        Status::Failed
    } else if any(|outcome| matches!(outcome, Outcome::Cancelled)) {
        Status::Cancelled
    } else if any(|outcome| matches!(outcome, Outcome::Skipped(_))) {
        Status::Failed
    } else {
        Status::Done
    }
}

/// Two observers of one stream of events.
struct Both<'a>(&'a Console, Option<&'a Recorder>);

impl Observer for Both<'_> {
    fn see(&self, happened: &Happened) {
        self.0.see(happened);
        if let Some(recorder) = self.1 {
            recorder.see(happened);
        }
    }
}

/// Returns the recipe with which this experiment's stage was last made or found.
pub(crate) fn last_recipe(
    registry: &Registry,
    home: &Home,
    experiment: &Experiment,
    stage: &str,
) -> Option<Vec<(String, String)>> {
    let file = experiment.file.display().to_string();
    let last = registry.last_stage(&experiment.name, &file, stage).ok()??;
    if let Some(record) = last
        .key
        .parse()
        .ok()
        .and_then(|key| keys::read_key(home, &key).ok()?)
    {
        return Some(record.recipe);
    }
    let lines = last.recipe?;
    let entries = lines.lines().filter_map(|line| line.split_once(" = "));
    Some(
        entries
            .map(|(path, value)| (path.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// Every setting by its dotted name, and whether it is the default.
fn params(experiment: &Experiment) -> Vec<(String, String, bool)> {
    let mut params = vec![("seed".to_owned(), experiment.seed.to_string(), false)];
    for stage in &experiment.stages {
        flatten(&stage.name, &stage.with, &stage.given, &mut params);
        flatten(
            &format!("{}.watch", stage.name),
            &stage.watch,
            &Value::Null,
            &mut params,
        );
    }
    params
}

fn flatten(path: &str, value: &Value, given: &Value, params: &mut Vec<(String, String, bool)>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                flatten(&format!("{path}.{name}"), inner, &given[name], params);
            }
        }
        Value::Null if given.is_null() => {}
        Value::String(text) => params.push((path.to_owned(), text.clone(), given.is_null())),
        other => {
            let text = other.to_string();
            // `epochs: 20` is a number like any other, and is written as it was.
            let text = text.strip_suffix(".0").unwrap_or(&text);
            params.push((path.to_owned(), text.to_owned(), given.is_null()));
        }
    }
}

/// What every stage's local files held when the run began.
fn local_digests(context: &Context, experiment: &Experiment) -> Result<Value, Failure> {
    let mut files = serde_json::Map::new();
    for stage in &experiment.stages {
        for file in context.local_files(stage).map_err(before_running)? {
            files.insert(file.path.display().to_string(), json!(file.digest));
        }
    }
    Ok(Value::Object(files))
}

/// A stage's error before anything ran is a mistake in the file.
fn before_running(error: tinylm_pipeline::StageError) -> Failure {
    Failure::from(error).before_running()
}

fn refuse_changed_files(
    context: &Context,
    experiment: &Experiment,
    resolved: &Value,
    run_name: &str,
) -> Result<(), Failure> {
    let now = local_digests(context, experiment)?;
    let empty = serde_json::Map::new();
    let then = resolved["local_files"].as_object().unwrap_or(&empty);
    let is_changed = |path: &&String| now.get(path.as_str()) != then.get(path.as_str());
    let names: Vec<&str> = then.keys().filter(is_changed).map(String::as_str).collect();
    let added = now.as_object().into_iter().flat_map(|now| now.keys());
    let added: Vec<&str> = added
        .filter(|path| !then.contains_key(*path))
        .map(String::as_str)
        .collect();
    if names.is_empty() && added.is_empty() {
        return Ok(());
    }
    let changed = crate::project::quoted(names.into_iter().chain(added));
    Err(
        Failure::wrong(format!("{changed} changed since {run_name} began")).help(
            "put the file back, or start a new run with `tinylm run`: what did not change is a hit",
        ),
    )
}

/// The command line as far as it is text: the program itself may stand anywhere.
fn command_line() -> String {
    let words = env::args_os().map(|word| word.to_string_lossy().into_owned());
    words.collect::<Vec<_>>().join(" ")
}

static TERMINATED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Turns the first Ctrl-C or SIGTERM into a wish to stop, and the second into insistence.
fn listen_for_signals() -> Result<Arc<Interrupt>, Failure> {
    use signal_hook::{consts, iterator::Signals};
    let interrupt = Arc::new(Interrupt::default());
    let mut signals = Signals::new([consts::SIGINT, consts::SIGTERM, consts::SIGHUP])
        .map_err(|error| Failure::wrong(format!("signals cannot be heard: {error}")))?;
    let heard = Arc::clone(&interrupt);
    let listen = move || {
        for signal in signals.forever() {
            if signal != consts::SIGINT {
                TERMINATED.store(true, Ordering::Relaxed);
            }
            if heard.asked.swap(true, Ordering::Relaxed) {
                heard.insisted.store(true, Ordering::Relaxed);
            } else {
                eprint("stopping at the next safe point; again to stop at once");
            }
        }
    };
    thread::Builder::new()
        .spawn(listen)
        .map_err(|error| Failure::from(StageError::no_thread(&error)))?;
    Ok(interrupt)
}

fn device(asked: &str) -> Result<String, Failure> {
    match asked {
        "auto" | "cpu" => Ok("cpu".to_owned()),
        "cuda" if cfg!(feature = "cuda") => Ok("cuda:0".to_owned()),
        cuda if cuda.starts_with("cuda:") && cfg!(feature = "cuda") => Ok(cuda.to_owned()),
        cuda if cuda.starts_with("cuda") => {
            Err(Failure::wrong("this tinylm was built without CUDA")
                .help("build it with `cargo build --release --features cuda`"))
        }
        other => Err(Failure::wrong(format!("`{other}` is not a device"))
            .help("there is `auto`, `cpu`, `cuda` and `cuda:N`")),
    }
}

fn sweep_point(experiment: &Experiment) -> Option<String> {
    let point = experiment.sweep_point.iter();
    let words: Vec<String> = point
        .map(|(path, value)| format!("{path}={value}"))
        .collect();
    (!words.is_empty()).then(|| words.join("  "))
}

/// The commit of the repository that the experiment file is in, and whether it is dirty.
fn git_state(folder: Option<&Path>) -> (Option<String>, Option<bool>) {
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

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn host() -> Value {
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

fn println(project: &Project, line: &str) {
    if !project.global.quiet {
        crate::print_line(line);
    }
}
