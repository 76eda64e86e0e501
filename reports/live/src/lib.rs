//! The registry as a page that lives.
//!
//! It shows what a report prints, section by section, and keeps it true while runs go on. A view is
//! an address: the page is its sections as HTML, its curves as data, and a stream of what changes.
//! Everything is asked of the registry alone, so that it makes no difference who carries out a run or
//! where; nothing is written unless the server was started to allow it.

mod change;
mod follow;
mod options;
mod page;
mod play;
mod pulse;
mod readers;
mod shared;
mod site;
mod view;
mod wrong;

use std::{io, net::SocketAddr};

pub use options::{KeptSteps, OpenModel, Options};

/// Shows the registry until the process ends, and says through `ready` where.
pub fn show(options: Options, ready: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(options.addr).await?;
        let addr = listener.local_addr()?;
        let router = site::router(options, addr);
        ready(addr);
        tinylm_serve::accept(listener, router).await;
        Ok(())
    })
}
