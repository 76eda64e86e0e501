//! The ground that planning and running share: the home, and the files and sources outside it.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use tinylm_registry::{Condition, Digest, Home, KeyRecord, StatCache, Store, keys::read_key};

use crate::{
    error::StageError,
    io::{LocalFile, Pinned},
    local,
    lockfile::{LockFile, LockFileError},
    outside::Outside,
    parts::Part,
    pushing::Pusher,
    recipe::Recipe,
    remote::Remote,
    spec::StageSpec,
};

/// The folder of the project's state, and what is remembered while one command runs.
pub struct Context {
    pub home: Home,
    pub store: Store,
    pub outside: Outside,
    /// Gives what is made to the remote store, where there is one that takes it.
    pub pusher: Option<Pusher>,
    stat_cache: StatCache,
    lock_files: Mutex<HashMap<PathBuf, LockFile>>,
}

/// Whether a source without a pin may be asked what it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolve {
    /// `plan`: nothing is asked and nothing written.
    Never,
    /// `--locked`: needing to ask is an error.
    Refuse,
    /// `run`: asked once, then written to the lock file.
    IfNew,
    /// `update`: asked again.
    Always,
}

/// The inputs of a stage that are not other stages.
pub struct Sources {
    pub local_files: Vec<LocalFile>,
    pub pins: Vec<Pinned>,
    /// Settings that the pins stand for.
    pub places: Vec<String>,
    /// Sources without a pin (only with [`Resolve::Never`]).
    pub unpinned: Vec<Remote>,
}

impl Sources {
    /// What a part of a stage reads that is not in the store.
    pub(crate) fn of_part(part: &Part) -> Self {
        Self {
            local_files: part.local_files.clone(),
            pins: Vec::new(),
            places: Vec::new(),
            unpinned: Vec::new(),
        }
    }
}

/// The store's answer to a key.
pub enum Kept {
    Whole(Box<KeyRecord>),
    Nothing,
    /// It was made, and its artifact is gone.
    Missing,
    /// There was an artifact, and this is wrong with it.
    Damaged(String),
    /// The remote store had it, and this is wrong with what came.
    Refused(String),
}

impl Kept {
    /// Returns what became of what was made before, where something was.
    pub(crate) fn loss(&self) -> Option<String> {
        match self {
            Self::Missing => Some("its artifact is missing".to_owned()),
            Self::Damaged(what) | Self::Refused(what) => Some(what.clone()),
            Self::Whole(_) | Self::Nothing => None,
        }
    }
}

impl Context {
    pub fn new(home: Home, outside: Outside) -> Self {
        let cache_path = home.root().is_dir().then(|| home.stat_cache_path());
        Self {
            store: Store::new(home.clone()),
            stat_cache: StatCache::load(cache_path),
            lock_files: Mutex::new(HashMap::new()),
            home,
            outside,
            pusher: None,
        }
    }

    /// Returns the user's own files that a stage's settings name, hashed (or remembered).
    pub fn local_files(&self, stage: &StageSpec) -> Result<Vec<LocalFile>, StageError> {
        let digest = |path: &std::path::Path| {
            let (digest, bytes) = self.stat_cache.digest(path)?;
            Ok((digest.to_string(), bytes))
        };
        local::local_files(&(stage.kind.settings)(), &stage.with, &digest)
    }

    /// Returns everything a stage reads that is not another stage.
    pub fn sources(&self, stage: &StageSpec, resolve: Resolve) -> Result<Sources, StageError> {
        let mut sources = Sources {
            local_files: self.local_files(stage)?,
            pins: Vec::new(),
            places: Vec::new(),
            unpinned: Vec::new(),
        };
        for remote in (stage.kind.remotes)(&stage.with) {
            sources.places.extend(remote.places.iter().cloned());
            match self.pin(stage, &remote, resolve)? {
                Some(pinned) => sources.pins.push(pinned),
                None => sources.unpinned.push(remote),
            }
        }
        Ok(sources)
    }

    /// Returns what a stage reads from outside that has no pin yet.
    pub fn unpinned(&self, stage: &StageSpec) -> Result<Vec<Remote>, StageError> {
        let mut unpinned = Vec::new();
        for remote in (stage.kind.remotes)(&stage.with) {
            if self.pin(stage, &remote, Resolve::Never)?.is_none() {
                unpinned.push(remote);
            }
        }
        Ok(unpinned)
    }

    fn pin(
        &self,
        stage: &StageSpec,
        remote: &Remote,
        resolve: Resolve,
    ) -> Result<Option<Pinned>, StageError> {
        let path = LockFile::path_for(&stage.home_file);
        // Held while the outside is asked, so that two stages ask only once.
        let mut lock_files = self
            .lock_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !lock_files.contains_key(&path) {
            let lock_file = LockFile::read(&path).map_err(|error| from_lock_file(&error))?;
            lock_files.insert(path.clone(), lock_file);
        }
        let lock_file = lock_files.entry(path.clone()).or_default();
        let known = lock_file.get(&remote.id).cloned();
        let pin = match (known, resolve) {
            (Some(pin), Resolve::Never | Resolve::Refuse | Resolve::IfNew) => pin,
            (None, Resolve::Never) => return Ok(None),
            (None, Resolve::Refuse) => return Err(not_pinned(remote, &path)),
            (_, Resolve::IfNew | Resolve::Always) => {
                let pin = (stage.kind.resolve)(&stage.with, remote, &self.outside)?;
                if lock_file.set(&remote.id, pin.clone()) {
                    lock_file
                        .write(&path)
                        .map_err(|error| from_lock_file(&error))?;
                }
                pin
            }
        };
        Ok(Some(Pinned {
            id: remote.id.clone(),
            pin,
        }))
    }

    /// Returns what the store has for `key`; a record counts only if its artifact is whole.
    pub fn kept(&self, key: &Digest) -> Result<Kept, StageError> {
        let Some(record) = read_key(&self.home, key)? else {
            return Ok(Kept::Nothing);
        };
        Ok(match self.store.condition(&record.artifact)? {
            Condition::Whole(_) => Kept::Whole(Box::new(record)),
            Condition::Missing => Kept::Missing,
            Condition::Damaged { path, what } => Kept::Damaged(format!(
                "its artifact is damaged: `{}` {what}",
                path.display()
            )),
        })
    }

    /// Writes down what was learned of local files. Losing it costs only a rehash.
    pub fn remember(&self) {
        if self.home.root().is_dir() {
            self.stat_cache.save().ok();
        }
    }
}

/// Puts a recipe together.
pub fn recipe<'a>(
    stage: &'a StageSpec,
    inputs: &'a [(String, Vec<Digest>)],
    sources: &'a Sources,
) -> Recipe<'a> {
    Recipe {
        kind: &stage.kind,
        settings: &stage.with,
        seed: stage.seed,
        inputs,
        local_files: &sources.local_files,
        pins: &sources.pins,
        places: &sources.places,
    }
}

fn from_lock_file(error: &LockFileError) -> StageError {
    let told = StageError::new(error.to_string()).is_final();
    match error.help() {
        Some(help) => told.help(help),
        None => told,
    }
}

fn not_pinned(remote: &Remote, lock_file: &std::path::Path) -> StageError {
    let message = format!(
        "`{}` is not pinned in `{}`, and `--locked` forbids asking",
        remote.id,
        lock_file.display()
    );
    StageError::new(message)
        .help("run once without `--locked`, and commit the lock file")
        .is_final()
}
