//! Runs written into a real registry, the way the pipeline writes them.

use serde_json::json;
use tinylm_registry::{
    Digest, Finished, Level, MetricRow, NewExecution, Outcome, Registry, Run, RunSource,
    StageRecord, Status, names,
};

/// The moment everything begins.
pub(crate) const START_MS: i64 = 1_774_000_000_000;

/// A small training run: data, shards, a model, samples.
pub(crate) struct Recorded<'a> {
    pub(crate) experiment: &'a str,
    pub(crate) lr: f64,
    pub(crate) seed: u64,
    /// Points of the model's loss; a twentieth as many validation losses when there are a hundred.
    pub(crate) n_points: u64,
    /// The loss at a share of the way.
    pub(crate) loss: fn(lr: f64, share: f64) -> f64,
    pub(crate) prompt: &'a str,
    pub(crate) answer: &'a str,
    /// The run whose data this one finds ready.
    pub(crate) data_of: Option<&'a str>,
    pub(crate) started_ms: i64,
}

impl Default for Recorded<'_> {
    fn default() -> Self {
        Self {
            experiment: "mini",
            lr: 1e-3,
            seed: 1,
            n_points: 200,
            loss: |lr, share| {
                2.0 - lr * 100.0 + 5.0 * (-4.0 * share).exp() + 0.03 * (share * 300.0).sin()
            },
            prompt: "how are you ?",
            answer: "i'm fine , thanks .",
            data_of: None,
            started_ms: START_MS,
        }
    }
}

/// Writes the run and returns its id.
pub(crate) fn record(registry: &Registry, recorded: &Recorded<'_>) -> String {
    let run_id = names::new_id();
    let run = Run {
        id: run_id.clone(),
        experiment: recorded.experiment.to_owned(),
        file: format!("experiments/{}.yaml", recorded.experiment),
        seed: Some(recorded.seed),
        started_at: recorded.started_ms,
        host: json!({"name": "vault", "os": "Linux", "cpu": "a processor", "cores": 2, "memory_bytes": 8_589_934_592_u64}),
        device: "cpu".to_owned(),
        git_commit: Some("c0ffee".repeat(6)),
        git_dirty: Some(false),
        version: "0.1.0".to_owned(),
        command: format!(
            "tinylm run {}.yaml -S base.train.lr={}",
            recorded.experiment, recorded.lr
        ),
        ..Run::default()
    };
    let source = RunSource {
        text: "# Does a small model learn?\nname: mini\n".to_owned(),
        resolved: "{}".to_owned(),
    };
    registry.insert_run(&run, &source).unwrap();
    let params = [
        ("seed".to_owned(), recorded.seed.to_string(), false),
        ("data.hub".to_owned(), "someone/dialogs".to_owned(), false),
        ("base.train.lr".to_owned(), recorded.lr.to_string(), false),
        ("base.train.clip".to_owned(), "1.0".to_owned(), true),
    ];
    registry.insert_params(&run_id, &params).unwrap();
    let data = match recorded.data_of {
        Some(other) => hit_data(registry, &run_id, other),
        None => made_data(registry, &run_id, recorded),
    };
    let base = execution(
        registry,
        &run_id,
        "base",
        "pretrain",
        recorded.started_ms,
        100_000,
        None,
    );
    let artifact = Digest::of_bytes(run_id.as_bytes());
    registry
        .upsert_stages(&[
            data,
            stage(
                &run_id,
                "base",
                1,
                "pretrain",
                Outcome::Made,
                &base,
                artifact,
            ),
        ])
        .unwrap();
    write_curves(registry, &base, recorded);
    registry
        .append_samples(
            &base,
            &[(Some(10), recorded.prompt.to_owned(), "early".to_owned())],
            recorded.started_ms,
        )
        .unwrap();
    registry
        .append_samples(
            &base,
            &[(None, recorded.prompt.to_owned(), recorded.answer.to_owned())],
            recorded.started_ms,
        )
        .unwrap();
    registry
        .append_event(
            &run_id,
            Some("base"),
            Level::Warning,
            "a warning",
            recorded.started_ms,
        )
        .unwrap();
    registry
        .set_run_status(&run_id, Status::Done, Some(recorded.started_ms + 101_000))
        .unwrap();
    run_id
}

fn write_curves(registry: &Registry, execution_id: &str, recorded: &Recorded<'_>) {
    let row = |name: &str, step: Option<u64>, value: f64, at: i64| MetricRow {
        execution_id: execution_id.to_owned(),
        name: name.to_owned(),
        step,
        value,
        at,
    };
    let mut rows = Vec::new();
    for idx in 0..recorded.n_points {
        let share = idx as f64 / recorded.n_points.max(2) as f64;
        let at = recorded.started_ms + (share * 100_000.0) as i64;
        let loss = (recorded.loss)(recorded.lr, share);
        rows.push(row("loss", Some(idx + 1), loss, at));
        if recorded.n_points <= 1_000 {
            rows.push(row("tokens", Some(idx + 1), (idx + 1) as f64 * 2_560.0, at));
        }
        if idx % 20 == 19 && recorded.n_points <= 1_000 {
            rows.push(row("validation_loss", Some(idx + 1), loss + 0.1, at));
        }
    }
    let last = (recorded.loss)(recorded.lr, 1.0);
    rows.push(row(
        "validation_loss",
        None,
        last + 0.1,
        recorded.started_ms + 100_000,
    ));
    rows.push(row(
        "tokens_per_second",
        None,
        20_000.0,
        recorded.started_ms + 100_000,
    ));
    registry.append_metrics(&rows).unwrap();
}

fn made_data(registry: &Registry, run_id: &str, recorded: &Recorded<'_>) -> StageRecord {
    let origin = r#"{"hub":"someone/dialogs","commit":"7f2c1e9d0b3a4c5d6e7f8091a2b3c4d5e6f70812","files":[{"path":"train.jsonl","bytes":4475829}]}"#;
    let execution_id = execution(
        registry,
        run_id,
        "data",
        "download",
        recorded.started_ms,
        500,
        Some(origin),
    );
    stage(
        run_id,
        "data",
        0,
        "download",
        Outcome::Made,
        &execution_id,
        Digest::of_bytes(b"data"),
    )
}

fn hit_data(registry: &Registry, run_id: &str, other: &str) -> StageRecord {
    let stages = registry.stages(other).unwrap();
    let execution_id = stages[0].execution_id.clone().unwrap();
    stage(
        run_id,
        "data",
        0,
        "download",
        Outcome::Hit,
        &execution_id,
        Digest::of_bytes(b"data"),
    )
}

fn execution(
    registry: &Registry,
    run_id: &str,
    stage: &str,
    kind: &str,
    started_at: i64,
    ms: i64,
    origin: Option<&str>,
) -> String {
    let id = names::new_id();
    let new = NewExecution {
        id: id.clone(),
        run_id: run_id.to_owned(),
        stage: stage.to_owned(),
        key: Digest::of_bytes(id.as_bytes()).to_string(),
        kind: kind.to_owned(),
        attempt: 1,
        started_at,
        device: "cpu".to_owned(),
        threads: Some(2),
        recipe: String::new(),
    };
    registry.insert_execution(&new).unwrap();
    let end = Finished {
        status: Status::Done,
        ended_at: started_at + ms,
        cpu_seconds: Some(ms as f64 / 520.0),
        peak_memory_bytes: Some(300_000_000),
        origin: origin.map(str::to_owned),
        ..Finished::default()
    };
    registry.finish_execution(&id, &end).unwrap();
    id
}

fn stage(
    run_id: &str,
    name: &str,
    position: u32,
    kind: &str,
    outcome: Outcome,
    execution_id: &str,
    artifact: Digest,
) -> StageRecord {
    StageRecord {
        run_id: run_id.to_owned(),
        name: name.to_owned(),
        position,
        kind: kind.to_owned(),
        outcome,
        key: Some(artifact),
        execution_id: Some(execution_id.to_owned()),
        artifact: Some(artifact),
        reason: None,
        inputs: if position == 0 {
            "{}".to_owned()
        } else {
            r#"{"shards":["data"]}"#.to_owned()
        },
        settings: "{}".to_owned(),
    }
}
