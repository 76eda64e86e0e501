//! Connections on which no request is under way: when all places are taken, the one that has been quiet
//! the longest makes room. Otherwise a thousand that say nothing would keep everybody else waiting for as
//! long as a head may take.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
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
        while !self.ended() {
            self.came.notified().await;
        }
    }

    fn ended(&self) -> bool {
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

/// An answer that keeps its connection until it is sent.
pub(super) struct Held {
    pub(super) body: Body,
    pub(super) _busy: Busy,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
