//! Writing to a remote: files, then their list, then the record that makes them count.
//!
//! Killed anywhere, what is there is sound: a list stands only when all its files do, a record only
//! when its list does. Writing again what is there changes nothing, so several may push the same at
//! once and one may begin again where it was killed.
//!
//! Against `gc`: it removes nothing younger than [`GRACE`], so what is older than half of it is
//! written anew instead of being relied on. A push of three days has nothing to fear.

use std::{
    fs::File,
    io::Read,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, ObjectStoreExt, WriteMultipart};
use tinylm_registry::{Artifact, Digest, KeyRecord, Place, Watch};

use crate::{
    fault::Fault,
    fetch::{FILES_MAX, LIST_MAX},
    keyfile,
    layout::{self, Object},
    wire::Wire,
};

/// What nothing speaks of is kept this long by `gc`: a push may be about to speak of it.
pub const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Objects that go at the same time.
const AT_ONCE: usize = 4;

/// Larger objects go in parts of this size, or of a nine-thousandth where that is more: a server
/// takes ten thousand.
const PART: u64 = 8 << 20;

/// Parts of one object that go at the same time.
const PARTS_AT_ONCE: usize = 4;

/// Returns the bytes that had to be sent. Where something of it was found wrong, what seems to be there
/// is not relied on.
pub(crate) async fn artifact(
    wire: &Wire,
    artifact: &Artifact,
    files: &Place,
    is_trusted: bool,
    watch: &dyn Watch,
) -> Result<u64, Fault> {
    let n_files = artifact.files.len();
    let list = artifact.to_list();
    if n_files > FILES_MAX || list.len() as u64 > LIST_MAX {
        let what = format!("{n_files} files are more than a remote store takes");
        return Err(Fault::Here(what));
    }
    // A list stands only when all that it names does.
    let list_path = layout::list(&artifact.digest);
    let is_there = is_trusted
        && wire
            .head(&list_path)
            .await?
            .is_some_and(|meta| is_young(&meta));
    if is_there {
        watch.see(artifact.bytes, artifact.bytes);
        return Ok(0);
    }
    let leaving = Leaving {
        wire,
        artifact,
        files,
        is_trusted,
        watch,
        done: AtomicU64::new(0),
        sent: AtomicU64::new(0),
    };
    let objects = layout::objects(artifact);
    let departures = objects.iter().map(|object| leaving.object(object));
    let mut departures = stream::iter(departures).buffer_unordered(AT_ONCE);
    while departures.try_next().await?.is_some() {}
    wire.put(&list_path, list).await?;
    Ok(leaving.sent.load(Ordering::Relaxed))
}

pub(crate) async fn key(wire: &Wire, record: &KeyRecord) -> Result<(), Fault> {
    let bytes = keyfile::write(record)?;
    wire.put(&layout::key(&record.key), bytes).await
}

/// Whether `gc` will not touch an object before a push that relies on it is over.
fn is_young(meta: &ObjectMeta) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let written = u64::try_from(meta.last_modified.timestamp()).unwrap_or(0);
    now.as_secs().saturating_sub(written) < GRACE.as_secs() / 2
}

/// An artifact on its way.
struct Leaving<'a> {
    wire: &'a Wire,
    artifact: &'a Artifact,
    files: &'a Place,
    is_trusted: bool,
    watch: &'a dyn Watch,
    done: AtomicU64,
    sent: AtomicU64,
}

impl Leaving<'_> {
    async fn object(&self, object: &Object) -> Result<(), Fault> {
        if self.is_trusted
            && let Some(known) = self.wire.head(&object.path).await?
            && known.size == object.bytes
            && is_young(&known)
        {
            self.tell(object.bytes);
            return Ok(());
        }
        let mut source = Source::new(self.artifact, self.files, object);
        if object.bytes <= PART {
            let bytes = source.read(object.bytes)?;
            source.finish()?;
            self.wire.put(&object.path, bytes).await?;
            self.tell(object.bytes);
        } else {
            self.in_parts(object, source).await?;
        }
        self.sent.fetch_add(object.bytes, Ordering::Relaxed);
        Ok(())
    }

    async fn in_parts(&self, object: &Object, mut source: Source<'_>) -> Result<(), Fault> {
        let part = PART.max(object.bytes / 9_000);
        let path = self.wire.path(&object.path);
        let patience = self.wire.patience_for(part);
        let begun = self.wire.store()?.put_multipart(&path);
        let upload = self.wire.in_time(patience, begun).await?;
        let chunk = usize::try_from(part).unwrap_or(usize::MAX);
        let mut upload = WriteMultipart::new_with_chunk_size(upload, chunk);
        let mut left = object.bytes;
        let sent = loop {
            let room = upload.wait_for_capacity(PARTS_AT_ONCE);
            if let Err(fault) = self.wire.in_time(patience, room).await {
                break Err(fault);
            }
            if left == 0 {
                break source.finish();
            }
            if self.watch.is_stopped() {
                break Err(Fault::Stopped);
            }
            match source.read(part.min(left)) {
                Ok(bytes) => {
                    left -= bytes.len() as u64;
                    self.tell(bytes.len() as u64);
                    upload.put(bytes.into());
                }
                Err(fault) => break Err(fault),
            }
        };
        match sent {
            Ok(()) => {
                let patience = patience * 4;
                self.wire.in_time(patience, upload.finish()).await.map(drop)
            }
            Err(fault) => {
                // Parts of nothing cost room until somebody sweeps them.
                self.wire.in_time(patience, upload.abort()).await.ok();
                Err(fault)
            }
        }
    }

    fn tell(&self, n_bytes: u64) {
        let done = self.done.fetch_add(n_bytes, Ordering::Relaxed) + n_bytes;
        self.watch.see(done, self.artifact.bytes);
    }
}

/// The bytes of an object, read from its files one after the other and held against their digests:
/// what has rotted here must not be given to others.
struct Source<'a> {
    artifact: &'a Artifact,
    files: &'a Place,
    waiting: std::slice::Iter<'a, usize>,
    current: Option<(File, usize, blake3::Hasher)>,
}

impl<'a> Source<'a> {
    fn new(artifact: &'a Artifact, files: &'a Place, object: &'a Object) -> Self {
        Self {
            artifact,
            files,
            waiting: object.files.iter(),
            current: None,
        }
    }

    /// The next `n` bytes.
    fn read(&mut self, n: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < n {
            if self.current.is_none() {
                let Some(idx) = self.waiting.next() else {
                    return Err(Fault::Here("a file is shorter than it was".to_owned()));
                };
                let place = self.files.below(&self.artifact.files[*idx].path);
                let file = File::open(&place).map_err(|error| self.fault(*idx, &error))?;
                self.current = Some((file, *idx, blake3::Hasher::new()));
            }
            let Some((file, idx, hasher)) = &mut self.current else {
                continue;
            };
            let (from, idx) = (bytes.len(), *idx);
            let read = file.take(n - from as u64).read_to_end(&mut bytes);
            let read = read.map_err(|error| {
                let path = &self.artifact.files[idx].path;
                Fault::Here(format!("`{path}`: {error}"))
            })?;
            hasher.update(&bytes[from..]);
            if read == 0 || (bytes.len() as u64) < n {
                self.finish()?;
            }
        }
        Ok(bytes)
    }

    /// Fails unless the file that was read last is what the store says it is.
    fn finish(&mut self) -> Result<(), Fault> {
        let Some((_, idx, hasher)) = self.current.take() else {
            return Ok(());
        };
        let file = &self.artifact.files[idx];
        match Digest::from(hasher.finalize()) == file.digest {
            true => Ok(()),
            false => Err(Fault::Here(format!("`{}` is damaged here", file.path))),
        }
    }

    fn fault(&self, idx: usize, error: &std::io::Error) -> Fault {
        Fault::Here(format!("`{}`: {error}", self.artifact.files[idx].path))
    }
}
