//! What all answers share: the registry, who writes to it, and what may be done.

use std::{net::SocketAddr, sync::Arc};

use tinylm_registry::Home;

use crate::{
    Options,
    play::Playground,
    pulse::Pulse,
    readers::Readers,
    view::{Part, Seen, View},
    wrong::Wrong,
};

/// What all answers share.
pub(crate) struct Site {
    pub(crate) readers: Arc<Readers>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) home: Home,
    pub(crate) now: fn() -> i64,
    pub(crate) playground: Playground,
    pub(crate) allows_changes: bool,
    /// The kinds of stage that make a model.
    pub(crate) models: Vec<String>,
}

impl Site {
    pub(crate) fn new(options: Options, addr: SocketAddr) -> Site {
        let readers = Arc::new(Readers::new(options.home.clone()));
        Site {
            pulse: Pulse::start(Arc::clone(&readers)),
            readers,
            home: options.home,
            now: options.now,
            playground: Playground::new(options.open, addr, options.n_threads),
            allows_changes: options.allows_changes,
            models: options.models,
        }
    }

    /// Reads a view, or a part of it.
    pub(crate) async fn see(self: &Arc<Self>, view: &View, part: Part) -> Result<Seen, Wrong> {
        let (site, view) = (Arc::clone(self), view.clone());
        let read = move |registry: &_| view.see(registry, &site.home, part, (site.now)());
        self.readers.ask(read).await
    }
}
