//! What all answers share: the registry, who writes to it, and what may be done.

use std::{net::SocketAddr, sync::Arc};

use axum::http::StatusCode;
use tinylm_registry::Home;
use tinylm_serve::Bodies;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    KeptSteps, Options,
    play::Playground,
    pulse::Pulse,
    readers::Readers,
    view::{Part, Seen, View},
    wrong::Wrong,
};

/// Pages that look on at once. Each has a connection for as long as it is open, and others are to get one.
const LOOK_ON: usize = 128;

/// What all answers share.
pub(crate) struct Site {
    pub(crate) readers: Arc<Readers>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) home: Home,
    pub(crate) now: fn() -> i64,
    pub(crate) playground: Playground,
    pub(crate) bodies: Bodies,
    looks_on: Arc<Semaphore>,
    pub(crate) steps: KeptSteps,
    pub(crate) allows_changes: bool,
    /// The kinds of stage that make a model.
    pub(crate) models: Vec<String>,
}

impl Site {
    pub(crate) fn new(options: Options, addr: SocketAddr) -> Site {
        let n_looks_on = LOOK_ON.min(tinylm_serve::connections() / 2);
        let readers = Arc::new(Readers::new(options.home.clone()));
        Site {
            pulse: Pulse::start(Arc::clone(&readers)),
            readers,
            home: options.home,
            now: options.now,
            playground: Playground::new(options.open, addr, options.n_threads),
            bodies: Bodies::default(),
            looks_on: Arc::new(Semaphore::new(n_looks_on)),
            steps: options.steps,
            allows_changes: options.allows_changes,
            models: options.models,
        }
    }

    /// A place among the pages that look on, if there is one.
    pub(crate) fn place_to_look_on(&self) -> Result<OwnedSemaphorePermit, Wrong> {
        let place = Arc::clone(&self.looks_on).try_acquire_owned();
        place.map_err(|_| Wrong {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "too many pages look on; close one, and this one will go on".to_owned(),
        })
    }

    /// Reads a view, or a part of it.
    pub(crate) async fn see(self: &Arc<Self>, view: &View, part: Part) -> Result<Seen, Wrong> {
        let (site, view) = (Arc::clone(self), view.clone());
        let read = move |registry: &_| view.see(registry, &site.home, part, (site.now)());
        self.readers.ask(read).await
    }
}
