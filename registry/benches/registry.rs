//! What the promises of this crate cost: `cargo bench -p tinylm-registry`.
//!
//! Prints one line a figure. The files are made in the folder named by the first argument (not
//! starting with `-`), else in the system's temporary one, and deleted again.

use std::{fs::File, io::Write, path::Path, time::Instant};

use tinylm_registry::{
    ALL_STEPS, Condition, Filter, Home, MetricRow, NewExecution, Registry, Run, RunQuery,
    RunSource, StageRecord, StatCache, Store, Thinning, hash_file, names,
};

fn main() {
    let folder = match std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
    {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let folder = folder.expect("a temporary folder");
    hashing(folder.path());
    checking(folder.path());
    opening(folder.path());
    writing(folder.path());
    comparing(folder.path());
}

fn hashing(folder: &Path) {
    const BYTES: usize = 1 << 30;
    let path = folder.join("gigabyte");
    let block: Vec<u8> = (0..1 << 20).map(|i| (i * 31 % 251) as u8).collect();
    let mut file = File::create(&path).unwrap();
    for _ in 0..BYTES / block.len() {
        file.write_all(&block).unwrap();
    }
    drop(file);
    let seconds = best(3, || {
        hash_file(&path).unwrap();
    });
    report(
        "hash 1 GiB from the page cache",
        seconds,
        rate(BYTES, seconds),
    );
    let buffer = vec![7_u8; 256 << 20];
    let seconds = best(3, || {
        blake3::Hasher::new().update_rayon(&buffer);
    });
    report(
        "blake3 on all cores, 256 MiB in memory",
        seconds,
        rate(buffer.len(), seconds),
    );
    std::fs::remove_file(&path).unwrap();
}

fn checking(folder: &Path) {
    let home = Home::at(folder.join("home"));
    let store = Store::new(home.clone());
    let digests: Vec<_> = (0..10)
        .map(|stage| {
            let out = home.work().below("out");
            out.create_folder().unwrap();
            for file in 0..6 {
                std::fs::write(out.join(format!("file-{file}")), format!("{stage} {file}"))
                    .unwrap();
            }
            let started = Instant::now();
            let digest = store.commit(&out).unwrap().digest;
            if stage == 9 {
                report(
                    "commit an artifact of 6 small files",
                    since(started),
                    String::new(),
                );
            }
            digest
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let check = || {
        for digest in &digests {
            assert!(matches!(
                store.condition(digest).unwrap(),
                Condition::Whole(_)
            ));
        }
    };
    check();
    report(
        "condition of 10 artifacts of 6 files",
        best(20, check),
        String::new(),
    );

    let corpus = folder.join("corpus.txt");
    std::fs::write(&corpus, "text").unwrap();
    let cache = home.stat_cache_path();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let recall = || {
        let cache = StatCache::load(Some(cache.clone()));
        cache.digest(&corpus).unwrap();
        cache.save().unwrap();
    };
    recall();
    report(
        "stat cache: load, look up, save",
        best(20, recall),
        String::new(),
    );
}

fn opening(folder: &Path) {
    let home = Home::at(folder.join("opening"));
    let started = Instant::now();
    drop(Registry::open(&home).unwrap());
    report("make a registry", since(started), String::new());
    let record = || {
        let registry = Registry::open(&home).unwrap();
        let id = names::new_id();
        registry
            .insert_run(&run(&id), &RunSource::default())
            .unwrap();
        let params: Vec<_> = (0..60)
            .map(|i| (format!("p{i}"), "1".to_owned(), true))
            .collect();
        registry.insert_params(&id, &params).unwrap();
        registry
            .set_run_status(&id, tinylm_registry::Status::Done, Some(1))
            .unwrap();
    };
    record();
    report(
        "open, record a run of 60 settings, close",
        best(20, record),
        String::new(),
    );
}

fn writing(folder: &Path) {
    let registry = Registry::open(&Home::at(folder.join("writing"))).unwrap();
    for execution in ["execution", "steps"] {
        begin(&registry, "run", execution);
    }
    let rows = rows("execution", 100_000);
    let started = Instant::now();
    for batch in rows.chunks(1000) {
        registry.append_metrics(batch).unwrap();
    }
    let seconds = since(started);
    let each = format!("{:.2} us a row", seconds * 1e6 / 1e5);
    report(
        "write 100,000 metric rows in batches of 1,000",
        seconds,
        each,
    );
    let started = Instant::now();
    for step in 0..200 {
        let batch = rows[step * 5..step * 5 + 5].iter();
        let batch: Vec<_> = batch
            .map(|row| MetricRow {
                execution_id: "steps".into(),
                ..row.clone()
            })
            .collect();
        registry.append_metrics(&batch).unwrap();
    }
    report(
        "write 5 numbers of one training step",
        since(started) / 200.0,
        String::new(),
    );
}

fn comparing(folder: &Path) {
    let home = Home::at(folder.join("comparing"));
    let registry = Registry::open(&home).unwrap();
    let mut curves = Vec::new();
    let started = Instant::now();
    for i in 0..1000 {
        let id = format!("{i:036}");
        registry
            .insert_run(&run(&id), &RunSource::default())
            .unwrap();
        let stage = StageRecord {
            run_id: id.clone(),
            name: "base".into(),
            execution_id: Some(id.clone()),
            ..StageRecord::default()
        };
        registry.upsert_stage(&stage).unwrap();
        begin(&registry, &id, &id);
        registry.append_metrics(&rows(&id, 10_000)).unwrap();
        curves.push((id, "loss".to_owned()));
    }
    report(
        "write 1,000 runs of 10,000 points",
        since(started),
        String::new(),
    );
    let seconds = best(2, || {
        let series = registry
            .metric_series_of(&curves, &ALL_STEPS, Thinning::even(400))
            .unwrap();
        assert!(series.iter().all(|series| series.n_points == 10_000));
    });
    report(
        "read 1,000 runs of 10,000 points, 400 each",
        seconds,
        String::new(),
    );
    let seconds = best(3, || {
        assert_eq!(registry.runs(&RunQuery::default()).unwrap().len(), 1000);
    });
    report("list 1,000 runs", seconds, String::new());
    let seconds = best(3, || {
        let query = RunQuery {
            filter: Some(Filter::parse("loss < 3").unwrap()),
            ..RunQuery::default()
        };
        assert_eq!(registry.runs(&query).unwrap().len(), 1000);
    });
    report("find 1,000 runs by their last loss", seconds, String::new());
    drop(registry);
    let bytes = std::fs::metadata(home.registry_path()).map_or(0, |file| file.len());
    let started = Instant::now();
    Registry::open(&home).unwrap().rebuild().unwrap();
    report(
        "read all of it from the journals again",
        since(started),
        format!("{} MB", bytes / 1_000_000),
    );
}

/// Begins an execution of a run, without which its numbers have no journal.
fn begin(registry: &Registry, run_id: &str, execution_id: &str) {
    let execution = NewExecution {
        id: execution_id.to_owned(),
        run_id: run_id.to_owned(),
        ..NewExecution::default()
    };
    registry.insert_execution(&execution).unwrap();
}

fn run(id: &str) -> Run {
    Run {
        id: id.to_owned(),
        ..Run::default()
    }
}

fn rows(execution_id: &str, n_steps: u64) -> Vec<MetricRow> {
    (0..n_steps)
        .map(|step| MetricRow {
            execution_id: execution_id.to_owned(),
            name: "loss".into(),
            step: Some(step),
            value: 1.0 / (step + 1) as f64,
            at: 1_700_000_000_000 + step as i64,
        })
        .collect()
}

fn best(n_times: usize, mut work: impl FnMut()) -> f64 {
    let time = |_| {
        let started = Instant::now();
        work();
        since(started)
    };
    (0..n_times).map(time).fold(f64::INFINITY, f64::min)
}

fn since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64()
}

fn rate(bytes: usize, seconds: f64) -> String {
    format!("{:.2} GB/s", bytes as f64 / seconds / 1e9)
}

#[expect(
    clippy::print_stdout,
    reason = "printing figures is what a benchmark is for"
)]
fn report(what: &str, seconds: f64, note: String) {
    println!("{what:<50} {:>9.2} ms  {note}", seconds * 1e3);
}
