//! A server that models answer through, in the words of OpenAI's API.
//!
//! One thread runs the models (`engine`): it feeds all answers that are under way together, a token
//! each, and beside them a piece of what is still to be read. Everything else (`http`, `api`) is
//! asynchronous and knows ids only as something that comes out of a channel. A client that goes away
//! closes its channel, and its place is free at the next token.
//!
//! Prompts are made of pieces, as in training: no content can forge a turn.

mod api;
mod choice;
mod engine;
mod error;
mod http;
mod logprobs;
mod options;
mod params;
mod served;

use std::{io, net::SocketAddr};

use axum::Router;

pub use api::{bodies::Bodies, body::Body, guard::Door};
pub use error::ApiError;
pub use http::{accept, connections};
pub use options::Options;
pub use served::Served;

/// Returns all that a server of these models answers.
pub fn router(models: Vec<Served>, options: Options) -> Router {
    api::router(models, options)
}

/// Answers until the process ends, and says through `ready` where.
pub fn serve(
    models: Vec<Served>,
    options: Options,
    ready: impl FnOnce(SocketAddr),
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(options.addr).await?;
        let addr = listener.local_addr()?;
        let router = router(models, options);
        ready(addr);
        http::accept(listener, router).await;
        Ok(())
    })
}
