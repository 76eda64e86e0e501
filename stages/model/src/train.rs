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

mod course;
mod crew;
mod error;
mod judge;
mod leaves;
mod micro_batch;
mod pace;
mod preferences;
mod settings;
mod trained;
mod watcher;

use std::path::Path;

use crate::{
    adapted::only_factors,
    batches::Batches,
    checkpoint::{Checkpoint, Checkpoints},
    config::ModelConfig,
    dpo::Rewards,
    engine::{Engine, EngineError, LossSum, Pass, Tensors, Update},
    reduction::{Order, Reduction, ReductionError},
    shards::Shards,
    state::State,
    validation::validate,
};

pub use course::Course;
pub use crew::{Crew, Make, with_crew};
pub use error::TrainError;
pub use leaves::{Leader, Told, follow};
pub use micro_batch::choose_micro_batch;
pub use settings::{Length, OnNonFinite, OnSpike, TrainSettings, WatchSettings};
pub use trained::{TrainReport, Trained};
pub use watcher::Watcher;

use course::{fixed_set, split, validate_every};
use error::SKIPPED_MAX;
use judge::{check_validation, fault, judge, non_finite};
use leaves::{Spare, together};
use micro_batch::fits;
use pace::Pace;
use preferences::Preferences;
use watcher::{is_logged, log, log_validation, report_coverage};

const NOTHING_HELD_BACK: &str = "the shards hold no documents back, so nothing says when the model \
     begins to learn by heart: the last weights are kept; in `binarize`, `validation: 0.05` holds some \
     back, or `{ tail: 0.05 }` the end of a single text";

/// Trains `engine` on `shards`, going on from what is in `folder` if there is something.
pub fn train(
    engine: &mut dyn Engine,
    shards: &Shards,
    settings: &TrainSettings,
    folder: &Path,
    reduction: &mut dyn Reduction,
    watcher: &mut dyn Watcher,
) -> Result<Trained, TrainError> {
    check(engine.config(), shards, settings)?;
    let train_split = split(shards, settings, "train")?;
    let mut batches =
        Batches::new(&train_split, &settings.batches, settings.seed).map_err(|source| {
            TrainError::Batches {
                split: "train",
                source,
            }
        })?;
    let n_per_epoch = batches.n_per_epoch();
    let n_steps = settings.length.n_steps(n_per_epoch)?;
    let validate_every = validate_every(settings, shards, n_steps);
    if settings.validate_every.is_none() && validate_every == 0 {
        watcher.warn(NOTHING_HELD_BACK.to_owned());
    }
    let validation_split = match validate_every {
        0 => None,
        _ => Some(split(shards, settings, "validation")?),
    };
    let validation = match &validation_split {
        None => None,
        Some(split) => Some(fixed_set(split, settings, validate_every.min(n_steps))?),
    };
    settings.schedule.check()?;
    let keep = settings.watch.keep_checkpoints;
    let mut checkpoints = Checkpoints::open(folder, keep)?;
    // Before a checkpoint is taken up: the reference is the model that training begins with.
    let preferences = match settings.dpo {
        None => None,
        Some(dpo) => {
            let mut keep_going = || watcher.progress(0, n_steps, 0);
            let sets = (&batches, validation.as_ref());
            let found = Preferences::find(dpo, engine, sets, &checkpoints, &mut keep_going)?;
            Some(found.ok_or(TrainError::Cancelled { step: 0 })?)
        }
    };
    let mut state = match resume(engine, settings, n_steps, &mut checkpoints, watcher)? {
        Some(state) => state,
        None => {
            let micro_batch = choose_micro_batch(
                engine.config(),
                engine.settings(),
                engine.machine(),
                &settings.batches,
                settings.micro_batch,
            )?;
            State::new(engine.machine(), settings.seed, n_steps, micro_batch)
        }
    };
    report_coverage(batches.coverage(), watcher);
    let mut saved = (state.step > 0).then_some(state.step);
    let mut pace = Pace::new();
    let spare = Spare::default();

    loop {
        let last = state.step == n_steps;
        let validate_now = state.step > 0
            && validation.is_some()
            && (last || state.step.is_multiple_of(validate_every));

        // Checkpoint: before the evaluation, so that nothing in it can cost the steps so far.
        if last || validate_now || pace.checkpoint_is_due(state.step, &settings.watch) {
            let done = save(engine, &state, &mut checkpoints, &mut saved);
            done.map_err(|cause| broken(cause, &state, &mut checkpoints))?;
            pace.saved();
        }

        // Evaluate.
        if let Some(batches) = validation.as_ref().filter(|_| validate_now) {
            let micro_batch = state.micro_batch;
            let epoch = state.step / n_per_epoch;
            let mut keep_going = || watcher.progress(state.step, n_steps, epoch);
            let result = match &preferences {
                None => validate(engine, batches, micro_batch, &mut keep_going),
                Some(preferences) => {
                    preferences.validate(engine, batches, micro_batch, &mut keep_going)
                }
            };
            let result = result.map_err(|cause| broken(cause, &state, &mut checkpoints))?;
            let Some(result) = result else {
                checkpoints.wait()?;
                return Err(TrainError::Cancelled { step: state.step });
            };
            if let Err(cause) = check_validation(&result, settings, &state, watcher) {
                checkpoints.wait()?;
                return Err(broken(cause, &state, &mut checkpoints));
            }
            state.judge(&result);
            log_validation(&result, &state, watcher);
        }

        // Sample.
        if last || validate_now {
            let told = watcher.sample(state.step, engine);
            told.map_err(|cause| broken(cause, &state, &mut checkpoints))?;
        }

        let out_of_patience = settings.patience.is_some_and(|n| state.n_without_gain >= n);
        if last || out_of_patience {
            break;
        }

        // Step.
        pace.start();
        let done = step(
            engine,
            &mut batches,
            (settings, preferences.as_ref()),
            &mut state,
            &spare,
            reduction,
            watcher,
        );
        pace.stop();
        match done {
            Ok(tokens) => pace.tokens += tokens,
            Err(cause) => {
                engine.discard();
                let kept = save(engine, &state, &mut checkpoints, &mut saved)
                    .and_then(|()| Ok(checkpoints.wait()?));
                let cause = match (cause, kept) {
                    (stopped @ TrainError::Cancelled { .. }, Ok(())) => return Err(stopped),
                    // Stopping was asked for, and so was keeping what was done.
                    (TrainError::Cancelled { .. }, Err(cause)) | (cause, _) => cause,
                };
                let kept = checkpoints.on_disk(state.step);
                return Err(cause.at(state.step + 1, &state, kept));
            }
        }

        // Log.
        if is_logged(&state, settings) {
            log(&state, watcher);
            pace.log(engine.config(), settings, state.step, watcher);
        }
    }

    checkpoints.wait()?;
    let last = engine.weights();
    let last = last.map_err(|cause| broken(cause, &state, &mut checkpoints))?;
    let last_adapter = adapter(engine);
    let last_adapter = last_adapter.map_err(|cause| broken(cause, &state, &mut checkpoints))?;
    let (best, best_adapter) = match state.best {
        Some(best) if best.step != state.step => {
            let factors = match last_adapter.is_empty() {
                true => Tensors::new(),
                false => only_factors(checkpoints.optimizer(best.step)?),
            };
            (checkpoints.weights(best.step)?, factors)
        }
        _ => (last.clone(), last_adapter.clone()),
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
    Ok(Trained {
        best,
        best_adapter,
        last,
        last_adapter,
        report,
    })
}

/// An error after a step was taken, which names the checkpoint that is left.
fn broken(
    cause: impl Into<TrainError>,
    state: &State,
    checkpoints: &mut Checkpoints,
) -> TrainError {
    let kept = checkpoints.on_disk(state.step);
    cause.into().at(state.step, state, kept)
}

/// The factors of the adapter that was trained; nothing where there was none.
fn adapter(engine: &dyn Engine) -> Result<Tensors, EngineError> {
    match &engine.settings().adapter {
        None => Ok(Tensors::new()),
        Some(_) => Ok(only_factors(engine.optimizer()?)),
    }
}

/// Takes one step, or skips it. Returns how many tokens were read.
fn step(
    engine: &mut dyn Engine,
    batches: &mut Batches<'_>,
    (settings, preferences): (&TrainSettings, Option<&Preferences>),
    state: &mut State,
    spare: &Spare,
    reduction: &mut dyn Reduction,
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
    let mut rewards = Rewards::default();
    let rows = batches.rows_of_step(state.step);
    let whole = match settings.leaves {
        0 => batches.step(state.step, state.micro_batch),
        _ => Vec::new(),
    };
    for batch in whole {
        if !watcher.progress(state.step, n_steps, epoch) {
            return Err(TrainError::Cancelled { step: state.step });
        }
        if let Some(preferences) = preferences {
            preferences.accumulate(engine, batch, pass, &rows, &mut rewards)?;
            continue;
        }
        let part = engine.accumulate(&batch, pass)?;
        sum.nll += part.nll;
        sum.weight += part.weight;
    }
    if preferences.is_some() {
        sum = rewards.loss();
    }
    if settings.leaves > 0 {
        sum = shared_step(engine, batches, settings, state, spare, reduction, watcher)?;
    }

    let lr = settings.schedule.lr(number, n_steps);
    let outcome = update(engine, sum, lr, settings, state, reduction, watcher)?;

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
            let rewards = rewards.metrics().into_iter();
            let rewards = rewards.map(|(name, value)| (name.to_owned(), value));
            state.metrics.extend(rewards);
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

/// The sums of a step that several processes may take together; with those that are left if one is lost.
fn shared_step(
    engine: &mut dyn Engine,
    batches: &mut Batches<'_>,
    settings: &TrainSettings,
    state: &State,
    spare: &Spare,
    reduction: &mut dyn Reduction,
    watcher: &mut dyn Watcher,
) -> Result<LossSum, TrainError> {
    let pass = Pass {
        seed: settings.seed,
        step: state.step + 1,
    };
    let order = Order {
        step: state.step,
        micro_batch: state.micro_batch,
    };
    let epoch = state.step / batches.n_per_epoch();
    loop {
        let leaves = batches.leaves(state.step, settings.leaves, state.micro_batch);
        let mut keep_going = || match watcher.progress(state.step, state.n_steps, epoch) {
            true => Ok(()),
            false => Err(TrainError::Cancelled { step: state.step }),
        };
        // Before anything that may take a while, such as beginning anew with others.
        keep_going()?;
        let step = (pass, order, spare);
        let taken = together(engine, leaves, step, reduction, &mut keep_going);
        match taken {
            Err(TrainError::Reduction(ReductionError::Lost(what))) => {
                engine.discard();
                // Whoever wishes to stop is told of no step that is taken again.
                keep_going()?;
                watcher.warn(format!("{what}; step {} is taken again", pass.step));
            }
            taken => return taken,
        }
    }
}

/// The outcome of a step.
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
    reduction: &mut dyn Reduction,
    watcher: &mut dyn Watcher,
) -> Result<Outcome, TrainError> {
    let Some(loss) = sum.mean() else {
        reduction.decide(None);
        return Ok(Outcome::Empty);
    };
    if !judge(loss, lr, settings, state, watcher)? {
        reduction.decide(None);
        return Ok(Outcome::Skipped);
    }
    let update = Update {
        step: settings.updates_before + state.n_updates + 1,
        lr: lr as f32,
        divisor: sum.weight,
        clip: settings.clip,
    };
    reduction.decide(Some(&update));
    let stats = engine.update(&update)?;
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
    let rows = (state.micro_batch, settings.batches.places());
    fits(engine.config(), engine.settings(), engine.machine(), rows)?;
    let (kernels, device) = (
        &engine.machine().kernels,
        engine.machine().device.to_string(),
    );
    if (&state.kernels, &state.device) != (kernels, &device) {
        watcher.warn(format!(
            "going on with {kernels} on {device} what {} on {} left: the last digits may differ",
            state.kernels, state.device
        ));
        (state.kernels, state.device) = (kernels.clone(), device);
    }
    engine.restore(&found.weights, &found.optimizer)?;
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

#[cfg(test)]
mod tests;
