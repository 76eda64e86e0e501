//! From the outputs of an attempt to the answer to its key.
//!
//! Done by whoever stands where the outputs are: the run itself for its own children, the job for a
//! stage on another machine. So what a key record says is plain data before the work begins.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tinylm_registry::{
    Artifact, Condition, Digest, Home, KeyRecord, Link, Place, Store, keys::write_key,
};

use crate::{clock::now_ms, error::StageError, io::Input, metrics::Metrics, recipe::Entry};

/// A key record but for what only the work can tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    pub key: Digest,
    pub kind: String,
    pub recipe: Vec<Entry>,
    pub run_id: String,
    pub run_name: String,
    pub stage: String,
    pub execution_id: String,
    pub host: String,
    pub device: String,
}

/// What the work told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) metrics: Metrics,
    /// Where the bytes came from.
    pub(crate) origin: Option<Value>,
    pub(crate) took: Duration,
}

impl Draft {
    /// Makes the outputs an artifact, and the artifact the answer to the key.
    pub(crate) fn commit(
        &self,
        home: &Home,
        out: &Place,
        told: Told,
    ) -> Result<KeyRecord, StageError> {
        let artifact = Store::new(home.clone()).commit(out)?;
        let record = self.record(&artifact, told, Vec::new());
        write_key(home, &record)?;
        Ok(record)
    }

    /// Makes the parts' files, and those in `out`, an artifact, and that the answer to the key.
    pub(crate) fn gather(
        &self,
        home: &Home,
        out: &Place,
        links: &[Link],
        parts: Vec<Digest>,
        told: Told,
    ) -> Result<KeyRecord, StageError> {
        let artifact = Store::new(home.clone()).gather(out, links)?;
        let record = self.record(&artifact, told, parts);
        write_key(home, &record)?;
        Ok(record)
    }

    fn record(&self, artifact: &Artifact, told: Told, parts: Vec<Digest>) -> KeyRecord {
        KeyRecord {
            version: KeyRecord::VERSION,
            key: self.key,
            kind: self.kind.clone(),
            recipe: self.recipe.clone(),
            artifact: artifact.digest,
            artifact_bytes: artifact.bytes,
            run_id: self.run_id.clone(),
            run_name: self.run_name.clone(),
            stage: self.stage.clone(),
            execution_id: self.execution_id.clone(),
            made_at: now_ms(),
            seconds: told.took.as_secs_f64(),
            host: self.host.clone(),
            device: self.device.clone(),
            origin: told.origin,
            metrics: told.metrics.0,
            parts,
        }
    }

    /// Looks once more at the inputs, so that nothing is recorded, and nothing gone on with, that
    /// was made from anything but what the key says.
    pub(crate) fn check_inputs(&self, home: &Home, inputs: &[Input]) -> Result<(), StageError> {
        let store = Store::new(home.clone());
        for input in inputs {
            let digest: Digest = input.digest.parse().map_err(|error| {
                StageError::new("an input of the job has no digest").cause(error)
            })?;
            let what = match store.condition(&digest)? {
                Condition::Whole(_) => continue,
                Condition::Missing => "it is missing".to_owned(),
                Condition::Damaged { path, what } => format!("`{}` {what}", path.display()),
            };
            let checkpoints = home.checkpoints_dir(&self.key).remove();
            checkpoints.map_err(|error| StageError::from(error).is_final())?;
            return Err(StageError::new(format!("what it read of `{}` was changed meanwhile", input.stage))
                .cause(what)
                .help("find out what writes into the store, then run the same command again: what is damaged is made anew")
                .is_final());
        }
        Ok(())
    }
}
