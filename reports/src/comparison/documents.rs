//! Two evaluations document by document: how far their difference depends on which documents they read.
//!
//! `evaluate` writes `documents.jsonl` into its artifact. Documents are paired by their digests, so a
//! shorter evaluation is compared with the beginning of a longer one, and one with another tokenizer by
//! bits per byte. Where one of them lacks a part of the other's documents, nothing is said: those in
//! which a tokenizer knows every word are the easy ones.
//!
//! Of a group of seeds a document's loss is its mean over the seeds: what the interval then says is what
//! other documents would do to these very models, and nothing of other seeds.

use std::{collections::BTreeMap, fs};

use serde::{Deserialize, Serialize};
use tinylm_registry::Home;

use super::{lines::Lines, seeds::Group};
use crate::{
    report::Report,
    statistics::{Estimate, Sums, bootstrap},
};

/// The file in an artifact of `evaluate`.
const LOSSES: &str = "documents.jsonl";

/// Returns the losses that an evaluation wrote, if its artifact is in this home and has them.
pub fn losses(home: &Home, artifact: &str) -> Option<String> {
    let files = home.artifact_files(&artifact.parse().ok()?);
    fs::read_to_string(files.join(LOSSES)).ok()
}

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

/// An evaluation of which only one of two groups has the losses of its documents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unpaired {
    pub stage: String,
    /// The group that lacks them: collected, on another machine, or measured before they were kept.
    pub group: usize,
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
) -> (Vec<DocumentDifference>, Vec<Unpaired>) {
    let lines = Lines::of(runs);
    let (mut differences, mut unpaired) = (Vec::new(), Vec::new());
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
            let of_group = losses(&artifacts);
            if of_first.is_empty() != of_group.is_empty()
                && !artifacts.is_empty()
                && !first.is_empty()
            {
                unpaired.push(Unpaired {
                    stage: line.label.clone(),
                    group: if of_first.is_empty() { 0 } else { idx },
                });
            }
            let compared = compared(&of_first, &of_group);
            differences.extend(compared.map(|compared| DocumentDifference {
                stage: line.label.clone(),
                group: idx,
                ..compared
            }));
        }
    }
    unpaired.dedup();
    (differences, unpaired)
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

/// The share of the shortest evaluation's documents that all must have read.
const SHARED_MIN: f64 = 0.95;

/// Compares the means of two groups of evaluations over the documents that all of them read.
fn compared(first: &[Losses], second: &[Losses]) -> Option<DocumentDifference> {
    let all = || first.iter().chain(second);
    let shared: Vec<&Document> = first
        .first()?
        .keys()
        .filter(|document| all().all(|losses| losses.contains_key(*document)))
        .collect();
    let n_least = all().map(Losses::len).min().unwrap_or(0);
    if second.is_empty() || (shared.len() as f64) < SHARED_MIN * n_least as f64 {
        return None;
    }
    let of = |losses: &[Losses], document: &Document| {
        let mut sum = Loss::default();
        for loss in losses.iter().map(|losses| losses[document]) {
            sum.tokens += loss.tokens / losses.len() as f64;
            sum.bytes += loss.bytes / losses.len() as f64;
            sum.nats += loss.nats / losses.len() as f64;
        }
        sum
    };
    let pairs = shared.iter();
    let pairs = pairs.map(|document| [of(first, document), of(second, document)]);
    let is_scored = |[a, b]: &[Loss; 2]| a.tokens > 0.0 && b.tokens > 0.0;
    let pairs: Vec<[Loss; 2]> = pairs.filter(is_scored).collect();
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
    // Means over two seeds and over three are rounded each in its own way.
    let is_same = |[a, b]: &[Loss; 2]| (a.tokens - b.tokens).abs() < 1e-6 * a.tokens;
    if pairs.iter().all(is_same) {
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
    }

    #[test]
    fn a_choice_of_documents_is_not_taken_for_all_of_them() {
        let first = vec![parse(&file(&FIRST)).unwrap()];
        let against = |documents| compared(&first, &[parse(&file(documents)).unwrap()]);
        assert_eq!(against(&[("x", 1, 1.0), ("y", 1, 1.0)]), None);
        assert_eq!(
            against(&[("a", 4, 1.0), ("b", 2, 1.0), ("y", 1, 1.0)]),
            None
        );
        let beginning = against(&[("a", 4, 1.0), ("b", 2, 1.0)]).unwrap();
        assert_eq!(beginning.n_documents, 2);
    }

    #[test]
    fn whoever_lacks_the_losses_is_named_and_nobody_where_none_has_them() {
        let mut second = crate::testing::dialogue_slower();
        second.settings[3].value = "0.1".to_owned();
        let runs = [crate::testing::dialogue(), second];
        let group = |idx: usize| Group {
            name: String::new(),
            runs: vec![idx],
            seeds: vec!["1".to_owned()],
        };
        let groups = [group(0), group(1)];
        let artifact = |idx: usize| runs[idx].stage("perplexity").unwrap().row.artifact.clone();
        let only = |idx: usize| {
            let read =
                |digest: &str| (artifact(idx).as_deref() == Some(digest)).then(|| file(&FIRST));
            differences(&runs, &groups, &read).1
        };
        assert_eq!((only(0)[0].group, only(1)[0].group), (1, 0));
        let (compared, lacking) = differences(&runs, &groups, &|_| Some(file(&FIRST)));
        assert_eq!((compared.len(), lacking.len()), (1, 0));
        assert!(!compared[0].estimate.is_beyond_noise());
        assert_eq!(differences(&runs, &groups, &|_| None).1, []);
    }

    #[test]
    fn of_a_group_of_seeds_a_documents_loss_is_the_mean() {
        let nats = |by: f64| {
            let documents = FIRST.map(|(digest, tokens, nats)| (digest, tokens + 7, nats + by));
            parse(&file(&documents)).unwrap()
        };
        let one = compared(&[nats(0.0)], &[nats(1.0)]).unwrap();
        let many = compared(&[nats(-0.5), nats(0.5)], &[nats(0.5), nats(1.5), nats(1.0)]).unwrap();
        assert_eq!((many.n_runs, many.unit), ([3, 2], Unit::NatsPerToken));
        assert!((one.estimate.low - many.estimate.low).abs() < 1e-12);
    }
}
