//! Giving what was made to the remote store, in the background.
//!
//! Nobody waits for it but the end of the run. What is to be given is written down as a small file
//! before it is made, and the file goes when the remote has it: whatever is killed in between is taken
//! up by the next run, or by `tinylm push`. A marker for what was never made harms nobody.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tinylm_registry::{
    Condition, Digest, Home, Lock, Place, RemoteError, Store, Watch, keys::read_key,
};

use crate::{error::StageError, threads};

/// How often whoever waits for the end looks whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A wait from here on is told.
const NOTICED: Duration = Duration::from_millis(400);

/// What has become of what was to be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushed {
    pub n_pushed: usize,
    /// Bytes that had to be sent.
    pub bytes: u64,
    /// Artifacts that the remote still lacks.
    pub n_owed: usize,
    /// Why the first of them is not there.
    pub why: Option<String>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushing {
    pub n_left: usize,
    /// Of the artifact that is on its way.
    pub done: u64,
    pub total: u64,
}

/// Somebody who gives artifacts away, one after the other, on a thread of its own.
pub struct Pusher {
    home: Home,
    markers: Place,
    sender: Mutex<Option<mpsc::Sender<Digest>>>,
    /// What was sent to the thread.
    asked: Mutex<HashSet<Digest>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Pushed>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    n_left: AtomicUsize,
    done: AtomicU64,
    total: AtomicU64,
}

impl Watch for Shared {
    fn see(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Pusher {
    /// Starts with what earlier runs still owe to the remote of this name.
    pub fn start(home: &Home, store: &Store, remote: &str) -> Result<Self, StageError> {
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let giver = Giver {
            home: home.clone(),
            store: store.clone(),
            markers: home.pushes(remote),
            shared: Arc::clone(&shared),
            is_refused: false,
        };
        let thread = threads::spawn(move || giver.give_all(&receiver));
        let pusher = Self {
            home: home.clone(),
            markers: home.pushes(remote),
            sender: Mutex::new(Some(sender)),
            asked: Mutex::default(),
            shared,
            thread: Mutex::new(Some(thread.map_err(|error| StageError::no_thread(&error))?)),
        };
        pusher.push_owed();
        Ok(pusher)
    }

    /// Writes down that what is made for a key is to be given.
    pub fn owe(&self, key: &Digest) {
        // A home that cannot be written to makes nothing that could be owed.
        self.markers.below(key.to_string()).replace(b"").ok();
    }

    /// Gives what was made earlier, perhaps before there was a remote, unless it was given or came
    /// from there.
    pub(crate) fn offer(&self, key: &Digest) {
        if !given(&self.markers, key).exists() {
            self.owe(key);
            self.push(key);
        }
    }

    /// Writes down that the remote has what was made for a key.
    pub(crate) fn know(&self, key: &Digest) {
        given(&self.markers, key).replace(b"").ok();
    }

    /// Nothing was made after all.
    pub(crate) fn forgive(&self, key: &Digest) {
        if read_key(&self.home, key).is_ok_and(|record| record.is_none()) {
            self.markers.below(key.to_string()).remove().ok();
        }
    }

    /// Gives what was made for a key, when its turn comes.
    pub fn push(&self, key: &Digest) {
        self.asked().insert(*key);
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref() {
            self.shared.n_left.fetch_add(1, Ordering::Relaxed);
            sender.send(*key).ok();
        }
    }

    /// Gives what is written down and made, whoever made it.
    fn push_owed(&self) {
        let markers = self.markers.list().unwrap_or_default();
        let names = markers
            .iter()
            .filter_map(|marker| marker.file_name()?.to_str());
        for key in names.filter_map(|name| name.parse().ok()) {
            let is_made = || read_key(&self.home, &key).is_ok_and(|record| record.is_some());
            if !self.asked().contains(&key) && is_made() {
                self.push(&key);
            }
        }
    }

    fn asked(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all is given, or until `stop` is set; tells now and then how far it is.
    pub fn finish(&self, stop: &AtomicBool, tell: &mut dyn FnMut(Pushing)) -> Pushed {
        // A job of a cluster may have made something that was then only found.
        self.push_owed();
        self.sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(thread) = thread else {
            return Pushed::default();
        };
        let begun = Instant::now();
        while !thread.is_finished() {
            if stop.load(Ordering::Relaxed) {
                self.shared.stop.store(true, Ordering::Relaxed);
            }
            let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
            let now = Pushing {
                n_left: self.shared.n_left.load(Ordering::Relaxed),
                done: number(&self.shared.done),
                total: number(&self.shared.total),
            };
            // What is over in a moment is not worth a line.
            if begun.elapsed() >= NOTICED {
                tell(now);
            }
            // Most often there is nothing to wait for.
            thread::sleep(LOOK_EVERY.min(begun.elapsed() / 2));
        }
        thread.join().unwrap_or_default()
    }
}

/// The file that says that the remote has what was made for a key, so that nobody asks again.
fn given(markers: &Place, key: &Digest) -> Place {
    markers.below("given").below(key.to_string())
}

/// What the thread has.
struct Giver {
    home: Home,
    store: Store,
    markers: Place,
    shared: Arc<Shared>,
    /// It takes nothing from us, and need not say so for each.
    is_refused: bool,
}

impl Giver {
    fn give_all(mut self, receiver: &mpsc::Receiver<Digest>) -> Pushed {
        let mut pushed = Pushed::default();
        let mut owed = HashSet::new();
        for key in receiver {
            match self.give(&key) {
                Ok(given) => {
                    pushed.n_pushed += usize::from(given.is_some());
                    pushed.bytes += given.unwrap_or(0);
                    owed.remove(&key);
                }
                Err(why) => {
                    owed.insert(key);
                    pushed.why.get_or_insert(why);
                }
            }
            self.shared.n_left.fetch_sub(1, Ordering::Relaxed);
            self.shared.see(0, 0);
        }
        pushed.n_owed = owed.len();
        pushed
    }

    /// Returns the bytes that were sent, or nothing where there is nothing to give any more.
    fn give(&mut self, key: &Digest) -> Result<Option<u64>, String> {
        let marker = self.markers.below(key.to_string());
        if self.is_refused {
            return Err("it takes nothing from us".to_owned());
        }
        let note = format!("pushing (process {})", std::process::id());
        let lock = Lock::try_exclusive(&self.home.push_lock(key), &note);
        let lock = lock.map_err(|error| error.to_string())?;
        // Somebody else is at it, or has done it.
        if lock.is_none() || !marker.exists() {
            return Ok(None);
        }
        let record = read_key(&self.home, key).map_err(|error| error.to_string())?;
        let Some(record) = record else {
            return Ok(None);
        };
        let condition = self.store.condition(&record.artifact);
        if !matches!(condition, Ok(Condition::Whole(_))) {
            // Gone or damaged: made anew, it is owed anew.
            marker.remove().ok();
            return Ok(None);
        }
        match self.store.push(&record, &*self.shared) {
            Ok(bytes) => {
                // A word too few is only a question too many.
                given(&self.markers, key).replace(b"").ok();
                marker.remove().ok();
                Ok(Some(bytes))
            }
            Err(error) => {
                self.is_refused = matches!(error, RemoteError::Forbidden(_));
                Err(error.to_string())
            }
        }
    }
}
