//! Connections on which no whole request is under way: when all places are taken, the one that has been
//! quiet the longest makes room. Otherwise a thousand that say nothing would keep everybody else waiting
//! for as long as a head or a body may take.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Quiet {
    open: Mutex<Open>,
    /// Somebody fell quiet.
    came: Notify,
}

#[derive(Default)]
struct Open {
    by_id: BTreeMap<u64, Connection>,
    /// Counts connections, and how often one fell quiet.
    next: u64,
}

struct Connection {
    n_requests: usize,
    quiet_since: u64,
    end: Arc<Notify>,
}

impl Open {
    fn count(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Quiet {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a connection that has said nothing yet.
    pub(super) fn enter(self: &Arc<Self>) -> Seat {
        let mut open = self.open();
        let (id, end) = (open.count(), Arc::new(Notify::new()));
        let connection = Connection {
            n_requests: 0,
            quiet_since: id,
            end: Arc::clone(&end),
        };
        open.by_id.insert(id, connection);
        drop(open);
        self.came.notify_one();
        Seat {
            quiet: Arc::clone(self),
            id,
            end,
        }
    }

    /// Ends the connection that has been quiet the longest, as soon as there is one.
    pub(super) async fn end_one(&self) {
        while !self.end_any() {
            self.came.notified().await;
        }
    }

    /// Ends the connection that has been quiet the longest, if there is one.
    pub(super) fn end_any(&self) -> bool {
        let mut open = self.open();
        let quiet = open.by_id.iter().filter(|(_, one)| one.n_requests == 0);
        let oldest = quiet
            .min_by_key(|(_, one)| one.quiet_since)
            .map(|(id, _)| *id);
        let ended = oldest.and_then(|id| open.by_id.remove(&id));
        ended.inspect(|one| one.end.notify_one()).is_some()
    }
}

/// A connection's place among the others.
pub(super) struct Seat {
    quiet: Arc<Quiet>,
    id: u64,
    end: Arc<Notify>,
}

impl Seat {
    /// Waits until the place is needed by another.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + use<> {
        let end = Arc::clone(&self.end);
        async move { end.notified().await }
    }

    /// Some of a body has come: others have been quiet for longer.
    pub(super) fn stir(&self) {
        let mut open = self.quiet.open();
        let now = open.count();
        if let Some(one) = open.by_id.get_mut(&self.id) {
            one.quiet_since = now;
        }
    }

    /// Keeps the connection from being ended for as long as what is returned lives.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        if let Some(one) = self.quiet.open().by_id.get_mut(&self.id) {
            one.n_requests += 1;
        }
        Busy(Arc::clone(self))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.quiet.open().by_id.remove(&self.id);
    }
}

pub(super) struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        let quiet = &self.0.quiet;
        let mut open = quiet.open();
        let now = open.count();
        if let Some(one) = open.by_id.get_mut(&self.0.id) {
            one.n_requests -= 1;
            one.quiet_since = now;
        }
        drop(open);
        quiet.came.notify_one();
    }
}
