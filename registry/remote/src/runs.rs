//! Which keys a run is of, under the run's name: so that it can be pulled where nobody knows it.

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
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedStage {
    pub name: String,
    pub key: Digest,
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
