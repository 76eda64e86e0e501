//! The two doors of a store, with somebody behind them.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use tinylm_pipeline::{
    Context, Happened, Interrupt, Observer, Outside, Processes, Resolve, RunOptions, Runner,
    Settled, pushing::Pusher, spec,
};
use tinylm_registry::{
    Artifact, Digest, Home, KeyRecord, Place, RemoteError, RemoteStore, Store, Watch, names,
};

use crate::harness::{Project, copy_folder};

/// A remote store in a folder, which remembers what it was given.
#[derive(Debug)]
struct Shelf {
    folder: PathBuf,
    given: Mutex<Vec<&'static str>>,
}

impl RemoteStore for Shelf {
    fn address(&self) -> Option<&str> {
        Some("shelf")
    }

    fn read_key(&self, key: &Digest, _: &dyn Watch) -> Result<Option<KeyRecord>, RemoteError> {
        match fs::read(self.folder.join(format!("{key}.json"))) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json).unwrap())),
            Err(_) => Ok(None),
        }
    }

    fn read_artifact(
        &self,
        record: &KeyRecord,
        into: &Place,
        _: &dyn Watch,
    ) -> Result<(), RemoteError> {
        copy_folder(&self.folder.join(record.artifact.to_string()), into);
        Ok(())
    }

    fn write_artifact(
        &self,
        artifact: &Artifact,
        files: &Place,
        _: &dyn Watch,
    ) -> Result<u64, RemoteError> {
        self.given.lock().unwrap().push("artifact");
        copy_folder(files, &self.folder.join(artifact.digest.to_string()));
        Ok(artifact.bytes)
    }

    fn write_key(&self, record: &KeyRecord, _: &dyn Watch) -> Result<(), RemoteError> {
        self.given.lock().unwrap().push("key");
        let json = serde_json::to_vec(record).unwrap();
        fs::write(self.folder.join(format!("{}.json", record.key)), json).unwrap();
        Ok(())
    }
}

struct Silence;

impl Observer for Silence {
    fn see(&self, _happened: &Happened) {}
}

/// Runs `chain.yaml` in a project whose store has this shelf behind it.
fn run(project: &Project, shelf: &Arc<Shelf>) -> Vec<Settled> {
    let request = spec::Request {
        file: project.path("chain.yaml"),
        overrides: Vec::new(),
        sweep: Vec::new(),
        current_dir: project.path(""),
    };
    let experiments = spec::load(&request, &tinylm_stages::catalog());
    let experiments = experiments.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
    let home = Home::at(project.path(".tinylm"));
    home.create().unwrap();
    let mut context = Context::new(home.clone(), Outside::default());
    context.store = Store::behind(home.clone(), shelf.clone());
    context.pusher = Some(Pusher::start(&home, &context.store, "shelf").unwrap());
    let run_id = names::new_id();
    let options = RunOptions {
        run_name: names::run_name(&run_id),
        run_id,
        host: "here".to_owned(),
        job: None,
        force: Vec::new(),
        n_jobs: 1,
        n_threads: 1,
        device: tinylm_pipeline::Device::Cpu.into(),
        keep_going: false,
        resolve: Resolve::IfNew,
    };
    let settled = Runner {
        context: &context,
        experiment: &experiments[0],
        options: &options,
        executor: &Processes::new(env!("CARGO_BIN_EXE_tinylm").into()),
        observer: &Silence,
        interrupt: &Interrupt::default(),
        history: &|_| None,
    }
    .run();
    let pusher = context.pusher.as_ref().unwrap();
    let pushed = pusher.finish(&AtomicBool::new(false), &mut |_| {});
    assert_eq!(pushed.n_owed, 0, "{pushed:?}");
    settled
}

fn outcomes(settled: &[Settled]) -> String {
    let words = settled
        .iter()
        .map(|one| format!("{} {}", one.stage, one.outcome.word()));
    words.collect::<Vec<_>>().join(", ")
}

#[test]
fn a_teammate_hits_what_another_made_and_a_wrong_byte_is_a_miss_told_once() {
    let ours = Project::chain();
    let folder = ours.path("shelf");
    fs::create_dir(&folder).unwrap();
    let given = Mutex::default();
    let shelf = Arc::new(Shelf { folder, given });
    let made = run(&ours, &shelf);
    assert_eq!(outcomes(&made), "corpus made, sorted made, first made");
    // Once for each commit, and the record that makes it count comes last.
    assert_eq!(*shelf.given.lock().unwrap(), ["artifact", "key"].repeat(3));

    let theirs = Project::chain();
    assert_eq!(
        outcomes(&run(&theirs, &shelf)),
        "corpus hit, sorted hit, first hit"
    );
    assert_eq!(
        shelf.given.lock().unwrap().len(),
        6,
        "a hit is not given back"
    );
    theirs.tinylm("cache verify").success();
    let first = theirs.tinylm("plan chain.yaml").success();
    assert!(first.stdout.contains("fresh    first"), "{first}");

    let sorted = made[1].artifact.unwrap().to_string();
    let wrong = shelf.folder.join(&sorted).join("sorted.txt");
    fs::write(&wrong, "apple\nbanana\ncherrj\n").unwrap();
    let wary = Project::chain();
    let settled = run(&wary, &shelf);
    assert_eq!(outcomes(&settled), "corpus hit, sorted made, first hit");
    let told: Vec<&String> = settled.iter().flat_map(|one| &one.why).collect();
    let said = "the remote store's artifact has other contents than its name says";
    assert_eq!(told, [said]);
    assert_eq!(settled[1].artifact, made[1].artifact);
    let staging = wary.path(".tinylm/store/staging");
    assert_eq!(fs::read_dir(staging).unwrap().count(), 0);
}
