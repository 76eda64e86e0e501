//! The losses of two evaluations document by document, and how far their difference depends on the documents.
//!
//! `evaluate` writes `documents.jsonl` into its artifact. Documents are paired by their digests, so a
//! shorter evaluation is compared with the beginning of a longer one, and one with another tokenizer by
//! bits per byte. Of a group of seeds a document's loss is its mean over the seeds: what the interval
//! then says is what other documents would do to these very models, and nothing of other seeds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{lines::Lines, seeds::Group};
use crate::{
    report::Report,
    statistics::{Estimate, Sums, bootstrap},
};

/// The file in an artifact of `evaluate`.
pub const LOSSES: &str = "documents.jsonl";

/// What a loss is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    NatsPerToken,
    /// Where the tokens are not the same.
    BitsPerByte,
}

/// By how much a group's loss differs from that of the first group on the same documents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DocumentDifference {
    pub stage: String,
    pub group: usize,
    pub unit: Unit,
    pub n_documents: usize,
    /// Models of the group, and of the first one, whose losses were there.
    pub n_runs: [usize; 2],
    pub estimate: Estimate,
}

#[derive(Deserialize)]
struct Line {
    digest: String,
    tokens: u64,
    bytes: u64,
    nats: f64,
}

/// What is known of a document: the same text a second time is another document.
type Document = (String, usize);

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Loss {
    tokens: f64,
    bytes: f64,
    nats: f64,
}

type Losses = BTreeMap<Document, Loss>;

/// Compares each group with the first one wherever both were evaluated and `read` has the losses of
/// an artifact.
pub(super) fn differences(
    runs: &[Report],
    groups: &[Group],
    read: &dyn Fn(&str) -> Option<String>,
) -> Vec<DocumentDifference> {
    let lines = Lines::of(runs);
    let mut differences = Vec::new();
    for line in lines.lines.iter().filter(|line| line.kind == "evaluate") {
        let artifacts = |group: &Group| -> Vec<String> {
            let stages = group.runs.iter();
            let stages = stages.filter_map(|&idx| lines.stage(runs, line, idx));
            stages
                .filter_map(|stage| stage.row.artifact.clone())
                .collect()
        };
        let losses = |artifacts: &[String]| -> Vec<Losses> {
            let texts = artifacts.iter().filter_map(|digest| read(digest));
            texts.filter_map(|text| parse(&text)).collect()
        };
        let Some(first) = groups.first().map(artifacts) else {
            continue;
        };
        let of_first = losses(&first);
        for (idx, group) in groups.iter().enumerate().skip(1) {
            let artifacts = artifacts(group);
            // The same artifacts are the same numbers.
            if artifacts == first {
                continue;
            }
            let compared = compared(&of_first, &losses(&artifacts));
            differences.extend(compared.map(|compared| DocumentDifference {
                stage: line.label.clone(),
                group: idx,
                ..compared
            }));
        }
    }
    differences
}

/// Returns what a file says of each document; nothing where it is not such a file.
fn parse(text: &str) -> Option<Losses> {
    let mut losses = Losses::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for line in text.lines() {
        let line: Line = serde_json::from_str(line).ok()?;
        let n_before = seen.entry(line.digest.clone()).or_default();
        let loss = Loss {
            tokens: line.tokens as f64,
            bytes: line.bytes as f64,
            nats: line.nats,
        };
        losses.insert((line.digest, *n_before), loss);
        *n_before += 1;
    }
    Some(losses)
}

/// Compares the means of two groups of evaluations over the documents that all of them read.
fn compared(first: &[Losses], second: &[Losses]) -> Option<DocumentDifference> {
    let all = || first.iter().chain(second);
    let shared: Vec<&Document> = first
        .first()?
        .keys()
        .filter(|document| all().all(|losses| losses.contains_key(*document)))
        .collect();
    let of = |losses: &[Losses], document: &Document| {
        let mut sum = Loss::default();
        for loss in losses.iter().map(|losses| losses[document]) {
            sum.tokens += loss.tokens / losses.len() as f64;
            sum.bytes += loss.bytes / losses.len() as f64;
            sum.nats += loss.nats / losses.len() as f64;
        }
        sum
    };
    let pairs: Vec<[Loss; 2]> = match second.is_empty() {
        true => return None,
        false => shared
            .iter()
            .map(|document| [of(first, document), of(second, document)])
            .filter(|[a, b]| a.tokens > 0.0 && b.tokens > 0.0)
            .collect(),
    };
    let unit = unit(&pairs)?;
    let sums: Vec<Sums> = pairs.iter().map(|pair| sums(*pair, unit)).collect();
    Some(DocumentDifference {
        stage: String::new(),
        group: 0,
        unit,
        n_documents: sums.len(),
        n_runs: [second.len(), first.len()],
        estimate: bootstrap(&sums)?,
    })
}

/// Returns what the losses can be divided by; nothing where not even the same text is scored.
fn unit(pairs: &[[Loss; 2]]) -> Option<Unit> {
    /// Bytes of a part of a text are those its tokens decode to, and a token may bring a space along.
    const BYTES_OFF_MAX: f64 = 0.05;
    if pairs.iter().all(|[a, b]| a.tokens == b.tokens) {
        return Some(Unit::NatsPerToken);
    }
    let bytes = |side: usize| pairs.iter().map(|pair| pair[side].bytes).sum::<f64>();
    let off = bytes(1) / bytes(0) - 1.0;
    (off.abs() <= BYTES_OFF_MAX).then_some(Unit::BitsPerByte)
}

fn sums([a, b]: [Loss; 2], unit: Unit) -> Sums {
    match unit {
        Unit::NatsPerToken => Sums {
            losses: [a.nats, b.nats],
            sizes: [a.tokens, b.tokens],
        },
        Unit::BitsPerByte => Sums {
            losses: [a.nats, b.nats].map(|nats| nats / std::f64::consts::LN_2),
            sizes: [a.bytes, b.bytes],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(documents: &[(&str, u64, f64)]) -> String {
        let line = |(digest, tokens, nats): &(&str, u64, f64)| {
            format!(
                "{{\"digest\":\"{digest}\",\"tokens\":{tokens},\"bytes\":20,\"nats\":{nats}}}\n"
            )
        };
        documents.iter().map(line).collect()
    }

    fn held_against(first: &[(&str, u64, f64)], second: &[(&str, u64, f64)]) -> DocumentDifference {
        let losses = |documents| vec![parse(&file(documents)).unwrap()];
        compared(&losses(first), &losses(second)).unwrap()
    }

    const FIRST: [(&str, u64, f64); 4] =
        [("a", 4, 8.0), ("b", 2, 9.0), ("c", 4, 2.0), ("a", 4, 8.5)];

    #[test]
    fn the_order_of_documents_does_not_matter_and_those_of_one_side_do_not_count() {
        let second = [("a", 4, 7.0), ("b", 2, 8.0), ("c", 4, 1.5), ("a", 4, 8.0)];
        let one = held_against(&FIRST, &second);
        assert_eq!((one.n_documents, one.unit), (4, Unit::NatsPerToken));
        assert!((one.estimate.by - (24.5 - 27.5) / 14.0).abs() < 1e-12);
        let mut turned = second.to_vec();
        turned.swap(1, 2);
        turned.push(("d", 9, 1.0));
        assert_eq!(held_against(&FIRST, &turned), one);
        let back = held_against(&second, &FIRST).estimate;
        assert!((back.by + one.estimate.by).abs() < 1e-12);
    }

    #[test]
    fn other_tokens_of_the_same_text_are_compared_by_its_bytes() {
        let second = FIRST.map(|(digest, tokens, nats)| (digest, tokens + 1, nats + 1.0));
        let difference = held_against(&FIRST, &second);
        assert_eq!(difference.unit, Unit::BitsPerByte);
        let bits = 4.0 / 2f64.ln() / 80.0;
        assert!((difference.estimate.by - bits).abs() < 1e-12);
    }

    #[test]
    fn a_file_of_something_else_is_no_evaluation() {
        assert_eq!(parse("{\"digest\":1}\n"), None);
        assert_eq!(compared(&[], &[]), None);
        let other = vec![parse(&file(&[("x", 1, 1.0), ("y", 1, 1.0)])).unwrap()];
        assert_eq!(compared(&[parse(&file(&FIRST)).unwrap()], &other), None);
    }
}
