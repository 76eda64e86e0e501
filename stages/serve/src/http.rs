//! Connections: how many, and how long one may keep silent.
//!
//! `axum::serve` waits for a request for ever and takes any number of connections; a client that
//! opens ten thousand and says nothing would hold all of them, and one that never reads its answer
//! would hold that.

mod patient;

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use patient::Patient;
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

/// Connections at once; more wait in the system's queue.
const CONNECTIONS: usize = 1024;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(30);

/// How long nothing of an answer may be taken.
const WRITE: Duration = Duration::from_secs(60);

/// Takes connections for ever.
pub async fn accept(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // No more files, or a client that went away at once: others may do better.
            Err(_) => {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Tokens are small packets that somebody waits for.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(64 << 10)
                .serve_connection(TokioIo::new(Patient::new(stream, WRITE)), service);
            // What ends a connection is the client's affair.
            let _ = served.await;
            drop(place);
        });
    }
}
