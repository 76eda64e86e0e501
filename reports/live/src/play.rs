//! The playground: any model of the registry, in the page that `serve` shows.
//!
//! A model is opened when somebody first talks to it and kept while others are not asked for more;
//! each is a server of its own below `/play/RUN/STAGE`, or two beside each other below
//! `/play/RUN/STAGE,RUN/STAGE`.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, http::Request, response::Response};
use tinylm_serve::Served;
use tower_service::Service;

use crate::{OpenModel, wrong::Wrong};

/// Models, or pairs of them, that stay open.
const OPEN_MAX: usize = 3;
/// Answers of a model that are made at once, and requests that wait.
const SLOTS: usize = 4;
const WAITING: usize = 16;
const TIME_LIMIT: Duration = Duration::from_secs(600);

pub(crate) struct Playground {
    open: OpenModel,
    addr: SocketAddr,
    n_threads: usize,
    /// Those asked for last at the end.
    routers: Mutex<Vec<(String, Router)>>,
}

impl Playground {
    pub(crate) fn new(open: OpenModel, addr: SocketAddr, n_threads: usize) -> Playground {
        Playground {
            open,
            addr,
            n_threads,
            routers: Mutex::default(),
        }
    }

    /// Answers `rest` as the server of these models would.
    pub(crate) async fn answer(
        &self,
        models: &str,
        rest: &str,
        request: Request<Body>,
    ) -> Result<Response, Wrong> {
        // Opening reads the weights, which may take a second.
        let mut router = tokio::task::block_in_place(|| self.router(models))?;
        let (mut head, body) = request.into_parts();
        head.uri = rest.parse().map_err(|_| Wrong::absent("no such page"))?;
        let answered = router.call(Request::from_parts(head, body)).await;
        answered.map_err(|never| match never {})
    }

    fn router(&self, models: &str) -> Result<Router, Wrong> {
        let mut routers = self.routers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = routers.iter().position(|(name, _)| name == models);
        let entry = match known {
            Some(idx) => routers.remove(idx),
            None => (models.to_owned(), self.begin(models)?),
        };
        let router = entry.1.clone();
        routers.push(entry);
        if routers.len() > OPEN_MAX {
            drop(routers.remove(0));
        }
        Ok(router)
    }

    fn begin(&self, models: &str) -> Result<Router, Wrong> {
        let served: Result<Vec<Served>, String> =
            models.split(',').map(|name| (self.open)(name)).collect();
        let options = tinylm_serve::Options {
            addr: self.addr,
            api_key: None,
            n_slots: SLOTS,
            n_waiting: WAITING,
            n_threads: self.n_threads,
            time_limit: TIME_LIMIT,
        };
        let served = served.map_err(Wrong::absent)?;
        Ok(tinylm_serve::router(served, options))
    }
}
