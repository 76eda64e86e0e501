//! Which of a run's numbers is meant where only a metric is named, and which one it is judged by.
//!
//! Several stages measure a loss. The one meant is that of the stage farthest along the graph: what
//! was measured of the last model, rather than of the one it was made from. No kind of stage needs to
//! be known for that, only what reads what.

use std::collections::HashMap;

use crate::StageRow;

/// The metrics that a run is judged by, the fairest first: bits per byte are the same between two vocabularies,
/// and the best validation loss is that of the model which is kept.
const HEADLINES: [&str; 8] = [
    "bits_per_byte",
    "perplexity",
    "best_validation_loss",
    "validation_loss",
    "loss",
    "accuracy_top1",
    "core",
    "minimal_pairs",
];

/// How far along the graph of a run its stages stand.
#[derive(Debug, Clone, Default)]
pub struct Judge {
    /// By stage, the longest way to it and its place in the plan.
    places: HashMap<String, (usize, usize)>,
}

impl Judge {
    /// Looks at the stages of a run, in the order of the plan.
    pub fn of<'a>(stages: impl Iterator<Item = &'a StageRow>) -> Judge {
        let mut places: HashMap<String, (usize, usize)> = HashMap::new();
        for (position, stage) in stages.enumerate() {
            let depth = stage
                .reads()
                .into_iter()
                .filter_map(|name| places.get(name));
            let depth = depth.map(|(depth, _)| depth + 1).max();
            places.insert(stage.name.clone(), (depth.unwrap_or(0), position));
        }
        Judge { places }
    }

    /// Returns the place of the metric that a name means: `STAGE.METRIC`, else a metric of this
    /// name, else one that ends with it.
    pub fn meant<'a>(
        &self,
        metrics: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        name: &str,
    ) -> Option<usize> {
        let ends = |text: &str| {
            text.strip_suffix(name)
                .is_some_and(|rest| rest.ends_with('.'))
        };
        let is_whole = |(stage, metric): (&str, &str)| {
            let rest = name
                .strip_prefix(stage)
                .and_then(|rest| rest.strip_prefix('.'));
            rest == Some(metric)
        };
        self.farthest(metrics.clone(), is_whole)
            .or_else(|| self.farthest(metrics.clone(), |(_, metric)| metric == name))
            .or_else(|| {
                let is_end = |(stage, metric)| ends(&format!("{stage}.{metric}"));
                self.farthest(metrics.clone(), is_end)
            })
    }

    /// Returns the place of the metric that a run is judged by; `chosen` is what its author says.
    pub fn headline<'a>(
        &self,
        metrics: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        chosen: Option<&str>,
    ) -> Option<usize> {
        let chosen = chosen.and_then(|name| self.meant(metrics.clone(), name));
        let first = |name: &&str| {
            let is_named = |(_, metric): (&str, &str)| metric == *name;
            self.farthest(metrics.clone(), is_named)
        };
        chosen.or_else(|| HEADLINES.iter().find_map(first))
    }

    /// Returns how soon a metric is a headline; none is for what nobody is judged by.
    pub fn preference(metric: &str) -> Option<usize> {
        HEADLINES.iter().position(|name| *name == metric)
    }

    /// Returns how far along a stage stands, and its place in the plan.
    pub fn place(&self, stage: &str) -> (usize, usize) {
        self.places.get(stage).copied().unwrap_or_default()
    }

    fn farthest<'a>(
        &self,
        metrics: impl Iterator<Item = (&'a str, &'a str)>,
        fits: impl Fn((&'a str, &'a str)) -> bool,
    ) -> Option<usize> {
        let fitting = metrics.enumerate().filter(|(_, metric)| fits(*metric));
        let farthest = fitting.max_by_key(|(_, (stage, _))| self.place(stage));
        farthest.map(|(idx, _)| idx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, reads: &[&str]) -> StageRow {
        StageRow {
            name: name.to_owned(),
            inputs: serde_json::json!({ "role": reads }),
            ..StageRow::default()
        }
    }

    #[test]
    fn what_was_measured_of_the_last_model_is_meant() {
        // The base model is measured after the tuned one, as far as the file goes.
        let stages = [
            stage("base", &[]),
            stage("tuned", &["base"]),
            stage("after", &["tuned"]),
            stage("before", &["base"]),
        ];
        let metrics = [
            ("base", "best_validation_loss"),
            ("tuned", "by_role.user.loss"),
            ("after", "perplexity"),
            ("before", "perplexity"),
        ];
        let judge = Judge::of(stages.iter());
        let of = |name: &str| judge.meant(metrics.into_iter(), name);
        assert_eq!(of("perplexity"), Some(2));
        assert_eq!(of("before.perplexity"), Some(3));
        assert_eq!(of("loss"), Some(1));
        assert_eq!(of("lr"), None);
        let headline = |chosen| judge.headline(metrics.into_iter(), chosen);
        assert_eq!(headline(None), Some(2));
        assert_eq!(headline(Some("before.perplexity")), Some(3));
        assert_eq!(headline(Some("gone.perplexity")), Some(2));
    }
}
