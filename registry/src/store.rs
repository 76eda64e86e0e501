//! The artifact store: folders of files under the digest of their contents.
//!
//! An artifact's digest is blake3 over its sorted `(relative path, length, blake3)` list and nothing
//! else, so no time, host or path can make two equal artifacts differ. Beside the files, and outside
//! the digest, stands a manifest with each file's stat; a hit costs one small read and a handful of
//! stats. The manifest is a cache: contents are hashed again where a stat differs, and a lost
//! manifest is made anew from files that still add up to the folder's name.
//!
//! Nothing is ever written into an artifact that stands: it is made elsewhere and moved in whole by
//! one rename, under a lock on its digest, since two keys may make the same bytes at once.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata, Permissions},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Digest, Error, Home, Lock, Place, files, hash_file, home, names,
    stat::{Stat, now_ns},
};

const VERSION: u32 = 1;
const MANIFEST: &str = "manifest.json";
const FILES: &str = "files";

/// A committed folder of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    pub digest: Digest,
    pub bytes: u64,
    pub files: Vec<FileEntry>,
}

/// One file of an artifact; `path` is relative, with `/` between its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub path: String,
    pub bytes: u64,
    pub digest: Digest,
}

/// What an artifact holds, and what its files looked like when they were last read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    pub digest: Digest,
    pub bytes: u64,
    files: Vec<Known>,
    folders: Vec<KnownFolder>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    #[serde(flatten)]
    entry: FileEntry,
    mtime_ns: i64,
    ctime_ns: i64,
    inode: u64,
    /// Whether the stat above vouches for the contents.
    settled: bool,
}

/// A folder changes its mtime when a name comes or goes. Not its ctime: that a rename changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct KnownFolder {
    path: String,
    mtime_ns: i64,
    inode: u64,
    settled: bool,
}

/// What became of an artifact.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    Whole(Manifest),
    Missing,
    Damaged { path: PathBuf, what: String },
}

/// How much the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub n_artifacts: u64,
    pub bytes: u64,
}

/// The artifacts of one home.
#[derive(Debug, Clone)]
pub struct Store {
    home: Home,
}

impl Store {
    #[must_use]
    pub fn new(home: Home) -> Self {
        Store { home }
    }

    /// Moves the folder `out` into the store and returns what it has become.
    ///
    /// Until the last rename, `out` stays where it is, so a full disk loses no work. If the artifact
    /// is there already and whole, it is kept and `out` removed.
    pub fn commit(&self, out: &Place) -> Result<Artifact, Error> {
        // What stands behind a link is not ours to flush, to change the rights of, or to move.
        out.reach()?;
        let tree = scan(out)?;
        let manifest = read_contents(&tree, true)?;
        let artifact = manifest.artifact();

        let never = AtomicBool::new(false);
        let lock_path = self.home.artifact_lock(&artifact.digest);
        let _lock = Lock::wait_exclusive(&lock_path, "committing", &never, |_| {})?;
        if let Condition::Whole(_) = self.condition(&artifact.digest)? {
            out.remove()?;
            return Ok(artifact);
        }
        let staged = self.stage(out, &manifest)?;
        self.discard(&artifact.digest)?;
        let target = self.home.artifact_dir(&artifact.digest);
        staged.move_to(&target)?;
        target.parent().sync_folder()?;
        Ok(artifact)
    }

    /// Tells whether an artifact can be used, reading files only where their stat has changed.
    pub fn condition(&self, digest: &Digest) -> Result<Condition, Error> {
        let root = self.home.artifact_dir(digest);
        let Some(manifest) = read_manifest(&root, digest) else {
            return self.reread(digest);
        };
        let files = root.join(FILES);
        match look(&files, &manifest) {
            Ok(Look::Same) => Ok(Condition::Whole(manifest)),
            Ok(Look::Reread(refreshed)) => {
                self.refresh(&refreshed);
                Ok(Condition::Whole(refreshed))
            }
            Ok(Look::Damaged { path, what }) => Ok(Condition::Damaged { path, what }),
            Err(error) => damaged_or(error, &files),
        }
    }

    /// Tells whether an artifact can be used, reading every byte: this finds silent rot.
    ///
    /// What is found damaged no longer counts as looked at, so that the next hit reads it too, finds
    /// the same and has it made anew.
    pub fn verify(&self, digest: &Digest) -> Result<Condition, Error> {
        let condition = self.reread(digest)?;
        if let Condition::Damaged { .. } = condition {
            self.distrust(digest);
        }
        Ok(condition)
    }

    fn reread(&self, digest: &Digest) -> Result<Condition, Error> {
        let root = self.home.artifact_dir(digest);
        let files = root.join(FILES);
        match fs::symlink_metadata(&root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Condition::Missing);
            }
            metadata => metadata.map_err(|error| Error::io("read", &root, error))?,
        };
        let manifest = match scan(&files).and_then(|tree| read_contents(&tree, false)) {
            Ok(manifest) => manifest,
            Err(error) => return damaged_or(error, &files),
        };
        if manifest.digest == *digest {
            self.refresh(&manifest);
            return Ok(Condition::Whole(manifest));
        }
        let known = read_manifest(&root, digest);
        Ok(difference(&files, known.as_ref(), &manifest))
    }

    /// Writes down that no stat vouches for any file of an artifact any more. A home that cannot be
    /// written to cannot heal either.
    fn distrust(&self, digest: &Digest) {
        let root = self.home.artifact_dir(digest);
        // Without a manifest every byte is read each time anyway.
        let Some(mut manifest) = read_manifest(&root, digest) else {
            return;
        };
        manifest
            .files
            .iter_mut()
            .for_each(|file| file.settled = false);
        manifest
            .folders
            .iter_mut()
            .for_each(|folder| folder.settled = false);
        let _ = write_manifest(&root, &manifest, true);
    }

    /// The digests of all artifacts, whole or not.
    pub fn list(&self) -> Result<Vec<Digest>, Error> {
        let mut digests = Vec::new();
        for folder in self.home.artifacts().list()? {
            let paths = folder.list()?;
            digests.extend(paths.iter().filter_map(|path| home::digest_at(path, "")));
        }
        Ok(digests)
    }

    /// The bytes that one artifact takes, by its manifest where there is one.
    #[must_use]
    pub fn bytes(&self, digest: &Digest) -> u64 {
        let root = self.home.artifact_dir(digest);
        read_manifest(&root, digest).map_or_else(
            || files::folder_bytes(&root.join(FILES)),
            |manifest| manifest.bytes,
        )
    }

    /// How much there is in all.
    pub fn usage(&self) -> Result<Usage, Error> {
        let digests = self.list()?;
        Ok(Usage {
            n_artifacts: digests.len() as u64,
            bytes: digests.iter().map(|digest| self.bytes(digest)).sum(),
        })
    }

    /// Removes an artifact; no reader sees it half gone under its name.
    pub fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let never = AtomicBool::new(false);
        let lock_path = self.home.artifact_lock(digest);
        let _lock = Lock::wait_exclusive(&lock_path, "removing", &never, |_| {})?;
        self.discard(digest)
    }

    /// Where the files of an artifact stand.
    #[must_use]
    pub fn files(&self, digest: &Digest) -> Place {
        self.home.artifact_files(digest)
    }

    /// Puts the artifact together beside the store; all that needs room comes before the move.
    fn stage(&self, out: &Place, manifest: &Manifest) -> Result<Place, Error> {
        let staged = self.new_staged();
        let assembled = write_manifest(&staged, manifest, true)
            .and_then(|()| out.move_to(&staged.below(FILES)))
            .and_then(|()| staged.sync_folder());
        if assembled.is_err() && !staged.join(FILES).exists() {
            let _ = staged.remove();
        }
        assembled.map(|()| staged)
    }

    /// Takes what stands at a digest out of sight with one rename, then deletes it.
    fn discard(&self, digest: &Digest) -> Result<(), Error> {
        let root = self.home.artifact_dir(digest);
        if fs::symlink_metadata(&root).is_err() {
            return Ok(());
        }
        let trash = self.new_staged();
        root.move_to(&trash)?;
        trash.remove()
    }

    fn new_staged(&self) -> Place {
        let name = names::unique();
        self.home.staging().below(name)
    }

    /// Keeps what was learnt; a home that cannot be written to learns it again next time.
    fn refresh(&self, manifest: &Manifest) {
        let root = self.home.artifact_dir(&manifest.digest);
        let _ = write_manifest(&root, manifest, false);
    }
}

impl Manifest {
    /// The files, sorted by path.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &FileEntry> {
        self.files.iter().map(|known| &known.entry)
    }

    #[must_use]
    pub fn artifact(&self) -> Artifact {
        Artifact {
            digest: self.digest,
            bytes: self.bytes,
            files: self.files().cloned().collect(),
        }
    }
}

/// The digest of a sorted list of files. Lengths stand before what they measure, so that no two
/// lists share an encoding.
#[must_use]
pub fn artifact_digest<'a>(files: impl IntoIterator<Item = &'a FileEntry>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"tinylm artifact 1\n");
    for file in files {
        hasher.update(&(file.path.len() as u64).to_le_bytes());
        hasher.update(file.path.as_bytes());
        hasher.update(&file.bytes.to_le_bytes());
        hasher.update(file.digest.as_bytes());
    }
    hasher.finalize().into()
}

/// A folder as it stands: relative paths, sorted, with what the kernel says of each.
#[derive(Default)]
struct Tree {
    root: PathBuf,
    files: Vec<(String, Metadata)>,
    folders: Vec<(String, Metadata)>,
}

impl Tree {
    fn path(&self, relative: &str) -> PathBuf {
        join(&self.root, relative)
    }
}

fn join(root: &Path, relative: &str) -> PathBuf {
    if relative.is_empty() {
        root.to_owned()
    } else {
        root.join(relative)
    }
}

fn scan(root: &Path) -> Result<Tree, Error> {
    let metadata = fs::symlink_metadata(root).map_err(|error| Error::io("read", root, error))?;
    let mut tree = Tree {
        root: root.to_owned(),
        ..Tree::default()
    };
    if !metadata.is_dir() {
        let (path, what) = (root.to_owned(), odd(&metadata));
        return Err(Error::OddFile { path, what });
    }
    scan_folder(&mut tree, String::new(), metadata)?;
    // By bytes of the path, which is not the order of a walk: `a.b` sorts before `a/b`.
    tree.files.sort_by(|(a, _), (b, _)| a.cmp(b));
    tree.folders.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(tree)
}

fn scan_folder(tree: &mut Tree, relative: String, metadata: Metadata) -> Result<(), Error> {
    for path in files::list_folder(&tree.path(&relative))? {
        let metadata =
            fs::symlink_metadata(&path).map_err(|error| Error::io("read", &path, error))?;
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(Error::NotUtf8 { path });
        };
        let name = if relative.is_empty() {
            name.to_owned()
        } else {
            format!("{relative}/{name}")
        };
        if metadata.is_dir() {
            scan_folder(tree, name, metadata)?;
        } else if metadata.is_file() {
            tree.files.push((name, metadata));
        } else if metadata.is_symlink() {
            return Err(Error::Symlink { path });
        } else {
            let what = odd(&metadata);
            return Err(Error::OddFile { path, what });
        }
    }
    tree.folders.push((relative, metadata));
    Ok(())
}

fn odd(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "named pipe"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "device"
    } else if kind.is_symlink() {
        "symbolic link"
    } else {
        "file, not a folder"
    }
}

/// Reads every file of a tree; for a commit also flushes it and makes it nobody else's.
fn read_contents(tree: &Tree, for_commit: bool) -> Result<Manifest, Error> {
    let files: Vec<Known> = tree
        .files
        .par_iter()
        .map(|(relative, metadata)| {
            let path = tree.path(relative);
            if for_commit {
                own(&path, metadata)?;
            }
            read_file(&path, relative)
        })
        .collect::<Result<_, Error>>()?;
    let folders = tree
        .folders
        .iter()
        .map(|(relative, metadata)| {
            if for_commit {
                own_folder(&tree.path(relative), metadata)?;
            }
            Ok(known_folder(relative, metadata))
        })
        .collect::<Result<_, Error>>()?;
    Ok(Manifest {
        version: VERSION,
        digest: artifact_digest(files.iter().map(|known| &known.entry)),
        bytes: files.iter().map(|known| known.entry.bytes).sum(),
        files,
        folders,
    })
}

/// Replaces a hard link by a copy, since the other name could change our bytes; then flushes.
fn own(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    if metadata.nlink() > 1 {
        let copy = path.with_file_name(format!(".{}.copy", names::unique()));
        fs::copy(path, &copy)
            .map_err(|error| Error::io_of("copy", path, Some(metadata.len()), error))?;
        files::rename(&copy, path)?;
    }
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::io_of("flush", path, Some(metadata.len()), error))
}

/// Lets us empty the folder one day, which a copy of a read-only one would not; then flushes.
fn own_folder(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    let mode = metadata.mode();
    if mode & 0o700 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(mode | 0o700))
            .map_err(|error| Error::io("make writable", path, error))?;
    }
    files::sync_file(path)
}

fn read_file(path: &Path, relative: &str) -> Result<Known, Error> {
    let read_at_ns = now_ns();
    let before = stat(path)?;
    let (digest, bytes) = hash_file(path)?;
    if stat(path)? != before {
        return Err(Error::ChangedWhileRead { path: path.into() });
    }
    Ok(Known {
        entry: FileEntry {
            path: relative.to_owned(),
            bytes,
            digest,
        },
        mtime_ns: before.mtime_ns,
        ctime_ns: before.ctime_ns,
        inode: before.inode,
        settled: before.was_settled(read_at_ns),
    })
}

fn stat(path: &Path) -> Result<Stat, Error> {
    let metadata = fs::symlink_metadata(path).map_err(|error| Error::io("read", path, error))?;
    Ok(Stat::of(&metadata))
}

fn known_folder(relative: &str, metadata: &Metadata) -> KnownFolder {
    let stat = Stat::of(metadata);
    KnownFolder {
        path: relative.to_owned(),
        mtime_ns: stat.mtime_ns,
        inode: stat.inode,
        settled: stat.was_settled(now_ns()),
    }
}

/// What a look at the files, held against the manifest, found.
enum Look {
    Same,
    /// Some files had to be read; all held what they should, and this is the newer manifest.
    Reread(Manifest),
    Damaged {
        path: PathBuf,
        what: String,
    },
}

fn look(root: &Path, manifest: &Manifest) -> Result<Look, Error> {
    let mut refreshed = manifest.clone();
    let mut same = true;
    for known in &mut refreshed.files {
        let path = join(root, &known.entry.path);
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if is_absent(&error) => return Ok(damaged(path, "is missing")),
            metadata => metadata.map_err(|error| Error::io("read", &path, error))?,
        };
        let stat = Stat::of(&metadata);
        if known.settled && known.stat() == stat {
            continue;
        }
        if !metadata.is_file() {
            return Ok(damaged(path, "is no longer a file"));
        }
        if stat.bytes != known.entry.bytes {
            let what = format!("has {} bytes instead of {}", stat.bytes, known.entry.bytes);
            return Ok(Look::Damaged { path, what });
        }
        let read = read_file(&path, &known.entry.path)?;
        if read.entry != known.entry {
            return Ok(damaged(path, "has other contents"));
        }
        *known = read;
        same = false;
    }
    if let Some(folders) = look_at_folders(root, manifest)? {
        let (folders, added) = folders;
        if let Some(path) = added {
            return Ok(damaged(path, "was added"));
        }
        refreshed.folders = folders;
        same = false;
    }
    Ok(if same {
        Look::Same
    } else {
        Look::Reread(refreshed)
    })
}

type Folders = (Vec<KnownFolder>, Option<PathBuf>);

/// Lists the folders again if one has changed: nothing if none has, else what they look like now
/// and a file that does not belong there.
fn look_at_folders(root: &Path, manifest: &Manifest) -> Result<Option<Folders>, Error> {
    let is_same = |known: &KnownFolder| {
        fs::symlink_metadata(join(root, &known.path)).is_ok_and(|metadata| {
            let stat = Stat::of(&metadata);
            known.settled && (known.mtime_ns, known.inode) == (stat.mtime_ns, stat.inode)
        })
    };
    if manifest.folders.iter().all(is_same) {
        return Ok(None);
    }
    let tree = scan(root)?;
    let ours: BTreeSet<&str> = manifest.files().map(|file| file.path.as_str()).collect();
    let added = tree
        .files
        .iter()
        .find(|(path, _)| !ours.contains(path.as_str()));
    let added = added.map(|(path, _)| tree.path(path));
    let folders = tree
        .folders
        .iter()
        .map(|(path, metadata)| known_folder(path, metadata));
    Ok(Some((folders.collect(), added)))
}

impl Known {
    fn stat(&self) -> Stat {
        Stat {
            bytes: self.entry.bytes,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            inode: self.inode,
        }
    }
}

fn damaged(path: PathBuf, what: &str) -> Look {
    let what = what.to_owned();
    Look::Damaged { path, what }
}

fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// What an artifact cannot hold, found in one, is damage; anything else is an error.
fn damaged_or(error: Error, files: &Path) -> Result<Condition, Error> {
    let (path, what) = match error {
        Error::Symlink { path } => (path, "is a symbolic link".to_owned()),
        Error::NotUtf8 { path } => (path, "was added".to_owned()),
        Error::OddFile { path, what } => (path, format!("is a {what}")),
        Error::Io { path, source, .. } if path == files && is_absent(&source) => {
            (path, "is missing".to_owned())
        }
        error => return Err(error),
    };
    Ok(Condition::Damaged { path, what })
}

/// Names the first file in which what was found differs from what was known.
fn difference(root: &Path, known: Option<&Manifest>, found: &Manifest) -> Condition {
    let Some(known) = known else {
        return Condition::Damaged {
            path: root.to_owned(),
            what: "has neither a manifest nor the contents of its name".into(),
        };
    };
    let is_in = |file: &FileEntry, manifest: &Manifest| manifest.files().any(|other| other == file);
    let lost = known.files().find(|file| !is_in(file, found));
    let added = found.files().find(|file| !is_in(file, known));
    let (file, what) = match (lost, added) {
        (Some(file), _) if found.files().any(|other| other.path == file.path) => {
            (file, "has other contents")
        }
        (Some(file), _) => (file, "is missing"),
        (None, Some(file)) => (file, "was added"),
        (None, None) => {
            return Condition::Damaged {
                path: root.to_owned(),
                what: "has a manifest of something else".into(),
            };
        }
    };
    Condition::Damaged {
        path: join(root, &file.path),
        what: what.into(),
    }
}

fn read_manifest(root: &Path, digest: &Digest) -> Option<Manifest> {
    let bytes = fs::read(root.join(MANIFEST)).ok()?;
    let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
    (manifest.version == VERSION && manifest.digest == *digest).then_some(manifest)
}

fn write_manifest(root: &Place, manifest: &Manifest, sync: bool) -> Result<(), Error> {
    let path = root.below(MANIFEST);
    let json =
        serde_json::to_vec(manifest).map_err(|error| Error::io("write", &path, error.into()))?;
    if sync {
        path.write_atomic(&json)
    } else {
        path.replace(&json)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::symlink, thread, time::Duration};

    use proptest::prelude::*;

    use super::*;

    struct Fixture {
        folder: tempfile::TempDir,
        store: Store,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let home = Home::at(folder.path().join(".tinylm"));
            home.create().unwrap();
            let store = Store::new(home);
            Fixture { folder, store }
        }

        /// A folder that a stage has just written.
        fn out(&self, files: &[(&str, &str)]) -> Place {
            let name = names::unique();
            let out = self.store.home.work().below(name);
            out.create_folder().unwrap();
            for (path, text) in files {
                let path = out.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            out
        }

        fn commit(&self, files: &[(&str, &str)]) -> Digest {
            self.store.commit(&self.out(files)).unwrap().digest
        }

        fn path(&self, digest: &Digest, path: &str) -> PathBuf {
            self.store.files(digest).join(path)
        }

        #[track_caller]
        fn assert_whole(&self, digest: &Digest) {
            let condition = self.store.condition(digest).unwrap();
            assert!(matches!(condition, Condition::Whole(_)), "{condition:?}");
        }

        #[track_caller]
        fn damage(&self, digest: &Digest) -> String {
            match self.store.condition(digest).unwrap() {
                Condition::Damaged { path, what } => {
                    let path = path.strip_prefix(self.store.files(digest)).unwrap();
                    format!("{} {what}", path.display())
                }
                other => panic!("{other:?}"),
            }
        }

        fn leftovers(&self) -> Vec<Place> {
            self.store.home.staging().list().unwrap()
        }
    }

    const FILES: &[(&str, &str)] = &[("a.txt", "one"), ("a/b.txt", "two"), ("a b\nc", "")];

    #[test]
    fn what_is_committed_is_found_and_the_folder_has_moved() {
        let fixture = Fixture::new();
        let out = fixture.out(FILES);
        let artifact = fixture.store.commit(&out).unwrap();
        assert!(!out.exists());
        assert_eq!(artifact.bytes, 6);
        let paths: Vec<&str> = artifact
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        assert_eq!(paths, ["a b\nc", "a.txt", "a/b.txt"]);
        assert_eq!(
            fs::read_to_string(fixture.path(&artifact.digest, "a/b.txt")).unwrap(),
            "two"
        );
        match fixture.store.condition(&artifact.digest).unwrap() {
            Condition::Whole(manifest) => assert_eq!(manifest.artifact(), artifact),
            other => panic!("{other:?}"),
        }
        assert_eq!(fixture.store.list().unwrap(), [artifact.digest]);
        let usage = fixture.store.usage().unwrap();
        assert_eq!((usage.n_artifacts, usage.bytes), (1, 6));
        assert_eq!(fixture.leftovers(), [] as [Place; 0]);
    }

    #[test]
    fn the_digest_of_an_artifact_never_changes() {
        let fixture = Fixture::new();
        let digest = fixture.commit(FILES);
        insta::assert_snapshot!(digest, @"12fb6a1ce2293689a749d02a72f02f7ab9f4ea4f1ab47a147fe1c2e5422dffbd");
    }

    #[test]
    fn the_same_bytes_are_kept_once_even_when_committed_at_once() {
        let fixture = Fixture::new();
        let outs: Vec<Place> = (0..8).map(|_| fixture.out(FILES)).collect();
        let digests: Vec<Digest> = thread::scope(|scope| {
            let commits: Vec<_> = outs
                .iter()
                .map(|out| scope.spawn(|| fixture.store.commit(out).unwrap().digest))
                .collect();
            commits
                .into_iter()
                .map(|commit| commit.join().unwrap())
                .collect()
        });
        assert_eq!(fixture.store.list().unwrap(), [digests[0]]);
        assert!(digests.iter().all(|digest| *digest == digests[0]));
        assert!(outs.iter().all(|out| !out.exists()));
        assert_eq!(fixture.leftovers(), [] as [Place; 0]);
        fixture.assert_whole(&digests[0]);
    }

    #[test]
    fn any_change_is_named_and_a_commit_of_the_same_bytes_heals_it() {
        let fixture = Fixture::new();
        let digest = fixture.commit(FILES);
        type Change = fn(&Path);
        let changes: [(Change, &str); 7] = [
            (
                |root| symlink("/etc/hosts", root.join("a/link")).unwrap(),
                "a/link is a symbolic link",
            ),
            (
                |root| fs::write(root.join("a.txt"), "on").unwrap(),
                "a.txt has 2 bytes instead of 3",
            ),
            (
                |root| fs::write(root.join("a.txt"), "eno").unwrap(),
                "a.txt has other contents",
            ),
            (
                |root| fs::remove_file(root.join("a/b.txt")).unwrap(),
                "a/b.txt is missing",
            ),
            (
                |root| fs::remove_dir_all(root.join("a")).unwrap(),
                "a/b.txt is missing",
            ),
            (
                |root| fs::write(root.join("a/c.txt"), "new").unwrap(),
                "a/c.txt was added",
            ),
            (
                |root| {
                    fs::remove_file(root.join("a.txt")).unwrap();
                    symlink("/etc/hosts", root.join("a.txt")).unwrap();
                },
                "a.txt is no longer a file",
            ),
        ];
        for (change, what) in changes {
            fixture.assert_whole(&digest);
            change(&fixture.store.files(&digest));
            assert_eq!(fixture.damage(&digest), what);
            assert_eq!(fixture.commit(FILES), digest);
        }
        fixture.assert_whole(&digest);
        assert_eq!(fixture.leftovers(), [] as [Place; 0]);
    }

    #[test]
    fn a_settled_artifact_is_not_read_but_a_restored_mtime_fools_nobody() {
        let fixture = Fixture::new();
        let digest = fixture.commit(FILES);
        thread::sleep(Duration::from_millis(2100));
        fixture.assert_whole(&digest);
        let root = fixture.store.home.artifact_dir(&digest);
        let manifest = read_manifest(&root, &digest).unwrap();
        assert!(manifest.files.iter().all(|known| known.settled));
        assert!(manifest.folders.iter().all(|known| known.settled));
        assert!(matches!(
            look(&root.join(super::FILES), &manifest).unwrap(),
            Look::Same
        ));

        let path = fixture.path(&digest, "a.txt");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "eno").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(modified))
            .unwrap();
        assert_eq!(fixture.damage(&digest), "a.txt has other contents");
    }

    #[test]
    fn a_touch_or_a_lost_manifest_harms_nothing() {
        let fixture = Fixture::new();
        let digest = fixture.commit(FILES);
        let file = File::options()
            .write(true)
            .open(fixture.path(&digest, "a.txt"))
            .unwrap();
        file.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH))
            .unwrap();
        fixture.assert_whole(&digest);

        let manifest = fixture.store.home.artifact_dir(&digest).join(MANIFEST);
        fs::remove_file(&manifest).unwrap();
        fixture.assert_whole(&digest);
        assert!(manifest.exists());
        fs::write(&manifest, "{ torn").unwrap();
        fixture.assert_whole(&digest);

        fs::remove_file(&manifest).unwrap();
        fs::write(fixture.path(&digest, "a.txt"), "eno").unwrap();
        assert_eq!(
            fixture.damage(&digest),
            " has neither a manifest nor the contents of its name"
        );
    }

    #[test]
    fn verify_finds_rot_that_no_stat_shows() {
        let fixture = Fixture::new();
        let digest = fixture.commit(FILES);
        let path = fixture.path(&digest, "a.txt");
        fs::write(&path, "eno").unwrap();
        // A manifest that believes the rotten file, as if the disk had changed it behind our back.
        let root = fixture.store.home.artifact_dir(&digest);
        let mut manifest = read_manifest(&root, &digest).unwrap();
        let stat = stat(&path).unwrap();
        let known = manifest
            .files
            .iter_mut()
            .find(|known| known.entry.path == "a.txt")
            .unwrap();
        (known.mtime_ns, known.ctime_ns, known.inode) = (stat.mtime_ns, stat.ctime_ns, stat.inode);
        manifest
            .files
            .iter_mut()
            .for_each(|known| known.settled = true);
        write_manifest(&root, &manifest, false).unwrap();
        fixture.assert_whole(&digest);
        match fixture.store.verify(&digest).unwrap() {
            Condition::Damaged { path: found, what } => {
                assert_eq!((found, what.as_str()), (path, "has other contents"));
            }
            other => panic!("{other:?}"),
        }
        // From then on it is no hit, until it has been made anew.
        let found = fixture.store.condition(&digest).unwrap();
        assert!(matches!(found, Condition::Damaged { .. }), "{found:?}");
        assert_eq!(fixture.commit(FILES), digest);
        fixture.assert_whole(&digest);
    }

    #[test]
    fn nothing_behind_a_link_is_committed_or_changed() {
        let fixture = Fixture::new();
        let elsewhere = fixture.folder.path().join("elsewhere");
        let inner = elsewhere.join("out/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o555)).unwrap();
        let attempt = fixture.store.home.work().below("attempt");
        attempt.parent().create_folder().unwrap();
        symlink(&elsewhere, &*attempt).unwrap();
        let error = fixture.store.commit(&attempt.below("out")).unwrap_err();
        assert!(matches!(error, Error::LinkInHome { .. }), "{error}");
        assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o777, 0o555);
    }

    #[test]
    fn what_an_artifact_cannot_hold_is_refused_by_name_and_left_alone() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt, os::unix::net::UnixListener};
        let fixture = Fixture::new();
        let error = |out: &Place| {
            let error = fixture.store.commit(out).unwrap_err().to_string();
            assert!(out.join("a.txt").exists());
            error.replace(&*out.to_string_lossy(), "OUT")
        };
        let linked = fixture.out(FILES);
        symlink("a.txt", linked.join("link")).unwrap();
        assert_eq!(
            error(&linked),
            "`OUT/link` is a symbolic link, which an artifact cannot hold"
        );
        let odd = fixture.out(FILES);
        let _socket = UnixListener::bind(odd.join("socket")).unwrap();
        assert_eq!(
            error(&odd),
            "`OUT/socket` is a socket, which an artifact cannot hold"
        );
        let unnamed = fixture.out(FILES);
        if fs::write(unnamed.join(OsStr::from_bytes(b"\xff")), "").is_ok() {
            assert_eq!(error(&unnamed), "the name of `OUT/\u{fffd}` is not UTF-8");
        }
        assert_eq!(fixture.store.list().unwrap(), []);
        let missing = fixture.store.home.work().below("nothing");
        assert!(fixture.store.commit(&missing).is_err());
        let file = fixture.out(FILES).below("a.txt");
        assert!(fixture.store.commit(&file).is_err());
    }

    #[test]
    fn a_hard_link_is_copied_so_that_its_other_name_cannot_change_the_artifact() {
        let fixture = Fixture::new();
        let out = fixture.out(FILES);
        let users = fixture.folder.path().join("users.txt");
        fs::write(&users, "mine").unwrap();
        fs::hard_link(&users, out.join("mine.txt")).unwrap();
        let digest = fixture.store.commit(&out).unwrap().digest;
        fs::write(&users, "edit").unwrap();
        fixture.assert_whole(&digest);
        assert_eq!(
            fs::read_to_string(fixture.path(&digest, "mine.txt")).unwrap(),
            "mine"
        );
    }

    #[test]
    fn a_read_only_folder_can_be_removed_later_and_an_empty_artifact_can_be_lost() {
        let fixture = Fixture::new();
        let out = fixture.out(FILES);
        fs::set_permissions(out.join("a"), Permissions::from_mode(0o555)).unwrap();
        let digest = fixture.store.commit(&out).unwrap().digest;
        fixture.assert_whole(&digest);
        let mode = fs::metadata(fixture.path(&digest, "a")).unwrap().mode();
        assert_eq!(mode & 0o700, 0o700);

        let empty = fixture.commit(&[]);
        fixture.assert_whole(&empty);
        fs::remove_dir(fixture.store.files(&empty)).unwrap();
        assert_eq!(fixture.damage(&empty), " is missing");
        assert_eq!(fixture.commit(&[]), empty);
        fixture.assert_whole(&empty);
    }

    #[test]
    fn a_failed_commit_leaves_the_work_where_it_was() {
        let fixture = Fixture::new();
        let out = fixture.out(FILES);
        let staging = fixture.store.home.staging();
        staging.parent().create_folder().unwrap();
        fs::write(&staging, "in the way").unwrap();
        let error = fixture.store.commit(&out).unwrap_err();
        assert!(error.to_string().contains("staging"), "{error}");
        assert!(out.join("a/b.txt").exists());
        fs::remove_file(&staging).unwrap();
        let digest = fixture.store.commit(&out).unwrap().digest;
        fixture.assert_whole(&digest);
    }

    #[test]
    fn a_removed_artifact_is_missing_and_removing_it_again_is_fine() {
        let fixture = Fixture::new();
        let digest = fixture.commit(FILES);
        fixture.store.remove(&digest).unwrap();
        fixture.store.remove(&digest).unwrap();
        assert_eq!(
            fixture.store.condition(&digest).unwrap(),
            Condition::Missing
        );
        assert_eq!(fixture.leftovers(), [] as [Place; 0]);
    }

    proptest! {
        #[test]
        fn two_lists_share_a_digest_only_if_they_are_the_same(
            a in prop::collection::btree_map("[ab/]{1,3}", "[ab]{0,2}", 0..3),
            b in prop::collection::btree_map("[ab/]{1,3}", "[ab]{0,2}", 0..3),
        ) {
            let digest = |files: &BTreeMap<String, String>| {
                let entries: Vec<FileEntry> = files
                    .iter()
                    .map(|(path, text)| FileEntry {
                        path: path.clone(),
                        bytes: text.len() as u64,
                        digest: Digest::of_bytes(text.as_bytes()),
                    })
                    .collect();
                artifact_digest(&entries)
            };
            prop_assert_eq!(digest(&a) == digest(&b), a == b);
        }
    }
}
