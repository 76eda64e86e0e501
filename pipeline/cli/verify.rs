//! `tinylm verify`: a run's stages made again from their recipes, in an empty place, and held against what they were.
//!
//! Each stage is given what it read then, so each answers for itself. What it read comes from the store, and where
//! that no longer has it, from what was made again, if that is the same. The store and the history stay as they are.

use std::{
    collections::BTreeMap,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clap::Args;
use serde_json::json;
use tinylm_pipeline::{
    Context, Event, Happened, Observer, Outcome, Resolve, RunOptions, Runner, Settled,
    spec::{Experiment, StageSpec},
};
use tinylm_registry::{
    ALL_STEPS, Artifact, Condition, Digest, Home, Place, Registry, Run, StageRow, Store, Thinning,
    names,
};
use tinylm_reports::wrapped;

use crate::{
    completions,
    console::Console,
    device::{device_of, device_of_run},
    digests,
    failure::{Failure, STAGE_FAILED},
    host::host_name,
    job::{Ground, n_threads, start_hashing_threads},
    output::print_json,
    project::{self, Project, quoted},
    push::hold_store,
    resume::recorded_experiment,
    signals::{self, listen_for_signals},
    verdict::{self, Numbers, Told, Verdict},
};

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The run
    #[arg(add = completions::runs())]
    pub(crate) run: String,
    /// Only this stage, from what it read then; again for several
    #[arg(long = "stage", value_name = "STAGE")]
    pub(crate) stages: Vec<String>,
    /// How far apart numbers of other bytes may be, as a part of them
    #[arg(long, default_value_t = 0.01, value_name = "PART")]
    pub(crate) tolerance: f64,
    /// Where to make them, kept afterwards: the same command goes on there
    #[arg(long = "in", value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
    /// Make nothing: hold what the run made against a file of digests
    #[arg(long, value_name = "FILE", conflicts_with_all = ["folder", "tolerance"])]
    pub(crate) against: Option<PathBuf>,
    /// Carry out the programs of a run that came from another home
    #[arg(long)]
    pub(crate) programs: bool,
    /// Threads
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZero<usize>>,
    /// Where models are trained and read; without a word, where the run's were
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn verify(project: &Project, args: &VerifyArgs) -> Result<(), Failure> {
    let registry = project.registry()?;
    let run = registry.find_run(&args.run)?;
    let rows = registry.stages(&run.id)?;
    if let Some(file) = &args.against {
        let told = digests::held_against(project, file, &run, &rows, &args.stages)?;
        return tell(project, args, &run, &told);
    }
    let wanted = wanted(&rows, &args.stages, &run.name)?;
    let experiment = recorded_experiment(project, &registry, &run)?;
    let interrupt = listen_for_signals()?;
    start_hashing_threads()?;
    let home = project.checked_home()?;
    let _store = hold_store(project, &home, "tinylm verify", &interrupt.asked)?;
    let place = MakingPlace::new(project, &home, args.folder.as_deref())?;
    let names: Vec<&str> = wanted.iter().map(|row| row.name.as_str()).collect();
    let console = Console::new(&project.global, &names, None);
    let mut context = Context::new(place.home.clone(), project.context().outside);
    context.outside.stop = Arc::clone(&interrupt.asked);
    let listener = Listener {
        curves: Mutex::default(),
        console: &console,
    };
    let again = Again {
        experiment: &experiment,
        registry: &registry,
        rows: &rows,
        kept: Store::new(home),
        context: &context,
        listener: &listener,
        tolerance: args.tolerance,
        is_foreign: registry.came_from_elsewhere(&run.id)?,
        may_run_programs: args.programs,
    };
    let device = device_of(project, &registry, &args.device, &run)?;
    let options = options(args, &run, &device)?;
    let ground = Ground::of(project, None)?;
    let runner = Runner {
        context: &context,
        experiment: &experiment,
        options: &options,
        executor: ground.executor(),
        observer: &listener,
        interrupt: &interrupt,
        history: &|_| None,
    };
    let mut told = Vec::new();
    for row in wanted {
        let verdict = again.verdict(&runner, row)?;
        if interrupt.asked.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Failure::said(signals::exit_code()));
        }
        console.forget(&row.name);
        told.push(Told {
            stage: row.name.clone(),
            artifact: row.artifact.clone().unwrap_or_default(),
            verdict,
        });
    }
    tell(project, args, &run, &told)
}

/// The stages that are meant, in the order in which they were made.
fn wanted<'r>(
    rows: &'r [StageRow],
    names: &[String],
    run: &str,
) -> Result<Vec<&'r StageRow>, Failure> {
    let unknown: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !rows.iter().any(|row| row.name == *name))
        .collect();
    if !unknown.is_empty() {
        let known = quoted(rows.iter().map(|row| row.name.as_str()));
        let message = format!("{run} has no stage {}", quoted(unknown));
        return Err(Failure::wrong(message).help(format!("it has {known}")));
    }
    let is_meant = |row: &&StageRow| names.is_empty() || names.contains(&row.name);
    let (made, not): (Vec<&StageRow>, Vec<&StageRow>) = rows
        .iter()
        .filter(is_meant)
        .partition(|row| row.artifact.is_some());
    if let (false, Some(row)) = (names.is_empty(), not.first()) {
        return Err(Failure::wrong(format!(
            "`{}` made nothing in {run}",
            row.name
        )));
    }
    match made.is_empty() {
        true => Err(Failure::wrong(format!(
            "{run} made nothing that could be made again"
        ))),
        false => Ok(made),
    }
}

fn options(args: &VerifyArgs, run: &Run, device: &str) -> Result<RunOptions, Failure> {
    Ok(RunOptions {
        run_id: names::new_id(),
        run_name: format!("verify {}", run.name),
        host: host_name(),
        job: None,
        force: Vec::new(),
        n_jobs: 1,
        n_threads: args.threads.map_or_else(n_threads, NonZero::get),
        device: device_of_run(device, true)?.0,
        keep_going: true,
        resolve: Resolve::IfNew,
    })
}

/// Prints what became of each stage; fails if one is not what it was.
fn tell(project: &Project, args: &VerifyArgs, run: &Run, told: &[Told]) -> Result<(), Failure> {
    if args.json {
        let stages: Vec<_> = told.iter().map(Told::json).collect();
        print_json(&json!({"run": run.name, "stages": stages}));
    } else {
        let console = Console::new(&project.global, &[], None);
        let width = told.iter().map(|one| one.stage.len()).max().unwrap_or(0);
        for one in told {
            let digest = &one.artifact[..DIGITS.min(one.artifact.len())];
            let start = format!(
                "{:<8} {:width$}  {digest:DIGITS$}  ",
                one.verdict.word(),
                one.stage
            );
            // What does not fit beside it goes on below, for people.
            let room = match project::stdout_is_terminal() {
                true => project::stdout_width().saturating_sub(start.len()).max(20),
                false => usize::MAX,
            };
            let lines = wrapped(one.verdict.note(), room);
            let gap = " ".repeat(start.len());
            console.result(format!("{start}{}", lines.join(&format!("\n{gap}"))).trim_end());
        }
        if !project.global.quiet {
            console.result("");
            console.result(format!("{}: {}", run.name, counted(told)));
        }
    }
    match told.iter().all(|one| one.verdict.is_good()) {
        true => Ok(()),
        false => Err(Failure::said(STAGE_FAILED)),
    }
}

/// As many digits of an artifact are shown.
const DIGITS: usize = 8;

/// How many there are of each word.
fn counted(told: &[Told]) -> String {
    let words = ["same", "close", "differs", "unmade"];
    let count = |word: &str| told.iter().filter(|one| one.verdict.word() == word).count();
    let counted = words.iter().map(|word| (count(word), word));
    let some = counted.filter(|(n, _)| *n > 0);
    let some: Vec<String> = some.map(|(n, word)| format!("{n} {word}")).collect();
    some.join(", ")
}

/// Where stages are made again: a home of its own, which goes afterwards unless a person named it.
struct MakingPlace {
    home: Home,
    passing: Option<Place>,
}

impl MakingPlace {
    fn new(project: &Project, home: &Home, folder: Option<&Path>) -> Result<Self, Failure> {
        let made = match folder {
            Some(folder) => {
                let folder = project.current_dir.join(folder);
                let is_ours = folder.canonicalize().ok() == home.root().canonicalize().ok();
                if is_ours && folder.exists() {
                    let message = "nothing is made again where it was made";
                    return Err(Failure::wrong(message).help("name another folder with `--in`"));
                }
                Self {
                    home: Home::at(folder),
                    passing: None,
                }
            }
            None => {
                let place = home.staging().below(format!("verify-{}", names::new_id()));
                Self {
                    home: Home::at(&*place),
                    passing: Some(place),
                }
            }
        };
        made.home.create()?;
        Ok(made)
    }
}

impl Drop for MakingPlace {
    fn drop(&mut self) {
        if let Some(place) = &self.passing {
            place.remove().ok();
        }
    }
}

/// The contents of a stage's roles.
type Inputs = Vec<(String, Vec<Digest>)>;

/// The making of stages that were made before.
struct Again<'a> {
    experiment: &'a Experiment,
    registry: &'a Registry,
    rows: &'a [StageRow],
    /// Where that is which was made then.
    kept: Store,
    context: &'a Context,
    listener: &'a Listener<'a>,
    tolerance: f64,
    /// Whether nobody here has written the experiment.
    is_foreign: bool,
    may_run_programs: bool,
}

/// The kind that carries out whatever its settings say.
const COMMAND: &str = "command";

fn final_numbers(settled: &Settled) -> Numbers {
    Numbers {
        last: settled.metrics.0.iter().cloned().collect(),
        ..Numbers::default()
    }
}

impl Again<'_> {
    fn verdict(&self, runner: &Runner, row: &StageRow) -> Result<Verdict, Failure> {
        let Some(stage) = self
            .experiment
            .stages
            .iter()
            .find(|stage| stage.name == row.name)
        else {
            return Ok(Verdict::Unmade("its recipe is not recorded".to_owned()));
        };
        if self.is_foreign && stage.kind.name == COMMAND && !self.may_run_programs {
            let why = "it runs a program from elsewhere: look at it (`show`), then `--programs`";
            return Ok(Verdict::Unmade(why.to_owned()));
        }
        let inputs = match self.inputs(stage)? {
            Ok(inputs) => inputs,
            Err(why) => return Ok(Verdict::Unmade(why)),
        };
        self.listener.forget();
        let settled = runner.run_one(stage, inputs);
        match (&settled.outcome, settled.artifact, row.artifact.as_deref()) {
            (Outcome::Failed(error), ..) => Ok(Verdict::Unmade(error.to_string())),
            (_, Some(now), Some(then)) if now.to_string() == then => Ok(verdict::same_bytes(
                &self.then(row)?,
                &final_numbers(&settled),
            )),
            (_, Some(now), Some(then)) => self.other_bytes(row, &settled, then, &now),
            _ => Ok(Verdict::Unmade("it was not made".to_owned())),
        }
    }

    /// Lays what a stage read then where it is made again; says why where that cannot be had.
    fn inputs(&self, stage: &StageSpec) -> Result<Result<Inputs, String>, Failure> {
        let mut inputs = Vec::new();
        for (role, names) in &stage.inputs {
            let mut digests = Vec::new();
            for name in names {
                let row = self.rows.iter().find(|row| row.name == *name);
                let digest = row.and_then(|row| row.artifact.as_deref()?.parse().ok());
                let Some(digest) = digest else {
                    return Ok(Err(format!("what `{name}` made is not recorded")));
                };
                if !self.is_laid(&digest)? {
                    return Ok(Err(format!(
                        "what `{name}` made is not kept, and was not made again the same"
                    )));
                }
                digests.push(digest);
            }
            inputs.push((role.clone(), digests));
        }
        Ok(Ok(inputs))
    }

    /// Copies an artifact, unless it is there; returns whether it is there now, whole.
    fn is_laid(&self, digest: &Digest) -> Result<bool, Failure> {
        if matches!(self.context.store.condition(digest)?, Condition::Whole(_)) {
            return Ok(true);
        }
        let Condition::Whole(manifest) = self.kept.condition(digest)? else {
            return Ok(false);
        };
        let out = self.context.home.staging().below(names::new_id());
        let from = self.kept.files(digest);
        for file in &manifest.artifact().files {
            let mut place = out.clone();
            for part in Path::new(&file.path) {
                place = place.below(part);
            }
            place.parent().create_folder()?;
            let mut from = std::fs::File::open(from.join(&file.path))
                .map_err(|error| not_copied(&file.path, &error))?;
            std::io::copy(&mut from, &mut place.create_file()?)
                .map_err(|error| not_copied(&file.path, &error))?;
        }
        out.create_folder()?;
        Ok(self.context.store.commit(&out)?.digest == *digest)
    }

    fn other_bytes(
        &self,
        row: &StageRow,
        settled: &Settled,
        then: &str,
        now: &Digest,
    ) -> Result<Verdict, Failure> {
        if row.key.as_deref() != settled.key.map(|key| key.to_string()).as_deref() {
            // It read something else: a file that was changed, a source that moved on.
            let why = "what it reads from outside is not what it was";
            return Ok(Verdict::Unmade(why.to_owned()));
        }
        let files = self.files(then, now)?;
        let mut numbers = self.listener.heard();
        numbers.last = final_numbers(settled).last;
        let then = self.then(row)?;
        Ok(verdict::by_numbers(&then, &numbers, self.tolerance, files))
    }

    /// Says where the files part.
    fn files(&self, then: &str, now: &Digest) -> Result<String, Failure> {
        let artifact = |store: &Store, digest: &Digest| -> Result<Option<Artifact>, Failure> {
            Ok(match store.condition(digest)? {
                Condition::Whole(manifest) => Some(manifest.artifact()),
                _ => None,
            })
        };
        let then: Option<Digest> = then.parse().ok();
        let old = then
            .map(|then| artifact(&self.kept, &then))
            .transpose()?
            .flatten();
        let new = artifact(&self.context.store, now)?;
        Ok(match (then, old, new) {
            (Some(then), Some(old), Some(new)) => {
                let folders = (&*self.kept.files(&then), &*self.context.store.files(now));
                verdict::files(&old.files, &new, Some(folders))
            }
            _ => "its bytes differ".to_owned(),
        })
    }

    fn then(&self, row: &StageRow) -> Result<Numbers, Failure> {
        let mut numbers = Numbers::default();
        let Some(execution) = &row.execution_id else {
            return Ok(numbers);
        };
        for (name, value, _) in self.registry.final_numbers(execution)? {
            numbers.last.insert(name, value);
        }
        for (name, _) in self.registry.curve_ends(execution, None)? {
            let curve = [(execution.clone(), name.clone())];
            let all = Thinning::even(usize::MAX);
            for series in self.registry.metric_series_of(&curve, &ALL_STEPS, all)? {
                let points = series.points.iter().map(|point| (point.step, point.value));
                numbers.curves.insert(name.clone(), points.collect());
            }
        }
        Ok(numbers)
    }
}

fn not_copied(file: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        STAGE_FAILED,
        format!("`{file}` could not be copied: {error}"),
    )
}

/// Tells what happens, and keeps the curves of the stage that is at work.
struct Listener<'a> {
    curves: Mutex<BTreeMap<String, BTreeMap<u64, f64>>>,
    console: &'a Console,
}

impl Listener<'_> {
    fn curves(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<u64, f64>>> {
        self.curves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        self.curves().clear();
    }

    fn heard(&self) -> Numbers {
        Numbers {
            curves: std::mem::take(&mut *self.curves()),
            ..Numbers::default()
        }
    }
}

impl Observer for Listener<'_> {
    fn see(&self, happened: &Happened) {
        if let Happened::Said {
            event:
                Event::Metric {
                    name,
                    step: Some(step),
                    value,
                    ..
                },
            ..
        } = happened
        {
            let mut curves = self.curves();
            let curve = curves.entry(name.clone()).or_default();
            curve.insert(*step, *value);
        }
        // How a stage came out is told by its verdict.
        if !matches!(happened, Happened::Settled(_)) {
            self.console.see(happened);
        }
    }
}
