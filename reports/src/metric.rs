//! Facts in a metric's name: which way is better, its place in tables, the whole that it is a part of.
//!
//! Names are all there is to go by: a stage may report what it likes, and a report shows it.

use std::cmp::Ordering;

use serde::Serialize;

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Lower,
    Higher,
}

impl Better {
    /// Returns the better direction of a metric by its name, or `None` for what is neither good nor bad.
    pub fn of(metric: &str) -> Option<Better> {
        const LOWER: [&str; 5] = ["loss", "perplexity", "bits_per", "repetition", "error"];
        // Different words are no merit of their own: `, , , ,` has few, noise has the most.
        const HIGHER: [&str; 8] = [
            "acc",
            "centred",
            "core",
            "minimal_pairs",
            "tokens_per_second",
            "per_second",
            "end_rate",
            "recall",
        ];
        let name = last_word(metric);
        // The frequencies of the text alone would reach this: no model is better for it.
        if name.starts_with("unigram") || is_error(metric) {
            return None;
        }
        if HIGHER.iter().any(|word| name.contains(word)) {
            return Some(Better::Higher);
        }
        LOWER
            .iter()
            .any(|word| name.contains(word))
            .then_some(Better::Lower)
    }

    /// Orders the better value first.
    pub(crate) fn compare(self, a: f64, b: f64) -> Ordering {
        match (self.prefers(a, b), self.prefers(b, a)) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            _ => Ordering::Equal,
        }
    }

    /// Returns whether one value is better than another; what is not a number is worse than any.
    pub fn prefers(self, value: f64, other: f64) -> bool {
        if value.is_nan() || other.is_nan() {
            return !value.is_nan();
        }
        match self {
            Better::Lower => value < other,
            Better::Higher => value > other,
        }
    }
}

/// The metrics that people look for first, in their order; everything else is a count.
const RESULTS: [&str; 22] = [
    "best_validation_loss",
    "loss",
    "validation_loss",
    "perplexity",
    "bits_per_byte",
    "byte_perplexity",
    "word_perplexity",
    "unigram_perplexity",
    "accuracy_top1",
    "accuracy_top5",
    "core",
    "minimal_pairs",
    "acc",
    "acc_norm",
    "centred",
    "tokens_per_second",
    "best_step",
    "end_rate",
    "tokens_per_answer",
    "repetition",
    "distinct_1",
    "distinct_2",
];

/// The ending of a metric that is the standard error of another one.
const ERROR: &str = "_stderr";

pub(crate) fn is_error(metric: &str) -> bool {
    metric.ends_with(ERROR)
}

/// Returns whether the first metric is the standard error of the second.
pub(crate) fn is_error_of(metric: &str, of: &str) -> bool {
    metric.strip_suffix(ERROR) == Some(of)
}

fn last_word(metric: &str) -> &str {
    metric.rsplit('.').next().unwrap_or(metric)
}

/// Returns where a metric stands among those of its stage; parts stand behind the whole.
pub(crate) fn place(metric: &str) -> (bool, usize) {
    let known = RESULTS.iter().position(|name| *name == last_word(metric));
    (Part::of(metric).is_some(), known.unwrap_or(RESULTS.len()))
}

/// Returns whether a metric is what a stage was run for, and not only counted on the way.
pub(crate) fn is_result(metric: &str) -> bool {
    RESULTS.contains(&last_word(metric)) || Better::of(metric).is_some()
}

/// Returns whether a list of wanted metrics holds this one; an empty list wants all.
pub(crate) fn selects(wanted: &[String], stage: &str, metric: &str) -> bool {
    let is_this = |name: &String| {
        name == metric
            || name
                .strip_prefix(stage)
                .is_some_and(|rest| rest.strip_prefix('.') == Some(metric))
    };
    wanted.is_empty() || wanted.iter().any(is_this)
}

/// A metric of a part of what was measured: `by_source.stories.loss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// The division of the whole: `source`.
    pub by: &'a str,
    pub name: &'a str,
    pub metric: &'a str,
}

impl<'a> Part<'a> {
    pub(crate) fn of(metric: &'a str) -> Option<Part<'a>> {
        let (by, rest) = metric.strip_prefix("by_")?.split_once('.')?;
        // The name of a part may have dots of its own, that of a metric has none.
        let (name, metric) = rest.rsplit_once('.')?;
        Some(Part { by, name, metric })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_says_which_way_is_better() {
        assert_eq!(Better::of("validation_loss"), Some(Better::Lower));
        assert_eq!(Better::of("accuracy_top1"), Some(Better::Higher));
        assert_eq!(Better::of("tokens_per_second"), Some(Better::Higher));
        assert_eq!(Better::of("generated.end_rate"), Some(Better::Higher));
        assert_eq!(Better::of("lr"), None);
        assert_eq!(Better::of("generated.distinct_2"), None);
        assert_eq!(Better::of("unigram_perplexity"), None);
        assert_eq!(Better::of("by_task.copa.acc_norm"), Some(Better::Higher));
        assert_eq!(Better::of("by_task.copa.acc_norm_stderr"), None);
        assert!(Better::Lower.prefers(1.0, f64::NAN) && !Better::Lower.prefers(f64::NAN, 1.0));
    }

    #[test]
    fn a_part_may_be_called_anything() {
        let part = Part::of("by_source.train-0.jsonl.accuracy_top1").unwrap();
        let (by, name, metric) = ("source", "train-0.jsonl", "accuracy_top1");
        assert_eq!(part, Part { by, name, metric });
        assert_eq!(Part::of("generated.end_rate"), None);
        assert_eq!(Part::of("by_source.loss"), None);
    }

    #[test]
    fn the_whole_stands_before_its_parts_and_what_is_asked_for_first() {
        let mut metrics = [
            "by_role.user.loss",
            "documents",
            "accuracy_top1",
            "perplexity",
            "loss",
        ];
        metrics.sort_by_key(|metric| place(metric));
        let wanted = [
            "loss",
            "perplexity",
            "accuracy_top1",
            "documents",
            "by_role.user.loss",
        ];
        assert_eq!(metrics, wanted);
    }
}
