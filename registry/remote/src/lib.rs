//! A store that a team shares: in a bucket of S3, in a folder, or behind a web server.
//!
//! It stands behind the doors of a home's own store. What is read is verified while it streams and
//! never believed further than its digest goes; what is written goes in an order in which every
//! moment is a good one to be killed in. Nothing rests on a server's conditional writes: of what has
//! a digest for a name any copy will do, and of two records of one key either is true.
//!
//! This crate knows the network and no stage, no run's history and no environment: whoever opens a
//! remote hands it the variables.

mod address;
mod circuit;
mod credentials;
mod fault;
mod fetch;
mod keyfile;
mod layout;
pub mod pack;
mod push;
mod runs;
mod settings;
mod sweep;
mod wire;

use std::{
    collections::HashSet,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tinylm_registry::{Artifact, Digest, KeyRecord, Place, RemoteError, RemoteStore, Watch};

use address::Address;
pub use address::OpenError;
pub use push::GRACE;
pub use runs::{SharedRun, SharedStage};
pub use settings::{Mode, Settings};
pub use sweep::{Swept, Usage};
use wire::Wire;

/// A shared store.
pub struct Remote {
    wire: Wire,
    mode: Mode,
    id: String,
    /// Artifacts of which something came wrong: who gives them gives them whole.
    distrusted: Mutex<HashSet<Digest>>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.wire.shown();
        write!(f, "Remote({shown}, {})", self.mode.word())
    }
}

impl Remote {
    /// Opens a remote without asking it anything.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let address = Address::parse(&settings.url)?;
        if settings.mode == Mode::Write {
            address.refuse_to_write()?;
        }
        let wire = Wire::open(&address, settings)?;
        // Two buckets of one name on two servers are two places.
        let place = format!("{}\n{}", wire.shown(), wire.endpoint());
        Ok(Self {
            id: Digest::of_bytes(place.as_bytes()).short(),
            wire,
            mode: settings.mode,
            distrusted: Mutex::default(),
        })
    }

    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// A name for this remote among the files of a home.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its address as it may be shown.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.wire.shown()
    }

    fn distrusted(&self) -> MutexGuard<'_, HashSet<Digest>> {
        let distrusted = self.distrusted.lock();
        distrusted.unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for something that nobody has made, and says what is wrong if there is no answer.
    pub fn reach(&self, watch: &dyn Watch) -> Result<(), RemoteError> {
        let nobodys = Digest::of_bytes(b"tinylm doctor");
        self.read_key(&nobodys, watch).map(drop)
    }
}

impl Remote {
    /// The run of this whole name, if somebody pushed it.
    pub fn read_run(
        &self,
        name: &str,
        watch: &dyn Watch,
    ) -> Result<Option<SharedRun>, RemoteError> {
        self.wire.block_on(watch, runs::read(&self.wire, name))
    }

    /// Takes a run, after all that it is of.
    pub fn write_run(&self, run: &SharedRun, watch: &dyn Watch) -> Result<(), RemoteError> {
        self.wire.block_on(watch, runs::write(&self.wire, run))
    }

    /// A history that a run speaks of.
    pub fn read_history(&self, digest: &Digest, watch: &dyn Watch) -> Result<Vec<u8>, RemoteError> {
        let read = runs::read_history(&self.wire, digest);
        self.wire.block_on(watch, read)
    }

    /// Takes a history, before the run that speaks of it.
    pub fn write_history(&self, bytes: &[u8], watch: &dyn Watch) -> Result<Digest, RemoteError> {
        let written = runs::write_history(&self.wire, bytes);
        self.wire.block_on(watch, written)
    }

    /// How much there is in all, by listing it.
    pub fn usage(&self, watch: &dyn Watch) -> Result<Usage, RemoteError> {
        self.wire.block_on(watch, sweep::usage(&self.wire))
    }

    /// Removes, or only counts, what no record speaks of, and the records older than `keys_older`;
    /// nothing that is younger than [`GRACE`].
    pub fn sweep(
        &self,
        keys_older: Option<Duration>,
        is_dry: bool,
        watch: &dyn Watch,
    ) -> Result<Swept, RemoteError> {
        let swept = sweep::sweep(&self.wire, keys_older, is_dry);
        self.wire.block_on(watch, swept)
    }
}

impl RemoteStore for Remote {
    fn address(&self) -> Option<&str> {
        Some(self.shown())
    }

    fn read_key(&self, key: &Digest, watch: &dyn Watch) -> Result<Option<KeyRecord>, RemoteError> {
        self.wire.block_on(watch, fetch::key(&self.wire, key))
    }

    fn read_artifact(
        &self,
        record: &KeyRecord,
        into: &Place,
        watch: &dyn Watch,
    ) -> Result<(), RemoteError> {
        let fetched = fetch::artifact(&self.wire, record, into, watch);
        let fetched = self.wire.block_on(watch, fetched);
        if let Err(RemoteError::Wrong(_)) = fetched {
            self.distrusted().insert(record.artifact);
        }
        fetched
    }

    fn write_artifact(
        &self,
        artifact: &Artifact,
        files: &Place,
        watch: &dyn Watch,
    ) -> Result<u64, RemoteError> {
        let is_trusted = !self.distrusted().contains(&artifact.digest);
        let pushed = push::artifact(&self.wire, artifact, files, is_trusted, watch);
        let pushed = self.wire.block_on(watch, pushed)?;
        self.distrusted().remove(&artifact.digest);
        Ok(pushed)
    }

    fn write_key(&self, record: &KeyRecord, watch: &dyn Watch) -> Result<(), RemoteError> {
        self.wire.block_on(watch, push::key(&self.wire, record))
    }
}
