//! The two doors of a store: what is fetched before a miss, and what is pushed after a commit.

use super::{FILES, Store, contents::read_contents, tree::scan};
use crate::{
    Artifact, Condition, Digest, Error, KeyRecord, Place, keys::write_key,
    remote_store::RemoteError,
};

/// The remote's answer to a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Fetched {
    /// It stands in the store now, and its record beside it.
    Whole(Box<KeyRecord>),
    Nothing,
    /// The remote had something, or failed, and this is why it does not count.
    Refused(String),
}

impl Store {
    /// Asks the remote for what was made for `key`. Whoever asks holds the key's lock.
    #[must_use]
    pub fn fetch(&self, key: &Digest) -> Fetched {
        let record = match self.remote.read_key(key) {
            Ok(Some(record)) => record,
            Ok(None) => return Fetched::Nothing,
            Err(error) => return Fetched::Refused(format!("the remote store failed: {error}")),
        };
        if record.key != *key || record.version > KeyRecord::VERSION {
            let what = "the remote store's record is of another key or version";
            return Fetched::Refused(what.to_owned());
        }
        match self.take_in(&record) {
            Ok(()) => Fetched::Whole(Box::new(record)),
            Err(why) => Fetched::Refused(format!("the remote store's artifact {why}")),
        }
    }

    /// Gives what was made to the remote: the files first, then the record that makes them count.
    pub fn push(&self, artifact: &Artifact, record: &KeyRecord) -> Result<(), RemoteError> {
        let files = self.files(&artifact.digest);
        self.remote.write_artifact(artifact, &files)?;
        self.remote.write_key(record)
    }

    /// Brings the artifact of a record into the store, or says what is wrong with it.
    fn take_in(&self, record: &KeyRecord) -> Result<(), String> {
        let told = |error: Error| format!("could not be kept: {error}");
        let condition = self.condition(&record.artifact).map_err(told)?;
        if !matches!(condition, Condition::Whole(_)) {
            let staged = self.new_staged();
            let arrived = self.receive(&record.artifact, &staged.below(FILES));
            // Whole arrivals have moved on; the rest is not wanted.
            let _ = staged.remove();
            arrived?;
        }
        write_key(&self.home, record).map_err(told)
    }

    fn receive(&self, digest: &Digest, files: &Place) -> Result<(), String> {
        let told = |error: Error| format!("could not be kept: {error}");
        files.create_folder().map_err(told)?;
        match self.remote.read_artifact(digest, files) {
            Ok(true) => {}
            Ok(false) => return Err("is missing".to_owned()),
            Err(error) => return Err(format!("could not be read: {error}")),
        }
        let manifest = scan(files).and_then(|tree| read_contents(&tree, true));
        let manifest = manifest.map_err(told)?;
        if manifest.digest != *digest {
            return Err("has other contents than its name says".to_owned());
        }
        self.place(files, &manifest).map_err(told)
    }
}
