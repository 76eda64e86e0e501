//! What the stage tells of its work, all at once or in parts.

use serde_json::{Value, json};
use tinylm_pipeline::Metrics;

use super::{
    settings::Method,
    verdict::{Verdict, Why},
};
use crate::shared::documents::Written;

pub(super) const STATS: &str = "stats.json";
pub(super) const NONE_KEPT: &str = "no document is kept";

/// The numbers that the stage tells.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) n_read: u64,
    pub(super) written: Written,
    /// By why.
    pub(super) n_dropped: [u64; Why::ALL.len()],
}

impl Counts {
    pub(super) fn add<K>(&mut self, verdicts: &[(usize, Verdict<K>)]) {
        for (_, verdict) in verdicts {
            self.n_dropped[verdict.why as usize] += 1;
        }
    }

    pub(super) fn are_all_dropped(&self) -> bool {
        self.written.n_documents == 0 && self.n_read > 0
    }

    fn named(&self) -> [(&'static str, u64); 5] {
        let n_dropped = |why: Why| self.n_dropped[why as usize];
        [
            ("documents_read", self.n_read),
            ("documents_kept", self.written.n_documents),
            ("exact_duplicates", n_dropped(Why::Exact)),
            ("near_duplicates", n_dropped(Why::Near)),
            ("contaminated", n_dropped(Why::Contamination)),
        ]
    }

    pub(super) fn metrics(&self) -> Metrics {
        let counts = self.named().into_iter();
        counts.fold(Metrics::default(), |metrics, (name, count)| {
            metrics.count(name, count)
        })
    }

    pub(super) fn stats(&self, method: Method) -> Value {
        let mut stats = json!({"method": method, "bytes_kept": self.written.n_bytes});
        for (name, count) in self.named() {
            stats[name] = json!(count);
        }
        stats
    }
}
