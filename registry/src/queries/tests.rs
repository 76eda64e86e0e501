//! Laws and stories of what is read back.

use proptest::prelude::*;

use super::{choose::metric_facts, curves::Thinner, *};
use crate::{
    Home, Lock,
    records::{Finished, MetricRow, NewExecution, StageRecord},
    words::Outcome,
};

struct Fixture {
    folder: tempfile::TempDir,
    registry: Registry,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&Home::at(folder.path())).unwrap();
        Fixture { folder, registry }
    }

    /// A finished run of one stage, `base`, that ended at `loss`. Returns its name.
    fn run(&self, id: &str, lr: &str, loss: f64) -> String {
        let registry = &self.registry;
        let execution_id = format!("e-{id}");
        let name = registry
            .insert_run(
                &Run {
                    id: id.into(),
                    experiment: "tiny".into(),
                    file: "tiny.yaml".into(),
                    seed: Some(u64::MAX),
                    started_at: 1_000_000_000_000 + self.n_runs() as i64 * 1000,
                    host: serde_json::json!({"name": "here"}),
                    ..Run::default()
                },
                &RunSource::default(),
            )
            .unwrap();
        registry
            .insert_execution(&NewExecution {
                id: execution_id.clone(),
                run_id: id.into(),
                stage: "base".into(),
                key: format!("key of lr {lr}"),
                recipe: format!("train.lr = {lr}"),
                ..NewExecution::default()
            })
            .unwrap();
        registry
            .upsert_stage(&StageRecord {
                run_id: id.into(),
                name: "base".into(),
                outcome: Outcome::Made,
                key: Some(crate::Digest::of_bytes(lr.as_bytes())),
                execution_id: Some(execution_id.clone()),
                inputs: r#"{"shards":["shards"]}"#.into(),
                settings: "{}".into(),
                ..StageRecord::default()
            })
            .unwrap();
        let params = [("base.train.lr".to_owned(), lr.to_owned(), false)];
        registry.insert_params(id, &params).unwrap();
        registry
            .append_metrics(&curve(&execution_id, "loss", &[9.0, 5.0, loss]))
            .unwrap();
        registry
            .finish_execution(
                &execution_id,
                &Finished {
                    status: Status::Done,
                    ended_at: 5,
                    peak_memory_bytes: Some(7),
                    ..Finished::default()
                },
            )
            .unwrap();
        registry
            .set_run_status(id, Status::Done, Some(1_000_000_060_000))
            .unwrap();
        name
    }

    fn n_runs(&self) -> usize {
        self.registry.runs(&RunQuery::default()).unwrap().len()
    }

    #[track_caller]
    fn ids(&self, filter: &str, sort: &str) -> Vec<String> {
        let query = RunQuery {
            filter: Some(Filter::parse(filter).unwrap()),
            sort: Some(sort.to_owned()),
            ..RunQuery::default()
        };
        let runs = self.registry.runs(&query).unwrap();
        runs.into_iter().map(|run| run.id).collect()
    }
}

fn curve(execution_id: &str, name: &str, values: &[f64]) -> Vec<MetricRow> {
    (1..)
        .zip(values)
        .map(|(step, &value)| MetricRow {
            execution_id: execution_id.into(),
            name: name.into(),
            step: Some(step),
            value,
            at: step as i64 * 10,
        })
        .collect()
}

/// A run that found its stage there, or whose stage failed.
fn attempt(fixture: &Fixture, id: &str, lr: &str, status: Status) {
    let registry = &fixture.registry;
    let run = Run {
        id: id.into(),
        ..Run::default()
    };
    registry.insert_run(&run, &RunSource::default()).unwrap();
    let mut outcome = Outcome::Hit;
    if status == Status::Failed {
        outcome = Outcome::Failed;
        let execution = NewExecution {
            id: format!("e-{id}"),
            run_id: id.into(),
            ..NewExecution::default()
        };
        registry.insert_execution(&execution).unwrap();
        let end = Finished {
            status,
            ..Finished::default()
        };
        registry.finish_execution(&execution.id, &end).unwrap();
    }
    let stage = StageRecord {
        run_id: id.into(),
        name: "base".into(),
        outcome,
        key: Some(crate::Digest::of_bytes(lr.as_bytes())),
        inputs: "{}".into(),
        settings: "{}".into(),
        ..StageRecord::default()
    };
    registry.upsert_stage(&stage).unwrap();
    registry.set_run_status(id, status, Some(1)).unwrap();
}

#[test]
fn the_last_run_is_the_last_that_came_to_something() {
    let fixture = Fixture::new();
    let last = || fixture.registry.find_run("@last").unwrap().id;
    attempt(&fixture, "failed", "3", Status::Failed);
    assert_eq!(last(), "failed", "there is nothing else");
    fixture.run("a", "1", 2.0);
    fixture.run("b", "2", 2.0);
    attempt(&fixture, "once more", "3", Status::Failed);
    assert_eq!(last(), "b");
    let before = |text: &str| fixture.registry.find_run(text).map(|run| run.id);
    assert_eq!(before("@last~0").unwrap(), "b");
    assert_eq!(before("@last~1").unwrap(), "a");
    for nobody in ["@last~2", "@last~", "@last~x", "@last~99999999999999999999"] {
        assert!(before(nobody).is_err(), "{nobody}");
    }
    // Who runs the experiment of `a` again has its results before them, not those of `b`.
    attempt(&fixture, "again", "1", Status::Done);
    assert_eq!(last(), "a");
    // No other run has all of its stages: it is a result of its own.
    attempt(&fixture, "put together", "5", Status::Done);
    assert_eq!(last(), "put together");
}

#[test]
fn a_run_is_found_by_any_name_for_it() {
    let fixture = Fixture::new();
    let registry = &fixture.registry;
    assert!(matches!(
        registry.find_run("@last"),
        Err(Error::UnknownRun { .. })
    ));
    let (a, b) = (
        fixture.run("0197aa", "1", 3.0),
        fixture.run("0197ab", "1", 3.0),
    );
    for text in ["0197aa", a.as_str(), &a[..a.len() - 1]] {
        assert_eq!(registry.find_run(text).unwrap().id, "0197aa", "{text}");
    }
    assert_eq!(registry.find_run("@last").unwrap().name, b);

    match registry.find_run("0197").unwrap_err() {
        Error::AmbiguousRun { matches, .. } => assert_eq!(matches, [b.clone(), a.clone()]),
        error => panic!("{error}"),
    }
    let mistyped = a.replacen('-', "_", 1);
    let error = registry.find_run(&mistyped).unwrap_err();
    assert!(error.is_mistake());
    assert_eq!(error.to_string(), format!("no run is called `{mistyped}`"));
    assert_eq!(error.hint().unwrap(), format!("did you mean `{a}`?"));
    assert!(registry.find_run("").is_err());

    registry.remove_run("0197ab", 9).unwrap();
    assert_eq!(registry.find_run("0197").unwrap().name, a);
    assert!(registry.find_run(&b).is_err());
}

#[test]
fn a_run_without_an_end_is_interrupted_once_its_lock_is_free() {
    let fixture = Fixture::new();
    fixture.run("r", "1", 3.0);
    fixture
        .registry
        .set_run_status("r", Status::Running, None)
        .unwrap();
    let status = || fixture.registry.run("r").unwrap().status;
    assert_eq!(status(), Status::Interrupted);
    let path = crate::Home::at(fixture.folder.path()).run_lock("r");
    let lock = Lock::try_exclusive(&path, "r").unwrap().unwrap();
    assert_eq!(status(), Status::Running);
    drop(lock);
    assert_eq!(status(), Status::Interrupted);
    assert_eq!(fixture.ids("status = interrupted", "name"), ["r"]);
}

#[test]
fn runs_are_filtered_and_sorted_by_fields_settings_metrics_and_tags() {
    let fixture = Fixture::new();
    fixture.run("a", "1e-3", 2.5);
    fixture.run("b", "0.01", 4.0);
    fixture.run("c", "0.1", f64::NAN);
    fixture.registry.add_tag("b", "baby").unwrap();
    fixture.registry.add_tag("b", "first").unwrap();
    fixture.registry.add_note("c", "It blew up", 1).unwrap();

    assert_eq!(fixture.ids("loss < 3", "id"), ["a"]);
    assert_eq!(fixture.ids("base.loss < 5", "-loss"), ["b", "a"]);
    assert_eq!(
        fixture.ids("lr = 0.001 or train.lr = 1e-2", "-lr"),
        ["b", "a"]
    );
    assert_eq!(fixture.ids("tag = baby and status = done", "id"), ["b"]);
    assert_eq!(fixture.ids("tag != baby", "id"), ["a", "c"]);
    assert_eq!(fixture.ids("note ~ BLEW", "id"), ["c"]);
    assert_eq!(
        fixture.ids("started > 2001-09-09 and host = here", "-started"),
        ["c", "b", "a"]
    );
    assert_eq!(
        fixture.ids(&format!("seed = {}", u64::MAX), "seed"),
        ["c", "b", "a"]
    );

    let query = RunQuery {
        search: Some("FIRST".into()),
        limit: Some(5),
        ..RunQuery::default()
    };
    assert_eq!(
        fixture.registry.runs(&query).unwrap()[0].tags,
        ["baby", "first"]
    );

    let filter = Some(Filter::parse("status = done and los < 3").unwrap());
    let query = RunQuery {
        filter,
        ..RunQuery::default()
    };
    match fixture.registry.runs(&query).unwrap_err() {
        Error::Filter(error) => {
            assert_eq!(&error.text[error.span.clone()], "los");
            assert_eq!(error.hint.as_deref(), Some("did you mean `loss`?"));
        }
        error => panic!("{error}"),
    }
    let query = RunQuery {
        sort: Some("-tokns".into()),
        ..RunQuery::default()
    };
    assert!(fixture.registry.runs(&query).unwrap_err().is_mistake());
    assert!(fixture.registry.remove_tag("b", "baby").unwrap());
    assert!(!fixture.registry.remove_tag("b", "baby").unwrap());
}

#[test]
fn a_condition_on_a_metric_reads_one_point_of_each_curve() {
    let fixture = Fixture::new();
    let explain = format!("EXPLAIN QUERY PLAN {}", metric_facts());
    let steps = fixture
        .registry
        .list(&explain, ["loss"], |row| row.get::<_, String>(3));
    let steps = steps.unwrap().join("\n");
    assert!(steps.contains("SEARCH points USING PRIMARY KEY (series_id=? AND step=?)"));
    assert!(!steps.contains("SCAN points"), "{steps}");
}

#[test]
fn a_run_that_hit_shows_the_numbers_of_the_execution_that_made_it() {
    let fixture = Fixture::new();
    fixture.run("a", "1", 2.0);
    let mut hit = StageRecord {
        run_id: "b".into(),
        name: "renamed".into(),
        outcome: Outcome::Hit,
        execution_id: Some("e-a".into()),
        inputs: "{}".into(),
        settings: "{}".into(),
        ..StageRecord::default()
    };
    fixture.registry.upsert_stage(&hit).unwrap();
    hit.reason = Some("made by a".into());
    fixture.registry.upsert_stage(&hit).unwrap();
    let last = fixture.registry.final_metrics("b").unwrap();
    assert_eq!(last.len(), 1);
    assert_eq!(
        (last[0].stage.as_str(), last[0].step, last[0].value),
        ("renamed", Some(3), 2.0)
    );
    hit.reason = Some("made by a, a while ago".into());
    hit.artifact = Some(Digest::of_bytes(b"ignored"));
    fixture.registry.set_stage_outcome(&hit).unwrap();
    let stages = fixture.registry.stages("b").unwrap();
    assert_eq!(stages[0].artifact, None);
    assert_eq!(stages[0].reason.as_deref(), Some("made by a, a while ago"));
    assert_eq!(fixture.registry.executions("b").unwrap(), []);
    let executions = fixture.registry.executions("a").unwrap();
    assert_eq!(
        (executions[0].status, executions[0].peak_memory_bytes),
        (Status::Done, Some(7))
    );
    assert_eq!(
        fixture.registry.execution("e-a").unwrap().as_ref(),
        executions.first()
    );
}

#[test]
fn plan_finds_the_last_stage_of_the_experiment_or_of_its_file() {
    let fixture = Fixture::new();
    fixture.run("a", "1", 2.0);
    fixture.run("b", "2", 2.0);
    let last = |experiment, file, stage| {
        let last = fixture
            .registry
            .last_stage(experiment, file, stage)
            .unwrap();
        last.and_then(|last| last.recipe)
    };
    assert_eq!(
        last("tiny", "other.yaml", "base").as_deref(),
        Some("train.lr = 2")
    );
    assert_eq!(
        last("renamed", "tiny.yaml", "base").as_deref(),
        Some("train.lr = 2")
    );
    assert_eq!(last("tiny", "tiny.yaml", "other"), None);
    fixture.registry.remove_run("b", 1).unwrap();
    assert_eq!(
        last("tiny", "tiny.yaml", "base").as_deref(),
        Some("train.lr = 1")
    );
}

#[test]
fn going_on_from_a_checkpoint_repeats_no_step() {
    let fixture = Fixture::new();
    let registry = &fixture.registry;
    registry
        .append_metrics(&curve("e", "loss", &[5.0, 4.0, 3.0, 2.0]))
        .unwrap();
    let last = MetricRow {
        step: None,
        ..curve("e", "loss", &[1.0]).remove(0)
    };
    registry.append_metrics(&[last]).unwrap();
    let sample = |step| (step, "hi".to_owned(), "there".to_owned());
    registry
        .append_samples("e", &[sample(Some(2)), sample(Some(4)), sample(None)], 1)
        .unwrap();
    registry.cut_metrics_after("e", 2).unwrap();
    registry
        .append_metrics(&curve("e", "loss", &[5.0, 4.0, 2.5]))
        .unwrap();
    let steps = |execution_id| {
        let series = registry.metric_series(execution_id, "loss", 100).unwrap();
        series
            .points
            .iter()
            .map(|point| (point.step, point.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(steps("e"), [(1, 5.0), (2, 4.0), (3, 2.5)]);
    assert_eq!(registry.samples("e").unwrap().len(), 1);

    let key = Digest::of_bytes(b"key");
    assert_eq!(registry.unfinished_execution(&key).unwrap(), None);
    for id in ["e", "later"] {
        let execution = NewExecution {
            id: id.into(),
            key: key.to_string(),
            started_at: id.len() as i64,
            ..NewExecution::default()
        };
        let dead = registry.unfinished_execution(&key).unwrap();
        assert_eq!(dead.as_deref(), (id == "later").then_some("e"));
        registry.insert_execution(&execution).unwrap();
    }
    registry.copy_metrics("e", "later").unwrap();
    registry.cut_metrics_after("later", 2).unwrap();
    registry
        .append_metrics(&curve("later", "loss", &[7.0]))
        .unwrap();
    assert_eq!(steps("later"), [(1, 7.0), (2, 4.0)]);
    // The first keeps its own outcome.
    assert_eq!(steps("e"), [(1, 5.0), (2, 4.0), (3, 2.5)]);
    assert_eq!(registry.samples("e").unwrap().len(), 1);
    assert_eq!(registry.metric_names("later").unwrap(), ["loss"]);
}

#[test]
fn a_run_under_a_clock_that_is_ahead_does_not_stay_the_last() {
    let fixture = Fixture::new();
    for (id, started_at) in [("b", 4_000_000_000_000), ("a", 1_000_000_000_000)] {
        let run = Run {
            id: id.into(),
            experiment: "tiny".into(),
            started_at,
            ..Run::default()
        };
        fixture
            .registry
            .insert_run(&run, &RunSource::default())
            .unwrap();
    }
    assert_eq!(fixture.registry.find_run("@last").unwrap().id, "a");
    let runs = fixture.registry.runs(&RunQuery::default()).unwrap();
    let ids: Vec<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
}

#[test]
fn numbers_that_are_none_come_back_as_they_were() {
    let fixture = Fixture::new();
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3.0, -0.5];
    fixture
        .registry
        .append_metrics(&curve("e", "x", &values))
        .unwrap();
    let series = fixture.registry.metric_series("e", "x", 100).unwrap();
    let read: Vec<String> = series
        .points
        .iter()
        .map(|point| point.value.to_string())
        .collect();
    assert_eq!(read, ["NaN", "inf", "-inf", "3", "-0.5"]);
}

#[test]
fn many_curves_read_at_once_are_those_read_one_by_one() {
    let fixture = Fixture::new();
    let mut curves = Vec::new();
    for i in 0..50 {
        let values: Vec<f64> = (0..30).map(|step| f64::from(step * i)).collect();
        fixture
            .registry
            .append_metrics(&curve(&format!("e{i}"), "loss", &values))
            .unwrap();
        curves.push((format!("e{i}"), "loss".to_owned()));
    }
    curves.push(("none".into(), "loss".into()));
    let together = fixture
        .registry
        .metric_series_of(&curves, &ALL_STEPS, Thinning::even(10))
        .unwrap();
    let alone: Vec<Series> = curves
        .iter()
        .map(|(id, name)| fixture.registry.metric_series(id, name, 10).unwrap())
        .collect();
    assert_eq!(together, alone);
    assert_eq!(together[3].n_points, 30);
}

#[test]
fn two_runs_never_share_a_name_and_resume_keeps_it() {
    let fixture = Fixture::new();
    let name = fixture.run("a", "1", 1.0);
    assert_eq!(name, crate::names::run_name("a"));
    let update = "UPDATE runs SET id = 'other' WHERE id = 'a'";
    fixture.registry.connection.execute(update, []).unwrap();
    let longer = fixture.run("a", "1", 1.0);
    assert!(
        longer.starts_with(&name) && longer.len() == name.len() + 1,
        "{longer}"
    );
    let again = Run {
        id: "a".into(),
        ..Run::default()
    };
    assert_eq!(
        fixture
            .registry
            .insert_run(&again, &RunSource::default())
            .unwrap(),
        longer
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_thinned_curve_is_part_of_the_whole_and_keeps_its_ends_and_extremes(
        steps in prop::collection::btree_set(0_u64..2000, 1..400),
        points_max in 4_usize..100,
        is_log: bool,
    ) {
        let points: Vec<Point> = steps
            .iter()
            .map(|&step| Point { step, value: (step * 7919 % 1009) as f64, at: 0 })
            .collect();
        let mut thinner = Thinner::new(Thinning { points_max, is_log });
        thinner.last_step = points.last().unwrap().step;
        points.iter().for_each(|&point| thinner.add(point));
        let thinned = thinner.finish();
        prop_assert!(thinned.len() <= points_max, "{} of {points_max}", thinned.len());
        prop_assert!(thinned.windows(2).all(|pair| pair[0].step < pair[1].step));
        prop_assert!(thinned.iter().all(|point| points.contains(point)));
        prop_assert_eq!(thinned.first(), points.first());
        prop_assert_eq!(thinned.last(), points.last());
        let highest = |points: &[Point]| points.iter().map(|p| p.value as u64).max();
        let lowest = |points: &[Point]| points.iter().map(|p| p.value as u64).min();
        prop_assert_eq!(highest(&thinned), highest(&points));
        prop_assert_eq!(lowest(&thinned), lowest(&points));
    }
}

#[test]
fn each_decade_of_a_curve_that_is_thinned_for_decades_has_points() {
    let mut thinner = Thinner::new(Thinning {
        points_max: 100,
        is_log: true,
    });
    thinner.last_step = 100_000;
    for step in 0..=100_000 {
        let value = (step % 7) as f64;
        thinner.add(Point { step, value, at: 0 });
    }
    let thinned = thinner.finish();
    for decade in [1..10, 10..100, 100..1_000, 1_000..10_000, 10_000..100_000] {
        let n = thinned.iter().filter(|point| decade.contains(&point.step));
        // Ten parts of two points each, and one more where a part lies across the decade's end.
        assert!((8..=21).contains(&n.count()), "{decade:?} of {thinned:?}");
    }
}

#[test]
fn the_load_of_the_machine_is_neither_a_result_nor_anybody_elses() {
    let fixture = Fixture::new();
    fixture.run("a", "1", 3.0);
    let registry = &fixture.registry;
    let load = curve("e-a", crate::load::MEMORY, &[1e9, 2e9, 3e9]);
    registry.append_metrics(&load).unwrap();
    let finals = registry.final_metrics("a").unwrap();
    assert!(
        finals
            .iter()
            .all(|metric| metric.name != crate::load::MEMORY)
    );
    let query = RunQuery {
        filter: Some(Filter::parse("system/memory > 0").unwrap()),
        ..RunQuery::default()
    };
    assert!(registry.runs(&query).is_err(), "no run is judged by it");
    // Steps are taken back, and seconds are not.
    registry.cut_metrics_after("e-a", 1).unwrap();
    let memory = |id| registry.metric_series(id, crate::load::MEMORY, 10).unwrap();
    assert_eq!(memory("e-a").n_points, 3);
    registry.copy_metrics("e-a", "later").unwrap();
    assert_eq!(memory("later").n_points, 0);
}

#[test]
fn a_bare_metric_is_that_of_the_last_model() {
    let fixture = Fixture::new();
    fixture.run("r", "1", 3.0);
    // The base model is measured last as far as the plan goes, and was worse.
    let stages = [
        ("tuned", 1, "base", None),
        ("after", 2, "tuned", Some(15.0)),
        ("before", 3, "base", Some(2820.0)),
    ];
    for (name, position, reads, perplexity) in stages {
        let execution = NewExecution {
            id: name.into(),
            run_id: "r".into(),
            stage: name.into(),
            ..NewExecution::default()
        };
        let stage = StageRecord {
            run_id: "r".into(),
            name: name.into(),
            position,
            outcome: Outcome::Made,
            execution_id: Some(name.into()),
            inputs: format!(r#"{{"model":["{reads}"]}}"#),
            settings: "{}".into(),
            ..StageRecord::default()
        };
        fixture.registry.insert_execution(&execution).unwrap();
        fixture.registry.upsert_stage(&stage).unwrap();
        let row = |value| MetricRow {
            execution_id: name.into(),
            name: "perplexity".into(),
            step: None,
            value,
            at: 1,
        };
        let rows: Vec<MetricRow> = perplexity.map(row).into_iter().collect();
        fixture.registry.append_metrics(&rows).unwrap();
    }
    assert_eq!(fixture.ids("perplexity < 20", "perplexity"), ["r"]);
    assert!(fixture.ids("perplexity > 20", "perplexity").is_empty());
    assert_eq!(fixture.ids("before.perplexity > 20", "name"), ["r"]);
}
