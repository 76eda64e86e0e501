//! An artifact made of other artifacts' files, without reading or writing their bytes.
//!
//! A hard link is a second name of the same bytes: it takes no room, any program can read it, and it stays
//! when the artifact that it was made from is removed. Nothing here writes into a file that stands in the
//! store, so one name cannot change what another says. Where the file system knows no such links, the file is
//! copied.
//!
//! A link moves the file's `ctime`, by which a manifest knows that nobody changed it. So the manifests on both
//! sides are brought up to date here, and of a file with several names `look` goes by the `mtime`, which a
//! link leaves alone and a write does not.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs,
};

use super::{
    Condition, Store,
    contents::{copy, read_contents, read_file, stat},
    manifest::{Known, KnownFolder, Manifest},
    tree::scan,
};
use crate::{Artifact, Digest, Error, Place, files, stat::Stat};

/// A file of an artifact under another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub from: Digest,
    pub file: String,
}

impl Store {
    /// Moves the folder `out`, with the files that `links` name beside those that are in it, into the
    /// store. A name that stands there already is an error.
    pub fn gather(&self, out: &Place, links: &[Link]) -> Result<Artifact, Error> {
        out.reach()?;
        let mut known = read_contents(&scan(out)?, true)?.files;
        let mut sources: HashMap<Digest, Manifest> = HashMap::new();
        for link in links {
            let source = match sources.entry(link.from) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.manifest(&link.from)?),
            };
            known.push(self.link(out, link, source)?);
        }
        for source in sources.values() {
            self.refresh(source);
        }
        known.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        let tree = scan(out)?;
        let folders = tree.folders.iter().map(|(path, metadata)| {
            files::sync_file(&tree.path(path))?;
            Ok(KnownFolder::new(path, Stat::of(metadata)))
        });
        let manifest = Manifest::new(known, folders.collect::<Result<_, Error>>()?);
        self.place(out, &manifest)?;
        Ok(manifest.artifact())
    }

    /// What is known of an artifact that is about to be read from.
    fn manifest(&self, digest: &Digest) -> Result<Manifest, Error> {
        let root = self.home.artifact_dir(digest);
        if let Some(manifest) = Manifest::read(&root, digest) {
            return Ok(manifest);
        }
        match self.condition(digest)? {
            Condition::Whole(manifest) => Ok(manifest),
            Condition::Damaged { path, .. } => Err(gone(path)),
            Condition::Missing => Err(gone(root.to_path_buf())),
        }
    }

    fn link(&self, out: &Place, link: &Link, source: &mut Manifest) -> Result<Known, Error> {
        let from = self.files(&link.from).below(&link.file);
        let to = out.below(&link.name);
        let found = source.files.iter_mut();
        let Some(before) = found.into_iter().find(|file| file.entry.path == link.file) else {
            return Err(gone(from.to_path_buf()));
        };
        if !stat(&from)?.is_same_but_ctime(&before.stat()) {
            // Touched since it was last read: only its bytes can tell.
            let is_file = fs::symlink_metadata(&from).is_ok_and(|found| found.is_file());
            let read = read_file(&from, &link.file)?;
            if !is_file || read.entry != before.entry {
                return Err(gone(from.to_path_buf()));
            }
            *before = read;
        }
        let is_linked = from.link_to(&to)?;
        if !is_linked {
            copy(&from, &to, before.entry.bytes)?;
        }
        let now = stat(&to)?;
        let is_same =
            is_linked && (now.mtime_ns, now.bytes) == (before.mtime_ns, before.entry.bytes);
        if is_same {
            before.ctime_ns = now.ctime_ns;
        }
        let mut entry = before.entry.clone();
        entry.path.clone_from(&link.name);
        Ok(Known {
            entry,
            mtime_ns: now.mtime_ns,
            ctime_ns: now.ctime_ns,
            inode: now.inode,
            settled: is_same && before.settled,
        })
    }
}

fn gone(path: std::path::PathBuf) -> Error {
    Error::ChangedWhileRead { path }
}
