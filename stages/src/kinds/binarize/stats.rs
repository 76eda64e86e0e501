//! Figures of a tokenized corpus.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tinylm_model::shards::ShardsIndex;
use tinylm_pipeline::{Metrics, StageError};

use super::split::NAMES;
use crate::shared::encode::{Part, Rejected};

/// How many of the rejected documents are named in `shards.json`.
const REJECTED_SHOWN: usize = 100;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Stats {
    n_read: u64,
    n_dialogues: u64,
    pub(super) n_pairs: u64,
    n_encoded: u64,
    n_empty: u64,
    n_rejected: u64,
    n_words: u64,
    n_content_tokens: u64,
    n_content_bytes: u64,
    n_unknown: u64,
    rejected: Vec<Rejected>,
    /// By source, and by split.
    sources: BTreeMap<String, [Count; 3]>,
    /// Documents by the power of two that their length reaches.
    lengths: BTreeMap<u32, u64>,
    longest: usize,
}

#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct Count {
    documents: u64,
    tokens: u64,
    bytes: u64,
}

impl Stats {
    pub(super) fn documents_read(&self) -> u64 {
        self.n_read
    }

    pub(super) fn add(&mut self, part: &Part) {
        self.n_read += part.n_read;
        self.n_dialogues += part.n_dialogues;
        self.n_pairs += part.n_pairs;
        self.n_empty += part.n_empty;
        self.n_words += part.n_words;
        self.n_content_tokens += part.n_content_tokens;
        self.n_unknown += part.n_unknown;
        self.n_encoded += part.documents.len() as u64;
        for document in &part.documents {
            self.n_content_bytes += u64::from(document.bytes);
            let source = &part.sources[document.source];
            let sources = match self.sources.get_mut(source) {
                Some(known) => known,
                None => self.sources.entry(source.clone()).or_default(),
            };
            let count = &mut sources[document.split];
            count.documents += 1;
            count.tokens += document.n_tokens as u64;
            count.bytes += u64::from(document.bytes);
            let power = document.n_tokens.max(1).ilog2();
            *self.lengths.entry(power).or_default() += 1;
            self.longest = self.longest.max(document.n_tokens);
        }
        self.n_rejected += part.rejected.len() as u64;
        for rejected in &part.rejected {
            if self.rejected.len() < REJECTED_SHOWN {
                self.rejected.push(Rejected {
                    id: rejected.id.clone(),
                    source: rejected.source.clone(),
                    reason: rejected.reason.clone(),
                });
            }
        }
    }

    /// Adds the figures of the documents behind these.
    pub(super) fn merge(&mut self, next: Self) {
        self.n_read += next.n_read;
        self.n_dialogues += next.n_dialogues;
        self.n_pairs += next.n_pairs;
        self.n_encoded += next.n_encoded;
        self.n_empty += next.n_empty;
        self.n_rejected += next.n_rejected;
        self.n_words += next.n_words;
        self.n_content_tokens += next.n_content_tokens;
        self.n_content_bytes += next.n_content_bytes;
        self.n_unknown += next.n_unknown;
        let n_left = REJECTED_SHOWN - self.rejected.len();
        self.rejected.extend(next.rejected.into_iter().take(n_left));
        for (source, counts) in next.sources {
            let known = self.sources.entry(source).or_default();
            for (count, more) in known.iter_mut().zip(counts) {
                count.documents += more.documents;
                count.tokens += more.tokens;
                count.bytes += more.bytes;
            }
        }
        for (power, n) in next.lengths {
            *self.lengths.entry(power).or_default() += n;
        }
        self.longest = self.longest.max(next.longest);
    }

    /// Whether nothing in it is answered by anybody.
    pub(super) fn is_of_raw_text(&self) -> bool {
        self.n_dialogues == 0
    }

    /// Fails when more was rejected than may be.
    pub(super) fn check(&self, rejected_max: f64) -> Result<(), StageError> {
        if self.n_read == 0 {
            return Err(StageError::new("there are no documents")
                .help("see what the stages before rejected")
                .is_final());
        }
        let share = self.n_rejected as f64 / self.n_read as f64;
        match self.rejected.first() {
            Some(first) if share > rejected_max => Err(StageError::new(format!(
                "{} of {} documents cannot be encoded",
                self.n_rejected, self.n_read
            ))
            .cause(format!(
                "document {} of `{}`: {}",
                first.id, first.source, first.reason
            ))
            .help("raise `rejected_max`, or take a tokenizer with a larger vocabulary")
            .is_final()),
            _ => Ok(()),
        }
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.n_rejected > 0 {
            warnings.push(format!(
                "{} documents cannot be encoded and are left out",
                self.n_rejected
            ));
        }
        if self.n_empty > 0 {
            warnings.push(format!(
                "{} documents are empty and are left out",
                self.n_empty
            ));
        }
        let unknown = self.unknown_rate();
        if unknown > 0.05 {
            warnings.push(format!(
                "{:.1} % of the tokens are unknown",
                100.0 * unknown
            ));
        }
        warnings
    }

    fn unknown_rate(&self) -> f64 {
        ratio(self.n_unknown, self.n_content_tokens)
    }

    pub(super) fn to_json(&self) -> Value {
        let sources: serde_json::Map<String, Value> = self
            .sources
            .iter()
            .map(|(source, counts)| {
                let splits = NAMES
                    .iter()
                    .zip(counts)
                    .filter(|(_, count)| count.documents > 0);
                let splits = splits.map(|(name, count)| {
                    let Count {
                        documents,
                        tokens,
                        bytes,
                    } = count;
                    let value = json!({"documents": documents, "tokens": tokens, "bytes": bytes});
                    ((*name).to_owned(), value)
                });
                (source.clone(), Value::Object(splits.collect()))
            })
            .collect();
        let lengths: serde_json::Map<String, Value> = self
            .lengths
            .iter()
            .map(|(power, n)| (format!("{}", 1_u64 << power), json!(n)))
            .collect();
        let rejected: Vec<Value> = self
            .rejected
            .iter()
            .map(|r| json!({"id": r.id, "source": r.source, "reason": r.reason}))
            .collect();
        json!({
            "documents_read": self.n_read,
            "documents_empty": self.n_empty,
            "documents_rejected": self.n_rejected,
            "rejected": rejected,
            "words": self.n_words,
            "content_bytes": self.n_content_bytes,
            "content_tokens": self.n_content_tokens,
            "tokens_per_word": ratio(self.n_content_tokens, self.n_words),
            "bytes_per_token": ratio(self.n_content_bytes, self.n_content_tokens),
            "unknown_tokens": self.n_unknown,
            "unknown_rate": self.unknown_rate(),
            "sources": sources,
            // Each count is of documents with at least that many tokens, and fewer than twice as many.
            "lengths": lengths,
            "longest": self.longest,
        })
    }

    pub(super) fn metrics(&self, index: &ShardsIndex) -> Metrics {
        let mut metrics = Metrics::default();
        for (name, split) in &index.splits {
            metrics = metrics
                .count(&format!("{name}_tokens"), split.tokens)
                .count(&format!("{name}_documents"), split.documents);
        }
        metrics
            .number(
                "tokens_per_word",
                ratio(self.n_content_tokens, self.n_words),
            )
            .number("unknown_rate", self.unknown_rate())
            .count("rejected", self.n_rejected)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
