//! A remote that means harm: what it can cost is bounded, and what it does is refused in words.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tinylm_registry::{Artifact, Digest, Fetched, FileEntry, Home, KeyRecord, Patient, Store};
use tinylm_remote::{Mode, Remote, Settings};

/// A remote in a folder, written by hand, and a home that asks it.
struct Fixture {
    folder: tempfile::TempDir,
    home: Home,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home"));
        home.create().unwrap();
        fs::create_dir(folder.path().join("remote")).unwrap();
        let settings = Settings {
            url: format!("file://{}", folder.path().join("remote").display()),
            mode: Mode::Read,
            ..Settings::default()
        };
        let remote = Arc::new(Remote::open(&settings).unwrap());
        let store = Store::behind(home.clone(), remote);
        Self {
            folder,
            home,
            store,
        }
    }

    fn write(&self, sort: &str, digest: &Digest, bytes: &[u8]) {
        let hex = digest.to_string();
        let root = self.folder.path().join("remote/v1").join(sort);
        let path = root.join(&hex[..2]).join(&hex[2..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// What comes of a record, its list and its files, all as they are told.
    fn fetch(&self, record: &KeyRecord, list: &[u8], files: &[&[u8]]) -> Fetched {
        let json = serde_json::to_vec(record).unwrap();
        let head = format!("tinylm remote 1 {}\n", Digest::of_bytes(&json));
        self.write("keys", &key(), &[head.as_bytes(), &json].concat());
        self.write("lists", &record.artifact, list);
        for bytes in files {
            self.write("blobs", &Digest::of_bytes(bytes), bytes);
        }
        let fetched = self.store.fetch(&key(), &Patient);
        let left = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
        assert_eq!(left(&self.home.staging()), 0, "nothing half is left");
        fetched
    }

    fn refused(&self, record: &KeyRecord, list: &[u8], files: &[&[u8]]) -> String {
        match self.fetch(record, list, files) {
            Fetched::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    }
}

fn key() -> Digest {
    Digest::of_bytes(b"key")
}

fn list(files: &[(&str, u64, &[u8])]) -> Vec<u8> {
    let files = files.iter().map(|(path, bytes, contents)| FileEntry {
        path: (*path).to_owned(),
        bytes: *bytes,
        digest: Digest::of_bytes(contents),
    });
    let artifact = Artifact {
        digest: key(),
        bytes: 0,
        files: files.collect(),
    };
    artifact.to_list()
}

fn record(list: &[u8], bytes: u64) -> KeyRecord {
    KeyRecord {
        version: KeyRecord::VERSION,
        key: key(),
        kind: "command".to_owned(),
        recipe: Vec::new(),
        artifact: Digest::of_bytes(list),
        artifact_bytes: bytes,
        run_id: "run".to_owned(),
        run_name: "brave-otter-7f3a".to_owned(),
        stage: "a".to_owned(),
        execution_id: "execution".to_owned(),
        made_at: 0,
        seconds: f64::MAX,
        host: String::new(),
        device: String::new(),
        origin: None,
        metrics: Vec::new(),
        parts: Vec::new(),
    }
}

#[test]
fn a_sound_one_is_taken() {
    let fixture = Fixture::new();
    let list = list(&[("a/b", 3, b"one")]);
    let fetched = fixture.fetch(&record(&list, 3), &list, &[b"one"]);
    assert!(
        matches!(fetched, Fetched::Whole { bytes: 3, .. }),
        "{fetched:?}"
    );
}

#[test]
fn no_path_leads_out_of_an_artifact() {
    for path in ["../b", "a/../../../../b", "/tmp/b", "a//b", "a/./b"] {
        let fixture = Fixture::new();
        let list = list(&[(path, 3, b"one")]);
        let why = fixture.refused(&record(&list, 3), &list, &[b"one"]);
        assert!(why.contains("which leads out of it"), "{why}");
        let mut found = Vec::new();
        walk(fixture.folder.path(), &mut found);
        let is_out = |path: &&PathBuf| {
            path.ends_with("b") && !path.starts_with(fixture.folder.path().join("remote"))
        };
        assert_eq!(found.iter().find(is_out), None);
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => walk(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn a_file_that_is_a_folder_too_is_refused() {
    let fixture = Fixture::new();
    let list = list(&[("a", 3, b"one"), ("a/b", 0, b"")]);
    let why = fixture.refused(&record(&list, 3), &list, &[b"one"]);
    assert!(why.contains("could not be kept"), "{why}");
}

#[test]
fn sizes_that_lie_are_refused_before_they_cost_anything() {
    let fixture = Fixture::new();
    let one = list(&[("a", 3, b"one")]);
    let why = fixture.refused(&record(&one, 4), &one, &[b"one"]);
    assert!(why.contains("has 3 bytes where its record says 4"), "{why}");
    let huge = list(&[("a", 1 << 60, b"one")]);
    let why = fixture.refused(&record(&huge, 1 << 60), &huge, &[b"one"]);
    assert!(why.contains("bytes, and"), "{why}");
    let endless = list(&[("a", 3, b"one two three")]);
    let why = fixture.refused(&record(&endless, 3), &endless, &[b"one two three"]);
    assert!(why.contains("13 bytes instead of 3"), "{why}");
    let other = list(&[("a", 3, b"one")]);
    let fixture = Fixture::new();
    fixture.write("blobs", &Digest::of_bytes(b"one"), b"two");
    let why = fixture.refused(&record(&other, 3), &other, &[]);
    assert!(why.contains("has a wrong `a`"), "{why}");
}

#[test]
fn a_list_without_end_is_not_read() {
    let fixture = Fixture::new();
    let names: Vec<String> = (0..250_000).map(|n| format!("{n:06}")).collect();
    let files: Vec<(&str, u64, &[u8])> = names.iter().map(|name| (&**name, 0, &b""[..])).collect();
    let many = list(&files);
    let why = fixture.refused(&record(&many, 0), &many, &[]);
    assert!(why.contains("has 250000 files"), "{why}");
    let long = vec![b'x'; 40 << 20];
    let why = fixture.refused(&record(&long, 0), &long, &[]);
    assert!(why.contains("is larger than tinylm makes any"), "{why}");
}

#[test]
fn a_record_of_another_key_or_a_run_with_a_path_for_a_name_is_refused() {
    let fixture = Fixture::new();
    let list = list(&[("a", 3, b"one")]);
    let sound = record(&list, 3);
    let other = KeyRecord {
        key: Digest::of_bytes(b"other"),
        ..sound.clone()
    };
    let why = fixture.refused(&other, &list, &[b"one"]);
    assert!(why.contains("is of another key or version"), "{why}");
    for name in ["../../etc/passwd", "", "a b", "\u{1b}[2J"] {
        let evil = KeyRecord {
            execution_id: name.to_owned(),
            ..sound.clone()
        };
        let why = fixture.refused(&evil, &list, &[b"one"]);
        assert!(why.contains("no proper name"), "{why}");
    }
}
