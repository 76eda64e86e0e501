//! Reports of runs that stand in a real registry.

mod common;

use common::{Recorded, START_MS, record};
use tinylm_registry::{Home, Outcome, Registry, Status};
use tinylm_reports::{
    Comparison, Report, ReportOptions, Selection, Sort, compare, data, markdown, read, read_all,
    sections, terminal,
};

struct Shelf {
    registry: Registry,
    _folder: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Shelf {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&Home::at(folder.path())).unwrap();
        Shelf {
            registry,
            _folder: folder,
        }
    }

    fn read(&self, run_id: &str) -> Report {
        let run = self.registry.run(run_id).unwrap();
        read(
            &self.registry,
            &run,
            &ReportOptions::for_runs(1, START_MS + 200_000, &[]),
        )
        .unwrap()
    }

    fn compare(
        &self,
        run_ids: &[&str],
        selection: &Selection,
    ) -> Result<Comparison, tinylm_reports::Error> {
        let runs: Vec<_> = run_ids
            .iter()
            .map(|id| self.registry.run(id).unwrap())
            .collect();
        let options = ReportOptions::for_runs(runs.len(), START_MS + 200_000, &selection.metrics);
        compare(
            read_all(&self.registry, &runs, &options).unwrap(),
            selection,
        )
    }
}

#[test]
fn a_run_is_read_whole() {
    let shelf = Shelf::new();
    let report = shelf.read(&record(&shelf.registry, &Recorded::default()));
    assert_eq!(report.question, "Does a small model learn?");
    assert_eq!(report.elapsed_seconds, 101.0);
    assert_eq!(
        report
            .stages
            .iter()
            .map(|stage| stage.row.outcome)
            .collect::<Vec<_>>(),
        [Outcome::Made, Outcome::Made]
    );
    let loss = report.curve("base", "loss").unwrap();
    assert_eq!((loss.n_points, loss.points.len()), (200, 200));
    assert_eq!(loss.points[9].tokens, Some(25_600.0));
    assert!((loss.points[100].seconds - 50.0).abs() < 0.1);
    assert!(report.final_value("base", "validation_loss").is_some());
    assert_eq!(report.samples_last().len(), 1);
    let text = terminal::print(
        &sections::of_report(&report, &[]),
        &terminal::TerminalOptions {
            is_full: true,
            ..terminal::TerminalOptions::default()
        },
    );
    assert!(
        text.contains("7f2c1e9d0b3a4c5d6e7f8091a2b3c4d5e6f70812"),
        "the download's revision is named:\n{text}"
    );
}

#[test]
fn a_hit_shows_what_the_run_that_made_it_recorded() {
    let shelf = Shelf::new();
    let first = record(&shelf.registry, &Recorded::default());
    let second = record(
        &shelf.registry,
        &Recorded {
            data_of: Some(&first),
            ..Recorded::default()
        },
    );
    let report = shelf.read(&second);
    let execution = report.stages[0].execution.as_ref().unwrap();
    assert_eq!(execution.run_id, first);
    assert_eq!(
        report.stages[0].made_by,
        shelf.registry.run(&first).unwrap().name
    );
    assert_eq!(execution.origin.as_ref().unwrap()["hub"], "someone/dialogs");
    let cost = report.cost();
    assert_eq!((cost.n_made, cost.n_hit), (1, 1));
    assert_eq!(cost.stages_seconds, 100.5);
}

#[test]
fn a_run_whose_process_is_gone_is_interrupted() {
    let shelf = Shelf::new();
    let id = record(&shelf.registry, &Recorded::default());
    shelf
        .registry
        .set_run_status(&id, Status::Running, None)
        .unwrap();
    let report = shelf.read(&id);
    assert_eq!(report.run.status, Status::Interrupted);
    assert!(
        report.elapsed_seconds >= 100.0,
        "it lasted until the last that is known of it"
    );
}

#[test]
fn two_runs_differ_in_what_was_changed_and_nothing_else() {
    let shelf = Shelf::new();
    let first = record(&shelf.registry, &Recorded::default());
    let second = record(
        &shelf.registry,
        &Recorded {
            lr: 3e-3,
            data_of: Some(&first),
            ..Recorded::default()
        },
    );
    let comparison = shelf
        .compare(&[&first, &second], &Selection::default())
        .unwrap();
    let differing: Vec<&str> = comparison
        .settings
        .iter()
        .map(|row| row.name.as_str())
        .collect();
    assert_eq!(differing, ["base.train.lr"]);
    let main = comparison.main_row().unwrap();
    assert_eq!(
        (main.full_name().as_str(), main.is_best.as_slice()),
        ("base.validation_loss", [false, true].as_slice())
    );
    assert!(main.changes[1].unwrap() < 0.0);
    assert_eq!(
        comparison
            .shared
            .iter()
            .map(|stage| stage.stage.as_str())
            .collect::<Vec<_>>(),
        ["data"]
    );
    assert_eq!(comparison.samples.len(), 1);
}

#[test]
fn runs_are_sorted_by_what_is_asked_and_what_is_missing_comes_last() {
    let shelf = Shelf::new();
    let ids: Vec<String> = [3e-3, 1e-3, 2e-3]
        .map(|lr| {
            record(
                &shelf.registry,
                &Recorded {
                    lr,
                    ..Recorded::default()
                },
            )
        })
        .to_vec();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let sorted = |by: &str| {
        let selection = Selection {
            sort: Some(Sort::parse(by)),
            ..Selection::default()
        };
        let comparison = shelf.compare(&ids, &selection).unwrap();
        comparison
            .runs
            .iter()
            .map(|report| ids.iter().position(|id| *id == report.run.id).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(sorted("validation_loss"), [0, 2, 1]);
    assert_eq!(sorted("-base.validation_loss"), [1, 2, 0]);
    assert_eq!(sorted("lr"), [1, 2, 0]);
    let unknown = Selection {
        sort: Some(Sort::parse("nonsense")),
        ..Selection::default()
    };
    assert_eq!(
        shelf.compare(&ids, &unknown).unwrap_err().to_string(),
        "runs cannot be sorted by `nonsense`"
    );
    let unknown = Selection {
        metrics: vec!["lsos".to_owned()],
        ..Selection::default()
    };
    assert_eq!(
        shelf.compare(&ids, &unknown).unwrap_err().to_string(),
        "no run has a metric `lsos`"
    );
}

#[test]
fn a_loss_that_is_no_number_stays_what_it_is_in_every_format() {
    let shelf = Shelf::new();
    let diverged = Recorded {
        loss: |_, share| if share < 0.5 { 5.0 } else { f64::NAN },
        ..Recorded::default()
    };
    let ids = [
        record(&shelf.registry, &Recorded::default()),
        record(&shelf.registry, &diverged),
    ];
    let comparison = shelf
        .compare(&[&ids[0], &ids[1]], &Selection::default())
        .unwrap();
    assert_eq!(comparison.main_row().unwrap().is_best, [true, false]);
    let json: serde_json::Value = serde_json::from_str(&data::json(&comparison)).unwrap();
    let main = json["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["metric"] == "validation_loss")
        .unwrap();
    assert_eq!(main["values"][1], "nan");
    assert!(
        data::comparison_csv(&comparison)
            .lines()
            .nth(2)
            .unwrap()
            .contains("nan")
    );
    assert!(markdown::print(&sections::of_comparison(&comparison)).contains("NaN"));
    assert!(
        terminal::print(
            &sections::of_comparison(&comparison),
            &terminal::TerminalOptions::default()
        )
        .contains("NaN")
    );
}

#[test]
fn csv_keeps_names_with_commas_and_quotes_apart() {
    let shelf = Shelf::new();
    let odd = Recorded {
        experiment: "=a,\"b\"\nc",
        ..Recorded::default()
    };
    let ids = [record(&shelf.registry, &odd), record(&shelf.registry, &odd)];
    let comparison = shelf
        .compare(&[&ids[0], &ids[1]], &Selection::default())
        .unwrap();
    let csv = data::comparison_csv(&comparison);
    assert!(csv.contains(",\"'=a,\"\"b\"\"\nc\","), "{csv}");
}

#[test]
fn an_overview_of_many_runs_still_knows_their_tokens() {
    let shelf = Shelf::new();
    let id = record(&shelf.registry, &Recorded::default());
    let run = shelf.registry.run(&id).unwrap();
    let options = ReportOptions::for_runs(1_000, START_MS, &[]);
    let report = read(&shelf.registry, &run, &options).unwrap();
    let metrics: Vec<&str> = report
        .curves
        .iter()
        .map(|curve| curve.metric.as_str())
        .collect();
    assert_eq!(metrics, ["loss", "validation_loss"]);
    let loss = report.curve("base", "loss").unwrap();
    assert!(loss.points.len() <= 160 && loss.n_points == 200);
    let last = loss.points.last().unwrap();
    assert_eq!((last.step, last.tokens), (200, Some(512_000.0)));
}
