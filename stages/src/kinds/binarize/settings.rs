//! The settings of `binarize`.

use tinylm_pipeline::settings;

use super::split::Held;
use crate::shared::{encode::Targets, partition::Partition};

settings! {
    /// Turns documents into token ids that training reads.
    pub struct BinarizeSettings {
        /// Held back for validation: a share of all groups (`0.02`), or `{ tail: 0.1 }`, the end of the text.
        /// With `{ documents: 0.02 }` parts of one dialogue fall on both sides: a leak, for comparisons with figures taken so.
        pub validation: Option<Held> = None,
        /// Held back for a test, likewise.
        pub test: Option<Held> = None,
        /// Which tokens of a dialogue are to be learnt; of raw text, always all.
        pub targets: Targets = Targets::Assistant,
        /// A file is closed before it would hold more tokens than this.
        #[range(1)]
        pub shard_tokens: u64 = 100_000_000,
        /// Documents are encoded in parts of about so many bytes of their files (`1GB`), and what comes to the corpus
        /// costs its part.
        pub partition: Option<Partition> = None => neutral None,
        /// Fails when a larger share of the documents cannot be encoded.
        pub rejected_max: f64 = 0.01,
    }
}
