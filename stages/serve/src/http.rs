//! Connections: how many, and how long one may keep silent.
//!
//! `axum::serve` waits for a request for ever and takes any number of connections; a client that
//! opens ten thousand and says nothing would hold all of them, and one that never reads its answer
//! would hold that.

mod patient;
mod quiet;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use patient::Patient;
use quiet::{Held, Quiet, Seat};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// Connections at once; more wait in the system's queue.
const CONNECTIONS: usize = 1024;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(30);

/// How long nothing of an answer may be taken.
const WRITE: Duration = Duration::from_secs(60);

/// Takes connections for ever.
pub async fn accept(listener: TcpListener, router: Router) {
    let (places, quiet) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::default());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // No more files, or a client that went away at once: others may do better.
            Err(_) => {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(place) = place(&places, &quiet).await else {
            return;
        };
        let (seat, router) = (Arc::new(quiet.enter()), router.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = serve(stream, router, Arc::clone(&seat)) => (),
                () = seat.ended() => (),
            }
            drop(place);
        });
    }
}

/// Returns a place among the connections, if need be that of one that is quiet.
async fn place(places: &Arc<Semaphore>, quiet: &Quiet) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Some(place);
    }
    let free = Arc::clone(places).acquire_owned();
    tokio::pin!(free);
    tokio::select! {
        place = &mut free => return place.ok(),
        () = quiet.end_one() => (),
    }
    free.await.ok()
}

async fn serve(stream: TcpStream, router: Router, seat: Arc<Seat>) {
    // Tokens are small packets that somebody waits for.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        let (busy, answer) = (seat.busy(), router.call(request));
        async move {
            let answer = answer.await?;
            Ok::<_, std::convert::Infallible>(answer.map(|body: Body| Held { body, _busy: busy }))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(Patient::new(stream, WRITE)), service);
    // What ends a connection is the client's affair.
    let _ = served.await;
}
