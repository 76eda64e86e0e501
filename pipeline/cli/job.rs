//! One run of one experiment, from its locks to its last line.

use std::{
    env,
    error::Error as _,
    io, mem,
    num::NonZero,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread,
};

use clap::Args;
use serde_json::{Value, json};
use tinylm_pipeline::{
    Context, Executor, Happened, Interrupt, Mirror, Observer, Outcome, Processes, Recorder,
    Resolve, RunDevice, RunOptions, Runner, Settled, Site, Slurm, StageError, pushing::Pusher,
    secrets::Secrets, spec::Experiment, threads,
};
use tinylm_registry::{
    Claim, Claimant, Error, Holder, Home, Lock, Patient, Registry, Run, RunSource, Status, names,
};

use tinylm_remote::{Mode, Remote, SharedRun, SharedStage};

use crate::{
    console::Console,
    device::device_of_run,
    experiment::shell_word,
    failure::{DAMAGED, Failure, STAGE_FAILED},
    history::last_recipe,
    host::{GitState, command_line, host, host_name},
    outcome,
    output::eprint,
    project::{self, Project, now_ms},
    shared,
    shared_run::{self, Why},
    signals::{self, Ear},
    tensorboard::{Board, Fault},
};

/// How to run, which never changes what comes out.
#[derive(Debug, Clone, Args)]
pub(crate) struct HowArgs {
    /// Stages running at the same time
    #[arg(short = 'j', long, value_name = "N")]
    pub(crate) jobs: Option<NonZero<usize>>,
    /// Threads, divided among running stages
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZero<usize>>,
    /// Where models are trained and read: cpu, cuda, cuda:N, several as cuda:N,M, gpu for any maker's, or
    /// auto: NVIDIA's first if it computes what the CPU does, otherwise the CPU
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Finish what does not depend on a failed stage
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Where stages run: on this machine (local, the default), or as jobs of a cluster (slurm)
    #[arg(long, value_name = "WHERE", value_parser = ["local", "slurm"], hide_possible_values = true)]
    pub(crate) executor: Option<String>,
    /// Puts this command itself into a small job (slurm), which outlives the terminal
    #[arg(long, value_name = "WHERE", value_parser = ["slurm"], hide_possible_values = true, requires = "executor")]
    pub(crate) driver: Option<String>,
}

impl HowArgs {
    /// Returns whether a run with this exit code is the last of its sweep.
    pub(crate) fn stops_after(&self, code: u8) -> bool {
        code > STAGE_FAILED || (code > 0 && !self.keep_going)
    }
}

/// A run that is being recorded, and the name that it got.
struct Recording {
    recorder: Recorder,
    run_name: String,
    /// Why TensorBoard's files are not whole.
    board_fault: Fault,
}

/// Where stages run: this machine, or a cluster.
pub(crate) struct Ground {
    executor: Box<dyn Executor + Send>,
    site: Option<Site>,
    /// The store that a team shares.
    remote: Option<Arc<Remote>>,
}

impl Ground {
    /// `executor` is the word of the command line, or of a run that is resumed.
    pub(crate) fn of(project: &Project, executor: Option<&str>) -> Result<Self, Failure> {
        let (program, site) = (this_program()?, project.site(executor)?);
        let executor: Box<dyn Executor + Send> = match &site {
            Some(site) => {
                signals::detach_on_hangup();
                Box::new(Slurm::new(program, site.clone())?)
            }
            // In children of this process, which are this binary again.
            None => Box::new(Processes::new(program)),
        };
        let remote = project.remote()?;
        Ok(Self {
            executor,
            site,
            remote,
        })
    }

    pub(crate) fn executor(&self) -> &dyn Executor {
        &*self.executor
    }

    /// How many runs of a sweep go on at the same time: on one machine each has all of it in turn.
    pub(crate) fn n_side_by_side(&self, how: &HowArgs) -> usize {
        let at_most = |site: &Site| how.jobs.map_or(site.jobs, NonZero::get);
        self.site.as_ref().map_or(1, at_most)
    }
}

/// One run of one experiment, first or resumed.
pub(crate) struct Job<'a> {
    pub(crate) project: &'a Project,
    pub(crate) experiment: &'a Experiment,
    pub(crate) how: &'a HowArgs,
    pub(crate) force: &'a [String],
    pub(crate) resolve: Resolve,
    pub(crate) run_id: String,
    pub(crate) is_resumed: bool,
    pub(crate) sweep: Option<String>,
    pub(crate) tags: &'a [String],
    pub(crate) interrupt: &'a Arc<Interrupt>,
    pub(crate) ground: &'a Ground,
    /// What stands before its lines, where several runs go on side by side.
    pub(crate) label: Option<String>,
    /// The command that runs the experiment as its file says by then.
    pub(crate) anew: String,
}

impl Job<'_> {
    /// Runs the experiment, tells how it went, and returns the exit code.
    pub(crate) fn run(&self) -> Result<u8, Failure> {
        let git = self.ask_git();
        self.project.checked_home()?;
        start_hashing_threads()?;
        let mut context = self.project.context();
        context.outside.stop = Arc::clone(&self.interrupt.asked);
        let is_writable = prepare_home(&context.home)?;
        let _locks = match is_writable {
            true => Some(self.lock(&context.home)?),
            false => None,
        };
        let remote = self.ground.remote.as_ref();
        context.store = shared::store_behind(&context.home, remote);
        if let Some(remote) = remote.filter(|remote| is_writable && remote.mode() == Mode::Write) {
            let pusher = Pusher::start(&context.home, &context.store, remote.id())?;
            context.pusher = Some(pusher);
        }
        let _ear = is_writable.then(|| Ear::of(&context.home, &self.run_id));
        let (recording, unrecorded) = match self.begin_recording(&context, git, is_writable)? {
            Ok(recording) => (Some(recording), None),
            Err(why) => (None, Some(why)),
        };
        let (recorder, run_name, board_fault) = match recording {
            Some(Recording {
                recorder,
                run_name,
                board_fault,
            }) => (Some(recorder), run_name, board_fault),
            None => (None, names::run_name(&self.run_id), Fault::default()),
        };
        let stages = self.experiment.stages.iter();
        let stage_names: Vec<&str> = stages
            .map(|stage| stage.name.as_str())
            .chain(self.experiment.left_out.names())
            .collect();
        let console = Console::new(&self.project.global, &stage_names, self.label.as_deref());
        console.left_out(self.experiment);
        let observer = Both(&console, recorder.as_ref());
        let history = |stage: &str| {
            let registry = Registry::open_to_read(&context.home).ok().flatten()?;
            last_recipe(&registry, &context.home, self.experiment, stage)
        };
        let settled = Runner {
            context: &context,
            experiment: self.experiment,
            options: &self.options(&run_name)?,
            executor: &*self.ground.executor,
            observer: &observer,
            interrupt: self.interrupt,
            history: &history,
        }
        .run();
        let status = status(&settled);
        let problem = recorder.and_then(|recorder| recorder.finish(status));
        let unrecorded = unrecorded.or(problem.map(|error| error.to_string()));
        let next = match settled.iter().any(is_final) {
            true => format!("; edit the file, then `{}`", self.anew),
            false => next_command(&run_name, status, unrecorded.is_none()),
        };
        self.tell(&console, &run_name, &settled, status, &next);
        if let Some(why) = unrecorded {
            console.say(&format!("warning: this run was not recorded: {why}"));
        }
        if let Some(why) = board_fault.get() {
            let instead = format!("`tinylm export {run_name} --to tensorboard`");
            console.say(&format!(
                "warning: not all is written for TensorBoard: {why}; {instead} writes all"
            ));
        }
        let run = SharedRun {
            id: self.run_id.clone(),
            name: run_name.clone(),
            experiment: self.experiment.name.clone(),
            stages: shared_stages(&settled),
            histories: Vec::new(),
        };
        let is_whole = status == Status::Done;
        let all_is_pushed = self.finish_pushing(&context, &console, is_whole.then_some(&run));
        let is_damage =
            |one: &Settled| matches!(&one.outcome, Outcome::Failed(error) if error.is_damage);
        match settled.iter().any(is_damage) {
            true => Ok(DAMAGED),
            false if !all_is_pushed && self.interrupt.asked.load(Ordering::Relaxed) => {
                Ok(signals::exit_code())
            }
            false => Ok(self.exit_code(status)),
        }
    }

    /// Waits for what is still on its way to the remote store; returns whether all has arrived.
    fn finish_pushing(
        &self,
        context: &Context,
        console: &Console,
        run: Option<&SharedRun>,
    ) -> bool {
        let (Some(pusher), Some(to)) = (&context.pusher, context.store.remote_address()) else {
            return true;
        };
        let pushed = pusher.finish(&self.interrupt.asked, &mut |pushing| {
            console.pushing(to, pushing);
        });
        console.pushed(to, &pushed);
        // By its name a run can be pulled; one that found all of its stages has nothing new to say.
        let run = run.filter(|_| pushed.n_pushed > 0 && pushed.n_owed == 0);
        let give = |run: &SharedRun, remote: &Remote| {
            let registry = Registry::open(&context.home)?;
            shared_run::give(&registry, remote, run.clone(), &Patient)
        };
        if let (Some(run), Some(remote)) = (run, &self.ground.remote)
            && let Err(Why(error)) = give(run, remote)
        {
            console.say(&format!("warning: the run's name is not in {to}: {error}"));
        }
        pushed.n_owed == 0
    }

    /// Writes down a run that does not begin now, so that `resume` knows of it.
    pub(crate) fn put_off(&self) -> Result<(), Failure> {
        let context = self.project.context();
        let is_writable = prepare_home(&context.home)?;
        if let Ok(recording) = self.begin_recording(&context, self.ask_git(), is_writable)? {
            recording.recorder.finish(Status::Cancelled);
        }
        Ok(())
    }

    /// Holds the run's own lock (it is alive) and the store's (nothing is collected).
    fn lock(&self, home: &Home) -> Result<(Claim, [Lock; 2]), Failure> {
        let name = names::run_name(&self.run_id);
        let note = format!("run {name} (process {})", std::process::id());
        let run = Lock::try_exclusive(&home.run_lock(&self.run_id), &note)?
            .ok_or_else(|| Failure::wrong("this run is still going on in another process"))?;
        let job = project::scheduler_job();
        let who = Claimant {
            note: &note,
            job: job.as_deref(),
        };
        let life = |holder: &Holder| self.ground.executor().life(holder);
        let claim = Claim::take(&home.run_claim(&self.run_id), who, &life)?;
        let claim = claim.map_err(|holder| {
            Failure::wrong(format!("this run is still going on: {}", holder.words()))
        })?;
        let on_wait = |holder: &str| {
            if !self.project.global.quiet {
                eprint(format!("waiting for {holder}"));
            }
        };
        let asked = &self.interrupt.asked;
        let store = Lock::wait_shared(&home.store_lock(), &note, asked, on_wait)?;
        let store = store.ok_or_else(|| Failure::said(self.exit_code(Status::Cancelled)))?;
        Ok((claim, [run, store]))
    }

    /// Asks of the repository that the experiment file is in.
    fn ask_git(&self) -> GitState {
        GitState::ask(self.experiment.file.parent())
    }

    /// Writes down what is about to run, or says why that cannot be. A registry that is damaged
    /// ends the command before anything runs; one that cannot be written to, or that another
    /// program holds, does not, since it is only history.
    fn begin_recording(
        &self,
        context: &Context,
        git: GitState,
        is_writable: bool,
    ) -> Result<Result<Recording, String>, Failure> {
        let home = &context.home;
        if !is_writable {
            let why = format!("`{}` cannot be written to", home.root().display());
            return Ok(Err(why));
        }
        let registry = Registry::open(home);
        let run = self.recorded(context, git)?;
        let begun = registry.and_then(|registry| Ok((self.record(&registry, &run)?, registry)));
        match begun {
            Ok((run_name, registry)) => {
                let (mirror, board_fault) = self.board(&run_name);
                let recorder = Recorder::start(registry, &self.run_id, self.experiment, mirror)?;
                Ok(Ok(Recording {
                    recorder,
                    run_name,
                    board_fault,
                }))
            }
            Err(error @ Error::Busy { .. }) => Ok(Err(error.to_string())),
            Err(error) if error.is_damage() => Err(error.into()),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Writes for TensorBoard too, where the experiment asks for it.
    fn board(&self, run_name: &str) -> (Option<Box<dyn Mirror>>, Fault) {
        let Some(folder) = &self.experiment.tensorboard else {
            return (None, Fault::default());
        };
        let (board, fault) = Board::new(folder, run_name);
        (Some(Box::new(board)), fault)
    }

    fn recorded(&self, context: &Context, git: GitState) -> Result<(Run, RunSource), Failure> {
        let (git_commit, git_dirty) = git.answer();
        let secrets = Secrets::of(&all_settings(self.experiment));
        let source = RunSource {
            text: secrets.mask(&self.experiment.text),
            resolved: secrets.mask(&self.resolved(context)?.to_string()),
        };
        let run = Run {
            id: self.run_id.clone(),
            experiment: self.experiment.name.clone(),
            file: self.experiment.file.display().to_string(),
            seed: Some(self.experiment.seed),
            started_at: now_ms(),
            host: host(),
            device: self.device()?.1,
            git_commit,
            git_dirty,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: secrets.mask(&command_line()),
            sweep: self.sweep.clone(),
            tags: self.tags.to_vec(),
            ..Run::default()
        };
        Ok((run, source))
    }

    /// Writes the run down; returns its name.
    fn record(&self, registry: &Registry, run: &(Run, RunSource)) -> Result<String, Error> {
        let name = registry.insert_run(&run.0, &run.1)?;
        if !self.is_resumed {
            registry.insert_params(&self.run_id, &params(self.experiment))?;
        }
        Ok(name)
    }

    /// The experiment as plain data, with what its local files held.
    fn resolved(&self, context: &Context) -> Result<Value, Failure> {
        let mut resolved = self.experiment.resolved();
        resolved["local_files"] = local_digests(context, self.experiment)?;
        if self.ground.site.is_some() {
            resolved["executor"] = json!("slurm");
        }
        Ok(resolved)
    }

    /// What it computes on, and the word for that.
    fn device(&self) -> Result<(RunDevice, String), Failure> {
        device_of_run(&self.how.device, self.ground.site.is_none())
    }

    fn options(&self, run_name: &str) -> Result<RunOptions, Failure> {
        let n_cores = n_threads();
        let n_at_once = self.ground.site.as_ref().map_or(n_cores, |site| site.jobs);
        Ok(RunOptions {
            run_id: self.run_id.clone(),
            run_name: run_name.to_owned(),
            host: host_name(),
            job: project::scheduler_job(),
            force: self.force.to_vec(),
            n_jobs: self.how.jobs.map_or(n_at_once, NonZero::get),
            n_threads: self.how.threads.map_or(n_cores, NonZero::get),
            device: self.device()?.0,
            keep_going: self.how.keep_going,
            resolve: self.resolve,
        })
    }

    fn tell(
        &self,
        console: &Console,
        run_name: &str,
        settled: &[Settled],
        status: Status,
        next: &str,
    ) {
        for one in settled {
            if let Outcome::Failed(error) = &one.outcome {
                let mut told = error.clone().addressed(run_name, &one.stage);
                told.message = format!("stage `{}` failed: {}", one.stage, error.message);
                let failure = Failure::from(told);
                console.say("");
                eprint(failure.render(project::stderr_has_color()));
            }
        }
        if let Some(command) = self.command_without_failed(settled) {
            console.say(&format!("  or leave out what failed: `{command}`"));
        }
        let is_quiet = self.project.global.quiet;
        let mut blocks = match status {
            // Side by side, what each came to stands in the sweep's table.
            _ if self.label.is_some() => Vec::new(),
            Status::Done => outcome::told(&self.project.home(), self.experiment, settled),
            _ => Vec::new(),
        };
        if !is_quiet {
            blocks.push(closing_line(run_name, settled, next));
        }
        for (idx, block) in blocks.into_iter().enumerate() {
            // The table of stages stands above, unless nobody wants to see it.
            if idx > 0 || !is_quiet {
                console.result("");
            }
            console.result(block);
        }
    }

    /// Returns the command that does without the sources that failed, if the experiment can.
    fn command_without_failed(&self, settled: &[Settled]) -> Option<String> {
        // What a resumed run was told on its command line is not in its file.
        if self.is_resumed {
            return None;
        }
        let is_source = |name: &str| {
            let mut stages = self.experiment.stages.iter();
            stages.any(|stage| stage.name == name && stage.inputs.is_empty())
        };
        let failed: Vec<&str> = settled
            .iter()
            .filter(|one| matches!(&one.outcome, Outcome::Failed(error) if !error.is_damage))
            .map(|one| one.stage.as_str())
            .filter(|name| is_source(name))
            .collect();
        if failed.is_empty() || !self.experiment.can_do_without(&failed) {
            return None;
        }
        let setting = match failed.as_slice() {
            [name] => format!("without={name}"),
            names => format!("without=[{}]", names.join(", ")),
        };
        Some(format!("{} -S {}", self.anew, shell_word(&setting)))
    }

    fn exit_code(&self, status: Status) -> u8 {
        match status {
            Status::Done => 0,
            Status::Cancelled if self.interrupt.asked.load(Ordering::Relaxed) => {
                signals::exit_code()
            }
            _ => STAGE_FAILED,
        }
    }
}

/// As many as this machine has cores for.
pub(crate) fn n_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Starts the threads that hash files, which otherwise start at first use and panic where the
/// system allows none. A few are enough to be faster than a disk.
pub(crate) fn start_hashing_threads() -> Result<(), Failure> {
    let n_cores = thread::available_parallelism().map_or(1, NonZero::get);
    let n_threads = n_cores.min(8);
    threads::room_for(n_threads).map_err(|error| Failure::from(StageError::no_thread(&error)))?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
    match pool.build_global() {
        Err(error) if error.source().is_some() => {
            let error = io::Error::other(error.to_string());
            Err(Failure::from(StageError::no_thread(&error)))
        }
        // Of several runs of a sweep only the first starts them.
        _ => Ok(()),
    }
}

pub(crate) fn this_program() -> Result<PathBuf, Failure> {
    env::current_exe()
        .map_err(|error| Failure::wrong(format!("this program cannot be found: {error}")))
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

fn shared_stages(settled: &[Settled]) -> Vec<SharedStage> {
    let made = settled.iter().filter(|one| one.artifact.is_some());
    let keys = made.filter_map(|one| {
        Some(SharedStage {
            name: one.stage.clone(),
            key: one.key?,
        })
    });
    keys.collect()
}

fn closing_line(run_name: &str, settled: &[Settled], next: &str) -> String {
    let mut counts: Vec<(&Outcome, usize)> = Vec::new();
    let is_alike = |a: &Outcome, b: &Outcome| mem::discriminant(a) == mem::discriminant(b);
    for Settled { outcome, .. } in settled {
        match counts
            .iter_mut()
            .find(|(known, _)| is_alike(known, outcome))
        {
            Some((_, n)) => *n += 1,
            None => counts.push((outcome, 1)),
        }
    }
    counts.sort_by_key(|(outcome, _)| outcome.rank());
    let counts: Vec<String> = counts
        .iter()
        .map(|(outcome, n)| format!("{n} {}", outcome.word()))
        .collect();
    format!("{run_name}: {}{next}", counts.join(", "))
}

/// The end of the last line. A run that was not recorded can be neither reported nor resumed.
fn next_command(run_name: &str, status: Status, is_recorded: bool) -> String {
    match (status, is_recorded) {
        (Status::Done, true) => format!("; `tinylm report {run_name}`"),
        (_, true) => format!("; go on with `tinylm resume {run_name}`"),
        (Status::Done, false) => String::new(),
        (_, false) => "; go on with the same command".to_owned(),
    }
}

/// Going on with the same settings would fail in the same way.
fn is_final(one: &Settled) -> bool {
    matches!(&one.outcome, Outcome::Failed(error) if error.is_final && !error.is_damage)
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

/// Every setting by its dotted name, and whether it is the default.
fn params(experiment: &Experiment) -> Vec<(String, String, bool)> {
    let secrets = Secrets::of(&all_settings(experiment));
    let mut params = vec![("seed".to_owned(), experiment.seed.to_string(), false)];
    // A variable may decide what no setting shows, such as which stage another one reads.
    for (name, value) in &experiment.sweep_point {
        if name.starts_with("vars.") {
            flatten(name, value, value, &mut params);
        }
    }
    for stage in &experiment.stages {
        flatten(&stage.name, &stage.with, &stage.given, &mut params);
        flatten(
            &format!("{}.watch", stage.name),
            &stage.watch,
            &Value::Null,
            &mut params,
        );
    }
    for (_, value, _) in &mut params {
        *value = secrets.mask(value);
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

/// The digests of every stage's local files, as they are when the run begins.
pub(crate) fn local_digests(context: &Context, experiment: &Experiment) -> Result<Value, Failure> {
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

/// The settings of all stages, as one text.
pub(crate) fn all_settings(experiment: &Experiment) -> String {
    let settings = experiment.stages.iter().map(|stage| stage.with.to_string());
    settings.collect::<Vec<_>>().join("\n")
}
