//! A run through an executor that is no process: what the door promises, and nothing local behind it.
//!
//! The executor here carries stages out in threads. It grants every claim, starts jobs late, does
//! not know at first how a job is, and keeps at work what a dead driver left.

use std::{
    collections::HashMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tinylm_pipeline::{
    Content, Context, Event, Executor, Happened, Interrupt, Kind, Metrics, NoSettings, Observer,
    Order, Outcome, Outside, Resolve, Role, Roles, RunOptions, Runner, Settled, Stage, StageError,
    StageIo, Usage, exec,
    executor::{Adopted, Claim, Claimed, End, Exclusive, Job, JobId, News, Stop},
    spec,
};
use tinylm_registry::{Home, Place};

/// Writes a word.
struct Hello;

impl Stage for Hello {
    type Settings = NoSettings;
    type Watch = NoSettings;
    const KIND: &'static str = "hello";
    const ABOUT: &'static str = "Writes a word";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Files;
    const ROLES: Roles = Roles::Fixed(&[]);

    fn run(_: &NoSettings, _: &NoSettings, io: &StageIo) -> Result<Metrics, StageError> {
        fs::write(io.out().join("word"), "hello").unwrap();
        Ok(Metrics::default().count("words", 1))
    }
}

/// Writes what it reads, twice.
struct Twice;

impl Stage for Twice {
    type Settings = NoSettings;
    type Watch = NoSettings;
    const KIND: &'static str = "twice";
    const ABOUT: &'static str = "Writes what it reads, twice";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Files;
    const ROLES: Roles = Roles::Fixed(&[Role::one("word", "what is repeated")]);
    const HEAVY: bool = true;

    fn run(_: &NoSettings, _: &NoSettings, io: &StageIo) -> Result<Metrics, StageError> {
        let word = fs::read_to_string(io.input("word")?.path.join("word")).unwrap();
        fs::write(io.out().join("word"), word.repeat(2)).unwrap();
        Ok(Metrics::default())
    }
}

/// Waits until it is stopped.
struct Wait;

impl Stage for Wait {
    type Settings = NoSettings;
    type Watch = NoSettings;
    const KIND: &'static str = "wait";
    const ABOUT: &'static str = "Waits until it is stopped";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Files;
    const ROLES: Roles = Roles::Fixed(&[]);

    fn run(_: &NoSettings, _: &NoSettings, io: &StageIo) -> Result<Metrics, StageError> {
        for n in 0.. {
            io.progress(n, None, "moments")?;
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Metrics::default())
    }
}

const CATALOG: [Kind; 3] = [Kind::of::<Hello>(), Kind::of::<Twice>(), Kind::of::<Wait>()];

/// Carries stages out in threads of this process.
#[derive(Default)]
struct Threads {
    state: Arc<Mutex<State>>,
    /// How long a job stands in the queue.
    queue: Duration,
    /// How long somebody else has the device.
    device_is_busy: Duration,
    /// The driver dies when it asks next.
    is_deadly: AtomicBool,
}

#[derive(Default)]
struct State {
    jobs: HashMap<JobId, Running>,
    n_submitted: usize,
    stops: Vec<Stop>,
}

struct Running {
    work: PathBuf,
    stop: Arc<AtomicBool>,
    news: Vec<News>,
}

impl Executor for Threads {
    fn claim(&self, claim: &Claim) -> Result<Option<Claimed>, StageError> {
        if let Exclusive::Device(_) = claim.what {
            thread::sleep(self.device_is_busy);
        }
        Ok(Some(Box::new(())))
    }

    fn adopt(&self, work: &Place) -> Result<Option<Adopted>, StageError> {
        let state = self.state.lock().unwrap();
        let left = state
            .jobs
            .iter()
            .find(|(_, job)| job.work == std::path::absolute(work).unwrap());
        Ok(left.map(|(id, _)| Adopted {
            job: id.clone(),
            execution_id: id.0.clone(),
        }))
    }

    fn submit(&self, job: &Job) -> Result<JobId, StageError> {
        // As for another machine: the order crosses as text.
        let order = serde_json::to_string(&job.order).unwrap();
        let id = JobId(job.draft.execution_id.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let mut state = self.state.lock().unwrap();
        state.n_submitted += 1;
        let running = Running {
            work: job.work.clone(),
            stop: Arc::clone(&stop),
            news: vec![News::Unknown("the controller is away".to_owned())],
        };
        state.jobs.insert(id.clone(), running);
        let (all, name, queue) = (Arc::clone(&self.state), id.clone(), self.queue);
        thread::spawn(move || {
            let tell = |news| {
                let mut all = all.lock().unwrap();
                all.jobs.get_mut(&name).unwrap().news.push(news);
            };
            thread::sleep(queue);
            tell(News::Running);
            let order: Order = serde_json::from_str(&order).unwrap();
            let outside = Outside {
                stop,
                ..Outside::default()
            };
            let send = |event| tell(News::Said(event));
            let end = match exec::carry_out(&CATALOG, &outside, &order, &send) {
                Ok(metrics) => End::Finished(metrics),
                Err(error) => End::Failed(error),
            };
            tell(News::Ended(end, Usage::default()));
        });
        Ok(id)
    }

    fn poll(&self, jobs: &[JobId], _: Duration) -> Vec<(JobId, News)> {
        assert!(!self.is_deadly.swap(false, Ordering::Relaxed), "it dies");
        thread::sleep(Duration::from_millis(2));
        let mut state = self.state.lock().unwrap();
        let mut told = Vec::new();
        for id in jobs {
            let Some(job) = state.jobs.get_mut(id) else {
                continue;
            };
            let news: Vec<News> = job.news.drain(..).collect();
            if matches!(news.last(), Some(News::Ended(..))) {
                state.jobs.remove(id);
            }
            told.extend(news.into_iter().map(|news| (id.clone(), news)));
        }
        told
    }

    fn stop(&self, id: &JobId, how: Stop) {
        let mut state = self.state.lock().unwrap();
        state.stops.push(how);
        if let Some(job) = state.jobs.get(id) {
            job.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Keeps the warnings, and can stop the run as soon as something is said.
#[derive(Default)]
struct Watcher {
    warnings: Mutex<Vec<String>>,
    interrupt: Option<Arc<AtomicBool>>,
}

impl Observer for Watcher {
    fn see(&self, happened: &Happened) {
        match happened {
            Happened::Said {
                event: Event::Warning { message },
                ..
            } => self.warnings.lock().unwrap().push(message.clone()),
            Happened::Said { .. } => {
                if let Some(asked) = &self.interrupt {
                    asked.store(true, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }
}

struct Project {
    dir: TempDir,
    context: Context,
}

impl Project {
    fn new(file: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.yaml"), file).unwrap();
        let home = Home::at(dir.path().join(".tinylm"));
        home.create().unwrap();
        let context = Context::new(home, Outside::default());
        Self { dir, context }
    }

    fn run(&self, executor: &Threads, force: &[&str], watcher: &Watcher) -> Vec<Settled> {
        let request = spec::Request {
            file: "x.yaml".into(),
            current_dir: self.dir.path().to_owned(),
            ..spec::Request::default()
        };
        let experiments = spec::load(&request, &CATALOG).unwrap();
        let interrupt = Interrupt {
            asked: watcher.interrupt.clone().unwrap_or_default(),
            ..Interrupt::default()
        };
        Runner {
            context: &self.context,
            experiment: &experiments[0],
            options: &RunOptions {
                run_id: "run".to_owned(),
                run_name: "a-run".to_owned(),
                host: "nowhere".to_owned(),
                job: None,
                force: force.iter().map(|name| (*name).to_owned()).collect(),
                n_jobs: 4,
                n_threads: 1,
                device: tinylm_pipeline::Device::Cpu.into(),
                keep_going: false,
                resolve: Resolve::IfNew,
            },
            executor,
            observer: watcher,
            interrupt: &interrupt,
            history: &|_| None,
        }
        .run()
    }
}

const TWO: &str = "stages:\n  a: { kind: hello }\n  b: { kind: twice, inputs: [a] }\n";

fn outcomes(settled: &[Settled]) -> Vec<&'static str> {
    settled.iter().map(|one| one.outcome.word()).collect()
}

#[test]
fn a_run_needs_nothing_of_its_machine_but_an_executor() {
    let project = Project::new(TWO);
    let executor = Threads::default();
    let watcher = Watcher::default();
    let settled = project.run(&executor, &[], &watcher);
    assert_eq!(outcomes(&settled), ["made", "made"]);
    let artifact = settled[1].artifact.unwrap();
    let word = project.context.store.files(&artifact).join("word");
    assert_eq!(fs::read_to_string(word).unwrap(), "hellohello");

    let again = project.run(&executor, &[], &Watcher::default());
    assert_eq!(outcomes(&again), ["hit", "hit"]);
    let state = executor.state.lock().unwrap();
    assert_eq!(state.n_submitted, 2);
    assert!(state.stops.is_empty(), "{:?}", state.stops);
}

#[test]
fn a_job_of_which_nothing_is_known_is_waited_for_and_the_doubt_is_told_once() {
    let project = Project::new("stages: { a: { kind: hello } }");
    let watcher = Watcher::default();
    let settled = project.run(&Threads::default(), &[], &watcher);
    assert_eq!(outcomes(&settled), ["made"]);
    let warnings = watcher.warnings.lock().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("the controller is away"));
}

#[test]
fn time_in_a_queue_does_not_count_as_time_at_work() {
    let project = Project::new("stages: { a: { kind: hello, timeout: 100ms } }");
    let executor = Threads {
        queue: Duration::from_millis(400),
        ..Threads::default()
    };
    let settled = project.run(&executor, &[], &Watcher::default());
    assert_eq!(outcomes(&settled), ["made"]);

    let project = Project::new("stages: { a: { kind: wait, timeout: 100ms } }");
    let settled = project.run(&Threads::default(), &[], &Watcher::default());
    let Outcome::Failed(error) = &settled[0].outcome else {
        panic!("{settled:?}");
    };
    assert!(error.message.contains("`timeout` of 0.1 s"), "{error}");
}

#[test]
fn a_stages_time_is_that_of_its_work_and_not_of_its_wait() {
    let project = Project::new(TWO);
    let executor = Threads {
        device_is_busy: Duration::from_secs(2),
        ..Threads::default()
    };
    let settled = project.run(&executor, &[], &Watcher::default());
    assert_eq!(outcomes(&settled), ["made", "made"]);
    assert!(settled[1].seconds < 1.9, "{} s", settled[1].seconds);
}

#[test]
fn a_stop_is_asked_for_and_the_executor_says_when_it_is_over() {
    let project = Project::new("stages: { a: { kind: wait } }");
    let executor = Threads::default();
    let watcher = Watcher {
        interrupt: Some(Arc::default()),
        ..Watcher::default()
    };
    let settled = project.run(&executor, &[], &watcher);
    assert_eq!(outcomes(&settled), ["cancelled"]);
    assert_eq!(executor.state.lock().unwrap().stops, [Stop::Gently]);
}

/// A driver that ends in mid-question leaves its job at work.
fn abandon(project: &Project, executor: &Threads) {
    executor.is_deadly.store(true, Ordering::Relaxed);
    let run = || project.run(executor, &[], &Watcher::default());
    let settled = catch_unwind(AssertUnwindSafe(run)).unwrap();
    assert_eq!(outcomes(&settled), ["failed"]);
}

#[test]
fn what_a_dead_driver_left_at_work_is_adopted_and_not_started_again() {
    let project = Project::new("stages: { a: { kind: hello } }");
    let executor = Threads::default();
    abandon(&project, &executor);
    let left = executor.state.lock().unwrap().jobs.keys().next().cloned();
    let settled = project.run(&executor, &[], &Watcher::default());
    assert_eq!(outcomes(&settled), ["made"]);
    assert_eq!(settled[0].execution_id, left.map(|job| job.0));
    assert_eq!(executor.state.lock().unwrap().n_submitted, 1);
}

#[test]
fn a_forced_stage_ends_what_was_left_at_work_and_begins_anew() {
    let project = Project::new("stages: { a: { kind: wait, timeout: 100ms } }");
    let executor = Threads::default();
    abandon(&project, &executor);
    let settled = project.run(&executor, &["a"], &Watcher::default());
    assert_eq!(outcomes(&settled), ["failed"]);
    let state = executor.state.lock().unwrap();
    assert_eq!(state.n_submitted, 2);
    assert_eq!(state.stops, [Stop::AtOnce, Stop::Gently]);
}
