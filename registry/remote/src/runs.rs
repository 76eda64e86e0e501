//! Which keys a run is of, under the run's name: so that it can be pulled where nobody knows it.
//!
//! Its history stands beside, named by its digest: what is said of a run later makes another one, and nobody
//! reads half of each.

use serde::{Deserialize, Serialize};
use tinylm_registry::Digest;

use crate::{fault::Fault, keyfile, wire::Wire};

/// A run as its remote knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRun {
    pub id: String,
    pub name: String,
    pub experiment: String,
    pub stages: Vec<SharedStage>,
    /// What is remembered of it, and of the runs that made what it found there.
    #[serde(default)]
    pub histories: Vec<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedStage {
    pub name: String,
    pub key: Digest,
}

/// A run has said at most so much: some million numbers.
const HISTORY_MAX: u64 = 256 << 20;

fn history_path(digest: &Digest) -> String {
    format!("v1/histories/{digest}")
}

/// Returns a history if it is what its name says.
pub(crate) async fn read_history(wire: &Wire, digest: &Digest) -> Result<Vec<u8>, Fault> {
    let bytes = wire.small(&history_path(digest), HISTORY_MAX).await?;
    match Digest::of_bytes(&bytes) == *digest {
        true => Ok(bytes),
        false => Err(Fault::Wrong(
            "a history is not what its name says".to_owned(),
        )),
    }
}

pub(crate) async fn write_history(wire: &Wire, bytes: &[u8]) -> Result<Digest, Fault> {
    let digest = Digest::of_bytes(bytes);
    wire.put(&history_path(&digest), bytes.to_vec()).await?;
    Ok(digest)
}

/// Where a run stands; nothing where no run can have this name.
fn path(name: &str) -> Option<String> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_name = (1..=64).contains(&name.len()) && name.chars().all(is_letter);
    is_name.then(|| format!("v1/runs/{name}"))
}

pub(crate) async fn read(wire: &Wire, name: &str) -> Result<Option<SharedRun>, Fault> {
    let Some(path) = path(name) else {
        return Ok(None);
    };
    match wire.small(&path, keyfile::BYTES_MAX).await {
        Ok(bytes) => {
            let run: SharedRun = keyfile::read(&bytes)?;
            match run.name == name {
                true => Ok(Some(run)),
                false => Err(Fault::Wrong("is of another run".to_owned())),
            }
        }
        Err(Fault::Absent) => Ok(None),
        Err(fault) => Err(fault),
    }
}

pub(crate) async fn write(wire: &Wire, run: &SharedRun) -> Result<(), Fault> {
    match path(&run.name) {
        Some(path) => wire.put(&path, keyfile::write(run)?).await,
        None => Err(Fault::Here("the run has no proper name".to_owned())),
    }
}
