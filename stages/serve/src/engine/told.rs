//! What is asked of the thread that runs the models, and what it tells.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize},
};

use tokio::sync::mpsc::UnboundedSender;

use super::wish::Wish;

/// A prompt to be continued.
pub(crate) struct Ask {
    /// The request that it is a part of.
    pub(crate) request: u64,
    pub(crate) prompt: Arc<[u16]>,
    pub(crate) wish: Wish,
    /// Closed by a client that has gone. It holds no more than the answer is long.
    pub(crate) reply: UnboundedSender<Told>,
}

/// What comes back.
#[derive(Debug)]
pub(crate) enum Told {
    /// The prompt has its place; so many of its tokens were known already.
    Begun {
        n_cached: usize,
    },
    /// How likely a token of the prompt was, from the second on.
    Read(Token),
    Token(Token),
    Failed(String),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) id: u16,
    pub(crate) logprob: f32,
    /// The likeliest tokens at its place.
    pub(crate) top: Vec<(u16, f32)>,
    /// One of the ids that end an answer; nothing follows.
    pub(crate) is_stop: bool,
}

/// Numbers for `/metrics`.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) n_prompt_tokens: AtomicU64,
    pub(crate) n_cached_tokens: AtomicU64,
    pub(crate) n_generated_tokens: AtomicU64,
    pub(crate) n_passes: AtomicU64,
    pub(crate) n_active: AtomicUsize,
    pub(crate) n_waiting: AtomicUsize,
}
