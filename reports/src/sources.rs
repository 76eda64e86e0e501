//! Where a download came from, as lines a person can read.
//!
//! An origin is JSON written by the kind that fetched it, and kinds may come that this crate has
//! never heard of: so it is flattened rather than interpreted, and only the long lists are cut.

use serde_json::Value;

use crate::number::bytes;

/// Entries of a list shown before the rest is counted.
const ENTRIES_MAX: usize = 8;

/// Returns `(label, value)` for each thing an origin says.
pub(crate) fn facts(origin: &Value) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    collect(&mut facts, "", origin);
    facts
}

fn collect(facts: &mut Vec<(String, String)>, label: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (name, value) in map {
                let label = if label.is_empty() {
                    name.clone()
                } else {
                    format!("{label}.{name}")
                };
                collect(facts, &label, value);
            }
        }
        Value::Array(entries) => {
            for entry in entries.iter().take(ENTRIES_MAX) {
                collect_entry(facts, label, entry);
            }
            if entries.len() > ENTRIES_MAX {
                facts.push((
                    label.to_owned(),
                    format!("and {} more", entries.len() - ENTRIES_MAX),
                ));
            }
        }
        _ => facts.push((label.to_owned(), one_line(value))),
    }
}

/// A file of a list is one line, with its digest on a second: a digest needs a line to itself.
fn collect_entry(facts: &mut Vec<(String, String)>, label: &str, entry: &Value) {
    let Value::Object(map) = entry else {
        facts.push((label.to_owned(), one_line(entry)));
        return;
    };
    let is_digest = |value: &Value| {
        value
            .as_str()
            .is_some_and(|text| text.len() >= 40 && text.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let texts = map
        .iter()
        .filter(|(_, value)| !is_digest(value))
        .map(|(name, value)| match (name.as_str(), value.as_u64()) {
            ("bytes" | "size" | "length", Some(n_bytes)) => bytes(n_bytes),
            _ => one_line(value),
        });
    facts.push((label.to_owned(), texts.collect::<Vec<_>>().join("  ")));
    facts.extend(
        map.iter()
            .filter(|(_, value)| is_digest(value))
            .map(|(name, value)| (name.clone(), one_line(value))),
    );
}

fn one_line(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(map) => map.values().map(one_line).collect::<Vec<_>>().join("  "),
        Value::Array(entries) => entries.iter().map(one_line).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_flattened_whatever_it_holds() {
        let origin = serde_json::json!({
            "hub": "a/b", "revision": null, "pin": {"commit": "c0ffee", "files": [{"path": "x.txt", "bytes": 3}]},
        });
        let lines: Vec<String> = facts(&origin)
            .into_iter()
            .map(|(label, value)| format!("{label}: {value}"))
            .collect();
        assert_eq!(
            lines,
            ["hub: a/b", "pin.commit: c0ffee", "pin.files: x.txt  3 B"]
        );
    }
}
