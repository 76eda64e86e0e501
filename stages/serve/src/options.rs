//! How a server behaves: where it listens, for whom, and how much at once.

use std::{net::SocketAddr, time::Duration};

/// How a server behaves.
pub struct Options {
    pub addr: SocketAddr,
    pub api_key: Option<String>,
    /// Answers of a model that are under way at once.
    pub n_slots: usize,
    /// Requests that may wait for a place.
    pub n_waiting: usize,
    pub n_threads: usize,
    /// The longest time that an answer may take.
    pub time_limit: Duration,
}
