//! The settings of `dedupe`.

use tinylm_pipeline::{choices, settings};

use crate::shared::partition::Partition;

choices! {
    /// How documents are compared with each other.
    pub enum Method {
        /// The same words in the same roles, ignoring case and spacing.
        Exact = "exact",
        /// Besides, n-grams of words that overlap by `threshold`.
        Minhash = "minhash",
        /// Not at all: only `evaluation` is looked at.
        Contamination = "contamination",
    }
}

settings! {
    /// Drops documents that repeat earlier ones.
    pub struct DedupeSettings {
        /// How documents are compared.
        pub method: Method = Method::Exact,
        /// The share of n-grams (Jaccard) from which two documents are nearly the same.
        #[range(above 0.0, 1.0)]
        pub threshold: f64 = 0.8,
        /// Words in an n-gram; a shorter document is one n-gram.
        #[range(1, 100)]
        pub ngram: usize = 5,
        /// Hash functions of a signature: more find more of the pairs at the threshold.
        #[range(8, 1024)]
        pub permutations: usize = 112,
        /// Words in an n-gram that no training document may share with an evaluation set.
        #[range(1, 100)]
        pub contamination_ngram: usize = 13,
        /// Megabytes of memory for comparing; more than that is kept on disk, which changes nothing but time.
        #[range(1)]
        pub memory_mb: usize = 512,
        /// How much text, as files, is compared as one part (`4GB`), so that a corpus that grows by a file costs that file; without it, all of it is compared at once. What is dropped is the same.
        pub partition: Option<Partition> = None => neutral None,
    }
}
