//! Downloads from a hub of our own, and all that can happen on the way.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tempfile::TempDir;
use tinylm_pipeline::{
    Event, LocalFile,
    io::{Assignment, Pinned},
    kind::typed,
    settings::with_defaults,
    testing::PartsTest,
};

use serde_json::Value;

use super::*;
use crate::shared::{expected::Algorithm, net::Limits};

#[path = "../../../tests/hub/mod.rs"]
mod hub_server;

use hub_server::{COMMIT, Fault, Hub};

const NAME: &str = "someone/talk";
const REPO: &str = "datasets/someone/talk";

fn quick() -> Limits {
    Limits {
        connect: Duration::from_secs(5),
        stall: Duration::from_secs(1),
        attempts: 3,
        pause: Duration::from_millis(5),
        pause_max: Duration::from_millis(50),
        pages: 20,
        bytes: 10 << 20,
    }
}

/// A place to download to, from `hub`, with short waits.
struct Place {
    dir: TempDir,
    outside: Outside,
    cancel: AtomicBool,
}

#[derive(Debug)]
struct Outcome {
    out: PathBuf,
    events: Vec<Event>,
}

impl Place {
    fn new(hub: &Hub) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            outside: Outside {
                hf_endpoint: Some(hub.address().to_owned()),
                kaggle_endpoint: Some(hub.address().to_owned()),
                ..Outside::default()
            },
            cancel: AtomicBool::new(false),
        }
    }

    fn net(&self) -> Net {
        Net::with_limits(&self.outside, quick()).unwrap()
    }

    fn settings(text: &str) -> DownloadSettings {
        use tinylm_pipeline::Settings;
        let given: Value = serde_json::from_str(text).unwrap();
        let settings = typed(&with_defaults(&DownloadSettings::list(), &given)).unwrap();
        Download::canonical(settings).unwrap()
    }

    fn resolve(&self, text: &str) -> Result<Pin, StageError> {
        resolve(&Self::settings(text), &self.net())
    }

    /// Resolves and downloads.
    fn download(&self, text: &str) -> Result<Outcome, StageError> {
        let settings = Self::settings(text);
        let pins = Download::remotes(&settings)
            .into_iter()
            .map(|remote| {
                let pin = resolve(&settings, &self.net())?;
                Ok(Pinned { id: remote.id, pin })
            })
            .collect::<Result<Vec<Pinned>, StageError>>()?;
        self.download_pinned(&settings, pins)
    }

    fn download_pinned(
        &self,
        settings: &DownloadSettings,
        pins: Vec<Pinned>,
    ) -> Result<Outcome, StageError> {
        let out = self.dir.path().join("out");
        fs::remove_dir_all(&out).ok();
        fs::create_dir_all(&out).unwrap();
        let checkpoints = self.dir.path().join("checkpoints");
        fs::create_dir_all(&checkpoints).unwrap();
        let assignment = Assignment {
            inputs: Vec::new(),
            local_files: Vec::<LocalFile>::new(),
            pins,
            out: out.clone(),
            checkpoints,
            seed: 1,
            threads: 1,
            device: tinylm_pipeline::Device::Cpu,
            ranks: Default::default(),
        };
        let events = std::sync::Mutex::new(Vec::new());
        let send = |event| events.lock().unwrap().push(event);
        let io = StageIo::new(&assignment, &self.outside, &self.cancel, &send);
        run(settings, &io, || Ok(self.net()))?;
        Ok(Outcome {
            out,
            events: events.into_inner().unwrap(),
        })
    }

    fn n_partials(&self) -> usize {
        fs::read_dir(self.dir.path().join("checkpoints")).map_or(0, Iterator::count)
    }

    fn n_files(&self) -> usize {
        let out = self.dir.path().join("out");
        crate::shared::files::files_below(&out).map_or(0, |files| files.len())
    }
}

fn read(outcome: &Outcome, name: &str) -> Vec<u8> {
    fs::read(outcome.out.join(name)).unwrap()
}

/// Long enough to come in several pieces.
fn body() -> Vec<u8> {
    (0..300_000_u32)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect()
}

fn hub_with(files: &[(&str, &[u8])]) -> Hub {
    let hub = Hub::start();
    for (name, bytes) in files {
        hub.file(REPO, name, bytes, bytes.len() > 100);
    }
    hub
}

const TALK: &str = r#"{"hub": "someone/talk"}"#;

#[test]
fn a_repository_is_pinned_and_brought() {
    let hub = hub_with(&[
        ("data/a b.jsonl", b"{}\n"),
        ("big.txt", &body()),
        ("README.md", b"#"),
    ]);
    let place = Place::new(&hub);
    let pin = place.resolve(TALK).unwrap();
    assert_eq!(pin.identity["commit"], COMMIT);
    let files = pin.detail["files"].as_array().unwrap();
    assert_eq!(files.len(), 2);
    assert_eq!(files[0]["bytes"], body().len());
    assert_eq!(files[0]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(files[1]["git"].as_str().unwrap().len(), 40);

    let outcome = place.download(TALK).unwrap();
    assert_eq!(read(&outcome, "big.txt"), body());
    assert_eq!(read(&outcome, "data/a b.jsonl"), b"{}\n");
    assert_eq!(place.n_files(), 2);
    assert_eq!(place.n_partials(), 0);
    let has_origin =
        |event: &Event| matches!(event, Event::Origin { origin } if origin["commit"] == COMMIT);
    assert!(outcome.events.iter().any(has_origin));
    let has_progress =
        |event: &Event| matches!(event, Event::Progress { unit, .. } if unit == "bytes");
    assert!(outcome.events.iter().any(has_progress));
}

#[test]
fn globs_say_what_is_wanted() {
    let hub = hub_with(&[("a.jsonl", b"{}\n"), ("b.jsonl", b"{}\n"), ("c.txt", b"x")]);
    let place = Place::new(&hub);
    place
        .download(r#"{"hub": "someone/talk", "files": ["b*", "*.txt"]}"#)
        .unwrap();
    assert_eq!(place.n_files(), 2);
    let error = place
        .resolve(r#"{"hub": "someone/talk", "files": ["*.csv"]}"#)
        .unwrap_err();
    assert!(error.message.contains("no file that is wanted"), "{error}");
}

#[test]
fn a_program_that_would_fetch_the_data_is_no_data() {
    let hub = hub_with(&[
        ("talk.py", b"_URL = 'https://example.org/talk.json'"),
        ("dataset_infos.json", b"{}"),
        ("dummy/talk/1.0.0/dummy_data.zip", b"zip"),
    ]);
    let error = Place::new(&hub).resolve(TALK).unwrap_err();
    let told = "`someone/talk` holds no data, but `talk.py`, which fetches it";
    assert_eq!(error.message, told);
    assert!(error.help.unwrap().ends_with("name its address with `url`"));
    hub.file(REPO, "train.zip", b"zip", false);
    let pin = Place::new(&hub).resolve(TALK).unwrap();
    assert_eq!(pin.detail["files"].as_array().unwrap().len(), 1);
}

#[test]
fn other_globs_than_the_lock_was_written_for_are_looked_up_again() {
    let hub = hub_with(&[("a.jsonl", b"{}\n"), ("b.jsonl", b"{}\n")]);
    let place = Place::new(&hub);
    let narrow = r#"{"hub": "someone/talk", "files": ["a*"]}"#;
    let pin = place.resolve(narrow).unwrap();
    let settings = Place::settings(TALK);
    let id = Download::remotes(&settings)[0].id.clone();
    place
        .download_pinned(&settings, vec![Pinned { id, pin }])
        .unwrap();
    assert_eq!(place.n_files(), 2);
}

#[test]
fn a_long_list_of_files_comes_in_pages() {
    let hub = Hub::start();
    for n in 0..1003 {
        hub.file(REPO, &format!("data/{n}.txt"), b"x", false);
    }
    let pin = Place::new(&hub).resolve(TALK).unwrap();
    assert_eq!(pin.detail["files"].as_array().unwrap().len(), 1003);
}

#[test]
fn models_stand_at_the_root() {
    let hub = Hub::start();
    hub.file("t5-small", "tokenizer.json", b"{}", false);
    let place = Place::new(&hub);
    let outcome = place
        .download(r#"{"hub": "t5-small", "repo": "model"}"#)
        .unwrap();
    assert_eq!(read(&outcome, "tokenizer.json"), b"{}");
}

#[test]
fn what_was_received_is_kept_and_only_the_rest_is_asked_for() {
    let hub = hub_with(&[("big.txt", &body())]);
    hub.fault("big.txt", Fault::Drop(1000));
    hub.fault("big.txt", Fault::Drop(50_000));
    let place = Place::new(&hub);
    let outcome = place.download(TALK).unwrap();
    assert_eq!(read(&outcome, "big.txt"), body());
    let ranges = hub.ranges("big.txt");
    assert_eq!(ranges.len(), 3);
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1].as_deref(), Some("bytes=1000-"));
    assert_eq!(ranges[2].as_deref(), Some("bytes=51000-"));
}

#[test]
fn another_attempt_goes_on_where_this_one_gave_up() {
    let hub = hub_with(&[("big.txt", &body())]);
    hub.fault("big.txt", Fault::Drop(2000));
    for _ in 0..3 {
        hub.fault("big.txt", Fault::Drop(0));
    }
    let place = Place::new(&hub);
    let error = place.download(TALK).unwrap_err();
    assert!(error.message.contains("did not come"), "{error}");
    assert!(!error.is_final);
    assert_eq!(place.n_files(), 0);
    assert_eq!(place.n_partials(), 1);
    let n_before = hub.ranges("big.txt").len();
    let outcome = place.download(TALK).unwrap();
    assert_eq!(read(&outcome, "big.txt"), body());
    assert_eq!(
        hub.ranges("big.txt")[n_before].as_deref(),
        Some("bytes=2000-")
    );
}

#[test]
fn a_server_that_knows_no_ranges_sends_all_again() {
    let hub = hub_with(&[("big.txt", &body())]);
    hub.fault("big.txt", Fault::Drop(1000));
    hub.fault("big.txt", Fault::IgnoreRange);
    let place = Place::new(&hub);
    let outcome = place.download(TALK).unwrap();
    assert_eq!(read(&outcome, "big.txt"), body());
}

#[test]
fn a_stall_ends_and_is_tried_again() {
    let hub = hub_with(&[("big.txt", &body())]);
    hub.fault("big.txt", Fault::Stall(Duration::from_secs(4)));
    let place = Place::new(&hub);
    let outcome = place.download(TALK).unwrap();
    assert_eq!(read(&outcome, "big.txt"), body());
    assert_eq!(hub.ranges("big.txt").len(), 2);
}

#[test]
fn what_may_pass_is_waited_for_and_what_may_not_is_told() {
    let hub = hub_with(&[("big.txt", &body())]);
    hub.fault("big.txt", Fault::Status(429, Some(0)));
    hub.fault("big.txt", Fault::Status(503, None));
    hub.fault("revision/main", Fault::Status(502, None));
    hub.fault(&format!("tree/{COMMIT}"), Fault::Status(500, None));
    let place = Place::new(&hub);
    let outcome = place.download(TALK).unwrap();
    assert_eq!(read(&outcome, "big.txt"), body());

    for _ in 0..3 {
        hub.fault("big.txt", Fault::Status(503, None));
    }
    let error = place.download(TALK).unwrap_err();
    assert!(error.cause.unwrap().contains("503"));
    assert_eq!(place.n_files(), 0);
}

#[test]
fn a_redirect_is_followed_without_the_token() {
    let hub = hub_with(&[("big.txt", &body())]);
    let other = Hub::start();
    other.page("/cdn/blob", &body());
    hub.fault(
        "big.txt",
        Fault::Redirect(format!(
            "{}/cdn/blob",
            other.address().replace("127.0.0.1", "localhost")
        )),
    );
    let mut place = Place::new(&hub);
    place.outside.hf_token = Some("secret".to_owned());
    let outcome = place.download(TALK).unwrap();
    assert_eq!(read(&outcome, "big.txt"), body());
    assert_eq!(
        hub.authorizations("big.txt"),
        [Some("Bearer secret".to_owned())]
    );
    assert_eq!(other.authorizations("/cdn/blob"), [None]);
}

#[test]
fn a_body_of_another_length_or_digest_is_not_kept() {
    let hub = hub_with(&[("big.txt", &body())]);
    let place = Place::new(&hub);
    let settings = Place::settings(TALK);
    let mut pin = place.resolve(TALK).unwrap();
    let id = Download::remotes(&settings)[0].id.clone();
    pin.detail["files"][0]["sha256"] = "0".repeat(64).into();
    let pinned = |pin: &Pin| {
        vec![Pinned {
            id: id.clone(),
            pin: pin.clone(),
        }]
    };
    let error = place.download_pinned(&settings, pinned(&pin)).unwrap_err();
    assert!(error.message.contains("sha256 digest"), "{error}");
    assert_eq!((place.n_files(), place.n_partials()), (0, 0));

    pin.detail["files"][0]["bytes"] = 10.into();
    let error = place.download_pinned(&settings, pinned(&pin)).unwrap_err();
    assert!(error.message.contains("where 10 were promised"), "{error}");
    assert_eq!((place.n_files(), place.n_partials()), (0, 0));
}

#[test]
fn lies_about_the_length_are_found_out() {
    let hub = hub_with(&[("big.txt", &body())]);
    // Too much promised is a body that ends early; too little is one that is cut short.
    hub.fault("big.txt", Fault::Length(100));
    hub.fault("big.txt", Fault::Length(-100));
    let place = Place::new(&hub);
    let outcome = place.download(TALK).unwrap();
    assert_eq!(read(&outcome, "big.txt"), body());
}

#[test]
fn a_missing_repository_names_the_nearest() {
    let hub = hub_with(&[("a.txt", b"x")]);
    let error = Place::new(&hub)
        .resolve(r#"{"hub": "somebody/talk"}"#)
        .unwrap_err();
    assert_eq!(error.message, "the hub has no dataset `somebody/talk`");
    let help = error.help.unwrap();
    assert!(help.contains("did you mean `someone/talk`?"), "{help}");
    assert!(help.contains("HF_TOKEN"), "{help}");
    assert!(error.is_final);
    let error = Place::new(&hub)
        .resolve(r#"{"hub": "someone/talk", "revision": "v9"}"#)
        .unwrap_err();
    assert!(error.message.contains("no revision `v9`"), "{error}");
}

#[test]
fn a_gated_repository_says_what_to_do() {
    let hub = hub_with(&[("a.txt", b"x")]);
    hub.gate(REPO, "good", "GatedRepo");
    let mut place = Place::new(&hub);
    let error = place.resolve(TALK).unwrap_err();
    assert_eq!(error.message, "`someone/talk` is gated");
    assert!(error.help.unwrap().contains("/datasets/someone/talk"));
    place.outside.hf_token = Some("bad".to_owned());
    assert!(
        place
            .resolve(TALK)
            .unwrap_err()
            .help
            .unwrap()
            .contains("accept its terms")
    );
    place.outside.hf_token = Some("good".to_owned());
    place.download(TALK).unwrap();
}

#[test]
fn offline_nothing_is_asked_and_the_cache_is_enough() {
    let hub = hub_with(&[("a.txt", b"x")]);
    let mut place = Place::new(&hub);
    let settings = Place::settings(TALK);
    let pin = place.resolve(TALK).unwrap();
    let pins = vec![Pinned {
        id: Download::remotes(&settings)[0].id.clone(),
        pin,
    }];
    let n_before = hub.n_requests();
    place.outside.offline = true;
    let error = place.download_pinned(&settings, pins.clone()).unwrap_err();
    assert!(error.message.contains("the network is off"), "{error}");

    let cache = place.dir.path().join("hub");
    let snapshot = cache.join("datasets--someone--talk/snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(snapshot.join("a.txt"), "y").unwrap();
    place.outside.hf_cache = Some(cache);
    assert!(place.download_pinned(&settings, pins.clone()).is_err());
    fs::write(snapshot.join("a.txt"), "x").unwrap();
    let outcome = place.download_pinned(&settings, pins).unwrap();
    assert_eq!(read(&outcome, "a.txt"), b"x");
    assert_eq!(hub.n_requests(), n_before);
}

/// Puts files where the hub's own tools keep them: blobs by their digest, and links to them.
fn cache(folder: &Path, files: &[(&str, &[u8])]) {
    let repo = folder.join("datasets--someone--talk");
    let snapshot = repo.join("snapshots").join(COMMIT);
    for made in [&repo.join("blobs"), &repo.join("refs"), &snapshot] {
        fs::create_dir_all(made).unwrap();
    }
    fs::write(repo.join("refs/main"), COMMIT).unwrap();
    for (name, bytes) in files {
        let plain = folder.join("plain");
        fs::write(&plain, bytes).unwrap();
        let digest = Algorithm::Git.digest(&plain).unwrap();
        fs::rename(&plain, repo.join("blobs").join(&digest)).unwrap();
        let blob = format!("../../blobs/{digest}");
        std::os::unix::fs::symlink(blob, snapshot.join(name)).unwrap();
    }
}

#[test]
fn offline_and_without_a_lock_the_cache_is_what_the_repository_is() {
    let hub = hub_with(&[("a.txt", b"x"), ("b.txt", b"y")]);
    let mut place = Place::new(&hub);
    place.outside.offline = true;
    let folder = place.dir.path().join("cache");
    place.outside.hf_cache = Some(folder.clone());
    let error = place.resolve(TALK).unwrap_err();
    assert!(error.message.contains("the network is off"), "{error}");

    cache(&folder, &[("a.txt", b"x"), ("setup.py", b"z")]);
    for revision in ["main", COMMIT] {
        let text = format!(r#"{{"hub": "{NAME}", "revision": "{revision}"}}"#);
        let outcome = place.download(&text).unwrap();
        assert_eq!(read(&outcome, "a.txt"), b"x");
        assert_eq!(place.n_files(), 1);
        let told = |event: &Event| matches!(event, Event::Warning { message } if message.contains("without the network, to the 1 files"));
        assert!(outcome.events.iter().any(told));
    }
    let other = r#"{"hub": "someone/talk", "revision": "v2"}"#;
    assert!(place.resolve(other).is_err());
    assert!(
        place
            .resolve(r#"{"hub": "someone/talk", "files": ["*.csv"]}"#)
            .is_err()
    );
    assert_eq!(hub.n_requests(), 0);

    // A part of a repository must not be taken for the whole.
    let part = place.resolve(TALK).unwrap();
    place.outside.offline = false;
    let whole = place.resolve(TALK).unwrap();
    assert_eq!(part.identity["commit"], whole.identity["commit"]);
    assert_ne!(part.identity, whole.identity);
    assert_eq!(part.detail["files"][0], whole.detail["files"][0]);
}

/// A file of the user's own, beside a cache, and a path from the cache to it that says it is a commit.
fn secrets(place: &mut Place) -> [String; 2] {
    let root = place.dir.path();
    let cache = root.join("cache");
    fs::create_dir_all(root.join("secrets")).unwrap();
    fs::write(root.join("secrets/id.txt"), b"secret").unwrap();
    fs::create_dir_all(cache.join("datasets--someone--talk/snapshots")).unwrap();
    place.outside.hf_cache = Some(cache);
    let absolute = root.join("secrets").to_string_lossy().into_owned();
    [absolute, "../../../secrets".to_owned()]
}

#[test]
fn a_hub_that_names_a_path_as_a_commit_is_refused() {
    let hub = hub_with(&[("id.txt", b"secret")]);
    let mut place = Place::new(&hub);
    for commit in secrets(&mut place) {
        hub.commit(REPO, &commit);
        let error = place.download(TALK).unwrap_err();
        assert!(error.message.contains("which is none"), "{error}");
        assert_eq!(place.n_files(), 0);
    }
}

#[test]
fn a_lock_file_that_names_a_path_as_a_commit_or_as_a_file_is_refused() {
    let hub = hub_with(&[("id.txt", b"other")]);
    let mut place = Place::new(&hub);
    let settings = Place::settings(TALK);
    let id = Download::remotes(&settings).remove(0).id;
    let sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let paths = secrets(&mut place);
    let file = |name: &str| serde_json::json!({"name": name, "bytes": 6, "sha256": sha256});
    let pins = [
        (paths[0].as_str(), file("id.txt")),
        (paths[1].as_str(), file("id.txt")),
        (COMMIT, file(&format!("{}/id.txt", paths[0]))),
        (COMMIT, file(&format!("../{}/id.txt", paths[1]))),
        (COMMIT, serde_json::json!({"name": "id.txt", "bytes": 6})),
    ];
    for (commit, file) in pins {
        let pin = Pin {
            identity: serde_json::json!({ "commit": commit }),
            detail: serde_json::json!({ "globs": [], "files": [file] }),
        };
        let pinned = Pinned {
            id: id.clone(),
            pin,
        };
        let error = place.download_pinned(&settings, vec![pinned]).unwrap_err();
        assert!(error.message.contains("cannot be used"), "{error}");
        assert!(error.help.unwrap().contains("tinylm update"));
        assert_eq!(place.n_files(), 0);
    }
    assert_eq!(hub.n_requests(), 0);
}

#[test]
fn a_damaged_cache_is_not_taken() {
    let hub = hub_with(&[("a.txt", b"x")]);
    let mut place = Place::new(&hub);
    place.outside.offline = true;
    let folder = place.dir.path().join("cache");
    place.outside.hf_cache = Some(folder.clone());
    cache(&folder, &[("a.txt", b"x")]);
    let snapshot = folder.join("datasets--someone--talk/snapshots");
    fs::write(snapshot.join(COMMIT).join("a.txt"), b"y").unwrap();
    let error = place.download(TALK).unwrap_err();
    assert!(error.message.contains("the network is off"), "{error}");
    assert_eq!(place.n_files(), 0);
}

#[test]
fn an_address_is_checked_against_its_digest() {
    let hub = Hub::start();
    hub.page("/files/a.txt", b"to be");
    let url = format!("{}/files/a.txt", hub.address());
    let place = Place::new(&hub);
    let right = blake3::hash(b"to be").to_string();
    let outcome = place
        .download(&format!(r#"{{"url": "{url}", "blake3": "{right}"}}"#))
        .unwrap();
    assert_eq!(read(&outcome, "a.txt"), b"to be");

    let wrong = "0".repeat(64);
    for name in ["blake3", "sha256"] {
        let error = place
            .download(&format!(r#"{{"url": "{url}", "{name}": "{wrong}"}}"#))
            .unwrap_err();
        assert!(error.message.contains(name), "{error}");
        assert_eq!((place.n_files(), place.n_partials()), (0, 0));
    }
}

#[test]
fn an_address_without_a_digest_is_pinned_at_first_sight() {
    let hub = Hub::start();
    hub.page("/a.txt", b"to be");
    let text = format!(r#"{{"url": "{}/a.txt"}}"#, hub.address());
    let place = Place::new(&hub);
    let pin = place.resolve(&text).unwrap();
    assert_eq!(pin.identity["blake3"], blake3::hash(b"to be").to_string());
    assert_eq!(pin.detail["bytes"], 5);
    hub.page("/a.txt", b"or not");
    let settings = Place::settings(&text);
    let pins = vec![Pinned {
        id: Download::remotes(&settings)[0].id.clone(),
        pin,
    }];
    assert!(place.download_pinned(&settings, pins).is_err());
    let error = place
        .resolve(&format!(r#"{{"url": "{}/b.txt"}}"#, hub.address()))
        .unwrap_err();
    assert!(error.message.contains("nothing at"), "{error}");
}

#[test]
fn a_digest_is_taken_on_where_it_was_cut_off() {
    let hub = Hub::start();
    hub.page("/a.txt", &body());
    for fault in [
        Fault::Drop(1000),
        Fault::Drop(2000),
        Fault::Status(503, None),
        Fault::Stall(Duration::from_secs(4)),
        Fault::DropWhole(4000),
    ] {
        hub.fault("/a.txt", fault);
    }
    let text = format!(r#"{{"url": "{}/a.txt"}}"#, hub.address());
    let place = Place::new(&hub);
    let error = place.resolve(&text).unwrap_err();
    assert!(error.help.unwrap().contains("run the same command again"));
    let asked = hub.ranges("/a.txt");
    let part = |n_bytes: u64| Some(format!("bytes={n_bytes}-"));
    assert_eq!(asked, [None, part(1000), part(3000), part(3000)]);

    // A server that knows no ranges at times.
    hub.fault("/a.txt", Fault::DropWhole(8000));
    let pin = place.resolve(&text).unwrap();
    assert_eq!(pin.identity["blake3"], blake3::hash(&body()).to_string());
    assert_eq!(pin.detail["bytes"], body().len());
}

#[test]
fn a_stop_is_heard_before_anything_is_pinned() {
    let hub = hub_with(&[("a.txt", b"x")]);
    hub.page("/a.txt", b"x");
    hub.page("/api/v1/datasets/view/someone/talk", b"{}");
    let url = format!(r#"{{"url": "{}/a.txt"}}"#, hub.address());
    for text in [&url, TALK, r#"{"kaggle": "someone/talk"}"#] {
        let mut place = Place::new(&hub);
        place.outside.kaggle_user = Some("me".to_owned());
        place.outside.kaggle_key = Some("key".to_owned());
        place.outside.stop.store(true, Ordering::Relaxed);
        let error = place.resolve(text).unwrap_err();
        assert!(error.cancelled, "{text}: {error}");
    }
}

#[test]
fn samples_stop_a_download_early() {
    let hub = hub_with(&[("a.jsonl", &body()), ("b.jsonl", &body())]);
    let place = Place::new(&hub);
    let outcome = place
        .download(r#"{"hub": "someone/talk", "max_samples": 3}"#)
        .unwrap();
    assert_eq!(read(&outcome, "a.jsonl"), b"0\n1\n2\n");
    assert!(!outcome.out.join("b.jsonl").exists());
    assert_eq!(hub.ranges("b.jsonl"), []);
}

#[test]
fn samples_go_on_where_they_were_cut_off() {
    let hub = hub_with(&[("a.jsonl", &body())]);
    for _ in 0..10 {
        hub.fault("a.jsonl", Fault::Drop(1000));
    }
    let place = Place::new(&hub);
    let outcome = place
        .download(r#"{"hub": "someone/talk", "max_samples": 2500}"#)
        .unwrap();
    let wanted: Vec<u8> = (0..2500)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    assert_eq!(read(&outcome, "a.jsonl"), wanted);
    let ranges = hub.ranges("a.jsonl");
    assert_eq!(ranges.len(), 11);
    assert_eq!(ranges[10].as_deref(), Some("bytes=10000-"));
}

#[test]
fn a_server_that_never_comes_further_is_given_up() {
    for settings in [TALK, r#"{"hub": "someone/talk", "max_samples": 100000}"#] {
        let hub = hub_with(&[("a.jsonl", &body())]);
        for n_bytes in [1000, 500].repeat(10) {
            hub.fault("a.jsonl", Fault::DropWhole(n_bytes));
        }
        let error = Place::new(&hub).download(settings).unwrap_err();
        assert!(error.message.contains("did not come"), "{error}");
        assert!(error.help.unwrap().contains("run the same command again"));
        assert_eq!(hub.ranges("a.jsonl").len(), 3);
    }
}

#[test]
fn a_server_that_knows_no_ranges_sends_samples_from_the_first() {
    let hub = hub_with(&[("a.jsonl", &body())]);
    hub.fault("a.jsonl", Fault::Drop(1000));
    hub.fault("a.jsonl", Fault::IgnoreRange);
    let place = Place::new(&hub);
    let outcome = place
        .download(r#"{"hub": "someone/talk", "max_samples": 1000}"#)
        .unwrap();
    let wanted: Vec<u8> = (0..1000)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    assert_eq!(read(&outcome, "a.jsonl"), wanted);
}

#[test]
fn a_download_stops_when_it_is_told_to() {
    let hub = hub_with(&[("big.txt", &body())]);
    hub.fault("big.txt", Fault::Stall(Duration::from_secs(4)));
    let place = Place::new(&hub);
    let settings = Place::settings(TALK);
    let pin = place.resolve(TALK).unwrap();
    let pins = vec![Pinned {
        id: Download::remotes(&settings)[0].id.clone(),
        pin,
    }];
    place.cancel.store(true, Ordering::Relaxed);
    let error = place.download_pinned(&settings, pins).unwrap_err();
    assert!(error.cancelled, "{error:?}");
}

#[test]
fn kaggle_wants_a_key_and_is_pinned_by_version() {
    let hub = Hub::start();
    hub.page(
        "/api/v1/datasets/view/someone/talk",
        br#"{"currentVersionNumber": 4}"#,
    );
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive
        .start_file("dialogs.txt", zip::write::SimpleFileOptions::default())
        .unwrap();
    std::io::Write::write_all(&mut archive, b"hi\tho\n").unwrap();
    let archive = archive.finish().unwrap().into_inner();
    hub.page("/api/v1/datasets/download/someone/talk", &archive);
    let mut place = Place::new(&hub);
    let text = format!(r#"{{"kaggle": "{NAME}"}}"#);
    let error = place.resolve(&text).unwrap_err();
    assert!(error.help.unwrap().contains("KAGGLE_KEY"));
    place.outside.kaggle_user = Some("me".to_owned());
    place.outside.kaggle_key = Some("key".to_owned());
    assert_eq!(place.resolve(&text).unwrap().identity["version"], 4);
    let outcome = place.download(&text).unwrap();
    assert_eq!(read(&outcome, "dialogs.txt"), b"hi\tho\n");
    assert!(
        hub.authorizations("/view/someone/talk")[0]
            .as_ref()
            .unwrap()
            .starts_with("Basic ")
    );
}

#[test]
fn what_kaggle_refuses_says_what_to_do() {
    let hub = Hub::start();
    let mut place = Place::new(&hub);
    place.outside.kaggle_user = Some("me".to_owned());
    place.outside.kaggle_key = Some("key".to_owned());
    let text = format!(r#"{{"kaggle": "{NAME}"}}"#);
    let told = [401, 403, 404].map(|status| {
        hub.fault("/view/someone/talk", Fault::Status(status, None));
        let error = place.resolve(&text).unwrap_err();
        assert!(error.is_final);
        format!("{}: {}", error.message, error.help.unwrap_or_default())
    });
    insta::assert_snapshot!(told.join("\n"), @"
    Kaggle does not know this user and key: look at KAGGLE_USERNAME and KAGGLE_KEY, or at `~/.kaggle/kaggle.json`
    Kaggle refuses `someone/talk` to you: accept its terms at https://www.kaggle.com/datasets/someone/talk
    Kaggle has no dataset `someone/talk`: write `owner/name` as in the address of its page, https://www.kaggle.com/datasets/owner/name; a private one needs its owner's key
    ");
}

#[test]
fn a_tokenizer_comes_from_the_hub() {
    use tinylm_pipeline::testing::StageTest;

    use crate::kinds::tokenizer::{TokenizerSettings, TokenizerStage};

    let fixture: Value = serde_json::from_str(include_str!(
        "../../../tests/fixtures/tokens/word-level.json"
    ))
    .unwrap();
    let hub = Hub::start();
    let bytes = fixture["tokenizer"].as_str().unwrap().as_bytes();
    hub.file("someone/words", "tokenizer.json", bytes, false);
    hub.file("someone/words", "weights.safetensors", b"x", true);

    let with = r#"{"pretrained": {"hub": "someone/words"}}"#;
    let given: Value = serde_json::from_str(with).unwrap();
    let list = <TokenizerSettings as tinylm_pipeline::Settings>::list();
    let settings = typed(&with_defaults(&list, &given)).unwrap();
    let remote = TokenizerStage::remotes(&settings).remove(0);
    assert_eq!(remote.places, ["pretrained.hub", "pretrained.revision"]);
    let outside = Place::new(&hub).outside;
    let pin = TokenizerStage::resolve(&settings, &remote, &outside).unwrap();
    assert_eq!(pin.detail["files"].as_array().unwrap().len(), 1);

    let dir = tempfile::tempdir().unwrap();
    let mut test = StageTest::new(dir.path());
    test.outside = outside;
    test.pins = vec![Pinned { id: remote.id, pin }];
    let outcome = test.run::<TokenizerStage>(with).unwrap();
    assert!(outcome.out.join("tokenizer.json").exists());
}

/// Where the list of files is asked for.
fn tree() -> String {
    format!("tree/{COMMIT}")
}

#[test]
fn the_token_goes_to_no_other_server_that_a_page_names() {
    let hub = hub_with(&[("a.txt", b"x")]);
    let other = Hub::start();
    other.page("/more", b"[]");
    let mut place = Place::new(&hub);
    place.outside.hf_token = Some("secret".to_owned());
    hub.fault(&tree(), Fault::Next(format!("{}/more", other.address())));
    let error = place.resolve(TALK).unwrap_err();
    assert!(error.message.contains("another server"), "{error}");
    assert!(error.is_final);
    assert_eq!(other.n_requests(), 0);
}

#[test]
fn a_list_that_leads_to_itself_or_ever_further_has_an_end() {
    for n_pages in [1, 100] {
        let hub = hub_with(&[("a.txt", b"x")]);
        for n in 0..100 {
            let next = format!("?cursor={}", n % n_pages);
            hub.fault(&tree(), Fault::Next(next));
        }
        let error = Place::new(&hub).resolve(TALK).unwrap_err();
        assert!(error.message.contains("a list that has no end"), "{error}");
        assert_eq!(hub.ranges(&tree()).len(), (n_pages + 1).min(quick().pages));
    }
}

#[test]
fn an_answer_about_a_repository_has_an_end() {
    let hub = hub_with(&[("a.txt", b"x")]);
    hub.fault("revision/main", Fault::Endless);
    let error = Place::new(&hub).resolve(TALK).unwrap_err();
    let said = "an answer that has no end";
    assert!(error.message.contains(said), "{error}");
}

#[test]
fn a_part_that_nobody_asked_for_is_not_taken() {
    let url = |hub: &Hub| format!(r#"{{"url": "{}/a.txt"}}"#, hub.address());
    for range in ["bytes 5-9/10", "bytes 9-5/10", "bytes 0-9/5", "bytes x", ""] {
        let hub = Hub::start();
        hub.page("/a.txt", b"0123456789");
        let place = Place::new(&hub);
        // Of the first byte on, and of the fourth on.
        hub.fault("/a.txt", Fault::Range(range.to_owned()));
        hub.fault("/a.txt", Fault::Drop(4));
        hub.fault("/a.txt", Fault::Range(range.to_owned()));
        let pin = place.resolve(&url(&hub)).unwrap();
        let digest = blake3::hash(b"0123456789").to_string();
        assert_eq!(pin.identity["blake3"], digest, "{range}");
        hub.fault("/a.txt", Fault::Drop(4));
        hub.fault("/a.txt", Fault::Range(range.to_owned()));
        let outcome = place.download(&url(&hub)).unwrap();
        assert_eq!(read(&outcome, "a.txt"), b"0123456789", "{range}");
        for _ in 0..3 {
            hub.fault("/a.txt", Fault::Range(range.to_owned()));
        }
        let error = place.resolve(&url(&hub)).unwrap_err();
        assert!(error.cause.unwrap().contains("was asked for"));
    }
}

#[test]
fn a_part_that_is_not_the_last_is_gone_on_from() {
    let hub = Hub::start();
    hub.page("/a.txt", b"01234");
    hub.fault("/a.txt", Fault::Range("bytes 0-4/10".to_owned()));
    let place = Place::new(&hub);
    let text = format!(r#"{{"url": "{}/a.txt"}}"#, hub.address());
    // What lies there has five bytes, so there is nothing behind the fifth.
    place.resolve(&text).unwrap();
    assert_eq!(
        hub.ranges("/a.txt"),
        [None, Some("bytes=5-".to_owned()), None]
    );
}

#[test]
fn a_body_without_an_end_is_refused() {
    let hub = Hub::start();
    hub.page("/a.txt", b"x");
    let place = Place::new(&hub);
    let url = format!("{}/a.txt", hub.address());
    let digest = blake3::hash(b"x").to_string();
    let given = format!(r#"{{"url": "{url}", "blake3": "{digest}"}}"#);
    for text in [format!(r#"{{"url": "{url}"}}"#), given] {
        hub.fault("/a.txt", Fault::Endless);
        let error = place.download(&text).unwrap_err();
        assert!(
            error.message.ends_with("is longer than 10485760 bytes"),
            "{error}"
        );
        assert!(error.help.unwrap().contains("bytes_max"));
        assert_eq!((place.n_files(), place.n_partials()), (0, 0));
    }
}

#[test]
fn a_server_that_asks_to_wait_is_told_of_at_once() {
    let hub = hub_with(&[("big.txt", &body())]);
    hub.fault("big.txt", Fault::Status(429, Some(3600)));
    let outcome = Place::new(&hub).download(TALK).unwrap();
    let warnings = outcome.events.iter().filter_map(|event| match event {
        Event::Warning { message } => Some(message.as_str()),
        _ => None,
    });
    let told: Vec<&str> = warnings.collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("429 Too Many Requests and asks to wait for 3600 s"),
        "{told:?}"
    );
    assert!(
        told[0].contains("giving up when 2 more attempts"),
        "{told:?}"
    );
}

#[test]
fn a_variable_in_an_address_is_sent_and_not_said() {
    let hub = Hub::start();
    hub.page("/a.txt", b"x");
    let place = Place::new(&hub);
    // A variable that every test has.
    let value = std::env::var("CARGO_PKG_NAME").unwrap();
    let text = |name: &str| format!(r#"{{"url": "{}/{{env.{name}}}"}}"#, hub.address());
    let error = place.resolve(&text("CARGO_PKG_NAME")).unwrap_err();
    let shown = format!("{}/{{env.CARGO_PKG_NAME}}", hub.address());
    assert!(error.message.contains(&shown), "{error}");
    assert_eq!(hub.ranges(&format!("/{value}")).len(), 1);
    let error = place.resolve(&text("TINYLM_NO_SUCH")).unwrap_err();
    assert!(
        error.message.contains("TINYLM_NO_SUCH, which is not set"),
        "{error}"
    );
}

#[test]
fn of_a_new_commit_only_other_files_are_fetched_when_it_comes_in_parts() {
    let hub = hub_with(&[("a.txt", b"a"), ("b.txt", b"b"), ("c.txt", b"c")]);
    let place = Place::new(&hub);
    let text = r#"{"hub": "someone/talk", "partition": 1}"#;
    let settings = Place::settings(text);
    let id = Download::remotes(&settings)[0].id.clone();
    let mut test = PartsTest::new(place.dir.path(), PARTS);
    test.outside = place.outside.clone();
    let brought = |test: &mut PartsTest| {
        test.pins = vec![Pinned {
            id: id.clone(),
            pin: place.resolve(text).unwrap(),
        }];
        let (folder, metrics) = test.conduct::<Download>(text).unwrap();
        let read = |name: &str| fs::read(folder.join(name)).ok();
        (["a.txt", "b.txt", "c.txt", "d.txt"].map(read), metrics)
    };
    let is = |text: &[u8]| Some(text.to_vec());
    let (files, metrics) = brought(&mut test);
    assert_eq!(files, [is(b"a"), is(b"b"), is(b"c"), None]);
    assert_eq!(metrics.get("bytes"), Some(3.0));
    assert_eq!(test.made().len(), 3);

    hub.file(REPO, "b.txt", b"other", false);
    hub.file(REPO, "d.txt", b"d", false);
    hub.commit(REPO, &"f".repeat(40));
    let (files, _) = brought(&mut test);
    assert_eq!(files, [is(b"a"), is(b"other"), is(b"c"), is(b"d")]);
    assert_eq!(test.made(), ["part-00001", "part-00003"]);
    assert_eq!(hub.ranges("a.txt").len(), 1);
    // One repository more that holds the same file, and nothing is asked of it.
    hub.file("datasets/other/copy", "a.txt", b"a", false);
    let text = r#"{"hub": "other/copy", "partition": 1}"#;
    let id = Download::remotes(&Place::settings(text))[0].id.clone();
    let pin = place.resolve(text).unwrap();
    test.pins = vec![Pinned { id, pin }];
    test.conduct::<Download>(text).unwrap();
    assert_eq!(test.made(), [""; 0]);
}
