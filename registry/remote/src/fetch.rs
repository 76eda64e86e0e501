//! Reading from a remote: a record by its key, and the files of its artifact.
//!
//! Nothing is believed before it is checked: the list of files against the artifact's digest, its sum
//! against the record, each file against the list while it streams to the disk. So what a hostile
//! remote can cost is bounded by what its record says and by the room that there is.

use std::{
    collections::BTreeSet,
    io::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tinylm_registry::{Artifact, Digest, FileEntry, KeyRecord, Place, Watch};

use crate::{
    fault::Fault,
    keyfile,
    layout::{self, Object},
    wire::{Body, Wire},
};

/// Objects that come at the same time.
const AT_ONCE: usize = 8;

/// The longest list of files that is read, and that is written: some hundred thousand files.
pub(crate) const LIST_MAX: u64 = 32 << 20;

/// The most files.
pub(crate) const FILES_MAX: usize = 200_000;

pub(crate) async fn key(wire: &Wire, key: &Digest) -> Result<Option<KeyRecord>, Fault> {
    match wire.small(&layout::key(key), keyfile::BYTES_MAX).await {
        Ok(bytes) => keyfile::read(&bytes).map(Some),
        Err(Fault::Absent) => Ok(None),
        Err(fault) => Err(fault),
    }
}

pub(crate) async fn artifact(
    wire: &Wire,
    record: &KeyRecord,
    into: &Place,
    watch: &dyn Watch,
) -> Result<(), Fault> {
    watch.see(0, record.artifact_bytes);
    let artifact = list(wire, record).await?;
    make_folders(&artifact, into)?;
    let arriving = Arriving {
        wire,
        artifact: &artifact,
        into,
        watch,
        done: AtomicU64::new(0),
    };
    let objects = layout::objects(&artifact);
    let arrivals = objects.iter().map(|object| arriving.object(object));
    let mut arrivals = stream::iter(arrivals).buffer_unordered(AT_ONCE);
    while arrivals.try_next().await?.is_some() {}
    Ok(())
}

/// The list of files, if it is the one that the record means.
async fn list(wire: &Wire, record: &KeyRecord) -> Result<Artifact, Fault> {
    let wrong = |what: String| Fault::Wrong(what);
    let list = match wire.small(&layout::list(&record.artifact), LIST_MAX).await {
        Err(Fault::Absent) => return Err(wrong("is missing".to_owned())),
        Err(Fault::Wrong(what)) => return Err(wrong(format!("has a list of files that {what}"))),
        list => list?,
    };
    if Digest::of_bytes(&list) != record.artifact {
        return Err(wrong(
            "has a list of other files than its name says".to_owned(),
        ));
    }
    let artifact = Artifact::of_list(&list).map_err(wrong)?;
    let n_files = artifact.files.len();
    if n_files > FILES_MAX {
        return Err(wrong(format!(
            "has {n_files} files, and {FILES_MAX} is the most that is taken"
        )));
    }
    if artifact.bytes != record.artifact_bytes {
        let (files, said) = (artifact.bytes, record.artifact_bytes);
        return Err(wrong(format!(
            "has {files} bytes where its record says {said}"
        )));
    }
    Ok(artifact)
}

/// Makes every folder that a file is in, and every file that is empty.
fn make_folders(artifact: &Artifact, into: &Place) -> Result<(), Fault> {
    let parents = artifact
        .files
        .iter()
        .filter_map(|file| file.path.rsplit_once('/'));
    let folders: BTreeSet<&str> = parents.map(|(folder, _)| folder).collect();
    for folder in folders {
        into.below(folder).create_folder()?;
    }
    for file in artifact.files.iter().filter(|file| file.bytes == 0) {
        if file.digest != Digest::of_bytes(b"") {
            return Err(wrong_contents(file));
        }
        into.below(&file.path).create_file()?;
    }
    Ok(())
}

fn wrong_contents(file: &FileEntry) -> Fault {
    Fault::Wrong(format!(
        "has a wrong `{}`: its bytes are not what its digest says",
        file.path.escape_debug()
    ))
}

/// An artifact on its way.
struct Arriving<'a> {
    wire: &'a Wire,
    artifact: &'a Artifact,
    into: &'a Place,
    watch: &'a dyn Watch,
    done: AtomicU64,
}

impl Arriving<'_> {
    async fn object(&self, object: &Object) -> Result<(), Fault> {
        let first = self.artifact.files[object.files[0]].path.escape_debug();
        let mut body = match self.wire.body(&object.path).await {
            Err(Fault::Absent) => return Err(Fault::Wrong(format!("lacks `{first}`"))),
            body => body?,
        };
        if body.total != object.bytes {
            let (has, should) = (body.total, object.bytes);
            let what = format!("has a wrong `{first}`: {has} bytes instead of {should}");
            return Err(Fault::Wrong(what));
        }
        let mut rest = bytes::Bytes::new();
        for idx in &object.files {
            let file = &self.artifact.files[*idx];
            let arrived = self.file(file, &mut body, &mut rest).await;
            arrived.map_err(|fault| match fault {
                Fault::Wrong(what) if what.starts_with("is ") || what.starts_with("changed") => {
                    Fault::Wrong(format!(
                        "has a wrong `{}`: it {what}",
                        file.path.escape_debug()
                    ))
                }
                fault => fault,
            })?;
        }
        Ok(())
    }

    /// One file, of which `rest` may hold the beginning; what is left over is the next one's.
    async fn file(
        &self,
        file: &FileEntry,
        body: &mut Body<'_>,
        rest: &mut bytes::Bytes,
    ) -> Result<(), Fault> {
        let place = self.into.below(&file.path);
        let mut out = place.create_file()?;
        let mut hasher = blake3::Hasher::new();
        let mut left = file.bytes;
        while left > 0 {
            if rest.is_empty() {
                let more = body.next().await?;
                *rest = more.ok_or_else(|| Fault::Wrong("is cut short".to_owned()))?;
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let bytes = rest.split_to(rest.len().min(most));
            hasher.update(&bytes);
            out.write_all(&bytes)
                .map_err(|error| Fault::Here(format!("`{}`: {error}", place.display())))?;
            left -= bytes.len() as u64;
            let n_bytes = bytes.len() as u64;
            let done = self.done.fetch_add(n_bytes, Ordering::Relaxed) + n_bytes;
            self.watch.see(done, self.artifact.bytes);
        }
        match Digest::from(hasher.finalize()) == file.digest {
            true => Ok(()),
            false => Err(wrong_contents(file)),
        }
    }
}
