//! The two doors of a store: what is fetched before a miss, and what is pushed after a commit.

use super::{FILES, Store, contents::read_contents, tree::scan};
use crate::{
    Condition, Digest, Error, KeyRecord, Place,
    keys::write_key,
    remote_store::{RemoteError, Watch},
};

/// The remote's answer to a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Fetched {
    /// It stands in the store now, and its record beside it.
    Whole {
        record: Box<KeyRecord>,
        /// What had to come: nothing where another key had brought the artifact before.
        bytes: u64,
    },
    Nothing,
    /// The remote had something, and this is why it does not count.
    Refused(String),
    /// The remote lets us not in.
    Forbidden(String),
    /// The remote cannot be reached, said once.
    Unreachable(String),
    Stopped,
}

impl Store {
    /// The address of the remote as it may be shown, if there is one.
    #[must_use]
    pub fn remote_address(&self) -> Option<&str> {
        self.remote.address()
    }

    /// Asks the remote for what was made for `key`. Whoever asks holds the key's lock.
    #[must_use]
    pub fn fetch(&self, key: &Digest, watch: &dyn Watch) -> Fetched {
        let record = match self.remote.read_key(key, watch) {
            Ok(Some(record)) => record,
            Ok(None) => return Fetched::Nothing,
            Err(error) => return refusal(error, "record"),
        };
        if record.key != *key || record.version > KeyRecord::VERSION {
            let what = "the remote store's record is of another key or version";
            return Fetched::Refused(what.to_owned());
        }
        if ![&record.run_id, &record.run_name, &record.execution_id]
            .iter()
            .all(|name| is_plain(name))
        {
            let what = "the remote store's record speaks of a run that has no proper name";
            return Fetched::Refused(what.to_owned());
        }
        match self.take_in(&record, watch) {
            Ok(bytes) => Fetched::Whole {
                record: Box::new(record),
                bytes,
            },
            Err(error) => refusal(error, "artifact"),
        }
    }

    /// Gives what was made for `key` to the remote, the files first and then the record that makes
    /// them count; returns the bytes that had to be sent. There is nothing to give where the record
    /// is gone or its artifact is not whole any more.
    pub fn push(&self, record: &KeyRecord, watch: &dyn Watch) -> Result<u64, RemoteError> {
        let condition = self.condition(&record.artifact).map_err(here)?;
        let Condition::Whole(manifest) = condition else {
            return Err(RemoteError::Here(
                "its artifact is not whole here".to_owned(),
            ));
        };
        let files = self.files(&record.artifact);
        let artifact = manifest.artifact();
        let bytes = self.remote.write_artifact(&artifact, &files, watch)?;
        self.remote.write_key(record, watch)?;
        Ok(bytes)
    }

    /// Brings the artifact of a record into the store; returns the bytes that came.
    fn take_in(&self, record: &KeyRecord, watch: &dyn Watch) -> Result<u64, RemoteError> {
        let condition = self.condition(&record.artifact).map_err(here)?;
        let is_here = matches!(condition, Condition::Whole(_));
        if !is_here {
            self.refuse_without_room(record.artifact_bytes)?;
            let staged = self.new_staged();
            let arrived = self.receive(record, &staged.below(FILES), watch);
            // Whole arrivals have moved on; the rest is not wanted.
            let _ = staged.remove();
            arrived?;
        }
        write_key(&self.home, record).map_err(here)?;
        Ok(if is_here { 0 } else { record.artifact_bytes })
    }

    fn receive(
        &self,
        record: &KeyRecord,
        files: &Place,
        watch: &dyn Watch,
    ) -> Result<(), RemoteError> {
        files.create_folder().map_err(here)?;
        self.remote.read_artifact(record, files, watch)?;
        let manifest = scan(files).and_then(|tree| read_contents(&tree, true));
        let manifest = manifest.map_err(here)?;
        if manifest.digest != record.artifact {
            let what = "has other contents than its name says";
            return Err(RemoteError::Wrong(what.to_owned()));
        }
        self.place(files, &manifest).map_err(here)
    }

    /// A size is only a claim until its bytes have come, and must not fill the disk to be refuted.
    fn refuse_without_room(&self, bytes: u64) -> Result<(), RemoteError> {
        let Ok(stat) = rustix::fs::statvfs(self.home.root()) else {
            return Ok(());
        };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if bytes < free {
            return Ok(());
        }
        let what = format!("would take {bytes} bytes, and {free} are free");
        Err(RemoteError::Wrong(what))
    }
}

/// Whether a name can stand in a path, and be nothing but a name there.
fn is_plain(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=64).contains(&name.len()) && name.chars().all(is_letter)
}

fn here(error: Error) -> RemoteError {
    RemoteError::Here(error.to_string())
}

/// `what` of the remote an error is about.
fn refusal(error: RemoteError, what: &str) -> Fetched {
    match error {
        RemoteError::Wrong(why) => Fetched::Refused(format!("the remote store's {what} {why}")),
        RemoteError::Here(why) => Fetched::Refused(format!(
            "the remote store's {what} could not be kept: {why}"
        )),
        RemoteError::Forbidden(why) => Fetched::Forbidden(why),
        RemoteError::Unreachable(why) => Fetched::Unreachable(why),
        RemoteError::Away => Fetched::Nothing,
        RemoteError::Stopped => Fetched::Stopped,
    }
}
