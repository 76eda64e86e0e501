//! The part of `pretrain` and `finetune` that is the same: settings, the way to the training loop,
//! and the writing of a model folder.
//!
//! The loop itself, and all that decides which bits come out, is in `tinylm_model::train`;
//! here settings become its values, its events become the stage's, and its errors become
//! advice about settings.

mod ranks;
mod samples;
mod settings;
mod shape;

use std::path::Path;

use tinylm_model::{
    CpuEngine, EngineSettings, GpuEngine,
    config::{ModelConfig, Parameter, Precision},
    dpo::Dpo,
    engine::{Engine, EngineError},
    folder::{AdapterFiles, FolderError, ModelFiles, ModelFolder, TrainedAdapter},
    kernels,
    machine::Machine,
    peak::measured_peak,
    reduction::Reduction,
    shards::Shards,
    train::{
        self as loops, TrainError, TrainSettings as LoopSettings, Trained, Watcher,
        choose_micro_batch, train, with_crew,
    },
};
use tinylm_pipeline::spec::keys::Key;
use tinylm_pipeline::{
    Ahead, Course, Device, Follows, Forecast, MemoryNeed, Metrics, Part, StageError, StageIo,
    settings::plain,
};

use super::computer;
use ranks::{Group, Member};
use samples::Samples;
pub(crate) use settings::{TrainSettings, TrainWatch};
pub(crate) use shape::ModelSettings;

/// The numbers that a training tells, on its way and at its end.
pub(crate) const METRICS: &[Key] = &[
    (
        "best_validation_loss",
        "The lowest validation loss: that of the weights which are kept.",
    ),
    (
        "validation_loss",
        "The mean loss of the tokens of the fixed validation set, in nats.",
    ),
    (
        "loss",
        "The mean loss of the tokens that a step learns, in nats.",
    ),
    (
        "validation_loss_*",
        "The same of a part of the validation set, such as one role's turns.",
    ),
    (
        "rewards/*",
        "Of `objective: dpo`, as TRL has them: how far the model has moved from the reference, for chosen and rejected answers, their margin, and how often it is positive.",
    ),
    (
        "logps/*",
        "The log-likelihood of chosen and of rejected answers.",
    ),
    (
        "validation_rewards/*",
        "The same rewards on the validation pairs.",
    ),
    (
        "validation_logps/*",
        "The same log-likelihoods on the validation pairs.",
    ),
    ("tokens_per_second", "Tokens read a second, in steps alone."),
    (
        "peak_share",
        "The share of what this machine multiplies at most, measured when the training began.",
    ),
    ("lr", "The learning rate of the step."),
    ("grad_norm", "The norm of the gradient before clipping."),
    ("parameters", "Numbers in the model."),
    (
        "trained_parameters",
        "Those of them that are trained, with an adapter or what is frozen.",
    ),
    ("steps", "Updates, skipped ones counted."),
    ("epochs", "How often all rows were read."),
    ("tokens", "Tokens trained on, padding not counted."),
    ("best_step", "The step of the best validation loss."),
    (
        "skipped_steps",
        "Steps that were left out: not finite, or a spike.",
    ),
];

/// The shards that a training reads, or what is known of them: about how many tokens, and the size of
/// their vocabulary.
pub(crate) enum Corpus {
    Made(Shards),
    About(Option<u64>, usize),
}

impl Corpus {
    pub(crate) fn of(ahead: &Ahead) -> Option<Self> {
        let made = ahead.made.as_deref();
        if let Some(shards) = made.and_then(|folder| Shards::open(folder).ok()) {
            return Some(Self::Made(shards));
        }
        match ahead.forecasts.first()? {
            Forecast::Tokens {
                vocab_size,
                n_about,
            } => Some(Self::About(*n_about, *vocab_size)),
            _ => None,
        }
    }

    pub(crate) fn vocab_size(&self) -> usize {
        match self {
            Self::Made(shards) => shards.index().vocab_size,
            Self::About(_, vocab_size) => *vocab_size,
        }
    }
}

/// One training, from an engine at its start to a model folder.
pub(crate) struct Training<'a> {
    pub(crate) settings: &'a TrainSettings,
    pub(crate) watch: &'a TrainWatch,
    pub(crate) shards: &'a Shards,
    pub(crate) seed: u64,
    /// Updates that the optimizer's state comes from already.
    pub(crate) updates_before: u64,
    pub(crate) keep_optimizer: bool,
    /// The adapter that the engine trains.
    pub(crate) adapter: Option<TrainedAdapter>,
    /// Learns from pairs of answers.
    pub(crate) dpo: Option<Dpo>,
}

impl Training<'_> {
    pub(crate) fn run(self, engine: &mut dyn Engine, io: &StageIo) -> Result<Metrics, StageError> {
        let config = engine.config().clone();
        let precision = self.settings.precision;
        if let Some(note) = slow_bf16(precision, engine.machine().device, kernels::has_bf16()) {
            io.warn(note.to_owned());
        }
        // What is measured is this processor's.
        let peak = match (&io.ranks().follows, io.device()) {
            (None, Device::Cpu) => measured_peak(io.threads(), precision),
            _ => None,
        };
        let settings = LoopSettings {
            updates_before: self.updates_before,
            ..self
                .settings
                .loop_settings((&config, self.dpo), self.watch, peak, self.seed)
        };
        if let Some(follows) = &io.ranks().follows {
            return self.follow(engine, follows, &settings);
        }
        let n_ranks = self.n_ranks(io)?;
        ModelFolder::begin(io.checkpoints(), &config, self.shards.folder())
            .map_err(|error| folder_error(&error))?;
        let mut watcher = StageWatcher {
            io,
            samples: Samples::new(self.watch, self.shards.folder(), self.seed),
        };
        let mut train_with = |engine: &mut dyn Engine, reduction: &mut dyn Reduction| {
            let checkpoints = io.checkpoints();
            train(
                engine,
                self.shards,
                &settings,
                checkpoints,
                reduction,
                &mut watcher,
            )
        };
        let trained = match self.others(io)? {
            others if others.is_empty() => train_with(engine, &mut Group::new(io, n_ranks)),
            others => {
                let (config, how) = (config.clone(), engine.settings().clone());
                let first = engine.machine().clone();
                // What it trains is told to all; what an adapter is on is not trained.
                let base = self.adapter.as_ref().map(|_| engine.weights());
                let base = base.transpose().map_err(|error| explained(&error))?;
                let make = |idx: usize| {
                    let mut engine = GpuEngine::new(others[idx], config.clone(), how.clone(), 0)?;
                    // Found by all, a library may have started for some.
                    let alike = first.refuse_other(engine.machine());
                    alike.map_err(EngineError::Device)?;
                    if let Some(base) = &base {
                        engine.load_weights(base)?;
                    }
                    Ok(Box::new(engine) as Box<dyn Engine>)
                };
                let names = others.iter().map(Device::to_string);
                let training = (self.shards, &settings);
                with_crew(names.collect(), &make, training, |crew| {
                    train_with(engine, crew)
                })
            }
        };
        let trained = trained.map_err(|error| stage_error(&error, io.checkpoints()))?;
        let optimizer = match self.keep_optimizer {
            true => Some(engine.optimizer().map_err(|error| explained(&error))?),
            false => None,
        };
        let files = ModelFiles {
            config: &config,
            best: &trained.best,
            last: Some(&trained.last),
            optimizer: optimizer.as_ref(),
            adapter: self.adapter.as_ref().map(|about| AdapterFiles {
                about,
                best: &trained.best_adapter,
                last: &trained.last_adapter,
            }),
            report: &trained.report,
            tokenizer: self.shards.folder(),
        };
        ModelFolder::write(io.out(), &files).map_err(|error| folder_error(&error))?;
        Ok(metrics(&config, &trained))
    }
}

impl Training<'_> {
    /// How many processes share it.
    fn n_ranks(&self, io: &StageIo) -> Result<usize, StageError> {
        let n_ranks = io.ranks().count();
        if n_ranks == 1 {
            return Ok(1);
        }
        let n_leaves = self.n_leaves(&format!("{n_ranks} processes"))?;
        if io.device() != Device::Cpu {
            let message = "processes share a training on processors only";
            let help = "give `--device cpu`, or take `ranks` and `nodes` away";
            return Err(StageError::new(message).help(help).is_final());
        }
        Ok(n_ranks.min(n_leaves))
    }

    /// The GPUs that take part besides the engine's.
    fn others(&self, io: &StageIo) -> Result<Vec<Device>, StageError> {
        let gpus = io.device().each();
        if gpus.len() == 1 {
            return Ok(Vec::new());
        }
        let n_leaves = self.n_leaves(&format!("{} GPUs", gpus.len()))?;
        Ok(gpus.into_iter().take(n_leaves).skip(1).collect())
    }

    /// How many parts a step has, of which each is made by one of those who share it.
    fn n_leaves(&self, sharers: &str) -> Result<usize, StageError> {
        self.settings.leaves.ok_or_else(|| {
            let message = format!("{sharers} are to share a training whose steps are whole");
            let help = "say into how many parts a step is divided, such as `train: { leaves: 8 }`: then any \
                        number of them makes the same bytes";
            StageError::new(message).help(help).is_final()
        })
    }

    /// Trains as another process decides, which also writes what comes of it.
    fn follow(
        &self,
        engine: &mut dyn Engine,
        follows: &Follows,
        settings: &LoopSettings,
    ) -> Result<Metrics, StageError> {
        let kernels = engine.machine().kernels.clone();
        let mut leader = Member::join(follows, &kernels)?;
        let followed = loops::follow(engine, self.shards, settings, &mut leader);
        followed.map_err(|error| explained(&error))?;
        Ok(Metrics::default())
    }
}

/// The threads of one process of those that share this machine.
fn threads(io: &StageIo) -> usize {
    (io.threads() / io.ranks().each.max(1)).max(1)
}

/// Opens the engine of the device that the stage was given, once it is known to fit: an engine takes
/// its memory when it is opened, and the system may end the process over it without a word.
pub(crate) fn open_engine(
    io: &StageIo,
    config: ModelConfig,
    (train, dpo): (&TrainSettings, Option<Dpo>),
    settings: EngineSettings,
    seed: u64,
) -> Result<Box<dyn Engine>, StageError> {
    let machine = computer::to_train(io.device())?;
    train
        .choose_micro_batch((&config, dpo), &settings, &machine)
        .map_err(|error| stage_error(&error, io.checkpoints()))?;
    let engine: Result<Box<dyn Engine>, EngineError> = match io.device() {
        Device::Cpu => {
            CpuEngine::new(config, settings, seed, threads(io)).map(|x| Box::new(x) as _)
        }
        device => GpuEngine::new(device, config, settings, seed).map(|engine| {
            // As the engine knows it: what was found may not have started, which nobody expects.
            let kernels = engine.machine().kernels.clone();
            let is_as_found = kernels == machine.kernels;
            let (line, record) = computer::used("trains", &Machine { kernels, ..machine });
            match is_as_found {
                true => io.info(line),
                false => io.warn(line),
            }
            io.origin(record);
            Box::new(engine) as _
        }),
    };
    engine.map_err(|error| explained(&error))
}

impl TrainSettings {
    /// Returns the parts of a model and what its training would take; `ahead` is what it reads.
    pub(crate) fn forecast(
        &self,
        (config, dpo): (&ModelConfig, Option<Dpo>),
        settings: &EngineSettings,
        ahead: &Corpus,
    ) -> Forecast {
        let memory = self.memory_need(config, settings);
        Forecast::Model {
            parts: parts(config),
            shape: plain(config),
            flops_per_token: config.flops_per_token(memory.len),
            memory,
            course: self.course((config, dpo), ahead),
        }
    }

    /// How long it goes on; unknown where its steps hang on a number of tokens that nobody knows.
    fn course(&self, (config, dpo): (&ModelConfig, Option<Dpo>), ahead: &Corpus) -> Option<Course> {
        // Neither what is looked at nor the seed makes it longer or shorter.
        let watch = TrainWatch::default();
        let settings = self.loop_settings((config, dpo), &watch, None, 0);
        let counted = match ahead {
            Corpus::Made(shards) => loops::Course::of(shards, &settings),
            Corpus::About(n, _) => {
                let a_step = (settings.batches.batch * settings.batches.context) as u64;
                // With a number of steps their tokens are known, and with epochs nothing is.
                let n_tokens = n.or(self.steps.map(|steps| steps.saturating_mul(a_step)))?;
                loops::Course::about(n_tokens, settings.length, &settings.batches)
            }
        };
        let course = counted.ok()?;
        let is_known = !matches!(ahead, Corpus::About(None, _));
        Some(Course {
            n_steps: course.n_steps,
            n_epochs: is_known.then_some(course.n_epochs),
            n_tokens: course.n_tokens,
            n_validated: course.n_validated,
            is_counted: matches!(ahead, Corpus::Made(_)),
        })
    }

    /// Chooses as a run would; where nothing fits, what is closest to it.
    fn memory_need(&self, config: &ModelConfig, settings: &EngineSettings) -> MemoryNeed {
        let machine = Machine::here();
        let n_rows = match self.choose_micro_batch((config, None), settings, &machine) {
            Ok(n_rows) => n_rows,
            Err(TrainError::Memory { micro_batch, .. }) => micro_batch,
            Err(_) => 1,
        };
        let len = self.context.unwrap_or(config.context);
        let estimate = settings.memory(config, n_rows, len);
        /// The program itself, as much of it as a training reads, and its tokenizer: as measured.
        const PROGRAM_BYTES: u64 = 18 << 20;
        MemoryNeed {
            n_rows,
            len,
            bytes: estimate.total() + PROGRAM_BYTES,
            available_bytes: machine.memory_bytes,
        }
    }

    fn choose_micro_batch(
        &self,
        (config, dpo): (&ModelConfig, Option<Dpo>),
        settings: &EngineSettings,
        machine: &Machine,
    ) -> Result<usize, TrainError> {
        let batches = self.batch_settings(config, dpo);
        choose_micro_batch(config, settings, machine, &batches, self.micro_batch.0)
    }
}

/// The tensors of a model; blocks are alike, so the first stands for all.
fn parts(config: &ModelConfig) -> Vec<Part> {
    let parameters = config.parameters().into_iter();
    let parts = parameters.filter_map(|Parameter { name, shape, .. }| {
        let (name, n_times) = match name.strip_prefix("blocks.") {
            Some(rest) => {
                let part = rest.strip_prefix("0.")?;
                (format!("blocks.*.{part}"), config.n_layers)
            }
            None => (name, 1),
        };
        Some(Part {
            name,
            shape,
            n_times,
        })
    });
    parts.collect()
}

/// Says so where `precision: bf16` computes the same numbers but gains no time.
fn slow_bf16(precision: Precision, device: Device, has_bf16: bool) -> Option<&'static str> {
    let is_slow = precision == Precision::Bf16 && device == Device::Cpu && !has_bf16;
    is_slow.then_some(
        "this CPU has no fast products of bf16: operands are rounded and multiplied in f32, \
         which is no faster than `precision: f32`",
    )
}

fn metrics(config: &ModelConfig, trained: &Trained) -> Metrics {
    let report = &trained.report;
    let metrics = Metrics::default()
        .count("parameters", config.n_params() as u64)
        .count("steps", report.steps)
        .number("epochs", report.epochs)
        .count("tokens", report.tokens)
        .count("skipped_steps", report.skipped_steps);
    match report.best {
        Some(best) => metrics
            .number("best_validation_loss", best.validation_loss)
            .count("best_step", best.step),
        None => metrics,
    }
}

/// Passes the training loop's events on.
struct StageWatcher<'a, 'b> {
    io: &'a StageIo<'b>,
    samples: Samples<'a>,
}

impl Watcher for StageWatcher<'_, '_> {
    fn metric(&mut self, name: &str, step: u64, value: f64) {
        self.io.metric(name, step, value);
    }

    fn progress(&mut self, step: u64, n_steps: u64, epoch: u64) -> bool {
        let note = format!("epoch {}", epoch + 1);
        let told = self
            .io
            .progress_note(step, Some(n_steps), "steps", Some(&note));
        told.is_ok()
    }

    fn info(&mut self, message: String) {
        self.io.info(message);
    }

    fn warn(&mut self, message: String) {
        self.io.warn(message);
    }

    fn starting(&mut self, step: u64) {
        self.io.cut_metrics(step.saturating_sub(1));
    }

    fn sample(&mut self, step: u64, engine: &dyn Engine) -> Result<(), EngineError> {
        self.samples.tell(step, engine, self.io)
    }
}

/// Turns an error of the training loop into what failed, why, what is left and what to do.
fn stage_error(error: &TrainError, checkpoints: &Path) -> StageError {
    let told = match error {
        TrainError::Cancelled { .. } => StageError::cancelled(),
        TrainError::AtStep { kept, cause, .. } => {
            let told = StageError::new(error.to_string()).cause(chain(cause));
            match kept {
                Some(step) => {
                    let folder = checkpoints.display();
                    told.kept(format!("checkpoint at step {step} in {folder}"))
                }
                None => told,
            }
        }
        // All of these are known before the first step and stay as they are.
        TrainError::Shards(_)
        | TrainError::Batches { .. }
        | TrainError::Schedule(_)
        | TrainError::Vocabulary { .. }
        | TrainError::Context { .. }
        | TrainError::NoSteps(_)
        | TrainError::NotPositive { .. } => explained(error).is_final(),
        _ => explained(error),
    };
    match error.help() {
        Some(help) => told.help(help),
        None => told,
    }
}

/// The stage's error for one of a model's folder; what the files say does not change by itself.
pub(crate) fn folder_error(error: &FolderError) -> StageError {
    match error {
        FolderError::Io { path, source, .. } => StageError::io(path, source),
        FolderError::Weights(_) => explained(error),
        _ => explained(error).is_final(),
    }
}

/// The error as the message, what lies behind it as the cause.
pub(crate) fn explained(error: &dyn std::error::Error) -> StageError {
    let told = StageError::new(error.to_string());
    match error.source() {
        Some(source) => told.cause(chain(source)),
        None => told,
    }
}

/// An error with all that lies behind it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(source) = behind {
        text = format!("{text}: {source}");
        behind = source.source();
    }
    text
}

#[cfg(test)]
mod tests;
