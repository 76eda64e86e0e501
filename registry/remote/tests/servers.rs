//! Real servers of S3, where they are installed: s3s-fs from crates.io, moto from PyPI.
//!
//! What is pushed to them comes back, large objects in parts too. Nothing needs a name to be created
//! only once: s3s-fs lets several creators win.

mod s3;
#[path = "../../../tests/skipped/mod.rs"]
mod skipped;

use std::{collections::BTreeMap, fs, process::Command, sync::Arc, thread, time::Duration};

use s3::Server;
use skipped::skipped;
use tinylm_registry::{
    Condition, Digest, Fetched, Home, KeyRecord, Patient, Store, keys::write_key,
};
use tinylm_remote::{Mode, Remote, Settings};

fn remote(endpoint: &str, secret: &str) -> Arc<Remote> {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_REGION", "us-east-1"),
    ];
    let settings = Settings {
        url: "s3://bucket/team/a".to_owned(),
        mode: Mode::Write,
        variables: variables.map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
        patience: Some(Duration::from_secs(20)),
        ..Settings::default()
    };
    Arc::new(Remote::open(&settings).unwrap())
}

/// A home with a remote behind its store.
struct Member {
    _folder: tempfile::TempDir,
    home: Home,
    store: Store,
}

impl Member {
    fn new(remote: &Arc<Remote>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.create().unwrap();
        let store = Store::behind(home.clone(), Arc::clone(remote) as _);
        Self {
            _folder: folder,
            home,
            store,
        }
    }

    /// Makes an artifact of these files for the key of this name.
    fn make(&self, name: &str, files: &BTreeMap<String, Vec<u8>>) -> KeyRecord {
        let key = Digest::of_bytes(name.as_bytes());
        let out = self.home.attempt_dir(&key, "1").below("out");
        for (path, bytes) in files {
            fs::create_dir_all(out.join(path).parent().unwrap()).unwrap();
            fs::write(out.join(path), bytes).unwrap();
        }
        let artifact = self.store.commit(&out).unwrap();
        let record = KeyRecord {
            version: KeyRecord::VERSION,
            key,
            kind: "command".to_owned(),
            recipe: Vec::new(),
            artifact: artifact.digest,
            artifact_bytes: artifact.bytes,
            run_id: "run".to_owned(),
            run_name: "brave-otter-7f3a".to_owned(),
            stage: name.to_owned(),
            execution_id: "execution".to_owned(),
            made_at: 0,
            seconds: 1.0,
            host: "here".to_owned(),
            device: "cpu".to_owned(),
            origin: None,
            metrics: vec![("loss".to_owned(), 1.5)],
            parts: Vec::new(),
        };
        write_key(&self.home, &record).unwrap();
        record
    }
}

fn files(large: usize) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for n in 0..100_u32 {
        files.insert(format!("small/{n}"), n.to_le_bytes().repeat(50));
    }
    let bytes = (0..large).map(|n| (n / 7 + n * n) as u8);
    files.insert("large".to_owned(), bytes.collect());
    files.insert("empty".to_owned(), Vec::new());
    files
}

/// All that is promised of any server.
fn try_out(endpoint: &str, secret: &str) {
    let ours = Member::new(&remote(endpoint, secret));
    // More than one part.
    let record = ours.make("a", &files(40 << 20));
    let sent = ours.store.push(&record, &Patient).unwrap();
    assert_eq!(sent, record.artifact_bytes);
    assert_eq!(ours.store.push(&record, &Patient), Ok(0), "all is there");

    let theirs = Member::new(&remote(endpoint, secret));
    let nobodys = theirs.store.fetch(&Digest::of_bytes(b"nobody's"), &Patient);
    assert_eq!(nobodys, Fetched::Nothing);
    let fetched = theirs.store.fetch(&record.key, &Patient);
    let (whole, bytes) = (Box::new(record.clone()), record.artifact_bytes);
    assert_eq!(
        fetched,
        Fetched::Whole {
            record: whole,
            bytes
        }
    );
    let condition = theirs.store.verify(&record.artifact).unwrap();
    assert!(matches!(condition, Condition::Whole(_)), "{condition:?}");

    // Another key of the same bytes costs its record, and nothing is sent or comes again.
    let again = KeyRecord {
        key: Digest::of_bytes(b"b"),
        ..record
    };
    assert_eq!(ours.store.push(&again, &Patient), Ok(0));
    match theirs.store.fetch(&again.key, &Patient) {
        Fetched::Whole { bytes, .. } => assert_eq!(bytes, 0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn s3s_keeps_what_it_is_given_and_lets_no_stranger_in() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = Server::s3s(&folder) else {
        return;
    };
    let endpoint = &server.1;
    try_out(endpoint, "hunter22");
    let stranger = Member::new(&remote(endpoint, "hunter33"));
    match stranger.store.fetch(&Digest::of_bytes(b"a"), &Patient) {
        Fetched::Forbidden(why) => assert!(!why.contains("hunter"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_who_push_the_same_at_once_leave_it_whole() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = Server::s3s(&folder) else {
        return;
    };
    let endpoint = &server.1;
    let members: Vec<Member> = (0..4)
        .map(|_| Member::new(&remote(endpoint, "hunter22")))
        .collect();
    let records: Vec<KeyRecord> = thread::scope(|scope| {
        let pushing = members.iter().map(|member| {
            scope.spawn(|| {
                let record = member.make("a", &files(600_000));
                member.store.push(&record, &Patient).unwrap();
                record
            })
        });
        let pushing: Vec<_> = pushing.collect();
        pushing.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let theirs = Member::new(&remote(endpoint, "hunter22"));
    let fetched = theirs.store.fetch(&records[0].key, &Patient);
    assert!(matches!(fetched, Fetched::Whole { .. }), "{fetched:?}");
}

#[test]
fn moto_keeps_what_it_is_given_and_a_bucket_that_is_not_there_is_no_miss() {
    let Some(moto) = Server::start("moto_server", &["-H", "127.0.0.1", "-p", "PORT"]) else {
        return;
    };
    let absent = Member::new(&remote(&moto.1, "any"));
    match absent.store.fetch(&Digest::of_bytes(b"a"), &Patient) {
        Fetched::Forbidden(why) => assert_eq!(why, "there is no such bucket"),
        other => panic!("{other:?}"),
    }
    // A bucket is made by a PUT of its name; moto believes any signature.
    let made = Command::new("curl")
        .args(["-sf", "-X", "PUT", "-H"])
        .arg("Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request")
        .arg(format!("{}/bucket", moto.1))
        .status();
    if !made.is_ok_and(|status| status.success()) {
        skipped("there is no curl to make a bucket with");
        return;
    }
    try_out(&moto.1, "any");
}
