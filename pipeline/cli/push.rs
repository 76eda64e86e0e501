//! `tinylm push` and `tinylm pull`: what a run made goes to the team's store, or comes from there.

use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use tinylm_pipeline::{Happened, Interrupt, Observer, pushing::Pusher};
use tinylm_registry::{
    Condition, Digest, Fetched, Home, Lock, Place, Registry, Store, Watch, keys::read_key,
};
use tinylm_remote::{Remote, SharedRun, SharedStage};
use tinylm_reports::bytes;

use crate::{
    completions,
    console::Console,
    failure::{Failure, STAGE_FAILED},
    output::{eprint, print_line},
    project::Project,
    shared::store_behind,
    signals::{self, listen_for_signals},
};

const VARIABLES: &str = "\
The store is named by TINYLM_REMOTE, or by `url` in `tinylm-remote.yaml` beside the home:
  s3://BUCKET/PREFIX     with the variables and files of AWS (AWS_ENDPOINT_URL, AWS_PROFILE, ...)
  file:///FOLDER
  https://HOST/PATH      to read only
  none                   goes without
TINYLM_REMOTE_MODE: `read` (the default), or `write`, which gives what is made as well.
TINYLM_REMOTE_TIMEOUT: seconds in which nothing may come (20).";

#[derive(Debug, Args)]
#[command(after_help = VARIABLES)]
pub(crate) struct PushArgs {
    /// The run; without one, what earlier runs still owe
    #[arg(add = completions::runs())]
    pub(crate) run: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = VARIABLES)]
pub(crate) struct PullArgs {
    /// A run of this home, or the whole name of one that was pushed from another
    #[arg(add = completions::runs())]
    pub(crate) run: String,
}

pub(crate) fn push(project: &Project, args: &PushArgs) -> Result<(), Failure> {
    let remote = project.remote_to_write()?;
    let (home, run) = (project.checked_home()?, args.run.as_deref());
    let run = run
        .map(|run| shared_run(&project.registry()?, run))
        .transpose()?;
    home.refuse_read_only()?;
    let interrupt = listen_for_signals()?;
    let _store = hold_store(project, &home, "tinylm push", &interrupt.asked)?;
    let store = store_behind(&home, Some(&remote));
    let pusher = Pusher::start(&home, &store, remote.id())?;
    for stage in run.iter().flat_map(|run| &run.stages) {
        pusher.owe(&stage.key);
        pusher.push(&stage.key);
    }
    let console = Console::new(&project.global, &[], None);
    let to = remote.shown();
    let pushed = pusher.finish(&interrupt.asked, &mut |now| console.pushing(to, now));
    if let Some(run) = run.filter(|_| pushed.n_owed == 0) {
        let watch = Waiting::new(&console, &interrupt, "push", to);
        let written = remote.write_run(&run, &watch);
        written.map_err(|error| refused(to, &error.to_string()))?;
    }
    console.pushed(to, &pushed);
    match (pushed.n_owed, pushed.n_pushed) {
        (0, 0) => print_line(format!("all is in {to}")),
        (0, _) => {}
        _ if interrupt.asked.load(Ordering::Relaxed) => {
            return Err(Failure::said(signals::exit_code()));
        }
        _ => return Err(Failure::said(STAGE_FAILED)),
    }
    Ok(())
}

pub(crate) fn pull(project: &Project, args: &PullArgs) -> Result<(), Failure> {
    let remote = project.remote_to_read()?;
    let home = project.checked_home()?;
    home.create()?;
    home.refuse_read_only()?;
    let interrupt = listen_for_signals()?;
    let _store = hold_store(project, &home, "tinylm pull", &interrupt.asked)?;
    let run = run_to_pull(project, &home, &remote, &args.run, &interrupt)?;
    let names: Vec<&str> = run.stages.iter().map(|stage| stage.name.as_str()).collect();
    let console = Console::new(&project.global, &names, None);
    let store = store_behind(&home, Some(&remote));
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let mut n_lacking = 0;
    for stage in &run.stages {
        let watch = Waiting::new(&console, &interrupt, &stage.name, remote.shown());
        let (word, note) = match pulled(&home, &store, &stage.key, &watch)? {
            // The folder is what `chat` and others take where this home knows no such run.
            Pulled::Here(files) => ("here", project.shown(&files)),
            Pulled::Came(n, files) => {
                let files = project.shown(&files);
                ("fetched", format!("{:>8}  {files}", bytes(n)))
            }
            Pulled::Lacking(why) => {
                n_lacking += 1;
                ("lacking", why)
            }
            Pulled::Refused(why) => return Err(refused(remote.shown(), &why)),
            Pulled::Stopped => return Err(Failure::said(signals::exit_code())),
        };
        console.forget(&stage.name);
        console.result(format!("{word:<8} {:width$}  {note}", stage.name).trim_end());
    }
    match n_lacking {
        0 => Ok(()),
        n => Err(Failure::new(
            STAGE_FAILED,
            format!("{} lacks {n} of {} artifacts", remote.shown(), names.len()),
        )
        .help("whoever has them: `tinylm push`, or run the experiment, which makes them")),
    }
}

/// The keys of a run that this home knows.
fn shared_run(registry: &Registry, name: &str) -> Result<SharedRun, Failure> {
    let run = registry.find_run(name)?;
    let stages = registry.stages(&run.id)?.into_iter().filter_map(|stage| {
        let key = stage.key?.parse().ok()?;
        let is_made = stage.artifact.is_some();
        is_made.then_some(SharedStage {
            name: stage.name,
            key,
        })
    });
    Ok(SharedRun {
        stages: stages.collect(),
        id: run.id,
        name: run.name,
        experiment: run.experiment,
    })
}

/// The run of this name here, or else there.
fn run_to_pull(
    project: &Project,
    home: &Home,
    remote: &Remote,
    name: &str,
    interrupt: &Interrupt,
) -> Result<SharedRun, Failure> {
    let registry = Registry::open_to_read(home)?;
    let here = registry.map(|registry| shared_run(&registry, name));
    if let Some(Ok(run)) = here {
        return Ok(run);
    }
    let console = Console::new(&project.global, &[], None);
    let watch = Waiting::new(&console, interrupt, name, remote.shown());
    match remote.read_run(name, &watch) {
        Ok(Some(run)) => Ok(run),
        Ok(None) => {
            let message = format!(
                "neither this home nor {} knows a run `{name}`",
                remote.shown()
            );
            Err(Failure::wrong(message)
                .help("give its whole name; `tinylm push RUN` is how others come to know a run"))
        }
        Err(error) => Err(refused(remote.shown(), &error.to_string())),
    }
}

fn refused(remote: &str, why: &str) -> Failure {
    Failure::new(STAGE_FAILED, format!("{remote} does not do it: {why}"))
        .help("`tinylm doctor` asks it too")
}

/// What became of one artifact.
enum Pulled {
    /// Where its files stand.
    Here(Place),
    Came(u64, Place),
    Lacking(String),
    Refused(String),
    Stopped,
}

fn pulled(home: &Home, store: &Store, key: &Digest, watch: &Waiting) -> Result<Pulled, Failure> {
    let note = format!("`tinylm pull` (process {})", std::process::id());
    let asked = &watch.interrupt.asked;
    let lock = Lock::wait_exclusive(&home.key_lock(key), &note, asked, |_| {})?;
    if lock.is_none() {
        return Ok(Pulled::Stopped);
    }
    if let Some(record) = read_key(home, key)?
        && let Condition::Whole(_) = store.condition(&record.artifact)?
    {
        return Ok(Pulled::Here(store.files(&record.artifact)));
    }
    Ok(match store.fetch(key, watch) {
        Fetched::Whole { record, bytes } => Pulled::Came(bytes, store.files(&record.artifact)),
        Fetched::Nothing => Pulled::Lacking("it is not there".to_owned()),
        Fetched::Refused(why) => Pulled::Lacking(why),
        Fetched::Forbidden(why) | Fetched::Unreachable(why) => Pulled::Refused(why),
        Fetched::Stopped => Pulled::Stopped,
    })
}

/// Keeps `gc` away for as long as it is held.
fn hold_store(
    project: &Project,
    home: &Home,
    who: &str,
    asked: &AtomicBool,
) -> Result<Lock, Failure> {
    let note = format!("`{who}` (process {})", std::process::id());
    let on_wait = |holder: &str| {
        if !project.global.quiet {
            eprint(format!("waiting for {holder}"));
        }
    };
    let lock = Lock::wait_shared(&home.store_lock(), &note, asked, on_wait)?;
    lock.ok_or_else(|| Failure::said(signals::exit_code()))
}

/// Whoever sits before the terminal.
struct Waiting<'a> {
    console: &'a Console,
    interrupt: &'a Interrupt,
    stage: &'a str,
    from: &'a str,
}

impl<'a> Waiting<'a> {
    fn new(console: &'a Console, interrupt: &'a Interrupt, stage: &'a str, from: &'a str) -> Self {
        Self {
            console,
            interrupt,
            stage,
            from,
        }
    }
}

impl Watch for Waiting<'_> {
    fn see(&self, done: u64, total: u64) {
        self.console.see(&Happened::Fetching {
            stage: self.stage,
            from: self.from,
            done,
            total,
        });
    }

    fn is_stopped(&self) -> bool {
        self.interrupt.asked.load(Ordering::Relaxed)
    }
}
