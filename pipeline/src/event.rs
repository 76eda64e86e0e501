//! The words of a running stage: one JSON object a line, from the child to its parent.
//!
//! The console's bars and the registry's recorder are two observers of this stream.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StageError;
use crate::metrics::Metrics;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Progress {
        done: u64,
        total: Option<u64>,
        unit: String,
        /// The part of the work that is under way, where one word helps (`epoch 2`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// What the stage's process has used and holds just now.
    Using {
        cpu_seconds: f64,
        memory_bytes: u64,
    },
    /// Where its job is, on a cluster.
    Placed {
        place: String,
    },
    /// `step: None` is a final number of the stage.
    Metric {
        name: String,
        step: Option<u64>,
        #[serde(with = "float")]
        value: f64,
        at: i64,
    },
    /// Points after this step belong to an attempt that did not last: a resumed
    /// training repeats them.
    CutMetrics {
        after_step: u64,
    },
    Sample {
        step: Option<u64>,
        prompt: String,
        text: String,
    },
    Info {
        message: String,
    },
    /// For a person to see without asking, and no reason to worry.
    Note {
        message: String,
    },
    Warning {
        message: String,
    },
    /// Where the bytes came from: recorded, never part of the artifact.
    Origin {
        origin: Value,
    },
    Finished {
        metrics: Metrics,
    },
    Failed {
        error: StageError,
    },
}

/// Joins what is told of an origin with what was told before: what a stage fetched and what it computed on
/// are two messages.
pub(crate) fn joined(before: Option<Value>, told: &Value) -> Value {
    match (before, told) {
        (Some(Value::Object(mut all)), Value::Object(told)) => {
            all.extend(told.clone());
            Value::Object(all)
        }
        _ => told.clone(),
    }
}

/// JSON has no NaN; they cross as text.
mod float {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            serializer.serialize_f64(*value)
        } else {
            serializer.serialize_str(&value.to_string())
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Float {
            Number(f64),
            Text(String),
        }
        match Float::deserialize(deserializer)? {
            Float::Number(value) => Ok(value),
            Float::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_told_of_an_origin_later_joins_what_was_told_before() {
        let fetched = joined(None, &json!({ "hub": "a/b" }));
        let all = joined(Some(fetched), &json!({ "device": "cuda:0" }));
        assert_eq!(all, json!({ "hub": "a/b", "device": "cuda:0" }));
    }
}
