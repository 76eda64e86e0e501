//! The processes that share a training, and what they say to each other.
//!
//! One of them goes through the training loop and decides; it starts the others, gives them its
//! weights and moments, and tells them step by step what to do (`group.rs`, `member.rs`). Gradients
//! go straight between all of them: each owns a slice, adds what all have of it in the order of the
//! tree, and sends the sum back (`mesh.rs`). So nobody carries more than twice its own gradients,
//! and the bits are those of one process. Plain TCP, between processes that share a secret.

mod group;
mod link;
mod member;
mod mesh;

use serde::{Deserialize, Serialize};

pub(super) use group::Group;
pub(super) use member::Member;

/// The first words of a process that comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    rank: usize,
    errand: Errand,
    host: String,
    /// Sums of other kernels are other bits.
    kernels: String,
    version: String,
    /// Where it listens for the others.
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Errand {
    /// To be told what to do.
    Orders,
    /// To exchange gradients.
    Numbers,
}

/// The answer, once all are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Welcome {
    In {
        rank: usize,
        n_ranks: usize,
        /// Numbers in a gradient.
        n_numbers: usize,
        /// Where those of lower rank listen, from 1 on.
        others: Vec<std::net::SocketAddr>,
    },
    Refused(String),
}

/// What the process that decides says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Said {
    /// The numbers of these tensors follow, weights first.
    State {
        weights: Vec<(String, Vec<usize>)>,
        optimizer: Vec<(String, Vec<usize>)>,
    },
    Step {
        step: u64,
        micro_batch: usize,
    },
    /// As bits, since JSON has no infinity.
    Update {
        step: u64,
        lr: u32,
        divisor: u64,
        clip: u32,
    },
    Discard,
    End,
}

fn host() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
