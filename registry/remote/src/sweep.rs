//! What a remote holds, and removing what nothing speaks of any more.
//!
//! Only here is anything listed. What goes is older than [`GRACE`] by the server's own clock, and is
//! looked at once more before it goes: a push relies on nothing that is older than half of that, so
//! what it is about to speak of stays. A record goes before the list that it speaks of, a list before
//! its files: killed anywhere, what is left is sound.
//!
//! What a killed push has left of a large object is in no list. In a folder it is a file beside the object's
//! place, found here; in a bucket its parts are asked for by a request that `object_store` does not make, so
//! the bucket's own rule has to expire them.

use std::{collections::HashSet, fs, path::Path, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tinylm_registry::{Artifact, Digest, KeyRecord};

use crate::{fault::Fault, fetch::LIST_MAX, keyfile, layout, push::GRACE, wire::Wire};

/// Requests at the same time.
const AT_ONCE: usize = 16;

/// How much a remote holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub n_keys: u64,
    pub n_artifacts: u64,
    pub n_objects: u64,
    pub bytes: u64,
}

/// What goes, or went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    pub n_keys: u64,
    pub n_objects: u64,
    pub bytes: u64,
}

/// An object as the list has it.
#[derive(Debug, Clone)]
struct Listed {
    /// The path below the remote's own.
    inside: String,
    bytes: u64,
    /// Seconds since 1970.
    written: i64,
}

impl Listed {
    fn is_of(&self, sort: &str) -> bool {
        let rest = self.inside.strip_prefix("v1/");
        rest.and_then(|rest| rest.strip_prefix(sort))
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// The digest in its name, and what stands behind that.
    fn digest(&self) -> Option<Digest> {
        let (_, name) = self.inside.strip_prefix("v1/")?.split_once('/')?;
        let name = name.replacen('/', "", 1);
        name.get(..64)?.parse().ok()
    }
}

pub(crate) async fn usage(wire: &Wire) -> Result<Usage, Fault> {
    let mut usage = Usage::default();
    for object in list(wire).await? {
        usage.n_keys += u64::from(object.is_of("keys"));
        usage.n_artifacts += u64::from(object.is_of("lists"));
        usage.n_objects += 1;
        usage.bytes += object.bytes;
    }
    Ok(usage)
}

/// Removes records older than `keys_older` and everything that no record speaks of.
pub(crate) async fn sweep(
    wire: &Wire,
    keys_older: Option<Duration>,
    is_dry: bool,
) -> Result<Swept, Fault> {
    let sweep = Sweep {
        wire,
        now: now(wire, is_dry).await?,
        is_dry,
    };
    let objects = list(wire).await?;
    let (keys, others): (Vec<Listed>, Vec<Listed>) =
        objects.into_iter().partition(|object| object.is_of("keys"));
    let mut swept = Swept::default();
    let is_old = |key: &Listed| keys_older.is_some_and(|most| sweep.is_older(key.written, most));
    let (old, kept): (Vec<Listed>, Vec<Listed>) = keys.into_iter().partition(is_old);
    let (live, broken) = sweep.live(kept).await?;
    let records = old.iter().chain(&broken);
    swept.n_keys = sweep.remove(records, &mut swept).await?;
    let needed = sweep.needed(&live).await?;
    let nobodys = |object: &&Listed| match object.digest() {
        Some(digest) if object.is_of("blobs") => !needed.contains(&digest),
        Some(digest) => !live.contains(&digest),
        // The document of a run, or nothing of ours.
        None => false,
    };
    for sort in ["lists", "packs", "blobs"] {
        let of_sort = others.iter().filter(|object| object.is_of(sort));
        sweep.remove(of_sort.filter(nobodys), &mut swept).await?;
    }
    if let Some(folder) = wire.folder() {
        sweep.remove_halves(&folder.join("v1"), &mut swept);
    }
    Ok(swept)
}

struct Sweep<'a> {
    wire: &'a Wire,
    now: i64,
    is_dry: bool,
}

impl Sweep<'_> {
    fn is_older(&self, written: i64, most: Duration) -> bool {
        let age = self.now.saturating_sub(written);
        age > i64::try_from(most.as_secs()).unwrap_or(i64::MAX)
    }

    /// The artifacts that records speak of, and the records that cannot be read.
    async fn live(&self, keys: Vec<Listed>) -> Result<(HashSet<Digest>, Vec<Listed>), Fault> {
        let asked = keys.into_iter().map(|key| async move {
            let read = self.wire.small(&key.inside, keyfile::BYTES_MAX).await;
            match read.and_then(|bytes| keyfile::read::<KeyRecord>(&bytes)) {
                Ok(record) => Ok((key, Some(record.artifact))),
                // What it speaks of would be taken for nobody's.
                Err(Fault::Wrong(what)) if what.contains("newer") => Err(Fault::Here(format!(
                    "a record {what}: only that one may remove anything"
                ))),
                Err(Fault::Wrong(_) | Fault::Absent) => Ok((key, None)),
                Err(fault) => Err(fault),
            }
        });
        let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
        let (mut live, mut broken) = (HashSet::new(), Vec::new());
        while let Some((key, artifact)) = asked.try_next().await? {
            match artifact {
                Some(artifact) => drop(live.insert(artifact)),
                None => broken.push(key),
            }
        }
        Ok((live, broken))
    }

    /// The files of artifacts.
    async fn needed(&self, artifacts: &HashSet<Digest>) -> Result<HashSet<Digest>, Fault> {
        let asked = artifacts.iter().map(|artifact| async {
            match self.wire.small(&layout::list(artifact), LIST_MAX).await {
                Ok(list) => Ok(Artifact::of_list(&list).map_or(Vec::new(), |found| found.files)),
                Err(Fault::Wrong(_) | Fault::Absent) => Ok(Vec::new()),
                Err(fault) => Err(fault),
            }
        });
        let asked: Vec<_> = asked.collect();
        let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
        let mut needed = HashSet::new();
        while let Some(files) = asked.try_next().await? {
            needed.extend(files.into_iter().map(|file| file.digest));
        }
        Ok(needed)
    }

    /// Removes what of these is old enough; returns how many those were.
    async fn remove<'b>(
        &self,
        objects: impl Iterator<Item = &'b Listed>,
        swept: &mut Swept,
    ) -> Result<u64, Fault> {
        let old = objects.filter(|object| self.is_older(object.written, GRACE));
        let asked = old.map(|object| async move {
            if self.is_dry {
                return Ok(Some(object.bytes));
            }
            // Somebody may have written it anew since it was listed.
            let found = self.wire.head(&object.inside).await?;
            let Some(found) = found.filter(|found| self.is_older(written(found), GRACE)) else {
                return Ok(None);
            };
            let path = self.wire.path(&object.inside);
            let removed = self.wire.store()?.delete(&path);
            match self.wire.in_time(self.wire.patience_for(0), removed).await {
                Ok(()) | Err(Fault::Absent) => Ok(Some(found.size)),
                Err(fault) => Err(fault),
            }
        });
        let asked: Vec<_> = asked.collect();
        let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
        let mut n = 0;
        while let Some(bytes) = asked.try_next().await? {
            if let Some(bytes) = bytes {
                n += 1;
                swept.n_objects += 1;
                swept.bytes += bytes;
            }
        }
        Ok(n)
    }

    /// Removes what stands half-written below a folder and was not written on for long.
    fn remove_halves(&self, folder: &Path, swept: &mut Swept) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else {
                continue;
            };
            if meta.is_dir() {
                self.remove_halves(&entry.path(), swept);
                continue;
            }
            let written = meta.modified().map(seconds).unwrap_or(i64::MAX);
            let is_old_half =
                is_half(&entry.file_name().to_string_lossy()) && self.is_older(written, GRACE);
            if is_old_half && (self.is_dry || fs::remove_file(entry.path()).is_ok()) {
                swept.n_objects += 1;
                swept.bytes += meta.len();
            }
        }
    }
}

/// The library writes a file under its name, `#` and a number, until it is whole.
fn is_half(name: &str) -> bool {
    let number = name.split_once('#').map_or("", |(_, number)| number);
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn seconds(time: std::time::SystemTime) -> i64 {
    let since = time.duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

fn written(meta: &ObjectMeta) -> i64 {
    meta.last_modified.timestamp()
}

/// The time by the clock that the ages are told by.
async fn now(wire: &Wire, is_dry: bool) -> Result<i64, Fault> {
    const CLOCK: &str = "v1/clock";
    let here = std::time::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .as_secs();
    if is_dry {
        return Ok(i64::try_from(here).unwrap_or(i64::MAX));
    }
    wire.put(CLOCK, Vec::new()).await?;
    let found = wire.head(CLOCK).await?;
    found.map(|found| written(&found)).ok_or(Fault::Absent)
}

async fn list(wire: &Wire) -> Result<Vec<Listed>, Fault> {
    let root = wire.path("v1");
    let mut found = wire.store()?.list(Some(&root));
    let mut objects = Vec::new();
    let skipped = root.as_ref().len() - "v1".len();
    while let Some(meta) = wire.in_time(wire.patience_for(0), found.try_next()).await? {
        objects.push(Listed {
            inside: meta.location.as_ref()[skipped..].to_owned(),
            bytes: meta.size,
            written: written(&meta),
        });
    }
    Ok(objects)
}
