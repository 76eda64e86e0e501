//! Connections: how many, and how long one may keep silent.
//!
//! `axum::serve` waits for a request for ever and takes any number of connections; a client that
//! opens ten thousand and says nothing would hold all of them, and one that never reads its answer
//! would hold that.

mod files;
mod patient;
mod quiet;
mod turn;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use patient::Patient;
use quiet::{Quiet, Seat};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use turn::{Answer, Question, Turn};

/// Connections at once, where files are not fewer; more wait in the system's queue.
const CONNECTIONS: usize = 1024;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(30);

/// How long nothing of an answer may be taken.
const WRITE: Duration = Duration::from_secs(60);

/// How long to wait for a file that a connection has given back, and for better luck.
const SOON: Duration = Duration::from_millis(1);
const LATER: Duration = Duration::from_millis(50);

/// Returns how many connections there may be at once, and raises the limit of open files for them.
pub fn connections() -> usize {
    files::room_for(CONNECTIONS)
}

/// Takes connections for ever.
pub async fn accept(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(connections()));
    let quiet = Arc::<Quiet>::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Others have all files: those who say nothing give one back.
            Err(error) if files::are_used_up(&error) && quiet.end_any() => {
                sleep(SOON).await;
                continue;
            }
            // A client that went away at once, or nothing to give back: others may do better.
            Err(_) => {
                sleep(LATER).await;
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
    let service = service_fn(move |request: Request<Incoming>| {
        let turn = Turn::of(Arc::clone(&seat), request.body());
        let asked = request.map(|body| Question {
            body,
            turn: Arc::clone(&turn),
        });
        let answer = router.call(asked);
        async move {
            let answered = |body: Body| Answer { body, _turn: turn };
            Ok::<_, Infallible>(answer.await?.map(answered))
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
