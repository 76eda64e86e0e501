//! How long comparing a thousand runs takes, and a report of the last one among them.
//!
//! `cargo bench -p tinylm-reports --bench compare [-- RUNS POINTS]`. The registry is filled first,
//! which takes far longer than reading it; the figures to reach are two seconds and 100 ms.

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    io::{self, Write},
    time::Instant,
};

use common::{Recorded, START_MS, record};
use tinylm_registry::{Home, Registry, RunQuery};
use tinylm_reports::{ReportOptions, Selection, compare, html, read, read_all, sections, terminal};

/// Each figure is the middle one of so many.
const REPEATS: usize = 5;

fn main() {
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|word| word.parse::<u64>().ok());
    let (n_runs, n_points) = (
        numbers.next().unwrap_or(1_000),
        numbers.next().unwrap_or(10_000),
    );
    let folder = tempfile::tempdir().unwrap();
    let home = Home::at(folder.path());
    let filling = Instant::now();
    {
        let registry = Registry::open(&home).unwrap();
        let mut first = None;
        for idx in 0..n_runs {
            let recorded = Recorded {
                lr: 1e-3 + (idx % 10) as f64 * 1e-4,
                seed: idx / 10,
                n_points,
                data_of: first.as_deref(),
                started_ms: START_MS + idx as i64,
                ..Recorded::default()
            };
            let id = record(&registry, &recorded);
            first.get_or_insert(id);
        }
    }
    say(&format!(
        "{n_runs} runs of {n_points} points written in {:.1} s",
        filling.elapsed().as_secs_f64()
    ));

    let comparing = middle(|| {
        let registry = Registry::open_to_read(&home).unwrap().unwrap();
        let runs = registry.runs(&RunQuery::default()).unwrap();
        let options = ReportOptions::for_runs(runs.len(), START_MS, &[]);
        let comparison = compare(
            read_all(&registry, &runs, &options).unwrap(),
            &Selection::default(),
        )
        .unwrap();
        let text = terminal::print(
            &sections::of_comparison(&comparison),
            &terminal::TerminalOptions::default(),
        );
        assert!(text.contains(&format!("{}", runs.len() % 1_000)));
    });
    say(&format!("comparing all of them: {:.0} ms", comparing * 1e3));
    let shelf = ReportOptions {
        curves: vec!["none".to_owned()],
        ..ReportOptions::for_runs(1, START_MS, &[])
    };
    let listing = middle(|| {
        let registry = Registry::open_to_read(&home).unwrap().unwrap();
        let runs = registry.runs(&RunQuery::default()).unwrap();
        assert!(!read_all(&registry, &runs, &shelf).unwrap().is_empty());
    });
    say(&format!(
        "of that all but the curves: {:.0} ms",
        listing * 1e3
    ));
    let paging = middle(|| {
        let registry = Registry::open_to_read(&home).unwrap().unwrap();
        let runs = registry.runs(&RunQuery::default()).unwrap();
        let options = ReportOptions::for_runs(runs.len(), START_MS, &[]);
        let comparison = compare(
            read_all(&registry, &runs, &options).unwrap(),
            &Selection::default(),
        )
        .unwrap();
        assert!(html::print(&sections::of_comparison(&comparison)).len() > 10_000);
    });
    say(&format!("the same as a page: {:.0} ms", paging * 1e3));
    let last = middle(|| {
        let registry = Registry::open_to_read(&home).unwrap().unwrap();
        let run = registry.find_run("@last").unwrap();
        let report = read(&registry, &run, &ReportOptions::for_runs(1, START_MS, &[])).unwrap();
        assert!(
            terminal::print(
                &sections::of_report(&report, &[]),
                &terminal::TerminalOptions {
                    is_full: true,
                    ..terminal::TerminalOptions::default()
                },
            )
            .contains("loss")
        );
    });
    say(&format!("a report of the last one: {:.1} ms", last * 1e3));
}

fn middle(mut work: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[REPEATS / 2]
}

fn say(line: &str) {
    // A bench that cannot be heard has nothing to say.
    let _ = writeln!(io::stdout(), "{line}");
}
