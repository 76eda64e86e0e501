//! Laws and stories of histories that go from one home to another.

use super::*;
use crate::{Finished, Home, MetricRow, NewExecution, Run, RunSource, StageRecord};

/// A home of somebody's, with a registry.
fn somebody() -> (tempfile::TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(&Home::at(folder.path().join("home"))).unwrap();
    (folder, registry)
}

fn record(registry: &Registry, run_id: &str, execution: &str) {
    let run = Run {
        id: run_id.to_owned(),
        experiment: "small talk".to_owned(),
        ..Run::default()
    };
    let source = RunSource {
        text: "name: small talk".to_owned(),
        resolved: "{}".to_owned(),
    };
    registry.insert_run(&run, &source).unwrap();
    let stage = StageRecord {
        run_id: run_id.to_owned(),
        name: "base".to_owned(),
        execution_id: Some(execution.to_owned()),
        ..StageRecord::default()
    };
    registry.upsert_stage(&stage).unwrap();
    begin(registry, run_id, execution);
    let row = |step, value| MetricRow {
        execution_id: execution.to_owned(),
        name: "loss".to_owned(),
        step,
        value,
        at: 7,
    };
    let rows = [
        row(Some(1), 3.5),
        row(Some(2), f64::NAN),
        row(None, 0.1 + 0.2),
    ];
    registry.append_metrics(&rows).unwrap();
    let end = Finished {
        status: Status::Done,
        ..Finished::default()
    };
    registry.finish_execution(execution, &end).unwrap();
    registry.add_note(run_id, "worth keeping", 9).unwrap();
    registry
        .set_run_status(run_id, Status::Done, Some(8))
        .unwrap();
}

fn begin(registry: &Registry, run_id: &str, execution: &str) {
    let new = NewExecution {
        id: execution.to_owned(),
        run_id: run_id.to_owned(),
        ..NewExecution::default()
    };
    registry.insert_execution(&new).unwrap();
}

/// All that is told of a run but its place among others.
fn told(registry: &Registry, run_id: &str) -> Vec<String> {
    let lines = registry.write(|rows| Ok::<_, Failure>(history_of(rows, run_id)?));
    let mut lines = lines.unwrap();
    if let Some(Entry::Begun(begun)) = lines.first_mut() {
        begun.order = 0;
    }
    let is_mark = |line: &Entry| matches!(line, Entry::Event { message, .. } if message == CAME);
    lines.retain(|line| !is_mark(line));
    lines.iter().map(|line| format!("{line:?}")).collect()
}

fn is_refused(registry: &Registry, text: &[u8]) -> bool {
    matches!(registry.take_history(text), Err(Error::NoHistory(_)))
}

#[test]
fn a_run_arrives_with_all_that_is_known_of_it_and_outlives_the_index() {
    let (_ours, giver) = somebody();
    let (folder, taker) = somebody();
    record(&giver, "r1", "e1");
    record(&taker, "r0", "e0");
    let text = giver.history("r1").unwrap().unwrap();
    assert!(matches!(taker.take_history(&text).unwrap(), Taken::New(_)));
    assert_eq!(told(&taker, "r1"), told(&giver, "r1"));
    assert_eq!(
        taker.run("r1").unwrap().id,
        taker.find_run("@last").unwrap().id
    );
    taker.rebuild().unwrap();
    assert_eq!(told(&taker, "r1"), told(&giver, "r1"));
    drop(folder);
}

#[test]
fn what_is_known_here_stays_and_what_was_removed_here_may_come_again() {
    let (_ours, giver) = somebody();
    let (_theirs, taker) = somebody();
    record(&giver, "r1", "e1");
    let text = giver.history("r1").unwrap().unwrap();
    taker.take_history(&text).unwrap();
    taker.add_note("r1", "said here", 11).unwrap();
    let before = told(&taker, "r1");
    assert!(matches!(
        taker.take_history(&text).unwrap(),
        Taken::Known(_)
    ));
    assert_eq!(told(&taker, "r1"), before);
    taker.remove_run("r1", 12).unwrap();
    assert!(matches!(taker.take_history(&text).unwrap(), Taken::New(_)));
    assert_eq!(told(&taker, "r1"), told(&giver, "r1"));
}

#[test]
fn an_artifact_that_came_before_its_run_is_of_it_afterwards() {
    let (_ours, giver) = somebody();
    let (_theirs, taker) = somebody();
    record(&giver, "r1", "e1");
    begin(&taker, "r1", "e1");
    taker
        .take_history(&giver.history("r1").unwrap().unwrap())
        .unwrap();
    assert_eq!(told(&taker, "r1"), told(&giver, "r1"));
}

#[test]
fn what_speaks_of_others_is_refused_whole() {
    let (_ours, giver) = somebody();
    let (_theirs, taker) = somebody();
    record(&giver, "r1", "e1");
    record(&taker, "r2", "e2");
    let before = told(&taker, "r2");
    let text = String::from_utf8(giver.history("r1").unwrap().unwrap()).unwrap();
    for (what, with) in [
        ("\"e1\"", "\"e2\""),
        ("\"execution\":\"e1\"", "\"execution\":\"e2\""),
        ("\"run_id\":\"r1\"", "\"run_id\":\"r2\""),
        ("\"r1\"", "\"../r1\""),
        ("\"e1\"", "\"../../e1\""),
        (
            "{\"execution\"",
            "{\"removed\":{\"at\":1,\"n\":0}}\n{\"execution\"",
        ),
        ("{\"execution\"", "{\"nobody knows\":1}\n{\"execution\""),
        ("\"tinylm_journal\":1", "\"tinylm_journal\":2"),
        ("\"at\":9", "\"at\":-9223372036854775808"),
        ("\"experiment\":", "\"name\":\"../evil\",\"experiment\":"),
    ] {
        let forged = text.replace(what, with);
        assert_ne!(forged, text, "{what}");
        assert!(is_refused(&taker, forged.as_bytes()), "{what}: {with}");
    }
    for cut in [0, 10, text.len() / 2] {
        assert!(is_refused(&taker, &text.as_bytes()[..cut]), "{cut}");
    }
    assert_eq!(told(&taker, "r2"), before);
    assert!(matches!(taker.run("r1"), Err(Error::UnknownRun { .. })));
}

#[test]
fn of_a_run_that_broke_off_what_is_known_can_be_given() {
    let (_ours, giver) = somebody();
    let run = Run {
        id: "r1".to_owned(),
        ..Run::default()
    };
    giver.insert_run(&run, &RunSource::default()).unwrap();
    assert!(giver.history("r1").unwrap().is_some());
    assert!(giver.history("r9").unwrap().is_none());
}

#[test]
fn less_than_is_known_here_takes_nothing_away_and_more_is_taken() {
    let (_ours, giver) = somebody();
    let (_theirs, taker) = somebody();
    record(&giver, "r1", "e1");
    let whole = giver.history("r1").unwrap().unwrap();
    // The same run as it was before it came to an end.
    let text = String::from_utf8(whole.clone()).unwrap();
    let is_late = |line: &&str| line.contains("\"numbers\"") || line.contains("\"ended\"");
    let early: Vec<&str> = text.lines().filter(|line| !is_late(line)).collect();
    let early = early
        .join("\n")
        .replace("\"status\":\"done\"", "\"status\":\"cancelled\"")
        + "\n";

    taker.take_history(early.as_bytes()).unwrap();
    taker.add_note("r1", "said here", 11).unwrap();
    taker.add_tag("r1", "mine").unwrap();
    assert!(taker.came_from_elsewhere("r1").unwrap());
    assert!(
        matches!(taker.take_history(&whole).unwrap(), Taken::New(_)),
        "it says more"
    );
    assert_eq!(taker.final_numbers("e1").unwrap().len(), 1);
    assert!(
        taker
            .notes("r1")
            .unwrap()
            .iter()
            .any(|note| note.text == "said here")
    );
    assert_eq!(taker.run("r1").unwrap().tags, ["mine"]);
    assert!(matches!(
        taker.take_history(early.as_bytes()).unwrap(),
        Taken::Known(_)
    ));

    // Removed here, its numbers are still shown by whoever found its artifacts.
    taker.remove_run("r1", 12).unwrap();
    taker.take_history(early.as_bytes()).unwrap();
    assert_eq!(taker.final_numbers("e1").unwrap().len(), 1);
    taker.rebuild().unwrap();
    assert_eq!(taker.final_numbers("e1").unwrap().len(), 1);
}
