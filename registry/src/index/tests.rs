//! Laws and stories of a registry that is an index of journals.

use std::{fs, io::Write, path::PathBuf};

use proptest::prelude::*;
use rusqlite::types::Value;

use super::*;
use crate::{
    Finished, Home, Level, MetricRow, NewExecution, Outcome, Run, RunQuery, RunSource, StageRecord,
    Status, keys::tests::record as key_record,
};

/// A home, and the machines that use it.
struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        Fixture { folder }
    }

    fn home(&self) -> Home {
        Home::at(self.folder.path().join("home"))
    }

    /// The home as a machine sees it that shares it with others.
    fn seen_from(&self, machine: &str) -> Home {
        self.home().shared(&self.folder.path().join(machine))
    }

    fn open(&self) -> Registry {
        Registry::open(&self.home()).unwrap()
    }

    fn journal(&self, run_id: &str) -> PathBuf {
        self.folder
            .path()
            .join("home/runs")
            .join(run_id)
            .join(journal::DRIVER)
    }

    fn lose_registry(&self) {
        for file in [
            "registry.sqlite",
            "registry.sqlite-wal",
            "registry.sqlite-shm",
        ] {
            let _ = fs::remove_file(self.home().root().join(file));
        }
    }
}

fn begin(registry: &Registry, run_id: &str) {
    let run = Run {
        id: run_id.to_owned(),
        host: serde_json::json!({"cores": 2}),
        tags: vec!["first".to_owned()],
        seed: Some(u64::MAX),
        ..Run::default()
    };
    let source = RunSource {
        text: format!("name: {run_id}"),
        resolved: "{}".to_owned(),
    };
    registry.insert_run(&run, &source).unwrap();
}

fn execute(registry: &Registry, run_id: &str, execution: &str, at: i64) {
    let new = NewExecution {
        id: execution.to_owned(),
        run_id: run_id.to_owned(),
        started_at: at,
        threads: Some(2),
        ..NewExecution::default()
    };
    registry.insert_execution(&new).unwrap();
}

fn number(execution: &str, name: &str, step: Option<u64>, value: f64) -> MetricRow {
    MetricRow {
        execution_id: execution.to_owned(),
        name: name.to_owned(),
        step,
        value,
        at: 7,
    }
}

/// Every row there is, but for numbers that SQLite gave out and how far journals have been read.
fn rows(registry: &Registry) -> Vec<String> {
    let mut all = Vec::new();
    for (table, order) in [
        ("runs", "id"),
        ("stages", "run_id, name"),
        ("params", "run_id, name"),
        ("executions", "id"),
        ("metrics", "execution_id, name, step"),
        ("samples", "execution_id, rowid"),
        ("events", "run_id, rowid"),
        ("tags", "run_id, tag"),
        ("notes", "run_id, rowid"),
    ] {
        let select = format!("SELECT * FROM {table} ORDER BY {order}");
        let mut statement = registry.connection.prepare(&select).unwrap();
        let n_columns = statement.column_count();
        let read = statement
            .query_map([], |row| {
                let cells = (0..n_columns).map(|column| row.get::<_, Value>(column));
                Ok(format!(
                    "{table} {:?}",
                    cells.collect::<Result<Vec<_>, _>>()?
                ))
            })
            .unwrap();
        all.extend(read.map(Result::unwrap));
    }
    all
}

/// One of the things that can be recorded of one of three runs.
fn happen(registry: &Registry, what: u8, which: u8, n: u8) {
    let run_id = &format!("run{}", which % 3);
    let execution = &format!("e{which}");
    let (at, step) = (i64::from(n), u64::from(n % 10));
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.1 + 0.2];
    let value = special
        .get(usize::from(n))
        .copied()
        .unwrap_or(1.0 / f64::from(n));
    // Each execution stays the run's that began it.
    let is_begun = registry.execution(execution).unwrap().is_some();
    let stage = StageRecord {
        run_id: run_id.clone(),
        name: format!("stage{}", n % 2),
        outcome: if n.is_multiple_of(2) {
            Outcome::Made
        } else {
            Outcome::Running
        },
        execution_id: Some(execution.clone()),
        inputs: "{}".to_owned(),
        settings: "{\"a\": 1}".to_owned(),
        ..StageRecord::default()
    };
    match what % 14 {
        0 => begin(registry, run_id),
        1 => execute(registry, run_id, execution, 0),
        2 if is_begun => registry
            .append_metrics(&[
                number(execution, "loss", Some(step), value),
                number(execution, "lr", Some(step + 1), 0.5),
                number(execution, "loss", Some(step), value),
            ])
            .unwrap(),
        3 if is_begun => registry
            .append_metrics(&[number(execution, "loss", None, value)])
            .unwrap(),
        4 if is_begun => registry.cut_metrics_after(execution, step).unwrap(),
        5 if is_begun => {
            let sample = (Some(step), "how".to_owned(), format!("so {n}\n\"\u{1f980}"));
            registry
                .append_samples(execution, &[sample.clone(), sample], at)
                .unwrap();
        }
        6 if is_begun => registry.copy_metrics("e0", execution).unwrap(),
        7 if is_begun => {
            let end = Finished {
                status: Status::Done,
                ended_at: at,
                cpu_seconds: Some(value).filter(|value| value.is_finite()),
                error: Some("no".to_owned()),
                ..Finished::default()
            };
            registry.finish_execution(execution, &end).unwrap();
        }
        8 if is_begun => registry.set_place(execution, &format!("job {n}")).unwrap(),
        9 => registry.upsert_stage(&stage).unwrap(),
        10 => registry.set_stage_outcome(&stage).unwrap(),
        11 => {
            registry
                .append_event(run_id, Some("s"), Level::Warning, "odd", at)
                .unwrap();
            registry
                .insert_params(run_id, &[(format!("p{n}"), "1".to_owned(), false)])
                .unwrap();
        }
        12 => registry.add_tag(run_id, &format!("tag{}", n % 3)).unwrap(),
        13 => {
            registry
                .remove_tag(run_id, &format!("tag{}", n % 3))
                .unwrap();
            registry.add_note(run_id, "well", at).unwrap();
            registry
                .set_run_status(run_id, Status::Failed, Some(at))
                .unwrap();
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_read_out_of_the_journals_is_what_was_recorded(
        happenings in prop::collection::vec((any::<u8>(), 0_u8..6, any::<u8>()), 1..60),
    ) {
        let fixture = Fixture::new();
        let registry = fixture.open();
        (0..3).for_each(|which| happen(&registry, 0, which, 0));
        for (what, which, n) in happenings {
            happen(&registry, what, which, n);
        }
        let recorded = rows(&registry);
        registry.rebuild().unwrap();
        prop_assert_eq!(&rows(&registry), &recorded, "made again in place");
        drop(registry);
        fixture.lose_registry();
        prop_assert_eq!(&rows(&fixture.open()), &recorded, "made again after a loss");
        // And once more from journals that were written from what is known, not as it happened.
        fs::remove_dir_all(fixture.home().runs()).unwrap();
        fixture.open().rebuild().unwrap();
        fixture.lose_registry();
        prop_assert_eq!(&rows(&fixture.open()), &recorded, "written anew and read again");
    }
}

#[test]
fn runs_keep_their_order_and_names_when_the_registry_is_lost() {
    let fixture = Fixture::new();
    let registry = fixture.open();
    // Their ids, which are also the names of their folders, are in another order.
    for run_id in ["c", "a", "b"] {
        begin(&registry, run_id);
    }
    let listed = |registry: &Registry| {
        let runs = registry.runs(&RunQuery::default()).unwrap();
        runs.into_iter()
            .map(|run| (run.id, run.name))
            .collect::<Vec<_>>()
    };
    let before = listed(&registry);
    assert_eq!(
        before.iter().map(|run| run.0.as_str()).collect::<Vec<_>>(),
        ["b", "a", "c"]
    );
    drop(registry);
    fixture.lose_registry();
    assert_eq!(listed(&fixture.open()), before);
}

#[test]
fn a_line_whose_row_was_never_written_is_read_by_whoever_writes_next() {
    let fixture = Fixture::new();
    let registry = fixture.open();
    begin(&registry, "r");
    execute(&registry, "r", "e", 1);
    // As a process leaves it that dies between the two.
    let line = serde_json::to_string(&Entry::numbers("e", &[number("e", "loss", Some(1), 3.0)]));
    let mut journal = fs::OpenOptions::new()
        .append(true)
        .open(fixture.journal("r"))
        .unwrap();
    writeln!(journal, "{}", line.unwrap()).unwrap();
    registry
        .append_metrics(&[number("e", "loss", Some(2), 2.0)])
        .unwrap();
    let series = registry.metric_series("e", "loss", 10).unwrap();
    let values: Vec<f64> = series.points.iter().map(|point| point.value).collect();
    assert_eq!(values, [3.0, 2.0]);
    assert_eq!(registry.unread_lines().unwrap(), 0);
}

#[test]
fn a_torn_line_costs_itself_and_nothing_after_it() {
    let fixture = Fixture::new();
    let registry = fixture.open();
    begin(&registry, "r");
    let mut journal = fs::OpenOptions::new()
        .append(true)
        .open(fixture.journal("r"))
        .unwrap();
    write!(journal, "{{\"status\":{{\"sta").unwrap();
    registry.set_run_status("r", Status::Done, Some(2)).unwrap();
    registry
        .append_event("r", None, Level::Info, "after", 3)
        .unwrap();
    assert_eq!(registry.run("r").unwrap().status, Status::Done);
    assert_eq!(registry.unread_lines().unwrap(), 1);
    let recorded = rows(&registry);
    drop(registry);
    fixture.lose_registry();
    let registry = fixture.open();
    assert_eq!(rows(&registry), recorded);
    assert_eq!(registry.unread_lines().unwrap(), 1);
}

#[test]
fn a_journal_that_lost_its_end_or_is_lost_is_written_anew_by_who_knows_more() {
    let fixture = Fixture::new();
    let registry = fixture.open();
    begin(&registry, "r");
    registry.add_note("r", "before", 1).unwrap();
    let journal = fixture.journal("r");
    let damages: [&dyn Fn(); 4] = [
        &|| {
            let bytes = fs::read(&journal).unwrap();
            fs::write(&journal, &bytes[..bytes.len() / 2]).unwrap();
        },
        &|| fs::write(&journal, "").unwrap(),
        &|| fs::write(&journal, "no journal\n".repeat(1000)).unwrap(),
        &|| fs::remove_dir_all(fixture.home().runs()).unwrap(),
    ];
    for (idx, damage) in damages.iter().enumerate() {
        damage();
        let told = format!("after damage {idx}");
        registry
            .append_event("r", None, Level::Info, &told, 2)
            .unwrap();
        registry
            .append_event("r", None, Level::Info, "and on", 3)
            .unwrap();
        let recorded = rows(&registry);
        assert!(
            recorded.iter().any(|row| row.contains(&told)),
            "{recorded:#?}"
        );
        registry.rebuild().unwrap();
        assert_eq!(rows(&registry), recorded, "damage {idx}");
    }
}

#[test]
fn a_journal_that_cannot_be_read_is_told_of_and_left_alone_and_the_others_are_read() {
    let fixture = Fixture::new();
    begin(&fixture.open(), "newer");
    begin(&fixture.open(), "sound");
    let journal = fixture.journal("newer");
    let newer = fs::read_to_string(&journal).unwrap();
    let newer = newer.replace("\"tinylm_journal\":1", "\"tinylm_journal\":9");
    fs::write(&journal, &newer).unwrap();
    fixture.lose_registry();
    let registry = fixture.open();
    assert_eq!(registry.count_runs().unwrap(), 1);
    let path = journal.display();
    let told = format!("`{path}` has format 9, and this tinylm knows up to 1");
    assert_eq!(registry.faults(), [] as [String; 0], "told by who reads it");
    drop(registry);
    let shared = Registry::open(&fixture.seen_from("here")).unwrap();
    assert_eq!(shared.count_runs().unwrap(), 1);
    let shared = Registry::open(&fixture.seen_from("here")).unwrap();
    assert_eq!(shared.faults(), [told]);
    assert_eq!(fs::read_to_string(&journal).unwrap(), newer);
}

#[test]
fn a_registry_of_before_there_were_journals_gets_them_and_may_then_be_lost() {
    let fixture = Fixture::new();
    let registry = fixture.open();
    begin(&registry, "r");
    execute(&registry, "r", "e", 1);
    let curve: Vec<MetricRow> = (0..10_000)
        .map(|step| number("e", "loss", Some(step), 1.0 / (step + 1) as f64))
        .collect();
    registry.append_metrics(&curve).unwrap();
    let recorded = rows(&registry);
    fs::remove_dir_all(fixture.home().runs()).unwrap();
    let older = "DROP TABLE journals; PRAGMA user_version = 4";
    registry.connection.execute_batch(older).unwrap();
    drop(registry);
    drop(fixture.open());
    fixture.lose_registry();
    assert_eq!(rows(&fixture.open()), recorded);
}

#[test]
fn two_machines_see_each_others_runs_words_and_ends_through_the_journals_alone() {
    let fixture = Fixture::new();
    let here = Registry::open(&fixture.seen_from("here")).unwrap();
    begin(&here, "r");
    execute(&here, "r", "e", 1);
    let there = Registry::open(&fixture.seen_from("there")).unwrap();
    assert_eq!(rows(&there), rows(&here));
    assert!(
        !fixture.home().root().join("registry.sqlite").exists(),
        "each has its own"
    );

    let tide = there.tide().unwrap();
    here.append_metrics(&[number("e", "loss", Some(1), 3.0)])
        .unwrap();
    begin(&here, "another");
    there.add_note("r", "from there", 5).unwrap();
    std::thread::sleep(LOOK_EVERY);
    assert_ne!(there.tide().unwrap(), tide);
    let curve = there.metric_series("e", "loss", 10).unwrap();
    assert_eq!(
        curve.points.len(),
        1,
        "a curve is followed while its run goes on"
    );
    // Whoever opens the home anew has it all, whichever machine it is.
    let rows_here = rows(&Registry::open(&fixture.seen_from("here")).unwrap());
    assert_eq!(
        rows_here,
        rows(&Registry::open(&fixture.seen_from("there")).unwrap())
    );
    assert_eq!(
        rows_here,
        rows(&Registry::open(&fixture.seen_from("a third")).unwrap())
    );
    // The machine whose disk it is reads the journals too, though nothing tells it but a mark.
    assert!(fixture.home().may_be_shared());
}

#[test]
fn an_execution_that_a_later_run_adopts_is_that_runs_from_wherever_it_is_read() {
    let fixture = Fixture::new();
    let here = Registry::open(&fixture.seen_from("here")).unwrap();
    begin(&here, "one");
    execute(&here, "one", "e", 10);
    here.append_metrics(&[number("e", "loss", Some(1), 3.0)])
        .unwrap();
    let there = Registry::open(&fixture.seen_from("there")).unwrap();
    begin(&there, "two");
    execute(&there, "two", "e", 20);
    there
        .append_metrics(&[number("e", "loss", Some(2), 2.0)])
        .unwrap();
    there
        .finish_execution(
            "e",
            &Finished {
                status: Status::Done,
                ended_at: 30,
                ..Finished::default()
            },
        )
        .unwrap();
    let recorded = rows(&there);
    for machine in ["here", "a third"] {
        let registry = Registry::open(&fixture.seen_from(machine)).unwrap();
        assert_eq!(rows(&registry), recorded, "{machine}");
        let execution = registry.execution("e").unwrap().unwrap();
        assert_eq!(
            (execution.run_id.as_str(), execution.status),
            ("two", Status::Done)
        );
    }
}

#[test]
fn what_one_machine_removes_for_good_is_gone_from_the_others_too() {
    let fixture = Fixture::new();
    let here = Registry::open(&fixture.seen_from("here")).unwrap();
    for run_id in ["kept", "gone"] {
        begin(&here, run_id);
        here.append_event(run_id, None, Level::Info, &"long ".repeat(1000), 1)
            .unwrap();
    }
    let there = Registry::open(&fixture.seen_from("there")).unwrap();
    there.add_tag("gone", "away").unwrap();
    there.remove_run("gone", 9).unwrap();
    let here = Registry::open(&fixture.seen_from("here")).unwrap();
    assert_eq!(here.runs(&RunQuery::default()).unwrap().len(), 1);
    here.forget_removed().unwrap();
    assert!(
        fs::metadata(fixture.journal("gone")).unwrap().len() < 1000,
        "its journal is short now"
    );
    let recorded = rows(&here);
    for machine in ["there", "a third"] {
        let registry = Registry::open(&fixture.seen_from(machine)).unwrap();
        assert_eq!(rows(&registry), recorded, "{machine}");
    }
    // A run whose journals somebody deleted is no run any more.
    fs::remove_dir_all(fixture.home().journals("kept")).unwrap();
    assert_eq!(
        Registry::open(&fixture.seen_from("there"))
            .unwrap()
            .count_runs()
            .unwrap(),
        0
    );
}

#[test]
fn a_registry_that_stood_in_a_home_which_is_shared_now_is_read_once_more_as_journals() {
    let fixture = Fixture::new();
    let registry = fixture.open();
    begin(&registry, "old");
    let recorded = rows(&registry);
    fs::remove_dir_all(fixture.home().runs()).unwrap();
    registry
        .connection
        .execute_batch("DROP TABLE journals; PRAGMA user_version = 4")
        .unwrap();
    drop(registry);
    let shared = Registry::open(&fixture.seen_from("here")).unwrap();
    assert_eq!(rows(&shared), recorded);
    // A key record of its run is still somebody's.
    let digest = crate::Digest::of_bytes(b"x");
    crate::keys::write_key(&fixture.home(), &key_record(digest, digest, "old")).unwrap();
    assert!(
        crate::gc::plan(&fixture.home(), &shared)
            .unwrap()
            .items
            .is_empty()
    );
}

#[test]
fn eight_processes_that_write_to_runs_of_their_own_leave_journals_that_say_it_all() {
    let fixture = Fixture::new();
    drop(fixture.open());
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let home = fixture.home();
            scope.spawn(move || {
                let registry = Registry::open(&home).unwrap();
                let run_id = format!("r{writer}");
                begin(&registry, &run_id);
                for at in 0..20 {
                    registry
                        .append_event(&run_id, None, Level::Info, "on", at)
                        .unwrap();
                    // And all of them to one, as people do.
                    registry
                        .add_note("r0", &format!("{writer} {at}"), at)
                        .unwrap();
                }
            });
        }
    });
    let registry = fixture.open();
    let recorded = rows(&registry);
    assert_eq!(registry.notes("r0").unwrap().len(), 160);
    registry.rebuild().unwrap();
    let again = rows(&registry);
    let sorted = |mut rows: Vec<String>| {
        rows.sort();
        rows
    };
    assert!(sorted(again) == sorted(recorded), "not the same rows");
    assert_eq!(registry.unread_lines().unwrap(), 0);
}

#[test]
fn an_execution_of_a_run_that_was_never_here_has_a_journal_too() {
    let fixture = Fixture::new();
    let registry = fixture.open();
    // As it is written down when its artifact comes from a shared store.
    execute(&registry, "elsewhere", "e", 1);
    registry
        .append_metrics(&[number("e", "documents", None, 3.0)])
        .unwrap();
    let recorded = rows(&registry);
    drop(registry);
    fixture.lose_registry();
    assert_eq!(rows(&fixture.open()), recorded);
    fs::remove_dir_all(fixture.home().runs()).unwrap();
    fixture.open().rebuild().unwrap();
    fixture.lose_registry();
    assert_eq!(rows(&fixture.open()), recorded);
}

#[test]
fn a_registry_that_is_made_again_beneath_a_run_gets_its_numbers_right() {
    let fixture = Fixture::new();
    let running = fixture.open();
    for (run_id, execution) in [("b", "e1"), ("a", "e2")] {
        begin(&running, run_id);
        execute(&running, run_id, execution, 1);
    }
    // In an order in which the series are numbered otherwise when they are read again.
    for name in ["loss", "lr"] {
        running
            .append_metrics(&[number("e2", name, Some(1), 1.0)])
            .unwrap();
        running
            .append_metrics(&[number("e1", name, Some(1), 2.0)])
            .unwrap();
    }
    fixture.open().rebuild().unwrap();
    running
        .append_metrics(&[number("e1", "loss", Some(2), 3.0)])
        .unwrap();
    let values = |execution: &str| -> Vec<f64> {
        let series = running.metric_series(execution, "loss", 10).unwrap();
        series.points.iter().map(|point| point.value).collect()
    };
    assert_eq!((values("e1"), values("e2")), (vec![2.0, 3.0], vec![1.0]));
}

#[test]
fn what_two_machines_say_of_a_run_is_put_in_order_whenever_it_is_heard() {
    let fixture = Fixture::new();
    let here = Registry::open(&fixture.seen_from("here")).unwrap();
    begin(&here, "r");
    here.add_tag("r", "good").unwrap();
    let folder = fixture.home().journals("r");
    let name = journal::words_file();
    // What another machine said before, and what is heard only now.
    let other = folder.below("words-other-0.jsonl");
    journal::make(
        &other,
        "r",
        &[Entry::Untag {
            tag: "good".to_owned(),
            n: 0,
        }],
    )
    .unwrap();
    for machine in ["here", "a third"] {
        let registry = Registry::open(&fixture.seen_from(machine)).unwrap();
        assert_eq!(registry.tags("r").unwrap(), ["first", "good"], "{machine}");
    }
    assert!(folder.below(name).exists());
}

#[test]
fn making_the_registry_again_loses_nothing_that_only_it_knows() {
    let fixture = Fixture::new();
    let registry = fixture.open();
    begin(&registry, "r");
    registry
        .append_event("r", None, Level::Info, "said", 1)
        .unwrap();
    let recorded = rows(&registry);
    // As a power cut leaves a file that was never flushed.
    for n_lost in [1, 2, 100, usize::MAX] {
        let whole = fs::read(fixture.journal("r")).unwrap();
        let n_left = whole.len().saturating_sub(n_lost);
        fs::write(fixture.journal("r"), &whole[..n_left]).unwrap();
        registry.rebuild().unwrap();
        assert_eq!(rows(&registry), recorded, "{n_left} bytes left");
    }
}

#[test]
fn a_migration_that_was_cut_short_begins_again_and_an_old_backup_takes_what_the_journals_say() {
    let older = "DROP TABLE journals; PRAGMA user_version = 4";
    let fixture = Fixture::new();
    let registry = fixture.open();
    begin(&registry, "r");
    registry
        .append_event("r", None, Level::Info, "said", 1)
        .unwrap();
    let recorded = rows(&registry);
    registry.rebuild().unwrap();
    for n_left in [0, 10, 200] {
        let whole = fs::read(fixture.journal("r")).unwrap();
        registry.connection.execute_batch(older).unwrap();
        fs::write(fixture.journal("r"), &whole[..n_left]).unwrap();
        assert_eq!(rows(&fixture.open()), recorded, "{n_left} bytes left");
    }
    // The backup is put back after more has been recorded.
    let backup = fixture.folder.path().join("backup.sqlite");
    let copy = format!("VACUUM INTO '{}'", backup.display());
    registry.connection.execute_batch(&copy).unwrap();
    registry
        .append_event("r", None, Level::Info, "later", 2)
        .unwrap();
    let later = rows(&registry);
    drop(registry);
    fixture.lose_registry();
    fs::rename(backup, fixture.home().registry_path()).unwrap();
    let backup = rusqlite::Connection::open(fixture.home().registry_path()).unwrap();
    backup.execute_batch(older).unwrap();
    drop(backup);
    assert_eq!(rows(&fixture.open()), later);
}
