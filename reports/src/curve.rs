//! A metric over the length of a stage.
//!
//! A curve keeps three abscissae for each value (step, tokens seen, seconds since the stage began),
//! because two runs can only be compared fairly by one of them: the same steps with another batch
//! are not the same tokens, and the same tokens on another machine are not the same time.

use serde::{Serialize, Serializer};
use tinylm_registry::load::is_load;

/// A value as JSON can hold it: what is not finite becomes the text `nan`, `inf` or `-inf`.
pub(crate) fn serialize_value<S: Serializer>(
    value: &f64,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        value if value.is_finite() => serializer.serialize_f64(*value),
        value if value.is_nan() => serializer.serialize_str("nan"),
        value if *value > 0.0 => serializer.serialize_str("inf"),
        _ => serializer.serialize_str("-inf"),
    }
}

/// The horizontal axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    #[default]
    Step,
    Tokens,
    Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    pub step: u64,
    /// Tokens trained on by this step, where the stage says so.
    pub tokens: Option<f64>,
    /// Since the stage began.
    pub seconds: f64,
    #[serde(serialize_with = "serialize_value")]
    pub value: f64,
}

impl Point {
    pub(crate) fn x(&self, axis: Axis) -> Option<f64> {
        match axis {
            Axis::Step => Some(self.step as f64),
            Axis::Tokens => self.tokens,
            Axis::Time => Some(self.seconds),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Who recorded it.
    #[serde(skip)]
    pub execution: String,
    pub stage: String,
    pub metric: String,
    /// In order of their steps; thinned when there were more than asked for. Of a curve that was not
    /// read only the end.
    pub points: Vec<Point>,
    /// How many were recorded.
    pub n_points: usize,
}

impl Curve {
    /// A curve that was not read, but for its last value.
    pub(crate) fn end(execution: &str, stage: &str, metric: &str, value: f64) -> Curve {
        let end = Point {
            step: 0,
            tokens: None,
            seconds: 0.0,
            value,
        };
        Curve {
            execution: execution.to_owned(),
            stage: stage.to_owned(),
            metric: metric.to_owned(),
            points: vec![end],
            n_points: 0,
        }
    }

    pub(crate) fn is_load(&self) -> bool {
        is_load(&self.metric)
    }

    /// Returns the last value, not a number or otherwise.
    pub fn last(&self) -> Option<f64> {
        self.points.last().map(|point| point.value)
    }

    pub(crate) fn is_loss(&self) -> bool {
        is_loss(&self.metric)
    }

    /// Returns the points against an axis; none where the axis was not recorded. A load of the machine
    /// has time alone.
    pub(crate) fn along(&self, axis: Axis) -> Vec<(f64, f64)> {
        let axis = if self.is_load() { Axis::Time } else { axis };
        self.points
            .iter()
            .filter_map(|point| Some((point.x(axis)?, point.value)))
            .collect()
    }

    /// Returns whether the curve is better drawn as separate marks than as a line.
    pub(crate) fn is_sparse_beside(&self, other: &Curve) -> bool {
        self.n_points * 4 <= other.n_points
    }
}

/// Whether a metric is what training brings down: such curves are drawn large.
pub(crate) fn is_loss(metric: &str) -> bool {
    metric == "loss" || metric == "validation_loss"
}

/// Fills in the tokens of each point from a curve of `(step, tokens)`, between two by a straight line.
pub(crate) fn fill_tokens(points: &mut [Point], tokens: &[(u64, f64)]) {
    let mut next = 0;
    for point in points {
        while next < tokens.len() && tokens[next].0 < point.step {
            next += 1;
        }
        point.tokens = match (next.checked_sub(1).map(|idx| tokens[idx]), tokens.get(next)) {
            (_, Some(&(step, n))) if step == point.step => Some(n),
            (Some((step_a, n_a)), Some(&(step_b, n_b))) => {
                let share = (point.step - step_a) as f64 / (step_b - step_a) as f64;
                Some(n_a + (n_b - n_a) * share)
            }
            // Before the first figure tokens grow from nothing at its pace.
            (None, Some(&(step, n))) if step > 0 => Some(n * point.step as f64 / step as f64),
            (Some((_, n)), None) if point.step == tokens[next - 1].0 => Some(n),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_filled_in_between_two_figures() {
        let mut points = [1, 2, 3, 4, 5].map(|step| Point {
            step,
            tokens: None,
            seconds: 0.0,
            value: 0.0,
        });
        fill_tokens(&mut points, &[(2, 200.0), (4, 600.0)]);
        assert_eq!(
            points.map(|point| point.tokens),
            [Some(100.0), Some(200.0), Some(400.0), Some(600.0), None]
        );
    }
}
