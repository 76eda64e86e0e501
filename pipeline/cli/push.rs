//! `tinylm push` and `tinylm pull`: what a run made goes to the team's store, or comes from there.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use clap::Args;
use tinylm_pipeline::{Happened, Interrupt, Observer, pushing::Pusher, recorder::know_execution};
use tinylm_registry::{
    Condition, Digest, Fetched, Home, KeyRecord, Lock, Place, Registry, Status, Store, Taken,
    Watch,
    keys::{read_key, remove_key},
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
    shared_run::{self, Why, shared_run},
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
    home.refuse_read_only()?;
    let registry = run.map(|_| project.registry_to_write()).transpose()?;
    let known = registry.as_ref().zip(run);
    let run = known
        .map(|(registry, run)| shared_run(registry, run))
        .transpose()?;
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
    if let Some((registry, run)) = registry.zip(run).filter(|_| pushed.n_owed == 0) {
        let watch = Waiting::new(&console, &interrupt, "push", to);
        let given = shared_run::give(&registry, &remote, run, &watch);
        given.map_err(|why| refused(to, &why.0))?;
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
    let taking = Taking {
        project,
        home: &home,
        remote: &remote,
        from: remote.shown(),
        interrupt: &interrupt,
        is_of_run_alone: false,
    };
    taking.take(&run)
}

/// Whoever takes a run out of a remote into a home.
pub(crate) struct Taking<'a> {
    pub(crate) project: &'a Project,
    pub(crate) home: &'a Home,
    pub(crate) remote: &'a Arc<Remote>,
    /// What the remote is called.
    pub(crate) from: &'a str,
    pub(crate) interrupt: &'a Interrupt,
    /// Whether records are those of the run itself. In a store that a team shares a key may have been made
    /// once more since, on another machine, and to other bytes.
    pub(crate) is_of_run_alone: bool,
}

impl Taking<'_> {
    /// Takes what is remembered of the run, and then its artifacts, each as it comes.
    pub(crate) fn take(&self, run: &SharedRun) -> Result<(), Failure> {
        let names: Vec<&str> = run.stages.iter().map(|stage| stage.name.as_str()).collect();
        let console = Console::new(&self.project.global, &names, None);
        let registry = Registry::open(self.home)?;
        let taken = match self.taken(&registry, run) {
            Err(Why(why)) if self.is_of_run_alone => return Err(refused(self.from, &why)),
            // What the team has made is sound whatever is told of it.
            Err(Why(why)) => {
                console.say(&format!(
                    "warning: the history of {} was not taken: {why}",
                    run.name
                ));
                None
            }
            Ok(taken) => taken,
        };
        let store = store_behind(self.home, Some(self.remote));
        let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let mut n_lacking = 0;
        for stage in &run.stages {
            let watch = Waiting::new(&console, self.interrupt, &stage.name, self.from);
            let (word, note) = match pulled(self.home, &store, &stage.key, &watch)? {
                // The folder is what others' tools are given.
                Pulled::Here(files) => ("here", self.project.shown(&files)),
                Pulled::Came(n, files) => {
                    let files = self.project.shown(&files);
                    ("fetched", format!("{:>8}  {files}", bytes(n)))
                }
                Pulled::Lacking(why) => {
                    n_lacking += 1;
                    ("lacking", why)
                }
                Pulled::Refused(why) => return Err(refused(self.from, &why)),
                Pulled::Stopped => return Err(Failure::said(signals::exit_code())),
            };
            let (word, note) = match self.record_of(&registry, run, stage, word == "fetched")? {
                Some(record) => {
                    know_execution(&registry, &record)?;
                    (word, note)
                }
                None if word == "lacking" => (word, note),
                None => {
                    n_lacking += 1;
                    (
                        "lacking",
                        "its record is not what the run's history says".to_owned(),
                    )
                }
            };
            console.forget(&stage.name);
            console.result(format!("{word:<8} {:width$}  {note}", stage.name).trim_end());
        }
        if let Some(name) = taken {
            console.result(format!("known    {name}: `tinylm show {name}`"));
        }
        match n_lacking {
            0 => Ok(()),
            n => Err(Failure::new(
                STAGE_FAILED,
                format!("{} lacks {n} of {} artifacts", self.from, names.len()),
            )
            .help("whoever has them: `tinylm push`, or run the experiment, which makes them")),
        }
    }

    /// The record of a stage that is here now; one that came and that the run's history gives the lie to goes again.
    fn record_of(
        &self,
        registry: &Registry,
        run: &SharedRun,
        stage: &SharedStage,
        has_come: bool,
    ) -> Result<Option<KeyRecord>, Failure> {
        let Some(record) = read_key(self.home, &stage.key)? else {
            return Ok(None);
        };
        let rows = registry.stages(&run.id)?;
        let row = rows.iter().find(|row| row.name == stage.name);
        let told = row.and_then(|row| row.artifact.as_deref());
        let is_other = told.is_some_and(|told| told != record.artifact.to_string());
        if self.is_of_run_alone && has_come && is_other {
            remove_key(self.home, &stage.key)?;
            return Ok(None);
        }
        Ok(Some(record))
    }

    /// Takes what is remembered of a run; returns its name here, if that is news.
    pub(crate) fn taken(
        &self,
        registry: &Registry,
        run: &SharedRun,
    ) -> Result<Option<String>, Why> {
        let console = Console::new(&self.project.global, &[], None);
        let watch = Waiting::new(&console, self.interrupt, &run.name, self.from);
        let taken = shared_run::take(registry, self.remote, run, &watch)?;
        Ok(match taken {
            Some(Taken::New(name)) => Some(name),
            Some(Taken::Known(_)) | None => None,
        })
    }
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
    let here = registry.map(|registry| -> Result<_, Failure> {
        let is_done = registry.find_run(name)?.status == Status::Done;
        Ok((shared_run(&registry, name)?, is_done))
    });
    let here = here.and_then(Result::ok);
    let here = match here {
        Some((run, true)) => return Ok(run),
        // Somebody may have gone on with it since.
        here => here.map(|(run, _)| run),
    };
    let name = here.as_ref().map_or(name, |run| run.name.as_str());
    let console = Console::new(&project.global, &[], None);
    let watch = Waiting::new(&console, interrupt, name, remote.shown());
    match remote.read_run(name, &watch) {
        Ok(Some(run)) => Ok(run),
        Ok(None) if here.is_some() => here.ok_or_else(|| Failure::said(STAGE_FAILED)),
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
pub(crate) fn hold_store(
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
