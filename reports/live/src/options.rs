//! How the page is served, and what it is handed: it knows no project and no clock.

use std::{net::SocketAddr, sync::Arc};

use tinylm_registry::Home;
use tinylm_serve::Served;

/// Opens the model of `RUN/STAGE`, or says why it cannot be.
pub type OpenModel = Arc<dyn Fn(&str) -> Result<Served, String> + Send + Sync>;

/// Returns the steps of `RUN/STAGE` whose weights are kept, of which each opens as `RUN/STAGE@STEP`; none where
/// it is no model, or not one yet.
pub type KeptSteps = Arc<dyn Fn(&str) -> Vec<u64> + Send + Sync>;

/// How the page is served.
pub struct Options {
    pub addr: SocketAddr,
    pub home: Home,
    /// Whether tags, notes and wishes to stop are taken.
    pub allows_changes: bool,
    pub open: OpenModel,
    pub steps: KeptSteps,
    /// The kinds of stage that make a model.
    pub models: Vec<String>,
    pub n_threads: usize,
    /// The present, in milliseconds since 1970.
    pub now: fn() -> i64,
}
