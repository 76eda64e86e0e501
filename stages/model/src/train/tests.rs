//! The training loop's laws: resumed is uninterrupted, and faults are told.

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use insta::assert_snapshot;
use tempfile::TempDir;
use tinylm_settings::Choice as _;

mod crew;
mod on_a_gpu;
mod sharing;

use super::*;
use crate::{
    CpuEngine, Dropout, EngineSettings, Optimizer,
    adapter::{Adapter, Projection, add_product},
    batches::{BatchSettings, Batching, LongDocuments, LossOn},
    bigram::{Bigram, Killed, Mortal},
    config::Precision,
    dpo::Dpo,
    engine::EngineError,
    machine::Machine,
    reduction::Alone,
    schedule::{Amount, Schedule, Shape},
    shards::{
        ROLE_ASSISTANT, ROLE_USER, TARGET,
        testing::{Tokens, write},
    },
};

const VOCAB_SIZE: usize = 12;

/// Keeps what it is told, as the registry would, and stops when its patience ends.
#[derive(Debug, Default, PartialEq)]
struct Notes {
    metrics: BTreeMap<(u64, String), f64>,
    samples: Vec<u64>,
    warnings: Vec<String>,
    asked: u64,
    stop_after: Option<u64>,
}

impl Watcher for Notes {
    fn metric(&mut self, name: &str, step: u64, value: f64) {
        if name == "tokens_per_second" {
            return;
        }
        let before = self.metrics.insert((step, name.to_owned()), value);
        assert_eq!(before, None, "`{name}` of step {step} was told twice");
    }

    fn progress(&mut self, step: u64, n_steps: u64, _epoch: u64) -> bool {
        assert!(step <= n_steps);
        self.asked += 1;
        self.stop_after.is_none_or(|n| self.asked <= n)
    }

    fn info(&mut self, _message: String) {}

    fn warn(&mut self, message: String) {
        self.warnings.push(message);
    }

    fn starting(&mut self, step: u64) {
        self.metrics.retain(|(at, _), _| *at < step);
        self.samples.retain(|at| *at < step);
    }

    fn sample(&mut self, step: u64, _engine: &dyn Engine) -> Result<(), EngineError> {
        self.samples.push(step);
        Ok(())
    }
}

/// Dialogues of a question and an answer; what follows what can be learned.
fn documents(n: u16) -> Vec<Tokens> {
    let document = |i: u16| {
        let n_tokens = 3 + i % 5;
        let token = |t: u16| {
            let id = (i + 3 * t) % VOCAB_SIZE as u16;
            let role = if t < 2 { ROLE_USER } else { ROLE_ASSISTANT };
            (id, if t > 0 { role | TARGET } else { role })
        };
        (0..n_tokens).map(token).collect()
    };
    (0..n).map(document).collect()
}

fn folder_of(splits: &[(&str, Vec<Tokens>)]) -> (TempDir, Shards) {
    let folder = TempDir::new().unwrap();
    let files: Vec<(&str, Vec<Vec<Tokens>>)> = splits
        .iter()
        .map(|(name, documents)| (*name, vec![documents.clone()]))
        .collect();
    let files: Vec<(&str, &[Vec<Tokens>])> = files
        .iter()
        .map(|(name, files)| (*name, &files[..]))
        .collect();
    write(folder.path(), VOCAB_SIZE, &files);
    let shards = Shards::open(folder.path()).unwrap();
    (folder, shards)
}

fn shards() -> (TempDir, Shards) {
    folder_of(&[("train", documents(20)), ("validation", documents(4))])
}

/// Two epochs and a bit of four steps, with validations and checkpoints that do not coincide.
fn settings() -> TrainSettings {
    TrainSettings {
        length: Length::Steps(11),
        batches: BatchSettings {
            batching: Batching::Packed,
            stride: 9,
            context: 8,
            batch: 3,
            long_documents: LongDocuments::Split,
            loss_on: LossOn::Targets,
            pairs: false,
        },
        dpo: None,
        schedule: Schedule {
            shape: Shape::Cosine,
            lr: 0.5,
            warmup: Amount::Number(2.0),
            floor: Amount::Share(0.1),
            decay: Amount::Share(0.2),
        },
        clip: 1.0,
        micro_batch: Some(2),
        leaves: 0,
        validate_every: Some(4),
        validate_rows: Some(10),
        patience: None,
        on_non_finite: OnNonFinite::Stop,
        on_spike: OnSpike::Warn,
        spike_z: 6.0,
        seed: 7,
        updates_before: 0,
        watch: WatchSettings {
            log_every: Some(2),
            checkpoint_every: 3,
            checkpoint_interval: Duration::MAX,
            keep_checkpoints: 2,
            flops_per_second: None,
        },
    }
}

/// A training that can be stopped and taken up again.
struct Story {
    shards: Shards,
    settings: TrainSettings,
    checkpoints: TempDir,
    sharing: Option<sharing::Sharing>,
    notes: Notes,
    _data: TempDir,
}

/// How one attempt ended.
enum End {
    Done(Trained),
    Failed(TrainError),
    Killed,
}

impl Story {
    fn new(settings: TrainSettings) -> Self {
        let (data, shards) = shards();
        Self::on(data, shards, settings)
    }

    fn on(data: TempDir, shards: Shards, settings: TrainSettings) -> Self {
        Self {
            shards,
            settings,
            checkpoints: TempDir::new().unwrap(),
            sharing: None,
            notes: Notes::default(),
            _data: data,
        }
    }

    fn run(&mut self, engine: impl Engine) -> End {
        let mut sharing = self.sharing.take();
        let reduction: &mut dyn Reduction = match &mut sharing {
            Some(sharing) => sharing,
            None => &mut Alone,
        };
        self.run_with(engine, reduction)
    }

    fn run_with(&mut self, mut engine: impl Engine, reduction: &mut dyn Reduction) -> End {
        let folder = self.checkpoints.path();
        let attempt = AssertUnwindSafe(|| {
            train(
                &mut engine,
                &self.shards,
                &self.settings,
                folder,
                reduction,
                &mut self.notes,
            )
        });
        match catch_unwind(attempt) {
            Ok(Ok(trained)) => End::Done(trained),
            Ok(Err(error)) => End::Failed(error),
            Err(panic) if panic.is::<Killed>() => End::Killed,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs until so many passes have been made.
    fn run_until_killed(&mut self, engine: impl Engine, passes_left: u64) -> End {
        self.run(Mortal {
            engine,
            passes_left,
        })
    }

    #[track_caller]
    fn finish(self) -> (Trained, Notes) {
        self.finish_with(Bigram::new(VOCAB_SIZE))
    }

    #[track_caller]
    fn finish_with(mut self, engine: impl Engine) -> (Trained, Notes) {
        match self.run(engine) {
            End::Done(trained) => (trained, self.notes),
            End::Failed(error) => panic!("{error}"),
            End::Killed => panic!("killed"),
        }
    }

    #[track_caller]
    fn fail(mut self, engine: impl Engine) -> TrainError {
        match self.run(engine) {
            End::Failed(error) => error,
            _ => panic!("did not fail"),
        }
    }
}

#[track_caller]
fn assert_same(one: &(Trained, Notes), two: &(Trained, Notes)) {
    assert_eq!(one.0.last, two.0.last);
    assert_eq!(one.0.best, two.0.best);
    assert_eq!(one.0.last_adapter, two.0.last_adapter);
    assert_eq!(one.0.best_adapter, two.0.best_adapter);
    assert_eq!(one.0.report, two.0.report);
    assert_eq!(one.1.metrics, two.1.metrics);
    assert_eq!(one.1.samples, two.1.samples);
}

fn newest_checkpoint(folder: &Path) -> Option<std::path::PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries.max()
}

#[test]
fn training_learns_and_keeps_the_best_and_the_last() {
    let (trained, notes) = Story::new(settings()).finish();
    let losses: Vec<f64> = trained
        .report
        .curve
        .loss
        .iter()
        .map(|(_, loss)| *loss)
        .collect();
    assert_eq!(losses.len(), 11);
    assert!(losses[10] < 0.7 * losses[0], "{losses:?}");
    let steps: Vec<u64> = trained
        .report
        .curve
        .validation
        .iter()
        .map(|point| point.step)
        .collect();
    assert_eq!(steps, [4, 8, 11]);
    assert_eq!(trained.report.best.unwrap().step, 11);
    assert_eq!(trained.best, trained.last);
    assert_eq!(notes.samples, [4, 8, 11]);
    let named: Vec<&str> = notes
        .metrics
        .keys()
        .filter(|key| key.0 == 8)
        .map(|key| &*key.1)
        .collect();
    assert_eq!(
        named,
        [
            "grad_norm",
            "loss",
            "lr",
            "tokens",
            "validation_loss",
            "validation_loss_assistant",
            "validation_loss_user"
        ]
    );
}

#[test]
fn killed_at_any_pass_and_resumed_is_as_if_never_stopped() {
    let whole = Story::new(settings()).finish();
    let mut n_kills = 0;
    for passes in 0.. {
        let mut story = Story::new(settings());
        match story.run_until_killed(Bigram::new(VOCAB_SIZE), passes) {
            End::Killed => n_kills += 1,
            _ => break,
        }
        assert_same(&story.finish(), &whole);
    }
    assert!(n_kills > 11, "{n_kills} kills over 11 steps");
}

/// A transformer with all that could make two runs differ: dropout, and threads.
fn transformer(optimizer: Optimizer, threads: usize) -> CpuEngine {
    let mut config = crate::bigram::config(VOCAB_SIZE);
    (config.d_model, config.n_heads, config.n_kv_heads) = (16, 2, 2);
    let settings = EngineSettings {
        optimizer,
        dropout: Dropout::everywhere(0.1),
        ..EngineSettings::default()
    };
    CpuEngine::new(config, settings, 7, threads).unwrap()
}

#[test]
fn the_transformer_killed_and_resumed_is_as_if_never_stopped_on_any_number_of_threads() {
    for (optimizer, every) in [(Optimizer::Adamw, 1), (Optimizer::Muon, 5)] {
        let mut settings = settings();
        settings.schedule.lr = 0.01;
        let whole = Story::new(settings.clone()).finish_with(transformer(optimizer, 1));
        for passes in (0..18).step_by(every) {
            let mut story = Story::new(settings.clone());
            let end = story.run_until_killed(transformer(optimizer, 2), passes);
            assert!(matches!(end, End::Killed));
            let resumed = story.finish_with(transformer(optimizer, 1 + passes as usize % 3));
            assert_same(&resumed, &whole);
        }
    }
}

/// The same with an adapter on every matrix of its block.
fn with_adapter(optimizer: Optimizer, threads: usize) -> CpuEngine {
    let plain = transformer(optimizer, threads);
    let settings = EngineSettings {
        frozen: ["embed", "blocks.0.norm1", "blocks.0.norm2", "norm"]
            .map(str::to_owned)
            .into(),
        adapter: Some(Adapter {
            rank: 2,
            alpha: 4.0,
            on: Projection::ALL.to_vec(),
        }),
        ..plain.settings().clone()
    };
    CpuEngine::new(plain.config().clone(), settings, 7, threads).unwrap()
}

#[test]
fn an_adapters_training_killed_and_resumed_is_as_if_never_stopped() {
    for optimizer in [Optimizer::Adamw, Optimizer::Muon] {
        let mut settings = settings();
        settings.schedule.lr = 0.05;
        let whole = Story::new(settings.clone()).finish_with(with_adapter(optimizer, 1));
        assert_eq!(whole.0.last_adapter.len(), 8);
        for passes in (0..18).step_by(3) {
            let mut story = Story::new(settings.clone());
            let end = story.run_until_killed(with_adapter(optimizer, 2), passes);
            assert!(matches!(end, End::Killed));
            assert_same(&story.finish_with(with_adapter(optimizer, 1)), &whole);
        }
    }
}

/// Pairs of an answer that goes up and one that goes down, behind one prompt.
fn pairs(n: u16) -> Vec<Tokens> {
    let document = |i: u16, step: u16| {
        let token = |t: u16| {
            let id = (i + step * t) % VOCAB_SIZE as u16;
            (
                id,
                if t < 2 {
                    ROLE_USER
                } else {
                    ROLE_ASSISTANT | TARGET
                },
            )
        };
        (0..3 + (i + step) % 3).map(token).collect()
    };
    (0..n)
        .flat_map(|i| [document(i, 1), document(i, 11)])
        .collect()
}

fn story_of_pairs(settings: &TrainSettings) -> Story {
    let (data, _) = folder_of(&[("train", pairs(12)), ("validation", pairs(5))]);
    let path = data.path().join("shards.json");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replacen('{', r#"{"pairs": true,"#, 1);
    fs::write(&path, text).unwrap();
    let shards = Shards::open(data.path()).unwrap();
    Story::on(data, shards, settings.clone())
}

fn settings_of_pairs() -> TrainSettings {
    let mut settings = settings();
    settings.schedule.lr = 0.02;
    settings.dpo = Some(Dpo { beta: 0.5 });
    settings.batches.pairs = true;
    settings
}

#[test]
fn a_training_on_pairs_learns_which_is_better_and_can_be_killed_anywhere() {
    let settings = settings_of_pairs();
    let engine = |threads| {
        let plain = transformer(Optimizer::Adamw, threads);
        let how = EngineSettings {
            dropout: Dropout::default(),
            ..plain.settings().clone()
        };
        CpuEngine::new(plain.config().clone(), how, 7, threads).unwrap()
    };
    let whole = story_of_pairs(&settings).finish_with(engine(1));
    let told = |step: u64, name: &str| whole.1.metrics[&(step, name.to_owned())];
    assert!((told(1, "loss") - 2.0_f64.ln()).abs() < 1e-6);
    assert!(told(11, "validation_loss") < 0.4, "{:?}", whole.1.metrics);
    assert!(told(11, "validation_rewards/accuracies") > 0.9);
    assert!(told(11, "rewards/margins") > 0.5);
    assert!(told(11, "rewards/chosen") > told(11, "rewards/rejected"));
    for passes in [0, 1, 7, 13, 20] {
        let mut story = story_of_pairs(&settings);
        let end = story.run_until_killed(engine(2), passes);
        assert!(matches!(end, End::Killed), "{passes}");
        if passes == 13 {
            // The reference is found again, before the checkpoint is taken up.
            fs::remove_file(story.checkpoints.path().join("reference.json")).unwrap();
        }
        assert_same(&story.finish_with(engine(1)), &whole);
    }
}

#[test]
fn pairs_and_texts_are_not_taken_for_each_other() {
    let no_pairs = Story::new(settings_of_pairs()).fail(Bigram::new(VOCAB_SIZE));
    let no_texts = story_of_pairs(&settings()).fail(Bigram::new(VOCAB_SIZE));
    assert_snapshot!(format!("{no_pairs}\n{no_texts}"), @"
    the shards hold no pairs of answers
    the shards hold pairs of answers, of which one is worse and not to be learnt
    ");
    let mut short = settings_of_pairs();
    short.batches.context = 1;
    let short = story_of_pairs(&short).fail(Bigram::new(VOCAB_SIZE));
    assert_snapshot!(short, @"the `train` documents: every pair has more than 1 tokens, a prompt and an answer");
}

#[test]
fn the_best_adapter_is_that_of_the_best_weights() {
    // So fast that it is worse at the end than it was.
    let mut settings = settings();
    settings.schedule.lr = 1.0;
    let engine = with_adapter(Optimizer::Adamw, 1);
    let base = engine.weights().unwrap();
    let (trained, _) = Story::new(settings).finish_with(engine);
    assert!(trained.report.best.unwrap().step < trained.report.steps);
    assert_ne!(trained.best_adapter, trained.last_adapter);
    let name = "blocks.0.qkv";
    for (weights, factors) in [
        (&trained.best, &trained.best_adapter),
        (&trained.last, &trained.last_adapter),
    ] {
        let tensor = |end: &str| &factors[&format!("{name}.{end}")].data;
        let mut expected = base[&format!("{name}.weight")].data.clone();
        add_product(&mut expected, tensor("lora_A"), tensor("lora_B"), 2.0, 16);
        assert!(weights[&format!("{name}.weight")].data == expected);
    }
}

#[test]
fn a_kill_in_the_middle_of_a_checkpoint_costs_steps_and_nothing_else() {
    let whole = Story::new(settings()).finish();
    for passes in [6, 9, 12, 15] {
        for damage in ["half written", "cut short", "gone"] {
            let mut story = Story::new(settings());
            let end = story.run_until_killed(Bigram::new(VOCAB_SIZE), passes);
            assert!(matches!(end, End::Killed));
            let newest = newest_checkpoint(story.checkpoints.path()).unwrap();
            match damage {
                "half written" => {
                    let making = story.checkpoints.path().join("writing-3");
                    fs::remove_file(newest.join("manifest.json")).unwrap();
                    fs::rename(&newest, making).unwrap();
                }
                "cut short" => fs::write(newest.join("model.safetensors"), "cut").unwrap(),
                _ => fs::remove_dir_all(&newest).unwrap(),
            }
            assert_same(&story.finish(), &whole);
        }
    }
}

#[test]
fn without_its_best_weights_a_training_goes_on_to_the_same_last_ones() {
    let whole = Story::new(settings()).finish();
    let mut story = Story::new(settings());
    let end = story.run_until_killed(Bigram::new(VOCAB_SIZE), 17);
    assert!(matches!(end, End::Killed));
    let newest = newest_checkpoint(story.checkpoints.path()).unwrap();
    for entry in fs::read_dir(story.checkpoints.path()).unwrap() {
        let path = entry.unwrap().path();
        if path != newest {
            fs::remove_dir_all(path).unwrap();
        }
    }
    assert!(newest.ends_with("step-0000000009"), "{newest:?}");
    let (trained, notes) = story.finish();
    assert_eq!(trained.last, whole.0.last);
    assert_eq!(trained.report.best.unwrap().step, 11);
    assert_eq!(notes.warnings.len(), 2, "{:?}", notes.warnings);
}

#[test]
fn stopping_saves_and_going_on_is_as_if_never_stopped() {
    let whole = Story::new(settings()).finish();
    for asked in 0..whole.1.asked {
        let mut story = Story::new(settings());
        story.notes.stop_after = Some(asked);
        let End::Failed(TrainError::Cancelled { step }) = story.run(Bigram::new(VOCAB_SIZE)) else {
            panic!("not cancelled");
        };
        // Nothing that was done is lost, not even half a second of it.
        let newest = newest_checkpoint(story.checkpoints.path());
        assert!(newest.unwrap().ends_with(format!("step-{step:010}")));
        story.notes.stop_after = None;
        let (trained, notes) = story.finish();
        assert_eq!(trained.last, whole.0.last);
        assert_eq!(notes.metrics, whole.1.metrics);
    }
}

#[test]
fn no_two_checkpoints_are_in_memory_at_a_time() {
    let mut settings = settings();
    settings.watch.checkpoint_every = 1;
    let story = Story::new(settings);
    let mut engine = Bigram::new(VOCAB_SIZE);
    engine.checkpoints = Some(story.checkpoints.path().to_owned());
    story.finish_with(engine);
}

#[test]
fn a_short_training_logs_each_of_its_steps_and_a_long_one_every_tenth() {
    let logged = |n_steps, log_every| {
        let mut settings = settings();
        settings.length = Length::Steps(n_steps);
        settings.watch.log_every = log_every;
        let (_, notes) = Story::new(settings).finish();
        let losses = notes.metrics.keys().filter(|(_, name)| name == "loss");
        losses.count()
    };
    assert_eq!(logged(30, None), 30);
    assert_eq!(logged(600, None), 61);
    assert_eq!(logged(30, Some(10)), 4);
}

#[test]
fn what_is_only_watched_changes_nothing() {
    let whole = Story::new(settings()).finish();
    let mut other = settings();
    other.watch = WatchSettings {
        log_every: Some(5),
        checkpoint_every: 0,
        checkpoint_interval: Duration::ZERO,
        keep_checkpoints: 1,
        flops_per_second: None,
    };
    let (trained, _) = Story::new(other).finish();
    assert_eq!(trained.last, whole.0.last);
    assert_eq!(trained.report, whole.0.report);
}

#[test]
fn a_step_does_not_depend_on_how_it_is_divided() {
    let run = |micro_batch| {
        let mut settings = settings();
        settings.micro_batch = micro_batch;
        let (trained, _) = Story::new(settings).finish();
        trained.last["table"].data.clone()
    };
    let whole = run(Some(3));
    assert_eq!(run(None), whole);
    for (a, b) in run(Some(1)).iter().zip(&whole) {
        assert!((a - b).abs() < 1e-5);
    }
}

#[test]
fn training_stops_when_validation_gains_nothing_and_the_best_is_kept() {
    let mut settings = settings();
    settings.length = Length::Steps(400);
    settings.validate_every = Some(2);
    settings.patience = Some(3);
    // Training learns an answer that is wrong for every other document of the validation set.
    let mut other = documents(4);
    for document in other.iter_mut().step_by(2) {
        document.reverse();
    }
    let (data, shards) = folder_of(&[("train", documents(20)), ("validation", other)]);
    let (trained, _) = Story::on(data, shards, settings).finish();
    let best = trained.report.best.unwrap();
    assert!(trained.report.stopped_early);
    assert_eq!(trained.report.steps, best.step + 6);
    assert_ne!(trained.best, trained.last);
}

#[test]
fn a_loss_that_is_not_finite_stops_with_advice_and_a_checkpoint() {
    let mut engine = Bigram::new(VOCAB_SIZE);
    engine.broken_steps = vec![6];
    let mut story = Story::new(settings());
    let End::Failed(error) = story.run(engine) else {
        panic!("did not fail");
    };
    let TrainError::AtStep { kept, cause, .. } = &error else {
        panic!("{error:?}");
    };
    let said = format!(
        "{error}\n{cause}\nkept: {kept:?}\n{}",
        error.help().unwrap()
    );
    assert_snapshot!(said, @"
    failed at step 6 of 11
    the loss is not finite (gradient norm was 3.5e-1 one step earlier)
    kept: Some(5)
    lower `lr` (now 3.88e-1) or `clip`, or lengthen `warmup`
    ");
    // Whoever mends what was broken goes on from there.
    let (trained, _) = story.finish();
    assert_eq!(trained.last, Story::new(settings()).finish().0.last);
}

#[test]
fn a_broken_step_can_be_skipped() {
    let mut settings = settings();
    settings.on_non_finite = OnNonFinite::Skip;
    let mut engine = Bigram::new(VOCAB_SIZE);
    engine.broken_steps = vec![6];
    let mut story = Story::new(settings.clone());
    let End::Done(trained) = story.run(engine) else {
        panic!("did not finish");
    };
    assert_eq!(
        (trained.report.steps, trained.report.skipped_steps),
        (11, 1)
    );
    assert_eq!(
        story.notes.warnings,
        [
            "step 6: the loss is not finite (gradient norm was 3.5e-1 one step earlier); skipped (if it goes on, lower `lr` (now 3.88e-1) or `clip`, or lengthen `warmup`)"
        ]
    );

    settings.length = Length::Steps(100);
    let mut engine = Bigram::new(VOCAB_SIZE);
    engine.broken_steps = (1..=100).collect();
    let TrainError::AtStep { step, cause, .. } = Story::new(settings).fail(engine) else {
        panic!("did not give up");
    };
    assert_eq!(step, SKIPPED_MAX + 1);
    assert!(matches!(*cause, TrainError::AllSkipped { .. }));
}

#[test]
fn a_gradient_that_is_not_finite_is_called_so() {
    let mut settings = settings();
    settings.on_non_finite = OnNonFinite::Skip;
    let mut engine = Bigram::new(VOCAB_SIZE);
    engine.broken_gradients = vec![6];
    let mut story = Story::new(settings);
    let End::Done(trained) = story.run(engine) else {
        panic!("did not finish");
    };
    assert_eq!(trained.report.skipped_steps, 1);
    assert_snapshot!(story.notes.warnings.join("\n"), @"step 6: the gradient norm is not finite (gradient norm was 3.5e-1 one step earlier); skipped (if it goes on, lower `lr` (now 3.88e-1) or `clip`, or lengthen `warmup`)");
}

#[test]
fn a_validation_that_is_not_finite_stops_or_is_left_out() {
    let mut settings = settings();
    let broken = || {
        let mut engine = Bigram::new(VOCAB_SIZE);
        engine.broken_validations = vec![4];
        engine
    };
    let error = Story::new(settings.clone()).fail(broken());
    let TrainError::AtStep { kept, cause, .. } = &error else {
        panic!("{error:?}");
    };
    assert_snapshot!(format!("{error}\n{cause}\nkept: {kept:?}"), @"
    failed at step 4 of 11
    the validation loss is not finite
    kept: Some(4)
    ");

    settings.on_non_finite = OnNonFinite::Skip;
    let mut story = Story::new(settings);
    // Killed past the next checkpoint, so that what the validation left is read again.
    let end = story.run_until_killed(broken(), 14);
    assert!(matches!(end, End::Killed));
    let (trained, notes) = story.finish();
    let validations = trained.report.curve.validation.iter();
    let steps: Vec<u64> = validations.map(|point| point.step).collect();
    assert_eq!(
        (steps, trained.report.best.unwrap().step),
        (vec![8, 11], 11)
    );
    assert!(
        !notes
            .metrics
            .contains_key(&(4, "validation_loss".to_owned()))
    );
    assert_eq!(notes.warnings.len(), 1, "{:?}", notes.warnings);
}

#[test]
fn steps_in_which_nothing_counts_do_not_end_training() {
    let mut settings = settings();
    settings.batches.batching = Batching::Windows;
    (settings.batches.batch, settings.micro_batch) = (1, None);
    (settings.length, settings.validate_every) = (Length::Steps(300), Some(0));
    // One long document of which only the end is learned: one window in fifty sees any of it.
    let token = |t: u16| match t {
        398.. => (t % VOCAB_SIZE as u16, ROLE_ASSISTANT | TARGET),
        _ => (t % VOCAB_SIZE as u16, ROLE_USER),
    };
    let document: Tokens = (0..400).map(token).collect();
    let (data, shards) = folder_of(&[("train", vec![document])]);
    let (trained, _) = Story::on(data, shards, settings).finish();
    assert_eq!(trained.report.steps, 300);
    assert_eq!(trained.report.updates + trained.report.skipped_steps, 300);
    assert!(trained.report.updates > 0);
}

#[test]
fn a_spike_is_told_skipped_or_stops_as_set() {
    let run = |on_spike| {
        let mut settings = settings();
        settings.length = Length::Steps(80);
        settings.on_spike = on_spike;
        let mut engine = Bigram::new(VOCAB_SIZE);
        engine.spiking_steps = vec![70];
        let mut story = Story::new(settings);
        let end = story.run(engine);
        (end, story.notes.warnings)
    };
    let (End::Done(taken), told) = run(OnSpike::Warn) else {
        panic!("stopped");
    };
    assert_eq!((taken.report.skipped_steps, told.len()), (0, 1));
    assert!(
        told[0].contains("; taken all the same (if it goes on, lower `lr`"),
        "{told:?}"
    );
    let (End::Done(left_out), _) = run(OnSpike::Skip) else {
        panic!("stopped");
    };
    assert_eq!(left_out.report.skipped_steps, 1);
    let (End::Failed(TrainError::AtStep { step: 70, .. }), _) = run(OnSpike::Stop) else {
        panic!("did not stop");
    };
}

#[test]
fn bad_input_is_refused_before_the_first_step() {
    let silent = vec![vec![(1, ROLE_USER), (2, ROLE_USER)]];
    let refusal =
        |change: &dyn Fn(&mut TrainSettings), splits: &[(&str, Vec<Tokens>)], vocab_size| {
            let (data, shards) = folder_of(splits);
            let mut settings = settings();
            change(&mut settings);
            let place = data.path().display().to_string();
            let engine = Mortal {
                engine: Bigram::new(vocab_size),
                passes_left: 0,
            };
            let error = Story::on(data, shards, settings).fail(engine);
            format!("{error}\n  {}", error.help().unwrap()).replace(&place, "[DATA]")
        };
    let good = [("train", documents(20)), ("validation", documents(4))];
    let v = VOCAB_SIZE;
    let refusals = [
        refusal(&|_| (), &good, v + 1),
        refusal(&|_| (), &[("train", documents(4))], v),
        refusal(&|_| (), &[("train", silent.clone()), good[1].clone()], v),
        refusal(&|_| (), &[good[0].clone(), ("validation", silent)], v),
        refusal(&|s| s.batches.context = 9, &good, v),
        refusal(&|s| s.schedule.lr = 1e9, &good, v),
        refusal(&|s| s.schedule.lr = f64::NAN, &good, v),
        refusal(&|s| s.schedule.warmup = Amount::Number(-1.0), &good, v),
        refusal(&|s| s.clip = 0.0, &good, v),
        refusal(&|s| s.batches.batch = 0, &good, v),
        refusal(&|s| s.batches.batching = Batching::Sliding, &good, v),
        refusal(&|s| s.length = Length::Epochs(0.0), &good, v),
    ];
    let mut engine = Bigram::new(v);
    engine.machine.memory_bytes = Some(1000);
    let error = Story::new(settings()).fail(engine);
    let without_room = format!("{error}\n  {}", error.help().unwrap());
    assert_snapshot!(format!("{}\n{without_room}", refusals.join("\n")), @r#"
    the shards have a vocabulary of 12, and the model one of 13
      train with shards that this model's tokenizer made
    the shards have no `validation` documents
      set a larger `validation` in the `binarize` stage, or give it more documents
    the `train` documents: no token of these documents counts in the loss
      set `loss_on: all`, or mark what is to be learned in `normalize` and `binarize`
    the `validation` documents: no token of these documents counts in the loss
      set `loss_on: all`, or mark what is to be learned in `normalize` and `binarize`
    `train.context` is 9, and the model reads 8 tokens at most
      set `train.context` to at most 8, or give the model a longer context
    `lr` is 1000000000, and a learning rate is a number above 0 and at most 10
      set `lr` to a value such as 1e-3
    `lr` is NaN, and a learning rate is a number above 0 and at most 10
      set `lr` to a value such as 1e-3
    `warmup` is -1, and must be at least 0
      set `warmup` to a number of updates such as 100, or to a share such as "10%"
    `clip` is 0, and must be above 0
      set `clip` to a positive number
    the `train` documents: `batch` must be at least 1
      set it to a positive number
    the `train` documents: `stride` is 9, and more than `context` (8): tokens in between would never be read
      set `stride` to at most `context`
    `epochs` come to no step at all
      set more `epochs` or `steps`
    training with 2 rows at a time needs 8 MB of memory, and 0 MB are free
      the model alone takes 0 MB: set a smaller `d_model`, `d_ff` or `n_layers`
    "#);
}

#[test]
fn a_length_in_epochs_is_whole_steps() {
    let mut settings = settings();
    settings.length = Length::Epochs(1.6);
    let (trained, _) = Story::new(settings).finish();
    let per_epoch = trained.report.data.rows.div_ceil(3);
    assert_eq!(trained.report.steps, (1.6 * per_epoch as f64).ceil() as u64);
    assert!(trained.report.epochs >= 1.6, "{}", trained.report.epochs);
}

#[test]
fn a_micro_batch_is_chosen_once() {
    let with_memory = |bytes: Option<u64>| {
        let mut engine = transformer(Optimizer::Adamw, 1);
        engine.machine.memory_bytes = bytes;
        engine
    };
    let config = with_memory(None).config().clone();
    let one_row = config.memory(1, 8, Precision::F32, Optimizer::Adamw);
    let one_row = Some(one_row.total());
    let story = || {
        let mut settings = settings();
        (settings.micro_batch, settings.schedule.lr) = (None, 0.01);
        Story::new(settings)
    };
    let whole = story().finish_with(with_memory(one_row));
    let roomy = story().finish_with(with_memory(None));
    assert_ne!(whole.0.last, roomy.0.last, "rows add up in another order");

    let mut story = story();
    let end = story.run_until_killed(with_memory(one_row), 20);
    assert!(matches!(end, End::Killed));
    // Nor does it go on where there is no room for it.
    let End::Failed(error) = story.run(with_memory(Some(1 << 20))) else {
        panic!("it did not fit");
    };
    assert!(
        matches!(error, TrainError::Memory { micro_batch: 1, .. }),
        "{error}"
    );
    assert_same(&story.finish_with(with_memory(None)), &whole);
}

#[test]
fn what_is_left_out_and_how_fast_it_goes_is_told() {
    let mut settings = settings();
    settings.batches.long_documents = LongDocuments::Crop;
    settings.batches.context = 4;
    settings.watch.flops_per_second = Some(1e9);
    let mut train = documents(20);
    train.push(vec![(1, ROLE_USER)]);
    train.push(vec![(1, ROLE_USER), (2, ROLE_USER)]);
    let (data, shards) = folder_of(&[("train", train), ("validation", documents(4))]);
    let (_, notes) = Story::on(data, shards, settings).finish();
    assert_snapshot!(notes.warnings.join("\n"), @"
    8 documents are longer than the context: 12 tokens are left out
    a document of a single token is left out
    a document, or a part of one, holds nothing to learn and is left out
    ");
    let shares = notes
        .metrics
        .iter()
        .filter(|(key, _)| key.1 == "peak_share");
    let shares: Vec<(u64, f64)> = shares.map(|(key, share)| (key.0, *share)).collect();
    let steps: Vec<u64> = shares.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [1, 2, 4, 6, 8, 10, 11]);
    assert!(shares.iter().all(|(_, share)| *share > 0.0));
}

#[test]
fn a_checkpoint_of_another_training_is_not_taken_up() {
    let mut story = Story::new(settings());
    let end = story.run_until_killed(Bigram::new(VOCAB_SIZE), 12);
    assert!(matches!(end, End::Killed));
    story.settings.seed = 8;
    let error = story.fail(Bigram::new(VOCAB_SIZE));
    assert!(
        matches!(error, TrainError::OtherTraining("seed")),
        "{error}"
    );
}

#[test]
fn going_on_with_other_kernels_says_that_bits_may_differ() {
    let mut story = Story::new(settings());
    let end = story.run_until_killed(Bigram::new(VOCAB_SIZE), 12);
    assert!(matches!(end, End::Killed));
    let mut engine = Bigram::new(VOCAB_SIZE);
    engine.machine.kernels = "avx512".to_owned();
    let (_, notes) = story.finish_with(engine);
    assert_snapshot!(notes.warnings.join("\n"), @"going on with avx512 on cpu what plain on cpu left: the last digits may differ");
}

#[test]
fn an_automatic_micro_batch_fits_into_memory() {
    let config = crate::bigram::config(VOCAB_SIZE);
    let mut settings = settings();
    settings.batches.batch = 100;
    settings.micro_batch = None;
    let needed = |n_rows| {
        let estimate = config.memory(n_rows, 8, Precision::F32, Optimizer::Adamw);
        estimate.total()
    };
    let choose = |settings: &TrainSettings, memory_bytes: Option<u64>| {
        let machine = Machine {
            memory_bytes,
            ..Machine::here()
        };
        choose_micro_batch(
            &config,
            &EngineSettings::default(),
            &machine,
            &settings.batches,
            settings.micro_batch,
        )
    };
    assert_eq!(choose(&settings, Some(needed(30))).unwrap(), 25);
    let error = choose(&settings, Some(needed(1) - 1)).unwrap_err();
    assert!(
        error.to_string().contains("with 1 row at a time"),
        "{error}"
    );
    settings.batches.context = 4096;
    assert_eq!(choose(&settings, None).unwrap(), 2);
    settings.micro_batch = Some(8);
    assert_eq!(choose(&settings, None).unwrap(), 8);
}
