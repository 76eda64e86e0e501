//! Digests of users' files, remembered by their stat.
//!
//! A no-op must not read the corpus. An entry is believed only while path, length, mtime, ctime and
//! inode are all the same and the file was settled when it was read (see `stat.rs`), so a file
//! with changed bytes and its old size and mtime restored is still seen. The cache is an
//! optimisation through and through: without a writable home it works for as long as the process
//! lives, and a damaged file of it is an empty one.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Error, Place, hash_file,
    stat::{Stat, now_ns},
};

/// Entries beyond this many are forgotten, those read longest ago first.
const ENTRIES_MAX: usize = 50_000;

/// A shared, thread-safe memory of digests.
#[derive(Debug)]
pub struct StatCache {
    path: Option<Place>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, Entry>,
    /// Entries that this process added; nothing is written without any.
    added: HashMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    stat: Stat,
    digest: Digest,
    read_at_ns: i64,
}

impl StatCache {
    /// The cache persisted at `path`, or one that is only remembered in this process.
    #[must_use]
    pub fn load(path: Option<Place>) -> Self {
        let entries = path.as_deref().map(read_entries).unwrap_or_default();
        let added = HashMap::new();
        let state = Mutex::new(State { entries, added });
        StatCache { path, state }
    }

    /// The digest and length of the file at `path`; reads the file only if it may have changed.
    pub fn digest(&self, path: &Path) -> Result<(Digest, u64), Error> {
        let before = stat(path)?;
        let name = absolute(path);
        if let Some(digest) = self.recall(name.as_deref(), &before) {
            return Ok((digest, before.bytes));
        }
        let read_at_ns = now_ns();
        let (digest, bytes) = hash_file(path)?;
        if stat(path)? != before {
            return Err(Error::ChangedWhileRead { path: path.into() });
        }
        if let Some(name) = name.filter(|_| before.was_settled(read_at_ns)) {
            let stat = before;
            let entry = Entry {
                stat,
                digest,
                read_at_ns,
            };
            let mut state = self.state();
            state.entries.insert(name.clone(), entry.clone());
            state.added.insert(name, entry);
        }
        Ok((digest, bytes))
    }

    /// Writes what was added, beside what other processes have written meanwhile.
    pub fn save(&self) -> Result<(), Error> {
        let added = std::mem::take(&mut self.state().added);
        let Some(path) = self.path.as_ref().filter(|_| !added.is_empty()) else {
            return Ok(());
        };
        let mut entries = read_entries(path);
        entries.extend(added);
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.read_at_ns));
        entries.truncate(ENTRIES_MAX);
        let entries: HashMap<_, _> = entries.into_iter().collect();
        let json =
            serde_json::to_vec(&entries).map_err(|error| Error::io("write", path, error.into()))?;
        path.replace(&json)
    }

    fn recall(&self, name: Option<&str>, stat: &Stat) -> Option<Digest> {
        let state = self.state();
        let entry = state.entries.get(name?)?;
        (entry.stat == *stat).then_some(entry.digest)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one insert, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stat(path: &Path) -> Result<Stat, Error> {
    let metadata = fs::metadata(path).map_err(|error| Error::io("read", path, error))?;
    Ok(Stat::of(&metadata))
}

/// The name of an entry; a path that is not UTF-8 is not worth one.
fn absolute(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    path.into_os_string().into_string().ok()
}

fn read_entries(path: &Path) -> HashMap<String, Entry> {
    fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{fs::FileTimes, os::unix::fs::MetadataExt, thread, time::Duration};

    use super::*;

    /// A file whose last change lies far enough back to be believed.
    fn settled_file(folder: &Path, bytes: &[u8]) -> std::path::PathBuf {
        let path = folder.join("corpus.txt");
        fs::write(&path, bytes).unwrap();
        thread::sleep(Duration::from_millis(2050));
        path
    }

    #[test]
    fn a_settled_file_is_read_once_and_a_restored_mtime_fools_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = settled_file(folder.path(), b"one");
        let cache_path = crate::Home::at(folder.path().join("home")).stat_cache_path();
        let cache = StatCache::load(Some(cache_path.clone()));
        let (digest, bytes) = cache.digest(&path).unwrap();
        assert_eq!((digest, bytes), (Digest::of_bytes(b"one"), 3));
        cache.save().unwrap();

        let again = StatCache::load(Some(cache_path.clone()));
        let name = absolute(&path).unwrap();
        assert_eq!(
            again.recall(Some(&name), &stat(&path).unwrap()),
            Some(digest)
        );

        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, b"two").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_times(FileTimes::new().set_modified(modified))
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), modified);
        assert_eq!(again.digest(&path).unwrap().0, Digest::of_bytes(b"two"));

        fs::write(&cache_path, b"{ torn").unwrap();
        let torn = StatCache::load(Some(cache_path));
        assert_eq!(torn.digest(&path).unwrap().0, Digest::of_bytes(b"two"));
    }

    #[test]
    fn a_young_file_is_read_every_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("young");
        fs::write(&path, b"one").unwrap();
        let cache = StatCache::load(None);
        cache.digest(&path).unwrap();
        assert!(cache.state().entries.is_empty());
        assert!(fs::metadata(&path).unwrap().ctime() > 0);
        cache.save().unwrap();
    }
}
