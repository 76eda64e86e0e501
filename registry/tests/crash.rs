//! Many processes at once, and processes that die: what no unit test can show.
//!
//! The children are this very test binary, started again on one ignored test.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tinylm_registry::{
    Condition, Digest, Home, KeyRecord, Lock, MetricRow, NewRun, Registry, RunQuery, Status, Store,
    keys, names,
};

const HOME: &str = "TINYLM_REGISTRY_TEST_HOME";

fn start(child: &str, home: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", child, "--ignored"])
        .env(HOME, home)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn home() -> Home {
    Home::at(PathBuf::from(env::var_os(HOME).unwrap()))
}

fn new_run() -> NewRun {
    NewRun {
        id: names::new_id(),
        experiment: "tiny".into(),
        started_at: 1,
        ..NewRun::default()
    }
}

fn rows(execution_id: &str, steps: std::ops::Range<u64>) -> Vec<MetricRow> {
    steps
        .map(|step| MetricRow {
            execution_id: execution_id.to_owned(),
            name: "loss".into(),
            step: Some(step),
            value: step as f64,
            at: 1,
        })
        .collect()
}

#[test]
fn eight_processes_share_one_registry_from_its_first_use_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let children: Vec<Child> = (0..8).map(|_| start("writer", folder.path())).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let home = Home::at(folder.path());
    let registry = Registry::open(&home.registry_path()).unwrap();
    let runs = registry.runs(&RunQuery::default()).unwrap();
    assert_eq!(runs.len(), 8);
    for run in runs {
        assert_eq!(run.status, Status::Done);
        let series = registry.metric_series(&run.id, "loss", usize::MAX).unwrap();
        assert_eq!(series.n_points, 500);
        assert_eq!(registry.events(&run.id).unwrap().len(), 20);
    }
    registry.verify().unwrap();
}

#[test]
#[ignore = "a child of the test above"]
fn writer() {
    let home = home();
    home.create().unwrap();
    let registry = Registry::open(&home.registry_path()).unwrap();
    let run = new_run();
    registry.insert_run(&run).unwrap();
    for batch in 0..20 {
        registry
            .append_metrics(&rows(&run.id, batch * 25..(batch + 1) * 25))
            .unwrap();
        let level = tinylm_registry::Level::Info;
        registry
            .append_event(&run.id, None, level, "batch", batch as i64)
            .unwrap();
    }
    registry
        .set_run_status(&run.id, Status::Done, Some(2))
        .unwrap();
}

#[test]
fn a_process_killed_at_any_moment_leaves_whole_artifacts_free_locks_and_a_sound_registry() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::at(folder.path());
    let store = Store::new(home.clone());
    let mut n_made = 0;
    for pause_ms in [30, 60, 100, 150, 210, 280] {
        let mut child = start("maker", folder.path());
        thread::sleep(Duration::from_millis(pause_ms));
        child.kill().unwrap();
        child.wait().unwrap();

        let _key = Lock::try_exclusive(&home.locks().join("key"), "")
            .unwrap()
            .unwrap();
        for digest in store.list().unwrap() {
            let condition = store.verify(&digest).unwrap();
            assert!(matches!(condition, Condition::Whole(_)), "{condition:?}");
        }
        for key in keys::list_keys(&home).unwrap() {
            let record = keys::read_key(&home, &key).unwrap();
            assert_ne!(
                store.condition(&record.artifact).unwrap(),
                Condition::Missing
            );
            n_made += 1;
        }
        if let Some(registry) = Registry::open_to_read(&home.registry_path()).unwrap() {
            registry.verify().unwrap();
            let running = registry.runs(&RunQuery::default()).unwrap();
            assert!(running.iter().all(|run| run.status == Status::Interrupted));
        }
    }
    // A machine so slow that no child got anywhere would have shown nothing: let one finish a few.
    while n_made == 0 {
        let mut child = start("maker", folder.path());
        thread::sleep(Duration::from_secs(2));
        child.kill().unwrap();
        child.wait().unwrap();
        n_made = keys::list_keys(&home).unwrap().len();
    }
}

#[test]
#[ignore = "a child of the test above"]
fn maker() {
    let home = home();
    home.create().unwrap();
    let _key = Lock::try_exclusive(&home.locks().join("key"), "maker")
        .unwrap()
        .unwrap();
    let run = new_run();
    let _run = Lock::try_exclusive(&home.run_lock(&run.id), "maker")
        .unwrap()
        .unwrap();
    let registry = Registry::open(&home.registry_path()).unwrap();
    registry.insert_run(&run).unwrap();
    let store = Store::new(home.clone());
    for i in 0_u64.. {
        let key = Digest::of_bytes(format!("{} {i}", run.id).as_bytes());
        let out = home.attempt_dir(&key, "1").join("out");
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(out.join("big"), vec![i as u8; 100_000]).unwrap();
        std::fs::write(out.join("name"), key.to_string()).unwrap();
        let artifact = store.commit(&out).unwrap();
        let record = KeyRecord {
            version: KeyRecord::VERSION,
            key,
            kind: "test".into(),
            recipe: Vec::new(),
            artifact: artifact.digest,
            artifact_bytes: artifact.bytes,
            run_id: run.id.clone(),
            run_name: String::new(),
            stage: "test".into(),
            execution_id: key.to_string(),
            made_at: 1,
            seconds: 0.0,
            host: String::new(),
            device: String::new(),
            origin: None,
            metrics: Vec::new(),
        };
        keys::write_key(&home, &record).unwrap();
        registry
            .append_metrics(&rows(&key.to_string(), 0..1000))
            .unwrap();
    }
}
