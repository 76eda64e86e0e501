//! Many processes at once, processes that die, users without rights and disks without room: what
//! no unit test can show.
//!
//! The children are this very test binary, started again on one ignored test.

#[path = "../../tests/skipped/mod.rs"]
mod skipped;

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use skipped::skipped;
use tinylm_registry::{
    Condition, Digest, Error, Home, KeyRecord, Lock, MetricRow, Registry, Run, RunQuery, RunSource,
    StatCache, Status, Store, keys, names,
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

fn new_run() -> Run {
    Run {
        id: names::new_id(),
        experiment: "tiny".into(),
        started_at: 1,
        ..Run::default()
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

fn record(key: Digest, artifact: Digest, run_id: &str) -> KeyRecord {
    KeyRecord {
        version: KeyRecord::VERSION,
        key,
        kind: "test".into(),
        recipe: Vec::new(),
        artifact,
        artifact_bytes: 0,
        run_id: run_id.into(),
        run_name: String::new(),
        stage: "test".into(),
        execution_id: key.to_string(),
        made_at: 1,
        seconds: 0.0,
        host: String::new(),
        device: String::new(),
        origin: None,
        metrics: Vec::new(),
        parts: Vec::new(),
    }
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
    let registry = Registry::open(&home).unwrap();
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
    let registry = Registry::open(&home).unwrap();
    let run = new_run();
    registry.insert_run(&run, &RunSource::default()).unwrap();
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

        let _key = Lock::try_exclusive(&home.locks().below("key"), "")
            .unwrap()
            .unwrap();
        for digest in store.list().unwrap() {
            let condition = store.verify(&digest).unwrap();
            assert!(matches!(condition, Condition::Whole(_)), "{condition:?}");
        }
        for key in keys::list_keys(&home).unwrap() {
            let record = keys::read_key(&home, &key).unwrap().unwrap();
            assert_ne!(
                store.condition(&record.artifact).unwrap(),
                Condition::Missing
            );
            n_made += 1;
        }
        if let Some(registry) = Registry::open_to_read(&home).unwrap() {
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
    let _key = Lock::try_exclusive(&home.locks().below("key"), "maker")
        .unwrap()
        .unwrap();
    let run = new_run();
    let _run = Lock::try_exclusive(&home.run_lock(&run.id), "maker")
        .unwrap()
        .unwrap();
    let registry = Registry::open(&home).unwrap();
    registry.insert_run(&run, &RunSource::default()).unwrap();
    let store = Store::new(home.clone());
    for i in 0_u64.. {
        let key = Digest::of_bytes(format!("{} {i}", run.id).as_bytes());
        let out = home.attempt_dir(&key, "1").below("out");
        out.create_folder().unwrap();
        fs::write(out.join("big"), vec![i as u8; 100_000]).unwrap();
        fs::write(out.join("name"), key.to_string()).unwrap();
        let artifact = store.commit(&out).unwrap();
        let record = record(key, artifact.digest, &run.id);
        keys::write_key(&home, &record).unwrap();
        registry
            .append_metrics(&rows(&key.to_string(), 0..1000))
            .unwrap();
    }
}

#[test]
fn a_user_without_rights_finds_everything_and_can_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::at(folder.path().join(".tinylm"));
    home.create().unwrap();
    let out = home.work().below("out");
    out.create_folder().unwrap();
    fs::write(out.join("text"), "text").unwrap();
    let artifact = Store::new(home.clone()).commit(&out).unwrap().digest;
    keys::write_key(&home, &record(Digest::of_bytes(b"key"), artifact, "r")).unwrap();
    Registry::open(&home)
        .unwrap()
        .insert_run(&new_run(), &RunSource::default())
        .unwrap();
    assert!(home.root().join("registry.sqlite-wal").exists());

    // Root may write anywhere, so it hands over to the user called nobody.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let program = folder.path().join("test");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let read = |what: &str| {
        let mut command = Command::new(&program);
        command
            .args(["--exact", "reader", "--ignored"])
            .env(HOME, home.root());
        if is_root {
            command.uid(65534).gid(65534).current_dir("/");
        }
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{what}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    };
    let make_writable = |is_writable: bool| {
        let change = if is_writable { "u+w" } else { "u-w" };
        let status = Command::new("chmod")
            .args(["-R", change])
            .arg(home.root())
            .status();
        assert!(status.unwrap().success());
    };
    make_writable(false);
    read("with a log beside the registry");
    make_writable(true);
    let connection = rusqlite::Connection::open(home.registry_path()).unwrap();
    connection
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    drop(connection);
    assert!(!home.root().join("registry.sqlite-wal").exists());
    make_writable(false);
    read("without one");
    make_writable(true);
}

#[test]
#[ignore = "a child of the test above"]
fn reader() {
    let home = home();
    home.check().unwrap();
    assert!(!home.is_writable());
    let registry = Registry::open_to_read(&home).unwrap().unwrap();
    assert_eq!(registry.runs(&RunQuery::default()).unwrap().len(), 1);
    let error = Registry::open(&home).unwrap_err();
    assert!(!error.is_damage(), "{error}");
    let record = keys::read_key(&home, &Digest::of_bytes(b"key"));
    let record = record.unwrap().unwrap();
    let store = Store::new(home.clone());
    let condition = store.condition(&record.artifact).unwrap();
    assert!(matches!(condition, Condition::Whole(_)), "{condition:?}");
    let cache = StatCache::load(Some(home.stat_cache_path()));
    let text = store.files(&record.artifact).join("text");
    assert_eq!(cache.digest(&text).unwrap().0, Digest::of_bytes(b"text"));
    assert!(keys::write_key(&home, &record).is_err());
}

#[test]
fn a_full_disk_is_one_error_with_path_and_need_and_the_same_calls_work_once_there_is_room() {
    on_a_small_disk("size=3m", "full_disk");
}

#[test]
fn a_commit_that_finds_no_inode_leaves_the_work_where_it_was_and_nothing_in_staging() {
    on_a_small_disk("nr_inodes=64", "no_inodes");
}

/// Starts a child on a small disk of its own, in a view of the file system that ends with it.
fn on_a_small_disk(options: &str, child: &str) {
    let folder = tempfile::tempdir().unwrap();
    const NOT_MOUNTED: i32 = 77;
    let script = r#"mount -t tmpfs -o "$0" none "$1" || exit 77; shift; exec "$@""#;
    let is_root = rustix::process::geteuid().is_root();
    let output = Command::new("unshare")
        .args([if is_root { "-m" } else { "-rm" }, "sh", "-c", script])
        .arg(options)
        .arg(folder.path())
        .arg(env::current_exe().unwrap())
        .args(["--exact", child, "--ignored"])
        .env(HOME, folder.path())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skipped(&format!("`unshare` cannot be started: {error}")),
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let is_refused = output.status.code() == Some(NOT_MOUNTED) || said.starts_with("unshare: ");
    match is_refused {
        true => skipped(&format!("a small disk cannot be mounted here: {said}")),
        false => assert!(output.status.success(), "{}: {said}", output.status),
    }
}

#[test]
#[ignore = "a child of the test above"]
fn full_disk() {
    let folder = home();
    let home = Home::at(folder.root().join(".tinylm"));
    home.create().unwrap();
    let registry = Registry::open(&home).unwrap();
    registry
        .insert_run(&new_run(), &RunSource::default())
        .unwrap();
    let out = home.work().below("out");
    out.create_folder().unwrap();
    fs::write(out.join("text"), "text").unwrap();
    let ballast = folder.root().join("ballast");
    let full = fs::write(&ballast, vec![0; 8 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

    let store = Store::new(home.clone());
    let commit = || store.commit(&out);
    let made = record(Digest::of_bytes(b"key"), Digest::of_bytes(b"artifact"), "r");
    let key = || keys::write_key(&home, &made);
    let metrics = || registry.append_metrics(&rows("e", 0..20_000));
    let no_room = |error: Error, name: &str| {
        let message = error.to_string();
        assert!(matches!(error, Error::NoRoom { .. }), "{message}");
        assert!(
            message.starts_with("no room left to") && message.contains(name),
            "{message}"
        );
        assert!(error.hint().unwrap().contains("make room"));
        message
    };
    let message = no_room(commit().unwrap_err(), "manifest.json");
    assert!(
        message.contains(", which needs ") && message.ends_with(" bytes"),
        "{message}"
    );
    no_room(key().unwrap_err(), "store/keys");
    no_room(metrics().unwrap_err(), "registry.sqlite");
    assert_eq!(fs::read_to_string(out.join("text")).unwrap(), "text");

    fs::remove_file(&ballast).unwrap();
    let artifact = commit().unwrap().digest;
    key().unwrap();
    metrics().unwrap();
    assert!(matches!(
        store.condition(&artifact).unwrap(),
        Condition::Whole(_)
    ));
    assert_eq!(
        registry.metric_series("e", "loss", 10).unwrap().n_points,
        20_000
    );
    registry.verify().unwrap();
}

#[test]
#[ignore = "a child of a test above"]
fn no_inodes() {
    let folder = home();
    let home = Home::at(folder.root().join(".tinylm"));
    home.create().unwrap();
    let out = home.work().below("out");
    out.create_folder().unwrap();
    fs::write(out.join("text"), "text").unwrap();
    let store = Store::new(home.clone());
    let fillers = (0..64).map(|i| folder.root().join(format!("filler-{i}")));
    let mut fillers: Vec<PathBuf> = fillers
        .take_while(|path| fs::write(path, "").is_ok())
        .collect();
    let mut n_failed = 0;
    // One inode more each time, so that they are used up at every step of a commit once.
    let artifact = loop {
        match store.commit(&out) {
            Ok(artifact) => break artifact.digest,
            Err(error) => assert!(matches!(error, Error::NoRoom { .. }), "{error}"),
        }
        n_failed += 1;
        assert_eq!(fs::read_to_string(out.join("text")).unwrap(), "text");
        let staging = fs::read_dir(home.staging()).map_or(0, Iterator::count);
        assert_eq!(staging, 0, "after {n_failed} failures");
        fs::remove_file(fillers.pop().unwrap()).unwrap();
    };
    assert!(n_failed > 3, "only {n_failed} steps took an inode");
    let condition = store.condition(&artifact).unwrap();
    assert!(matches!(condition, Condition::Whole(_)), "{condition:?}");
    assert_eq!(fs::read_dir(home.staging()).unwrap().count(), 0);
}
