//! Kernel file locks that say who holds them.
//!
//! A lock dies with the process that holds it, however that process ends, so there is nothing
//! stale to clean up and no pid to guess about. The file holds the holder's note, for the message
//! of whoever waits. A holder removes its file as it lets go, and people remove lock files by hand;
//! so whoever gets a lock checks that the file it locked is still the one at the path.
//!
//! `flock` rather than `fcntl` locks: those belong to the process, and closing any other handle of
//! the file would drop them. Handles are close-on-exec, so a child does not keep a lock alive.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{Error, Place};

/// A lock held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: Place,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exclusive,
    Shared,
}

impl Lock {
    /// Returns the lock, or nothing while anybody else holds it.
    pub fn try_exclusive(path: &Place, note: &str) -> Result<Option<Lock>, Error> {
        attempt_patiently(path, note, Kind::Exclusive)
    }

    /// Returns the lock, or nothing while somebody holds it exclusively.
    pub fn try_shared(path: &Place, note: &str) -> Result<Option<Lock>, Error> {
        attempt_patiently(path, note, Kind::Shared)
    }

    /// Waits for the lock; `on_wait` is told the holder's note, again whenever it changes.
    /// Returns nothing once `cancelled` is set.
    pub fn wait_exclusive(
        path: &Place,
        note: &str,
        cancelled: &AtomicBool,
        on_wait: impl FnMut(&str),
    ) -> Result<Option<Lock>, Error> {
        wait(path, note, Kind::Exclusive, cancelled, on_wait)
    }

    /// As [`Lock::wait_exclusive`], but beside others who share it.
    pub fn wait_shared(
        path: &Place,
        note: &str,
        cancelled: &AtomicBool,
        on_wait: impl FnMut(&str),
    ) -> Result<Option<Lock>, Error> {
        wait(path, note, Kind::Shared, cancelled, on_wait)
    }

    /// Changes what others read about the holder.
    pub fn set_note(&self, note: &str) -> Result<(), Error> {
        write_note(&self.file, note).map_err(|error| Error::io("write", &self.path, error))
    }

    #[must_use]
    pub fn path(&self) -> &Place {
        &self.path
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While we still hold it, so that nobody can lock the file that goes. Sharers leave it.
        if self.kind == Kind::Exclusive && is_at(&self.file, &self.path) {
            let _ = self.path.remove();
        }
    }
}

/// The note of whoever holds the lock at `path` exclusively; nothing when it is free.
pub fn holder(path: &Place) -> Result<Option<String>, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| Error::io("open", path, error))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(Some(read_note(path))),
        Err(error) => Err(Error::io("lock", path, error.into())),
    }
}

/// Looks again before giving up, because [`holder`] asks by holding the lock for a moment.
fn attempt_patiently(path: &Place, note: &str, kind: Kind) -> Result<Option<Lock>, Error> {
    for pause_ms in [1, 4, 10] {
        if let Some(lock) = attempt(path, note, kind)? {
            return Ok(Some(lock));
        }
        thread::sleep(Duration::from_millis(pause_ms));
    }
    attempt(path, note, kind)
}

fn wait(
    path: &Place,
    note: &str,
    kind: Kind,
    cancelled: &AtomicBool,
    mut on_wait: impl FnMut(&str),
) -> Result<Option<Lock>, Error> {
    let mut told: Option<String> = None;
    let mut pause = Duration::from_millis(1);
    while !cancelled.load(Ordering::Relaxed) {
        if let Some(lock) = attempt(path, note, kind)? {
            return Ok(Some(lock));
        }
        // A moment's wait is not worth a message.
        if pause > Duration::from_millis(20) {
            let holder = read_note(path);
            if told.as_ref() != Some(&holder) {
                on_wait(&holder);
                told = Some(holder);
            }
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    Ok(None)
}

fn attempt(path: &Place, note: &str, kind: Kind) -> Result<Option<Lock>, Error> {
    let operation = match kind {
        Kind::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Kind::Shared => FlockOperation::NonBlockingLockShared,
    };
    loop {
        let file = path.open_or_create()?;
        match flock(&file, operation) {
            Ok(()) if is_at(&file, path) => {
                let path = path.clone();
                // Full disks must not keep anybody from a lock: the note is a courtesy.
                let _ = write_note(&file, note);
                return Ok(Some(Lock { file, path, kind }));
            }
            // The file we locked has been removed since we opened it.
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::io("lock", path, error.into())),
        }
    }
}

fn is_at(file: &File, path: &Place) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}

fn write_note(file: &File, note: &str) -> io::Result<()> {
    file.write_all_at(note.as_bytes(), 0)?;
    file.set_len(note.len() as u64)
}

fn read_note(path: &Place) -> String {
    let mut note = String::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(4096).read_to_string(&mut note);
    }
    note
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize},
    };

    use super::*;

    fn never() -> AtomicBool {
        AtomicBool::new(false)
    }

    #[test]
    fn one_holds_and_the_other_learns_who() {
        let folder = tempfile::tempdir().unwrap();
        let path = Place::new(folder.path(), "locks/key");
        let lock = Lock::try_exclusive(&path, "run brave-otter")
            .unwrap()
            .unwrap();
        assert!(Lock::try_exclusive(&path, "another").unwrap().is_none());
        assert!(Lock::try_shared(&path, "another").unwrap().is_none());
        assert_eq!(holder(&path).unwrap().as_deref(), Some("run brave-otter"));
        lock.set_note("x").unwrap();
        assert_eq!(holder(&path).unwrap().as_deref(), Some("x"));
        drop(lock);
        assert_eq!(holder(&path).unwrap(), None);
        assert!(!path.exists());
    }

    #[test]
    fn sharers_stand_beside_each_other_and_keep_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = Place::new(folder.path(), "store");
        let a = Lock::try_shared(&path, "a").unwrap().unwrap();
        let b = Lock::try_shared(&path, "b").unwrap().unwrap();
        assert!(Lock::try_exclusive(&path, "gc").unwrap().is_none());
        drop(a);
        assert!(Lock::try_exclusive(&path, "gc").unwrap().is_none());
        drop(b);
        assert!(Lock::try_exclusive(&path, "gc").unwrap().is_some());
    }

    #[test]
    fn a_removed_lock_file_never_lets_two_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = Arc::new(Place::new(folder.path(), "key"));
        let inside = Arc::new(AtomicU32::new(0));
        let n_entered = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (path, inside, n_entered) = (path.clone(), inside.clone(), n_entered.clone());
                thread::spawn(move || {
                    for _ in 0..50 {
                        // Dropping removes the file, which is what a careless person does too.
                        let lock = Lock::wait_exclusive(&path, "", &never(), |_| {}).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        n_entered.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(n_entered.load(Ordering::SeqCst), 400);
    }

    #[test]
    fn waiting_names_the_holder_and_can_be_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = Place::new(folder.path(), "key");
        let _held = Lock::try_exclusive(&path, "run calm-fox").unwrap().unwrap();
        let cancelled = AtomicBool::new(false);
        let mut heard = Vec::new();
        let lock = Lock::wait_exclusive(&path, "", &cancelled, |note| {
            heard.push(note.to_owned());
            cancelled.store(true, Ordering::Relaxed);
        });
        assert!(lock.unwrap().is_none());
        assert_eq!(heard, ["run calm-fox"]);
    }

    #[test]
    fn a_child_does_not_inherit_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = Place::new(folder.path(), "key");
        let lock = Lock::try_exclusive(&path, "parent").unwrap().unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .unwrap();
        drop(lock);
        let again = Lock::try_exclusive(&path, "next").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(again.is_some());
    }
}
