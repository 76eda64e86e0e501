//! Making a stage in parts in a test: parts run in this process, one after the other, and what they made is
//! remembered by their keys, as a home would.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, atomic::AtomicBool},
};

use tinylm_registry::{Condition, Digest, Home, Place, Store, names};

use super::{check_names, typed_yaml};
use crate::{
    error::StageError,
    io::{Assignment, Input, LocalFile, Pinned, Ranks, StageIo},
    kind::Kind,
    metrics::Metrics,
    outside::Outside,
    parts::{Conductor, Part, Whole},
    recipe::{Recipe, key},
    remote::Pin,
    settings::Device,
    stage::Stage,
};

/// A home for parts, and what fills the roles of a stage.
pub struct PartsTest {
    kinds: &'static [Kind],
    home: Home,
    store: Store,
    pub inputs: Vec<(String, Digest)>,
    pub local_files: Vec<LocalFile>,
    pub pins: Vec<Pinned>,
    pub outside: Outside,
    pub threads: usize,
    known: Mutex<HashMap<Digest, (Digest, Metrics)>>,
    made: Mutex<Vec<String>>,
    said: Mutex<Vec<String>>,
}

impl PartsTest {
    /// A test in `dir`, which the caller made and will remove, of a stage with parts of these kinds.
    pub fn new(dir: &Path, kinds: &'static [Kind]) -> Self {
        let home = Home::at(dir.join("home"));
        home.create().expect("a test's own home can be made");
        Self {
            kinds,
            store: Store::new(home.clone()),
            home,
            inputs: Vec::new(),
            local_files: Vec::new(),
            pins: Vec::new(),
            outside: Outside::default(),
            threads: 2,
            known: Mutex::default(),
            made: Mutex::default(),
            said: Mutex::default(),
        }
    }

    /// Takes a copy of a folder of files as an artifact.
    pub fn artifact(&self, folder: &Path) -> Digest {
        let out = self.new_out();
        for entry in fs::read_dir(folder).expect("a test's own folder can be read") {
            let path = entry.expect("a test's own folder can be read").path();
            let name = path.file_name().expect("a file has a name");
            let bytes = fs::read(&path).expect("a test's own file can be read");
            write(&out.below(name), &bytes);
        }
        let artifact = self.store.commit(&out);
        artifact.expect("a test's own folder can be kept").digest
    }

    /// Lets an artifact fill a role, behind those that do already.
    #[must_use]
    pub fn input(mut self, role: &str, digest: Digest) -> Self {
        self.inputs.push((role.to_owned(), digest));
        self
    }

    /// Makes the stage with `settings` (YAML as under `with:`); returns its artifact's folder and numbers.
    pub fn conduct<S: Stage>(&self, settings: &str) -> Result<(PathBuf, Metrics), StageError> {
        let settings = S::canonical(typed_yaml(settings)?)?;
        assert!(S::is_in_parts(&settings), "these settings ask for no parts");
        let collection = S::conduct(&settings, self)?;
        check_names::<S>(&collection.metrics, &[]);
        let out = self.new_out();
        for (name, bytes) in &collection.own {
            write(&out.below(name), bytes);
        }
        let artifact = self.store.gather(&out, &collection.files)?;
        Ok((self.path(&artifact.digest), collection.metrics))
    }

    /// Returns the names of the parts that were made since this was last asked.
    pub fn made(&self) -> Vec<String> {
        let mut made = self.made.lock().expect("no test thread panicked");
        std::mem::take(&mut *made)
    }

    /// Returns what was noted and warned of since this was last asked.
    pub fn said(&self) -> Vec<String> {
        let mut said = self.said.lock().expect("no test thread panicked");
        std::mem::take(&mut *said)
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.store.files(digest).to_path_buf()
    }

    fn new_out(&self) -> Place {
        let out = self.home.work().below(names::new_id());
        out.create_folder()
            .expect("a test's own folder can be made");
        out
    }

    fn whole(&self, digest: &Digest, metrics: Metrics) -> Whole {
        match self.store.condition(digest) {
            Ok(Condition::Whole(manifest)) => Whole {
                digest: *digest,
                path: self.path(digest),
                files: manifest.artifact().files,
                metrics,
            },
            condition => panic!("{digest}: {condition:?}"),
        }
    }

    fn kind(&self, part: &Part) -> &'static Kind {
        let kind = self.kinds.iter().find(|kind| kind.name == part.kind);
        kind.expect("the stage has parts of this kind")
    }

    fn key(&self, part: &Part) -> Digest {
        key(&Recipe {
            kind: self.kind(part),
            settings: &part.settings,
            seed: 1,
            inputs: &part.keyed(),
            local_files: &part.local_files,
            pins: &[],
            places: &[],
        })
    }

    fn run(&self, part: &Part) -> Result<(Digest, Metrics), StageError> {
        let (out, checkpoints) = (self.new_out(), self.new_out());
        let reads = part.reads.iter();
        let inputs = reads.flat_map(|(role, digests)| {
            digests.iter().map(|digest| Input {
                role: role.clone(),
                stage: "whole".to_owned(),
                path: self.path(digest),
                digest: digest.to_string(),
            })
        });
        let assignment = Assignment {
            inputs: inputs.collect(),
            local_files: part.local_files.clone(),
            pins: Vec::new(),
            out: out.to_path_buf(),
            checkpoints: checkpoints.to_path_buf(),
            seed: 1,
            threads: self.threads,
            device: Device::Cpu,
            ranks: Ranks::default(),
        };
        let cancel = AtomicBool::new(false);
        let io = StageIo::new(&assignment, &self.outside, &cancel, &|_| {});
        let metrics = (self.kind(part).run)(&part.settings, &part.watch, &io)?;
        Ok((self.store.commit(&out)?.digest, metrics))
    }
}

fn write(place: &Place, bytes: &[u8]) {
    let written = place.write_atomic(bytes);
    written.expect("a test's own file can be written");
}

impl Conductor for PartsTest {
    fn inputs(&self, role: &str) -> Result<Vec<Whole>, StageError> {
        let of_role = self.inputs.iter().filter(|(known, _)| known == role);
        let whole = of_role.map(|(_, digest)| self.whole(digest, Metrics::default()));
        Ok(whole.collect())
    }

    fn local_files(&self, setting: &str) -> Vec<LocalFile> {
        let files = self.local_files.iter();
        files
            .filter(|file| file.setting == setting)
            .cloned()
            .collect()
    }

    fn pin(&self, id: &str) -> Option<Pin> {
        let mut pins = self.pins.iter();
        pins.find(|known| known.id == id)
            .map(|known| known.pin.clone())
    }

    fn outside(&self) -> &Outside {
        &self.outside
    }

    fn kept(&self, part: &Part) -> Result<Option<Whole>, StageError> {
        let known = self.known.lock().expect("no test thread panicked");
        let found = known.get(&self.key(part)).cloned();
        Ok(found.map(|(digest, metrics)| self.whole(&digest, metrics)))
    }

    fn make(&self, _what: &str, parts: &[Part]) -> Result<Vec<Whole>, StageError> {
        let mut whole = Vec::new();
        for part in parts {
            if let Some(kept) = self.kept(part)? {
                whole.push(kept);
                continue;
            }
            let (digest, metrics) = self.run(part)?;
            let made = (digest, metrics.clone());
            let mut known = self.known.lock().expect("no test thread panicked");
            known.insert(self.key(part), made);
            let mut names = self.made.lock().expect("no test thread panicked");
            names.push(part.name.clone());
            whole.push(self.whole(&digest, metrics));
        }
        Ok(whole)
    }

    fn at_once(&self) -> usize {
        1
    }

    fn note(&self, message: &str) {
        let mut said = self.said.lock().expect("no test thread panicked");
        said.push(message.to_owned());
    }

    fn warn(&self, message: &str) {
        self.note(message);
    }
}
