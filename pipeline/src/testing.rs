//! Running one stage in a test, without a graph, a store or a child process.

mod parts;

pub use parts::PartsTest;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, atomic::AtomicBool},
};

use serde_json::Value;

use crate::{
    error::StageError,
    event::Event,
    io::{Assignment, Input, LocalFile, Pinned, Ranks, StageIo},
    kind::{Kind, typed},
    metrics::Metrics,
    outside::Outside,
    settings::{Device, Settings, with_defaults},
    stage::Stage,
};

/// The givens of a stage in a test: `StageTest::new(dir)` and then the fields that matter.
#[derive(Debug, Clone)]
pub struct StageTest {
    pub dir: PathBuf,
    /// `(role, folder)` in order.
    pub inputs: Vec<(String, PathBuf)>,
    pub local_files: Vec<LocalFile>,
    pub pins: Vec<Pinned>,
    pub outside: Outside,
    pub seed: u64,
    pub threads: usize,
}

/// The result of a stage in a test.
#[derive(Debug)]
pub struct Outcome {
    pub out: PathBuf,
    pub metrics: Metrics,
    pub events: Vec<Event>,
}

impl StageTest {
    /// A test in `dir`, which the caller made and will remove.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            inputs: Vec::new(),
            local_files: Vec::new(),
            pins: Vec::new(),
            outside: Outside::default(),
            seed: 1,
            threads: 2,
        }
    }

    #[must_use]
    pub fn input(mut self, role: &str, folder: &Path) -> Self {
        self.inputs.push((role.to_owned(), folder.to_owned()));
        self
    }

    /// Names one of the user's own files, as `setting: path` would.
    #[must_use]
    pub fn local_file(mut self, setting: &str, path: &Path) -> Self {
        let bytes = fs::read(path).expect("a test's own file can be read");
        self.local_files.push(LocalFile {
            setting: setting.to_owned(),
            name: path
                .file_name()
                .map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            digest: blake3::hash(&bytes).to_string(),
        });
        self
    }

    /// Runs the stage with `settings` (YAML as under `with:`) into `dir/out-KIND`, emptied first.
    pub fn run<S: Stage>(&self, settings: &str) -> Result<Outcome, StageError> {
        self.run_watched::<S>(settings, "{}", &AtomicBool::new(false))
    }

    /// `run` with `watch` settings and a flag that cancels.
    pub fn run_watched<S: Stage>(
        &self,
        settings: &str,
        watch: &str,
        cancel: &AtomicBool,
    ) -> Result<Outcome, StageError> {
        let settings: S::Settings = typed_yaml(settings)?;
        let settings = S::canonical(settings)?;
        let watch: S::Watch = typed_yaml(watch)?;
        let out = self.dir.join(format!("out-{}", S::KIND));
        let checkpoints = self.dir.join(format!("checkpoints-{}", S::KIND));
        fs::remove_dir_all(&out).ok();
        fs::create_dir_all(&out).expect("a test's own folder can be made");
        fs::create_dir_all(&checkpoints).expect("a test's own folder can be made");
        let assignment = Assignment {
            inputs: self.assigned_inputs(),
            local_files: self.local_files.clone(),
            pins: self.pins.clone(),
            out: out.clone(),
            checkpoints,
            seed: self.seed,
            threads: self.threads,
            device: Device::Cpu,
            ranks: Ranks::default(),
        };
        let events = Mutex::new(Vec::new());
        let send = |event| events.lock().expect("no test thread panicked").push(event);
        let io = StageIo::new(&assignment, &self.outside, cancel, &send);
        let metrics = S::run(&settings, &watch, &io)?;
        let events = events.into_inner().expect("no test thread panicked");
        check_names::<S>(&metrics, &events);
        Ok(Outcome {
            out,
            metrics,
            events,
        })
    }

    fn assigned_inputs(&self) -> Vec<Input> {
        let inputs = self.inputs.iter().enumerate();
        inputs
            .map(|(idx, (role, path))| Input {
                role: role.clone(),
                stage: format!("input{idx}"),
                path: path.clone(),
                digest: String::new(),
            })
            .collect()
    }
}

/// Whoever names a metric in a file is told which there are, so a kind must have declared all.
fn check_names<S: Stage>(metrics: &Metrics, events: &[Event]) {
    let kind = Kind::of::<S>();
    let on_the_way = events.iter().filter_map(|event| match event {
        Event::Metric { name, .. } => Some(name),
        _ => None,
    });
    for name in metrics.0.iter().map(|(name, _)| name).chain(on_the_way) {
        assert!(kind.tells(name), "`{}` does not declare `{name}`", S::KIND);
    }
}

fn typed_yaml<S: Settings>(text: &str) -> Result<S, StageError> {
    let given: Value =
        serde_yaml::from_str(text).map_err(|error| StageError::new(error.to_string()))?;
    Ok(typed(&with_defaults(&S::list(), &given))?)
}
