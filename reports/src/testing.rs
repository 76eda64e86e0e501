//! Reports made by hand, for tests: two runs of one experiment and one of another.

use serde_json::json;
use tinylm_registry::{Event, Execution, Level, Note, Outcome, Param, Run, StageRow, Status};

use crate::{
    curve::{Curve, Point},
    report::{Final, Report, Sample, Stage},
};

/// A moment in 2026, so that no test depends on the present.
pub(crate) const START_MS: i64 = 1_774_000_000_000;

/// A finished run of a dialogue model, with everything a report can show.
pub(crate) fn dialogue() -> Report {
    Report {
        run: Run {
            id: "0199-a".to_owned(),
            name: "brave-otter-7f3a".to_owned(),
            experiment: "combined_41m".to_owned(),
            file: "experiments/combined_41m.yaml".to_owned(),
            seed: Some(1337),
            status: Status::Done,
            started_at: START_MS,
            ended_at: Some(START_MS + 245_000),
            host: json!({
                "name": "vault",
                "os": "Linux x86_64",
                "cpu": "AMD EPYC 9B14",
                "cores": 2,
                "memory_bytes": 8_u64 << 30,
            }),
            device: "cpu".to_owned(),
            git_commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            git_dirty: Some(true),
            version: "0.1.0".to_owned(),
            command: "tinylm run experiments/combined_41m.yaml -S base.train.lr=1e-3".to_owned(),
            sweep: None,
            tags: vec!["baseline".to_owned()],
        },
        question: "Does a 41M model trained on everyday dialogue hold a conversation?".to_owned(),
        headline: None,
        elapsed_seconds: 245.0,
        settings: vec![
            setting("seed", "1337", false),
            setting("dialogs.hub", "roskoN/dailydialog", false),
            setting("base.model.preset", "forty-one", false),
            setting("base.train.lr", "0.001", false),
            setting("base.train.warmup", "0.3", true),
        ],
        stages: vec![
            download(),
            stage(
                "shards",
                "binarize",
                Outcome::Made,
                &[("documents", &["dialogs"])],
                12.3,
            ),
            stage(
                "base",
                "pretrain",
                Outcome::Made,
                &[("shards", &["shards"])],
                228.0,
            ),
            stage(
                "perplexity",
                "evaluate",
                Outcome::Made,
                &[("model", &["base"]), ("shards", &["shards"])],
                4.4,
            ),
            stage(
                "answers",
                "sample",
                Outcome::Made,
                &[("model", &["base"])],
                0.8,
            ),
        ],
        finals: vec![
            last("shards", "tokens", 1_181_300.0),
            last("base", "validation_loss", 1.9388),
            last("base", "tokens_per_second", 18_402.5),
            last("perplexity", "loss", 1.9388),
            last("perplexity", "perplexity", 6.95),
            last("perplexity", "unigram_perplexity", 412.6),
            last("perplexity", "accuracy_top1", 0.5512),
            last("perplexity", "documents", 1_204.0),
            last("perplexity", "by_role.assistant.loss", 1.9388),
            last("perplexity", "by_source.dialogs.loss", 1.8105),
            last("perplexity", "by_source.dialogs.tokens", 20_480.0),
            last("perplexity", "by_source.extra.jsonl.loss", 2.4127),
            last("perplexity", "by_source.extra.jsonl.tokens", 3_811.0),
        ],
        curves: vec![
            curve("base", "loss", 200, |share| {
                1.7 + 5.4 * (-4.0 * share).exp() + 0.05 * (share * 90.0).sin()
            }),
            curve("base", "validation_loss", 10, |share| {
                1.93 + 5.1 * (-4.0 * share).exp()
            }),
            curve("base", "lr", 200, |share| {
                if share < 0.3 {
                    share / 0.3 * 1e-3
                } else {
                    1e-3 * (1.0 - (share - 0.3) / 0.7)
                }
            }),
        ],
        samples: vec![
            sample("answers", "how are you ?", "i'm fine , thanks . and you ?"),
            sample(
                "answers",
                "what is your name ?",
                "my name is tom . i'm calling about the room you advertised in yesterday's paper , is it still free ?",
            ),
        ],
        events: vec![Event {
            stage: Some("shards".to_owned()),
            at: START_MS,
            level: Level::Warning,
            message: "3 rows were rejected; see rejected.parquet".to_owned(),
        }],
        notes: vec![Note {
            at: START_MS + 300_000,
            text: "the first that answers".to_owned(),
        }],
    }
}

/// The same experiment with another rate: its data hit, it ended a little better.
pub(crate) fn dialogue_slower() -> Report {
    let mut report = dialogue();
    report.run.id = "0199-b".to_owned();
    report.run.name = "calm-heron-02c1".to_owned();
    report.elapsed_seconds = 251.0;
    report.run.tags.clear();
    report.settings[3] = setting("base.train.lr", "0.0003", false);
    for stage in &mut report.stages {
        if ["dialogs", "shards"].contains(&stage.row.name.as_str()) {
            stage.row.outcome = Outcome::Hit;
        } else {
            stage.row.artifact = Some(format!("{:0<64}", "b0b1"));
        }
    }
    report.finals = vec![
        last("shards", "tokens", 1_181_300.0),
        last("base", "validation_loss", 1.8761),
        last("base", "tokens_per_second", 18_211.0),
        last("perplexity", "loss", 1.8761),
        last("perplexity", "perplexity", 6.528),
        last("perplexity", "by_source.dialogs.loss", 1.7533),
        last("perplexity", "by_source.extra.jsonl.loss", 2.4301),
    ];
    report.curves[0] = curve("base", "loss", 200, |share| {
        1.65 + 5.6 * (-3.0 * share).exp()
    });
    report.curves[1] = curve("base", "validation_loss", 10, |share| {
        1.87 + 5.4 * (-3.0 * share).exp()
    });
    report.samples[0] = sample("answers", "how are you ?", "not bad . how was your trip ?");
    report
}

/// Another experiment that calls its model `model`, still going, and already diverged.
pub(crate) fn shakespeare_diverging() -> Report {
    let mut report = dialogue();
    report.run = Run {
        id: "0199-c".to_owned(),
        name: "witty-wren-9e40".to_owned(),
        experiment: "mini_shakespeare".to_owned(),
        status: Status::Running,
        started_at: START_MS + 1_000_000,
        ended_at: None,
        git_commit: None,
        git_dirty: Some(false),
        ..report.run
    };
    report.elapsed_seconds = 75.0;
    report.question = String::new();
    report.settings = vec![
        setting("seed", "7", false),
        setting("model.train.lr", "0.03", false),
    ];
    report.stages = vec![
        stage("corpus", "download", Outcome::Hit, &[], 0.1),
        stage(
            "model",
            "pretrain",
            Outcome::Running,
            &[("shards", &["corpus"])],
            70.0,
        ),
    ];
    report.stages[1].row.artifact = None;
    report.finals = Vec::new();
    let mut loss = curve("model", "loss", 60, |share| 4.0 + share);
    loss.points[40..]
        .iter_mut()
        .for_each(|point| point.value = f64::NAN);
    report.curves = vec![loss];
    report.samples = Vec::new();
    report.events = Vec::new();
    report.notes = Vec::new();
    report
}

/// Twelve runs of three sizes and four budgets, as a law says but for some percents by turns.
pub(crate) fn scaled() -> Vec<Report> {
    let mut runs = Vec::new();
    for weights in [1e5_f64, 6e5, 3e6] {
        for tokens in [5e5_f64, 2e6, 8e6, 3e7] {
            let turn = [1.004, 0.997, 1.0, 0.994, 1.003][runs.len() % 5];
            let loss = 1.2 + 20.0 * weights.powf(-0.3) + 250.0 * tokens.powf(-0.42);
            let mut report = dialogue();
            report.run.id = format!("0199-{:02}", runs.len());
            report.run.name = format!("grey-gull-{:04}", runs.len());
            report.curves.clear();
            report.finals = vec![
                last("base", "parameters", weights),
                last("base", "tokens", tokens),
                last("base", "epochs", tokens / 1e7),
                last("perplexity", "loss", loss * turn),
            ];
            runs.push(report);
        }
    }
    // One that failed before it was measured.
    runs[11].finals.pop();
    runs
}

/// Names and texts as an enemy would choose them.
pub(crate) fn hostile() -> Report {
    const EVIL: &str = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b]0;owned\x07\u{202e}\"'&`";
    let mut report = dialogue();
    for text in [
        &mut report.run.name,
        &mut report.run.experiment,
        &mut report.run.command,
        &mut report.question,
        &mut report.run.file,
    ] {
        *text = EVIL.to_owned();
    }
    report.run.host["name"] = json!(EVIL);
    report.run.tags = vec![EVIL.to_owned()];
    for setting in &mut report.settings {
        (setting.name, setting.value) = (EVIL.to_owned(), EVIL.to_owned());
    }
    for stage in &mut report.stages {
        let row = &mut stage.row;
        row.name.push_str(EVIL);
        (row.kind, row.reason) = (EVIL.to_owned(), Some(EVIL.to_owned()));
        if let Some(inputs) = row.inputs.as_object_mut() {
            for name in inputs
                .values_mut()
                .filter_map(|names| names.as_array_mut())
                .flatten()
            {
                *name = json!(format!("{}{EVIL}", name.as_str().unwrap()));
            }
        }
        stage.made_by = EVIL.to_owned();
        if let Some(execution) = &mut stage.execution {
            execution.error = Some(EVIL.to_owned());
            execution.origin = Some(json!({ EVIL: EVIL }));
        }
    }
    for last in &mut report.finals {
        (last.stage, last.metric) = (format!("{}{EVIL}", last.stage), EVIL.to_owned());
    }
    for curve in &mut report.curves {
        curve.stage.push_str(EVIL);
        curve.metric.push_str(EVIL);
    }
    for sample in &mut report.samples {
        sample.stage.push_str(EVIL);
        (sample.prompt, sample.text) = (EVIL.to_owned(), EVIL.repeat(3));
    }
    report.events[0].message = EVIL.to_owned();
    report.notes[0].text = EVIL.to_owned();
    report
}

pub(crate) fn setting(name: &str, value: &str, is_default: bool) -> Param {
    Param {
        name: name.to_owned(),
        value: value.to_owned(),
        is_default,
    }
}

pub(crate) fn last(stage: &str, metric: &str, value: f64) -> Final {
    Final {
        stage: stage.to_owned(),
        metric: metric.to_owned(),
        value,
    }
}

fn sample(stage: &str, prompt: &str, text: &str) -> Sample {
    Sample {
        stage: stage.to_owned(),
        step: None,
        prompt: prompt.to_owned(),
        text: text.to_owned(),
    }
}

fn curve(stage: &str, metric: &str, n_points: u64, value: impl Fn(f64) -> f64) -> Curve {
    let point = |idx: u64| {
        let share = idx as f64 / (n_points - 1) as f64;
        let step = (share * 1_000.0).round();
        Point {
            step: step as u64,
            tokens: Some(step * 2_560.0),
            seconds: share * 225.0,
            value: value(share),
        }
    };
    Curve {
        execution: format!("execution-{stage}"),
        stage: stage.to_owned(),
        metric: metric.to_owned(),
        points: (0..n_points).map(point).collect(),
        n_points: n_points as usize,
    }
}

fn download() -> Stage {
    let mut stage = stage("dialogs", "download", Outcome::Hit, &[], 2.1);
    stage.made_by = "quick-fox-11aa".to_owned();
    if let Some(execution) = &mut stage.execution {
        execution.run_id = "0198-z".to_owned();
        execution.origin = Some(json!({
            "hub": "roskoN/dailydialog",
            "commit": "7f2c1e9d0b3a4c5d6e7f8091a2b3c4d5e6f70812",
            "files": [{ "path": "train.zip", "bytes": 4_475_829, "blake3": "9f".repeat(32) }],
        }));
    }
    stage
}

fn stage(
    name: &str,
    kind: &str,
    outcome: Outcome,
    inputs: &[(&str, &[&str])],
    seconds: f64,
) -> Stage {
    let digit = name.bytes().fold(0u8, u8::wrapping_add);
    let inputs = inputs
        .iter()
        .map(|(role, names)| (role.to_string(), json!(names)));
    let artifact = Some(format!("{:02x}", digit ^ 0x5a).repeat(32));
    let row = StageRow {
        run_id: "0199-a".to_owned(),
        name: name.to_owned(),
        position: 0,
        kind: kind.to_owned(),
        outcome,
        key: Some(format!("{digit:02x}").repeat(32)),
        execution_id: Some(format!("execution-{name}")),
        artifact: artifact.clone(),
        reason: None,
        inputs: inputs.collect::<serde_json::Map<_, _>>().into(),
        settings: json!({}),
    };
    let execution = Execution {
        id: format!("execution-{name}"),
        run_id: "0199-a".to_owned(),
        stage: name.to_owned(),
        key: String::new(),
        kind: kind.to_owned(),
        attempt: 1,
        status: Status::Done,
        started_at: START_MS,
        ended_at: Some(START_MS + (seconds * 1e3) as i64),
        cpu_seconds: Some(seconds * 1.9),
        peak_memory_bytes: Some((seconds * 6e6) as u64 + 20_000_000),
        artifact,
        device: "cpu".to_owned(),
        threads: Some(2),
        origin: None,
        recipe: String::new(),
        error: None,
        place: None,
    };
    Stage {
        row,
        execution: Some(execution),
        made_by: "brave-otter-7f3a".to_owned(),
        elapsed_seconds: seconds,
        going: None,
    }
}
