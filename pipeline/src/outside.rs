//! The caller's environment, as stages are allowed to see it.
//!
//! Only the binary reads environment variables. Everything below is handed this value, so a test
//! or another machine can hand over another.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

/// Addresses, tokens and switches, read once by the binary.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    pub hf_endpoint: Option<String>,
    pub hf_token: Option<String>,
    /// Where the hub's own tools keep what they fetched.
    pub hf_cache: Option<PathBuf>,
    /// `HF_HUB_OFFLINE` or `TINYLM_OFFLINE`: nothing may be asked of the network.
    pub offline: bool,
    pub kaggle_endpoint: Option<String>,
    pub kaggle_user: Option<String>,
    pub kaggle_key: Option<String>,
    /// Tells a person what would else be a silent wait.
    pub tell: Option<fn(&str)>,
    /// Set once whoever asks should stop: a run in its process, a stage in its own.
    pub stop: Arc<AtomicBool>,
}
