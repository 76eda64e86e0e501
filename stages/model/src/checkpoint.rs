//! Saving what training needs to go on, so that a kill at any moment costs steps and
//! nothing else.
//!
//! ```text
//! step-0000001000/   model.safetensors  optimizer.safetensors  state.json  manifest.json
//! ```
//!
//! A checkpoint is written into a temporary folder, flushed to the disk and renamed,
//! so a folder named `step-*` was whole once; `manifest.json` tells whether it still
//! is. One that is not is removed, with a warning, and the one before it taken. A disk
//! that cannot be read is an error and no damage: nothing is removed over it.
//!
//! The best weights so far are those of an earlier checkpoint. Each one says in
//! `needs` which, and that one is kept as long as it is needed: so going back to an
//! older checkpoint also goes back to what was the best then. One whose best weights are
//! gone is passed over too, but stays: making its steps again makes them again.
//!
//! `save` is handed copies and writes on a thread of its own; training waits for the
//! disk only when the next checkpoint comes before the last one is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use serde::{Deserialize, Serialize};

use crate::{
    engine::Tensors,
    weights::{WeightsError, read_tensors, write_tensors},
};

const WEIGHTS: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";
const PREFIX: &str = "step-";
const PREFIX_IN_THE_MAKING: &str = "writing-";

#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Updates done so far.
    pub step: u64,
    /// The state of the training loop as JSON; its meaning is the loop's business.
    pub state: Vec<u8>,
    pub weights: Tensors,
    pub optimizer: Tensors,
    /// An earlier step whose weights this one refers to.
    pub needs: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot {verb} `{path}`")]
    Io {
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("`{path}` {problem}")]
    Damaged { path: PathBuf, problem: String },
    #[error("the thread that writes checkpoints ended without a result")]
    WriterLost,
}

impl CheckpointError {
    /// Returns what to do about it, where there is something to be done.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Io { verb: "read", .. } | Self::Weights(WeightsError::Read { .. }) => Some(
                "run it again; if it stays so, remove that folder to go on from the checkpoint before",
            ),
            _ => None,
        }
    }

    /// Whether a checkpoint is lost, and not only out of reach for now.
    fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Io { source, .. } | Self::Weights(WeightsError::Read { source, .. }) => {
                source.kind() == io::ErrorKind::NotFound
            }
            Self::Weights(_) | Self::WriterLost => false,
        }
    }
}

/// The checkpoints of one training.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    n_kept: usize,
    writing: Option<JoinHandle<Result<(), CheckpointError>>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    needs: Option<u64>,
    files: BTreeMap<String, FileDigest>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FileDigest {
    bytes: u64,
    blake3: String,
}

impl Checkpoints {
    /// Opens `folder`, making it if need be; what a kill left half written is removed.
    pub fn open(folder: &Path, n_kept: usize) -> Result<Self, CheckpointError> {
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        for name in names(folder)? {
            if name.starts_with(PREFIX_IN_THE_MAKING) {
                remove(&folder.join(name))?;
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            n_kept: n_kept.max(1),
            writing: None,
        })
    }

    /// Returns the newest checkpoint that is whole and whose best weights are. When there is
    /// none, beginning again would cost the most: then the newest that is whole itself, which
    /// `needs` nothing any more.
    pub fn latest(
        &mut self,
        warn: &mut dyn FnMut(String),
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        self.wait()?;
        let mut without_best = None;
        for step in steps(&self.folder)?.into_iter().rev() {
            let path = path_of(&self.folder, step);
            let manifest = match or_damage(check_whole(&path))? {
                Ok(manifest) => manifest,
                Err(damage) => {
                    warn(format!(
                        "the checkpoint of step {step} is damaged and passed over: {damage}"
                    ));
                    remove(&path)?;
                    continue;
                }
            };
            let Some(needed) = manifest.needs.filter(|&needed| needed != step) else {
                return Ok(Some(read(&path, step, manifest.needs)?));
            };
            match or_damage(check_whole(&path_of(&self.folder, needed)))? {
                Ok(_) => return Ok(Some(read(&path, step, manifest.needs)?)),
                Err(damage) => warn(format!(
                    "the checkpoint of step {step} is passed over, as the best weights, of step {needed}, are damaged: {damage}"
                )),
            }
            without_best.get_or_insert((step, needed));
        }
        let Some((step, needed)) = without_best else {
            return Ok(None);
        };
        warn(format!(
            "every checkpoint needs best weights that are damaged, so training goes on from step {step} without those of step {needed}: the best will be the best from here on"
        ));
        let path = path_of(&self.folder, step);
        Ok(Some(read(&path, step, None)?))
    }

    /// Hands a checkpoint to the writing thread, once that is done with the one before.
    pub fn save(&mut self, checkpoint: Checkpoint) -> Result<(), CheckpointError> {
        self.wait()?;
        let (folder, n_kept) = (self.folder.clone(), self.n_kept);
        self.writing = Some(thread::spawn(move || {
            write(&folder, &checkpoint)?;
            prune(&folder, checkpoint.step, n_kept)
        }));
        Ok(())
    }

    /// Waits until the checkpoint handed over last is on the disk.
    pub fn wait(&mut self) -> Result<(), CheckpointError> {
        match self.writing.take() {
            None => Ok(()),
            Some(thread) => thread.join().unwrap_or(Err(CheckpointError::WriterLost)),
        }
    }

    /// Returns the newest step up to this one that is whole on the disk; the one under way is waited for.
    pub fn on_disk(&mut self, step: u64) -> Option<u64> {
        // That it could not be written is for `wait` to tell, and then it is not there.
        let _ = self.wait();
        let steps = steps(&self.folder).ok()?.into_iter();
        steps
            .rev()
            .filter(|&found| found <= step)
            .find(|&found| check_whole(&path_of(&self.folder, found)).is_ok())
    }

    /// Writes a file that all checkpoints share, whole or not at all.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let making = self.folder.join(format!("{PREFIX_IN_THE_MAKING}{name}"));
        write_file(&making, bytes)?;
        let path = self.folder.join(name);
        fs::rename(&making, &path).map_err(io_error("rename", &making))?;
        sync_folder(&self.folder)
    }

    /// Returns what was kept under a name.
    pub fn kept(&self, name: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Returns the weights of a step that a checkpoint `needs`.
    pub fn weights(&mut self, step: u64) -> Result<Tensors, CheckpointError> {
        self.tensors(step, WEIGHTS)
    }

    /// Returns the optimizer's state of such a step.
    pub fn optimizer(&mut self, step: u64) -> Result<Tensors, CheckpointError> {
        self.tensors(step, OPTIMIZER)
    }

    fn tensors(&mut self, step: u64, name: &str) -> Result<Tensors, CheckpointError> {
        self.wait()?;
        let path = path_of(&self.folder, step);
        check_whole(&path)?;
        Ok(read_tensors(&path.join(name))?)
    }
}

/// A training that ends early still leaves its last checkpoint whole.
impl Drop for Checkpoints {
    fn drop(&mut self) {
        // An error here has nobody left to hear it; `wait` is where it is heard.
        let _ = self.wait();
    }
}

/// Reads a checkpoint that is whole.
fn read(path: &Path, step: u64, needs: Option<u64>) -> Result<Checkpoint, CheckpointError> {
    let state = path.join(STATE);
    Ok(Checkpoint {
        step,
        state: fs::read(&state).map_err(io_error("read", &state))?,
        weights: read_tensors(&path.join(WEIGHTS))?,
        optimizer: read_tensors(&path.join(OPTIMIZER))?,
        needs,
    })
}

/// Tells damage, which is an answer, from not getting one.
fn or_damage<T>(
    found: Result<T, CheckpointError>,
) -> Result<Result<T, CheckpointError>, CheckpointError> {
    match found {
        Err(error) if !error.is_damage() => Err(error),
        answer => Ok(answer),
    }
}

fn write(folder: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let path = path_of(folder, checkpoint.step);
    let making = folder.join(format!("{PREFIX_IN_THE_MAKING}{}", checkpoint.step));
    if making.exists() {
        remove(&making)?;
    }
    fs::create_dir(&making).map_err(io_error("create", &making))?;
    write_tensors(&making.join(WEIGHTS), &checkpoint.weights)?;
    write_tensors(&making.join(OPTIMIZER), &checkpoint.optimizer)?;
    write_file(&making.join(STATE), &checkpoint.state)?;
    let mut files = BTreeMap::new();
    for name in [WEIGHTS, OPTIMIZER, STATE] {
        files.insert(name.to_owned(), digest(&making.join(name))?);
    }
    let manifest = Manifest {
        version: 1,
        needs: checkpoint.needs,
        files,
    };
    let manifest = serde_json::to_vec_pretty(&manifest).map_err(|error| {
        let path = making.join(MANIFEST);
        io_error("write", &path)(error.into())
    })?;
    write_file(&making.join(MANIFEST), &manifest)?;
    sync_folder(&making)?;
    if path.exists() {
        remove(&path)?;
    }
    fs::rename(&making, &path).map_err(io_error("rename", &making))?;
    sync_folder(folder)
}

/// Removes all but the last `n_kept` checkpoints up to `step` and those that they need.
/// Later ones wait until training comes by again.
fn prune(folder: &Path, step: u64, n_kept: usize) -> Result<(), CheckpointError> {
    let steps = steps(folder)?;
    let n_done = steps.partition_point(|&done| done <= step);
    let first_kept = n_done.saturating_sub(n_kept);
    let mut kept: BTreeSet<u64> = steps[first_kept..].iter().copied().collect();
    for &step in &steps[first_kept..] {
        match or_damage(read_manifest(&path_of(folder, step))) {
            Ok(Ok(manifest)) => kept.extend(manifest.needs),
            // A damaged one needs nothing; `latest` will complain about it.
            Ok(Err(_)) => (),
            // Its needs cannot be told, so this time everything stays.
            Err(_) => return Ok(()),
        }
    }
    for step in steps.iter().filter(|step| !kept.contains(step)) {
        remove(&path_of(folder, *step))?;
    }
    Ok(())
}

fn check_whole(path: &Path) -> Result<Manifest, CheckpointError> {
    let manifest = read_manifest(path)?;
    for (name, expected) in &manifest.files {
        let path = path.join(name);
        if digest(&path)? != *expected {
            let problem = "is not what was written".to_owned();
            return Err(CheckpointError::Damaged { path, problem });
        }
    }
    Ok(manifest)
}

fn read_manifest(path: &Path) -> Result<Manifest, CheckpointError> {
    let path = path.join(MANIFEST);
    let text = fs::read(&path).map_err(io_error("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| CheckpointError::Damaged {
        path,
        problem: format!("cannot be parsed: {error}"),
    })
}

fn digest(path: &Path) -> Result<FileDigest, CheckpointError> {
    let file = File::open(path).map_err(io_error("read", path))?;
    // Not mapped: its pages would count as this process's memory.
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(io_error("read", path))?;
    Ok(FileDigest {
        bytes: hasher.count(),
        blake3: hasher.finalize().to_hex().to_string(),
    })
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    fs::write(path, bytes).map_err(io_error("write", path))?;
    let file = File::open(path).map_err(io_error("open", path))?;
    file.sync_all().map_err(io_error("flush", path))
}

fn sync_folder(path: &Path) -> Result<(), CheckpointError> {
    let folder = File::open(path).map_err(io_error("open", path))?;
    folder.sync_all().map_err(io_error("flush", path))
}

fn remove(path: &Path) -> Result<(), CheckpointError> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    removed.map_err(io_error("remove", path))
}

fn path_of(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{step:010}"))
}

/// Steps with a checkpoint, in ascending order.
fn steps(folder: &Path) -> Result<Vec<u64>, CheckpointError> {
    let names = names(folder)?;
    let steps = names.iter().filter_map(|name| name.strip_prefix(PREFIX));
    let mut steps: Vec<u64> = steps.filter_map(|step| step.parse().ok()).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// Returns the checkpoints that a folder keeps, in the order of their steps, each with the folder that it is.
pub fn kept(folder: &Path) -> Vec<(u64, PathBuf)> {
    let steps = steps(folder).unwrap_or_default().into_iter();
    steps.map(|step| (step, path_of(folder, step))).collect()
}

/// Returns the last checkpoint of a folder by its step, with the file of its weights.
pub fn newest(folder: &Path) -> Option<(u64, PathBuf)> {
    let (step, path) = kept(folder).pop()?;
    Some((step, path.join(WEIGHTS)))
}

/// Whether a folder is called as a checkpoint is.
pub(crate) fn is_checkpoint(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(PREFIX))
}

fn names(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let entries = fs::read_dir(folder).map_err(io_error("list", folder))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: io::Result<Vec<String>> = names.collect();
    names.map_err(io_error("list", folder))
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { verb, path, source }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use tempfile::TempDir;

    use super::*;
    use crate::engine::Tensor;

    fn checkpoint(step: u64, needs: Option<u64>) -> Checkpoint {
        let tensor = |value: f32| Tensor {
            shape: vec![2],
            data: vec![value, -value],
        };
        Checkpoint {
            step,
            state: format!("{{\"step\":{step}}}").into_bytes(),
            weights: Tensors::from([("w".to_owned(), tensor(step as f32))]),
            optimizer: Tensors::from([("adam.m.w".to_owned(), tensor(0.5))]),
            needs,
        }
    }

    /// Saves `(step, needs)` in order, keeping the last two.
    fn saved(steps: &[(u64, Option<u64>)]) -> (TempDir, Checkpoints) {
        let folder = TempDir::new().unwrap();
        let mut checkpoints = Checkpoints::open(folder.path(), 2).unwrap();
        for &(step, needs) in steps {
            checkpoints.save(checkpoint(step, needs)).unwrap();
        }
        checkpoints.wait().unwrap();
        (folder, checkpoints)
    }

    fn latest(folder: &Path) -> (Option<Checkpoint>, Vec<String>) {
        let mut warnings = Vec::new();
        let mut checkpoints = Checkpoints::open(folder, 2).unwrap();
        let place = format!("{}/", folder.display());
        let mut warn = |warning: String| warnings.push(warning.replace(&place, ""));
        let latest = checkpoints.latest(&mut warn).unwrap();
        (latest, warnings)
    }

    #[test]
    fn the_newest_checkpoint_comes_back_as_it_was() {
        let (folder, _) = saved(&[(5, None), (10, Some(5))]);
        assert_eq!(
            latest(folder.path()),
            (Some(checkpoint(10, Some(5))), vec![])
        );
    }

    #[test]
    fn the_last_ones_are_kept_and_what_they_need() {
        let (folder, mut checkpoints) = saved(&[
            (1, None),
            (2, None),
            (3, Some(2)),
            (4, Some(2)),
            (5, Some(3)),
        ]);
        assert_eq!(steps(folder.path()).unwrap(), [2, 3, 4, 5]);
        assert_eq!(checkpoints.weights(2).unwrap(), checkpoint(2, None).weights);
        checkpoints.save(checkpoint(6, Some(3))).unwrap();
        checkpoints.wait().unwrap();
        assert_eq!(steps(folder.path()).unwrap(), [3, 5, 6]);
    }

    #[test]
    fn a_kill_while_writing_leaves_the_one_before() {
        let (folder, _) = saved(&[(5, None)]);
        let making = folder.path().join("writing-10");
        fs::create_dir(&making).unwrap();
        fs::write(making.join(WEIGHTS), "half").unwrap();
        assert_eq!(latest(folder.path()), (Some(checkpoint(5, None)), vec![]));
        assert!(!making.exists());
    }

    #[test]
    fn damage_of_any_sort_falls_back_with_a_warning() {
        for name in [WEIGHTS, OPTIMIZER, STATE, MANIFEST] {
            for cut_only in [true, false] {
                let (folder, _) = saved(&[(5, None), (10, None)]);
                let path = path_of(folder.path(), 10).join(name);
                let mut bytes = fs::read(&path).unwrap();
                let last = bytes.pop().unwrap();
                if !cut_only {
                    bytes.push(last ^ 1);
                }
                fs::write(&path, bytes).unwrap();
                let (found, warnings) = latest(folder.path());
                assert_eq!(found, Some(checkpoint(5, None)), "{name}");
                assert_eq!(warnings.len(), 1);
                assert!(warnings[0].contains(name), "{warnings:?}");
                assert_eq!(steps(folder.path()).unwrap(), [5]);
            }
        }
    }

    #[test]
    fn a_disk_that_cannot_be_read_costs_no_checkpoint() {
        for broken in [10, 15] {
            let (folder, mut checkpoints) = saved(&[(5, None), (10, None), (15, Some(10))]);
            // A folder in a file's place is there and cannot be read, for root neither.
            let path = path_of(folder.path(), broken).join(WEIGHTS);
            let moved = folder.path().join("moved");
            fs::rename(&path, &moved).unwrap();
            fs::create_dir(&path).unwrap();
            let error = checkpoints.latest(&mut |_| ()).unwrap_err();
            assert!(error.to_string().starts_with("cannot read"), "{error}");
            assert!(error.help().is_some());
            assert_eq!(steps(folder.path()).unwrap(), [10, 15]);

            fs::remove_dir(&path).unwrap();
            fs::rename(&moved, &path).unwrap();
            assert_eq!(latest(folder.path()).0, Some(checkpoint(15, Some(10))));
        }
    }

    #[test]
    fn a_manifest_that_cannot_be_read_costs_no_best_weights() {
        let (folder, mut checkpoints) = saved(&[(5, None), (10, Some(5)), (15, Some(5))]);
        let path = path_of(folder.path(), 15).join(MANIFEST);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        checkpoints.save(checkpoint(20, None)).unwrap();
        checkpoints.wait().unwrap();
        assert_eq!(steps(folder.path()).unwrap(), [5, 10, 15, 20]);
    }

    #[test]
    fn without_the_best_weights_training_goes_on_and_says_so() {
        let (folder, _) = saved(&[(5, None), (10, None), (15, Some(10))]);
        fs::remove_file(path_of(folder.path(), 10).join(WEIGHTS)).unwrap();
        let (found, warnings) = latest(folder.path());
        assert_eq!(found, Some(checkpoint(15, None)));
        assert_eq!(steps(folder.path()).unwrap(), [15]);
        assert_snapshot!(warnings.join("\n"), @"
        the checkpoint of step 15 is passed over, as the best weights, of step 10, are damaged: cannot read `step-0000000010/model.safetensors`
        the checkpoint of step 10 is damaged and passed over: cannot read `step-0000000010/model.safetensors`
        every checkpoint needs best weights that are damaged, so training goes on from step 15 without those of step 10: the best will be the best from here on
        ");
    }

    #[test]
    fn the_best_weights_are_made_again_where_a_checkpoint_before_them_is_whole() {
        let (folder, _) = saved(&[(5, None), (10, Some(5)), (15, Some(10))]);
        fs::write(path_of(folder.path(), 10).join(WEIGHTS), "damaged").unwrap();
        assert_eq!(latest(folder.path()).0, Some(checkpoint(5, None)));
        assert_eq!(steps(folder.path()).unwrap(), [5, 15]);

        let mut checkpoints = Checkpoints::open(folder.path(), 2).unwrap();
        for step in [6, 7, 8] {
            checkpoints.save(checkpoint(step, Some(5))).unwrap();
        }
        checkpoints.wait().unwrap();
        assert_eq!(latest(folder.path()).0, Some(checkpoint(8, Some(5))));
        // Then what needed them is whole again, and nothing after it is lost.
        checkpoints.save(checkpoint(10, Some(5))).unwrap();
        checkpoints.wait().unwrap();
        assert_eq!(latest(folder.path()).0, Some(checkpoint(15, Some(10))));
    }

    #[test]
    fn a_step_can_be_saved_again() {
        let (folder, mut checkpoints) = saved(&[(5, None)]);
        let again = Checkpoint {
            state: b"{}".to_vec(),
            ..checkpoint(5, None)
        };
        checkpoints.save(again.clone()).unwrap();
        checkpoints.wait().unwrap();
        assert_eq!(latest(folder.path()).0, Some(again));
    }

    #[test]
    fn what_goes_wrong_on_the_writing_thread_is_told_at_the_next_wait() {
        let (folder, mut checkpoints) = saved(&[]);
        fs::remove_dir(folder.path()).unwrap();
        checkpoints.save(checkpoint(1, None)).unwrap();
        let error = checkpoints.wait().unwrap_err();
        assert!(error.to_string().starts_with("cannot create"), "{error}");
    }
}
