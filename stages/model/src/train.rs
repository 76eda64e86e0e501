//! The training loop: checkpoint, evaluate, sample, step, log.
//!
//! A run that is killed at any moment and resumed makes the same bits as one that
//! was not. Three things see to it: every step's rows are a function of the step,
//! `State` holds all else that the loop knows, and a checkpoint is taken between two
//! steps only, before the validation that may be due there.
//!
//! The loop talks to the outside through one small trait, [`Watcher`]; what happens
//! there (metrics, samples, how often something is logged or saved) cannot change
//! what is trained.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;
use tinylm_settings::choices;

use crate::{
    batches::{BatchError, BatchSettings, Batches, Coverage},
    checkpoint::{Checkpoint, CheckpointError, Checkpoints},
    config::{ModelConfig, Precision},
    dfdx_engine::Optimizer,
    engine::{Engine, EngineError, LossSum, Pass, Tensors, Update},
    schedule::{Schedule, ScheduleError},
    shards::{Shards, ShardsError, Split},
    state::{Best, Curve, Losses, Pending, State, by_role},
    validation::{Validation, validate},
};

/// Tokens a micro-batch chosen by `auto` has at most: more would only take memory.
const MICRO_BATCH_TOKENS: usize = 8192;
/// Validations of a run that does not say how often.
const VALIDATIONS: u64 = 20;
/// Steps that may be skipped one after the other before training is called off.
const SKIPPED_MAX: u64 = 20;

#[derive(Debug, Clone, PartialEq)]
pub struct TrainSettings {
    pub length: Length,
    pub batches: BatchSettings,
    pub schedule: Schedule,
    /// Norm above which gradients are scaled down; infinite switches it off.
    pub clip: f32,
    /// Rows computed at a time; `None` takes what fits into `memory`.
    pub micro_batch: Option<usize>,
    /// Steps between two validations; 0 never validates, `None` does so twenty times.
    pub validate_every: Option<u64>,
    /// Rows of the fixed validation set; `None` takes as many as cost little.
    pub validate_rows: Option<usize>,
    /// Validations without a gain after which training stops.
    pub patience: Option<u64>,
    pub on_non_finite: OnNonFinite,
    pub on_spike: OnSpike,
    /// Standard deviations above the running mean that make a loss a spike.
    pub spike_z: f64,
    pub seed: u64,
    /// Updates that the optimizer's moments come from already.
    pub updates_before: u64,
    pub watch: WatchSettings,
    pub machine: Machine,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    Epochs(f64),
    Steps(u64),
}

choices! {
    /// The fate of a step whose loss or gradient is not finite: left out, or the end of the training.
    pub enum OnNonFinite {
        Stop = "stop",
        Skip = "skip",
    }
}

choices! {
    /// The fate of a step whose loss is far above its running mean.
    pub enum OnSpike {
        /// The step is taken all the same, and told of.
        Warn = "warn",
        Skip = "skip",
        Stop = "stop",
    }
}

impl OnNonFinite {
    /// Returns the fate of the step in words, unless training ends.
    fn fate(self) -> Option<&'static str> {
        match self {
            Self::Stop => None,
            Self::Skip => Some("skipped"),
        }
    }
}

impl OnSpike {
    /// As that of [`OnNonFinite`].
    fn fate(self) -> Option<&'static str> {
        match self {
            Self::Warn => Some("taken all the same"),
            Self::Skip => Some("skipped"),
            Self::Stop => None,
        }
    }
}

/// What is only looked at: none of it changes what is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchSettings {
    pub log_every: u64,
    /// Steps between two checkpoints; 0 saves for validations and by time only.
    pub checkpoint_every: u64,
    /// Work that may be lost at most.
    pub checkpoint_interval: Duration,
    pub keep_checkpoints: usize,
}

/// What training runs on.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub device: String,
    /// Names the kernels chosen for this CPU.
    pub kernels: String,
    pub precision: Precision,
    pub optimizer: Optimizer,
    /// Memory that training may use, when it is known.
    pub memory_bytes: Option<u64>,
    /// Measured peak in floating-point operations per second, when it is known.
    pub flops_per_second: Option<f64>,
}

/// The outside, as far as training cares.
pub trait Watcher {
    fn metric(&mut self, name: &str, step: u64, value: f64);

    /// Tells how far training is. Returns false when it should stop.
    fn progress(&mut self, step: u64, n_steps: u64, epoch: u64) -> bool;

    fn info(&mut self, message: String);

    fn warn(&mut self, message: String);

    /// Training begins at `step`: what an earlier attempt told from there on is void.
    fn starting(&mut self, step: u64);

    /// A good moment to let the model speak.
    fn sample(&mut self, step: u64, engine: &dyn Engine) -> Result<(), EngineError>;
}

/// What training made.
#[derive(Debug)]
pub struct Trained {
    /// The weights with the lowest validation loss; the last ones if none was measured.
    pub best: Tensors,
    pub last: Tensors,
    pub report: TrainReport,
}

/// The contents of `training.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainReport {
    pub steps: u64,
    pub epochs: f64,
    pub tokens: u64,
    /// Updates that the weights have had in all, earlier trainings included.
    pub updates: u64,
    /// Steps without an update: over a fault, or because nothing in them counts.
    pub skipped_steps: u64,
    pub stopped_early: bool,
    pub best: Option<Best>,
    pub data: Coverage,
    pub curve: Curve,
}

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Shards(#[from] ShardsError),
    #[error("the `{split}` documents: {source}")]
    Batches {
        split: &'static str,
        source: BatchError,
    },
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the shards have a vocabulary of {shards}, and the model one of {model}")]
    Vocabulary { shards: usize, model: usize },
    #[error("`train.context` is {context}, and the model reads {longest} tokens at most")]
    Context { context: usize, longest: usize },
    #[error("{0} come to no step at all")]
    NoSteps(&'static str),
    #[error("`{name}` is {value}, and must be above 0")]
    NotPositive { name: &'static str, value: f64 },
    #[error(
        "training with {} at a time needs {needed_mb} MB of memory, and {available_mb} MB are free",
        rows(*.micro_batch)
    )]
    Memory {
        micro_batch: usize,
        needed_mb: u64,
        /// Of it for the model itself.
        model_mb: u64,
        available_mb: u64,
    },
    #[error("the checkpoint in this folder belongs to another training: its `{0}` is another")]
    OtherTraining(&'static str),
    #[error("the checkpoint's state cannot be read: {0}")]
    State(serde_json::Error),
    #[error("the {what} is not finite{}", before(.grad_norm))]
    NonFinite {
        what: &'static str,
        lr: f64,
        /// That of the update before.
        grad_norm: Option<f64>,
    },
    #[error("the loss is {loss:.3}, {z:.1} standard deviations above its mean of {mean:.3}")]
    Spike {
        loss: f64,
        mean: f64,
        z: f64,
        lr: f64,
    },
    #[error("{SKIPPED_MAX} steps in a row were skipped")]
    AllSkipped { lr: f64 },
    /// Something went wrong after training had begun.
    #[error("failed at step {step} of {n_steps}")]
    AtStep {
        step: u64,
        n_steps: u64,
        /// The step of the checkpoint to go on from.
        kept: Option<u64>,
        #[source]
        cause: Box<TrainError>,
    },
    #[error("stopped at step {step}")]
    Cancelled { step: u64 },
}

fn rows(n: usize) -> String {
    match n {
        1 => "1 row".to_owned(),
        n => format!("{n} rows"),
    }
}

fn before(grad_norm: &Option<f64>) -> String {
    let told = |norm: &f64| format!(" (gradient norm was {norm:.1e} one step earlier)");
    grad_norm.as_ref().map(told).unwrap_or_default()
}

impl TrainError {
    /// Says when it happened, and what was saved after it had.
    fn at(self, state: &State, kept: Result<(), TrainError>) -> Self {
        match (self, kept) {
            // Stopping was asked for, and so was keeping what was done.
            (Self::Cancelled { .. }, Err(error)) => error,
            (cancelled @ Self::Cancelled { .. }, Ok(())) => cancelled,
            (cause, kept) => Self::AtStep {
                step: state.step + 1,
                n_steps: state.n_steps,
                kept: kept.is_ok().then_some(state.step),
                cause: Box::new(cause),
            },
        }
    }

    /// Returns what to do about it, where there is something to be done.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Shards(error) => error.help(),
            Self::Batches { source, .. } => source.help().to_owned(),
            Self::Schedule(error) => error.help(),
            Self::Vocabulary { .. } => {
                "train with shards that this model's tokenizer made".to_owned()
            }
            Self::Context { longest, .. } => {
                format!(
                    "set `train.context` to at most {longest}, or give the model a longer context"
                )
            }
            Self::NoSteps(_) => "set more `epochs` or `steps`".to_owned(),
            Self::NotPositive { name, .. } => format!("set `{name}` to a positive number"),
            Self::Memory {
                model_mb,
                available_mb,
                ..
            } if model_mb >= available_mb => {
                format!(
                    "the model alone takes {model_mb} MB: set a smaller `d_model`, `d_ff` or `n_layers`"
                )
            }
            Self::Memory { .. } => {
                "free memory, or set a smaller `micro_batch` or `context`, or a smaller model"
                    .to_owned()
            }
            Self::OtherTraining(_) | Self::State(_) => {
                "remove the checkpoints of this stage and run it again".to_owned()
            }
            Self::NonFinite { lr, .. } | Self::Spike { lr, .. } | Self::AllSkipped { lr } => {
                format!("lower `lr` (now {lr:.2e}) or `clip`, or lengthen `warmup`")
            }
            Self::AtStep { cause, .. } => return cause.help(),
            Self::Checkpoint(error) => return error.help().map(str::to_owned),
            Self::Engine(_) | Self::Cancelled { .. } => return None,
        })
    }
}

const NOTHING_HELD_BACK: &str = "the shards hold no documents back, so nothing says when the model \
     begins to learn by heart: the last weights are kept; `validation: 0.05` in `binarize` holds some back";

/// Trains `engine` on `shards`, going on from what is in `folder` if there is something.
pub fn train(
    engine: &mut dyn Engine,
    shards: &Shards,
    settings: &TrainSettings,
    folder: &Path,
    watcher: &mut dyn Watcher,
) -> Result<Trained, TrainError> {
    check(engine.config(), shards, settings)?;
    let train_split = shards.split("train")?;
    let mut batches =
        Batches::new(&train_split, &settings.batches, settings.seed).map_err(|source| {
            TrainError::Batches {
                split: "train",
                source,
            }
        })?;
    let n_per_epoch = batches.n_per_epoch();
    let n_steps = settings.length.n_steps(n_per_epoch)?;
    let asked = settings.validate_every;
    let validate_every = match asked {
        Some(asked) => asked,
        None if shards.has("validation") => n_steps.div_ceil(VALIDATIONS),
        None => {
            watcher.warn(NOTHING_HELD_BACK.to_owned());
            0
        }
    };
    let validation_split = match validate_every {
        0 => None,
        _ => Some(shards.split("validation")?),
    };
    let validation = match &validation_split {
        None => None,
        Some(split) => Some(fixed_set(split, settings, validate_every.min(n_steps))?),
    };
    settings.schedule.check()?;
    let keep = settings.watch.keep_checkpoints;
    let mut checkpoints = Checkpoints::open(folder, keep)?;
    let mut state = match resume(engine, settings, n_steps, &mut checkpoints, watcher)? {
        Some(state) => state,
        None => State::new(
            settings,
            n_steps,
            choose_micro_batch(
                engine.config(),
                &settings.batches,
                settings.micro_batch,
                &settings.machine,
            )?,
        ),
    };
    report_coverage(batches.coverage(), watcher);
    let mut saved = (state.step > 0).then_some(state.step);
    let mut pace = Pace::new();

    loop {
        let last = state.step == n_steps;
        let validate_now = state.step > 0
            && validation.is_some()
            && (last || state.step.is_multiple_of(validate_every));

        // Checkpoint: before the evaluation, so that nothing in it can cost the steps so far.
        if last || validate_now || pace.checkpoint_is_due(state.step, &settings.watch) {
            save(engine, &state, &mut checkpoints, &mut saved)?;
            pace.saved();
        }

        // Evaluate.
        if let Some(batches) = validation.as_ref().filter(|_| validate_now) {
            let micro_batch = state.micro_batch;
            let epoch = state.step / n_per_epoch;
            let mut keep_going = || watcher.progress(state.step, n_steps, epoch);
            let Some(result) = validate(engine, batches, micro_batch, &mut keep_going)? else {
                checkpoints.wait()?;
                return Err(TrainError::Cancelled { step: state.step });
            };
            if let Err(cause) = check_validation(&result, settings, &state, watcher) {
                checkpoints.wait()?;
                return Err(TrainError::AtStep {
                    step: state.step,
                    n_steps,
                    kept: Some(state.step),
                    cause: Box::new(cause),
                });
            }
            state.judge(&result);
            log_validation(&result, &state, watcher);
        }

        // Sample.
        if last || validate_now {
            watcher.sample(state.step, engine)?;
        }

        let out_of_patience = settings.patience.is_some_and(|n| state.n_without_gain >= n);
        if last || out_of_patience {
            break;
        }

        // Step.
        pace.start();
        let done = step(engine, &mut batches, settings, &mut state, watcher);
        pace.stop();
        match done {
            Ok(tokens) => pace.tokens += tokens,
            Err(cause) => {
                engine.discard();
                let kept = save(engine, &state, &mut checkpoints, &mut saved)
                    .and_then(|()| Ok(checkpoints.wait()?));
                return Err(cause.at(&state, kept));
            }
        }

        // Log.
        if is_logged(&state, settings) {
            log(&state, watcher);
            pace.log(engine.config(), settings, state.step, watcher);
        }
    }

    checkpoints.wait()?;
    let last = engine.weights()?;
    let best = match state.best {
        Some(best) if best.step != state.step => checkpoints.weights(best.step)?,
        _ => last.clone(),
    };
    let report = TrainReport {
        steps: state.step,
        epochs: state.step as f64 / n_per_epoch as f64,
        tokens: state.tokens,
        updates: settings.updates_before + state.n_updates,
        skipped_steps: state.n_skipped,
        stopped_early: state.step < n_steps,
        best: state.best,
        data: batches.coverage().clone(),
        curve: state.curve,
    };
    Ok(Trained { best, last, report })
}

/// Takes one step, or skips it. Returns how many tokens were read.
fn step(
    engine: &mut dyn Engine,
    batches: &mut Batches<'_>,
    settings: &TrainSettings,
    state: &mut State,
    watcher: &mut dyn Watcher,
) -> Result<u64, TrainError> {
    let (number, n_steps) = (state.step + 1, state.n_steps);
    let tokens = batches.n_tokens(state.step);
    let epoch = state.step / batches.n_per_epoch();
    let pass = Pass {
        seed: settings.seed,
        step: number,
    };
    let mut sum = LossSum::default();
    for batch in batches.step(state.step, state.micro_batch) {
        if !watcher.progress(state.step, n_steps, epoch) {
            return Err(TrainError::Cancelled { step: state.step });
        }
        let part = engine.accumulate(&batch, pass)?;
        sum.nll += part.nll;
        sum.weight += part.weight;
    }

    let lr = settings.schedule.lr(number, n_steps);
    let outcome = update(engine, sum, lr, settings, state, watcher)?;

    state.step = number;
    state.tokens += tokens;
    state.metrics = vec![
        ("lr".to_owned(), lr),
        ("tokens".to_owned(), state.tokens as f64),
    ];
    match outcome {
        Outcome::Updated { loss, grad_norm } => {
            state.n_updates += 1;
            state.n_skipped_in_a_row = 0;
            state.losses.add(loss);
            state.draw(loss);
            state.grad_norm = Some(grad_norm);
            state.metrics.insert(0, ("loss".to_owned(), loss));
            state.metrics.push(("grad_norm".to_owned(), grad_norm));
        }
        Outcome::Empty => {
            engine.discard();
            state.n_skipped += 1;
        }
        Outcome::Skipped => {
            engine.discard();
            state.n_skipped += 1;
            state.n_skipped_in_a_row += 1;
            if state.n_skipped_in_a_row >= SKIPPED_MAX {
                return Err(TrainError::AllSkipped { lr });
            }
        }
    }
    Ok(tokens)
}

/// What became of a step.
enum Outcome {
    Updated {
        loss: f64,
        grad_norm: f64,
    },
    Skipped,
    /// Windows of a stream may hold nothing that counts; there is nothing to learn from them.
    Empty,
}

/// Applies the gradients of a step with this loss, unless something speaks against it.
fn update(
    engine: &mut dyn Engine,
    sum: LossSum,
    lr: f64,
    settings: &TrainSettings,
    state: &State,
    watcher: &mut dyn Watcher,
) -> Result<Outcome, TrainError> {
    let Some(loss) = sum.mean() else {
        return Ok(Outcome::Empty);
    };
    if !judge(loss, lr, settings, state, watcher)? {
        return Ok(Outcome::Skipped);
    }
    let stats = engine.update(&Update {
        step: settings.updates_before + state.n_updates + 1,
        lr: lr as f32,
        divisor: sum.weight,
        clip: settings.clip,
    })?;
    let grad_norm = stats.grad_norm;
    if stats.applied {
        return Ok(Outcome::Updated { loss, grad_norm });
    }
    let cause = non_finite("gradient norm", lr, state);
    fault(
        settings.on_non_finite.fate(),
        cause,
        state.step + 1,
        watcher,
    )?;
    Ok(Outcome::Skipped)
}

/// Whether a step with this loss is to be taken.
fn judge(
    loss: f64,
    lr: f64,
    settings: &TrainSettings,
    state: &State,
    watcher: &mut dyn Watcher,
) -> Result<bool, TrainError> {
    if !loss.is_finite() {
        let cause = non_finite("loss", lr, state);
        fault(
            settings.on_non_finite.fate(),
            cause,
            state.step + 1,
            watcher,
        )?;
        return Ok(false);
    }
    let z = state.losses.z_score(loss);
    if z <= settings.spike_z {
        return Ok(true);
    }
    let mean = state.losses.mean();
    let spike = TrainError::Spike { loss, mean, z, lr };
    fault(settings.on_spike.fate(), spike, state.step + 1, watcher)?;
    Ok(settings.on_spike == OnSpike::Warn)
}

/// A validation whose loss is not finite is a fault too: such weights cannot be the best.
fn check_validation(
    validation: &Validation,
    settings: &TrainSettings,
    state: &State,
    watcher: &mut dyn Watcher,
) -> Result<(), TrainError> {
    if validation.all.mean().is_none_or(f64::is_finite) {
        return Ok(());
    }
    let lr = settings.schedule.lr(state.step, state.n_steps);
    let cause = TrainError::NonFinite {
        what: "validation loss",
        lr,
        grad_norm: None,
    };
    fault(settings.on_non_finite.fate(), cause, state.step, watcher)
}

fn non_finite(what: &'static str, lr: f64, state: &State) -> TrainError {
    TrainError::NonFinite {
        what,
        lr,
        grad_norm: state.grad_norm,
    }
}

/// Ends training over a fault, or tells of it.
fn fault(
    fate: Option<&'static str>,
    fault: TrainError,
    step: u64,
    watcher: &mut dyn Watcher,
) -> Result<(), TrainError> {
    let Some(fate) = fate else {
        return Err(fault);
    };
    let advice = fault.help().unwrap_or_default();
    watcher.warn(format!(
        "step {step}: {fault}; {fate} (if it goes on, {advice})"
    ));
    Ok(())
}

/// Refuses, before any work, what cannot come to a good end.
fn check(
    config: &ModelConfig,
    shards: &Shards,
    settings: &TrainSettings,
) -> Result<(), TrainError> {
    let (shards, model) = (shards.index().vocab_size, config.vocab_size);
    if shards != model {
        return Err(TrainError::Vocabulary { shards, model });
    }
    let (context, longest) = (settings.batches.context, config.context);
    if context > longest {
        return Err(TrainError::Context { context, longest });
    }
    let positive = [
        ("clip", f64::from(settings.clip)),
        ("spike_z", settings.spike_z),
        ("micro_batch", settings.micro_batch.unwrap_or(1) as f64),
        ("patience", settings.patience.unwrap_or(1) as f64),
    ];
    match positive
        .into_iter()
        .find(|(_, value)| value.is_nan() || *value <= 0.0)
    {
        Some((name, value)) => Err(TrainError::NotPositive { name, value }),
        None => Ok(()),
    }
}

/// The rows of every validation.
fn fixed_set<'a>(
    split: &'a Split,
    settings: &TrainSettings,
    validate_every: u64,
) -> Result<Batches<'a>, TrainError> {
    // A quarter of the rows that are trained on in between, which takes far less time.
    let affordable = validate_every as usize * settings.batches.batch / 4;
    let n_rows = settings.validate_rows.unwrap_or(affordable.clamp(64, 1000));
    Batches::for_evaluation(split, &settings.batches, n_rows).map_err(|source| {
        TrainError::Batches {
            split: "validation",
            source,
        }
    })
}

impl Length {
    fn n_steps(self, n_per_epoch: u64) -> Result<u64, TrainError> {
        let (name, n_steps) = match self {
            Self::Epochs(epochs) => ("`epochs`", (epochs * n_per_epoch as f64).ceil()),
            Self::Steps(steps) => ("`steps`", steps as f64),
        };
        // A NaN is not above 0 either.
        if n_steps > 0.0 {
            Ok(n_steps as u64)
        } else {
            Err(TrainError::NoSteps(name))
        }
    }
}

/// The largest micro-batch that fits, or the one asked for if it does. The rows of a step
/// are spread evenly, so that no micro-batch is much smaller than the others.
pub fn choose_micro_batch(
    config: &ModelConfig,
    batches: &BatchSettings,
    asked: Option<usize>,
    machine: &Machine,
) -> Result<usize, TrainError> {
    let (batch, context) = (batches.batch, batches.context);
    let fits = |n_rows| fits(config, context, n_rows, machine).map(|()| n_rows);
    if let Some(asked) = asked {
        return fits(asked.min(batch));
    }
    fits(1)?;
    let n_rows_max = (MICRO_BATCH_TOKENS / context.max(1)).clamp(1, batch.max(1));
    // The largest that comes of cutting the batch into equal parts.
    let is_part = |n_rows: &usize| batch.div_ceil(batch.div_ceil(*n_rows).max(1)) == *n_rows;
    let mut parts = (1..=n_rows_max).rev().filter(is_part);
    let chosen = parts.find(|&n_rows| fits(n_rows).is_ok());
    Ok(chosen.unwrap_or(1))
}

/// Refuses rows that do not fit into memory.
fn fits(
    config: &ModelConfig,
    context: usize,
    n_rows: usize,
    machine: &Machine,
) -> Result<(), TrainError> {
    let estimate = config.memory(n_rows, context, machine.precision, machine.optimizer);
    match machine.memory_bytes {
        Some(available) if estimate.total() > available => Err(TrainError::Memory {
            micro_batch: n_rows,
            needed_mb: estimate.total() >> 20,
            model_mb: estimate.model() >> 20,
            available_mb: available >> 20,
        }),
        _ => Ok(()),
    }
}

/// Loads the newest whole checkpoint into `engine`; `None` when there is none.
fn resume(
    engine: &mut dyn Engine,
    settings: &TrainSettings,
    n_steps: u64,
    checkpoints: &mut Checkpoints,
    watcher: &mut dyn Watcher,
) -> Result<Option<State>, TrainError> {
    let Some(found) = checkpoints.latest(&mut |warning| watcher.warn(warning))? else {
        watcher.starting(0);
        return Ok(None);
    };
    let mut state: State = serde_json::from_slice(&found.state).map_err(TrainError::State)?;
    if found.needs != state.best.map(|best| best.step) {
        (state.best, state.n_without_gain) = (None, 0);
    }
    let other = |name| Err(TrainError::OtherTraining(name));
    match &state {
        state if state.seed != settings.seed => return other("seed"),
        state if state.n_steps != n_steps => return other("number of steps"),
        state
            if settings
                .micro_batch
                .is_some_and(|n| n.min(settings.batches.batch) != state.micro_batch) =>
        {
            return other("micro_batch");
        }
        _ => (),
    }
    let context = settings.batches.context;
    fits(
        engine.config(),
        context,
        state.micro_batch,
        &settings.machine,
    )?;
    let Machine {
        kernels, device, ..
    } = &settings.machine;
    if (&state.kernels, &state.device) != (kernels, device) {
        watcher.warn(format!(
            "going on with {kernels} on {device} what {} on {} began: the last digits may differ",
            state.kernels, state.device
        ));
    }
    engine.load_weights(&found.weights)?;
    engine.load_optimizer(&found.optimizer)?;
    watcher.info(format!("going on from step {} of {n_steps}", state.step));
    // Validation comes after the checkpoint it hangs on, so that step is told anew in full.
    watcher.starting(state.step);
    if is_logged(&state, settings) {
        log(&state, watcher);
    }
    Ok(Some(state))
}

/// Saves `state` unless its step is saved already.
fn save(
    engine: &dyn Engine,
    state: &State,
    checkpoints: &mut Checkpoints,
    saved: &mut Option<u64>,
) -> Result<(), TrainError> {
    if *saved == Some(state.step) {
        return Ok(());
    }
    // Copies only once those of the checkpoint before are gone: memory has room for one.
    checkpoints.wait()?;
    checkpoints.save(Checkpoint {
        step: state.step,
        state: serde_json::to_vec_pretty(state).map_err(TrainError::State)?,
        weights: engine.weights()?,
        optimizer: engine.optimizer()?,
        needs: state.best.map(|best| best.step),
    })?;
    *saved = Some(state.step);
    Ok(())
}

fn is_logged(state: &State, settings: &TrainSettings) -> bool {
    let every = settings.watch.log_every.max(1);
    state.step == 1 || state.step == state.n_steps || state.step.is_multiple_of(every)
}

fn log(state: &State, watcher: &mut dyn Watcher) {
    for (name, value) in &state.metrics {
        watcher.metric(name, state.step, *value);
    }
}

fn log_validation(validation: &Validation, state: &State, watcher: &mut dyn Watcher) {
    if let Some(loss) = validation.all.mean().filter(|loss| loss.is_finite()) {
        watcher.metric("validation_loss", state.step, loss);
    }
    let by_role = by_role(validation).into_iter();
    for (role, loss) in by_role.filter(|(_, loss)| loss.is_finite()) {
        watcher.metric(&format!("validation_loss_{role}"), state.step, loss);
    }
}

fn report_coverage(coverage: &Coverage, watcher: &mut dyn Watcher) {
    let Coverage {
        documents,
        documents_long,
        documents_too_short,
        tokens_cropped,
        pieces_without_target,
        rows,
        places,
    } = coverage;
    watcher.info(format!(
        "{documents} documents in {rows} rows, {places} places in use"
    ));
    if *tokens_cropped > 0 {
        watcher.warn(format!(
            "{documents_long} documents are longer than the context: {tokens_cropped} tokens are left out"
        ));
    }
    if *documents_too_short > 0 {
        watcher.warn(match documents_too_short {
            1 => "a document of a single token is left out".to_owned(),
            n => format!("{n} documents of a single token are left out"),
        });
    }
    if *pieces_without_target > 0 {
        watcher.warn(match pieces_without_target {
            1 => "a document, or a part of one, holds nothing to learn and is left out".to_owned(),
            n => format!("{n} documents, or parts of them, hold nothing to learn and are left out"),
        });
    }
}

impl State {
    fn new(settings: &TrainSettings, n_steps: u64, micro_batch: usize) -> Self {
        Self {
            version: 1,
            step: 0,
            n_steps,
            seed: settings.seed,
            micro_batch,
            kernels: settings.machine.kernels.clone(),
            device: settings.machine.device.clone(),
            n_updates: 0,
            n_skipped: 0,
            n_skipped_in_a_row: 0,
            tokens: 0,
            losses: Losses::default(),
            grad_norm: None,
            best: None,
            n_without_gain: 0,
            curve: Curve::default(),
            pending: Pending::default(),
            metrics: Vec::new(),
        }
    }
}

/// Clocks: how fast steps are, and how long ago the last checkpoint was.
struct Pace {
    started: Instant,
    saved: Instant,
    /// Time in steps, and tokens read, since the last log.
    busy: Duration,
    tokens: u64,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            saved: now,
            busy: Duration::ZERO,
            tokens: 0,
        }
    }

    fn start(&mut self) {
        self.started = Instant::now();
    }

    fn stop(&mut self) {
        self.busy += self.started.elapsed();
    }

    fn saved(&mut self) {
        self.saved = Instant::now();
    }

    fn checkpoint_is_due(&self, step: u64, watch: &WatchSettings) -> bool {
        let by_step = watch.checkpoint_every > 0 && step.is_multiple_of(watch.checkpoint_every);
        step > 0 && (by_step || self.saved.elapsed() >= watch.checkpoint_interval)
    }

    fn log(
        &mut self,
        config: &ModelConfig,
        settings: &TrainSettings,
        step: u64,
        watcher: &mut dyn Watcher,
    ) {
        let per_second = self.tokens as f64 / self.busy.as_secs_f64().max(1e-9);
        watcher.metric("tokens_per_second", step, per_second);
        if let Some(peak) = settings.machine.flops_per_second {
            let flops = config.flops_per_token(settings.batches.context) as f64 * per_second;
            watcher.metric("peak_share", step, flops / peak);
        }
        (self.busy, self.tokens) = (Duration::ZERO, 0);
    }
}

#[cfg(test)]
mod tests;
