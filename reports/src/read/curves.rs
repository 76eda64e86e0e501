//! From the registry's points to curves with their three abscissae.
//!
//! A whole report asks for many curves at once; a page that is looked at asks again for a piece of
//! one, or for what has been written since.

use std::{collections::HashMap, ops::RangeInclusive};

use tinylm_registry::{self as registry, Execution, Registry, Thinning, load::is_load};

use crate::{
    Error,
    curve::{Curve, Point, fill_tokens},
};

/// The metric that says how many tokens a step has seen.
pub(super) const TOKENS: &str = "tokens";

pub(super) fn of(
    stage: &str,
    execution: &Execution,
    series: &[&registry::Series],
    tokens_last: Option<(u64, f64)>,
) -> Vec<Curve> {
    let clock = Clock::of(execution.started_at, series);
    with_clock(stage, execution, series, tokens_last, &clock)
}

/// Returns these steps of a stage's curves, the metrics asked for.
pub fn window(
    registry: &Registry,
    stage: &str,
    execution: &Execution,
    metrics: &[String],
    steps: &RangeInclusive<u64>,
    thinning: Thinning,
) -> Result<Vec<Curve>, Error> {
    let names = metrics.iter().map(String::as_str).chain([TOKENS]);
    let names: Vec<(String, String)> = names
        .map(|name| (execution.id.clone(), name.to_owned()))
        .collect();
    let series = registry.metric_series_of(&names, steps, thinning)?;
    let clock = Clock::in_registry(registry, execution)?;
    let series: Vec<&registry::Series> =
        series.iter().filter(|one| !one.points.is_empty()).collect();
    Ok(with_clock(stage, execution, &series, None, &clock))
}

/// The end of a stage's curves, as they grow.
pub struct Tail {
    stage: String,
    execution: Execution,
    clock: Option<Clock>,
    /// By metric, the last step that was told.
    told: HashMap<String, u64>,
}

impl Tail {
    /// Begins behind what was there at a moment.
    pub fn new(
        registry: &Registry,
        stage: &str,
        execution: &Execution,
        since_ms: i64,
    ) -> Result<Tail, Error> {
        let told = registry.curve_ends(&execution.id, Some(since_ms))?;
        Ok(Tail {
            stage: stage.to_owned(),
            execution: execution.clone(),
            clock: None,
            told: told.into_iter().collect(),
        })
    }

    pub fn execution_id(&self) -> &str {
        &self.execution.id
    }

    /// Returns what has come since it was last asked; nothing where a curve has been cut, so that
    /// all of them have to be read again.
    pub fn more(&mut self, registry: &Registry) -> Result<Option<Vec<Curve>>, Error> {
        let mut grown = Vec::new();
        for (metric, last) in registry.curve_ends(&self.execution.id, None)? {
            match self.told.get(&metric) {
                Some(&told) if last < told => return Ok(None),
                Some(&told) if last == told => continue,
                told => {
                    let from = told.map_or(0, |told| told + 1);
                    // No further than its end was: more may have been written since.
                    grown.extend(self.between(registry, &metric, &(from..=last))?);
                }
            }
            self.told.insert(metric, last);
        }
        Ok(Some(grown))
    }

    fn between(
        &mut self,
        registry: &Registry,
        metric: &str,
        steps: &RangeInclusive<u64>,
    ) -> Result<Vec<Curve>, Error> {
        let clock = match self.clock {
            Some(clock) => clock,
            None => Clock::in_registry(registry, &self.execution)?,
        };
        self.clock = Some(clock);
        let id = &self.execution.id;
        let names = [metric, TOKENS].map(|name| (id.clone(), name.to_owned()));
        let series = registry.metric_series_of(&names, steps, Thinning::even(usize::MAX))?;
        let series: Vec<&registry::Series> =
            series.iter().filter(|one| !one.points.is_empty()).collect();
        Ok(with_clock(
            &self.stage,
            &self.execution,
            &series,
            None,
            &clock,
        ))
    }
}

fn with_clock(
    stage: &str,
    execution: &Execution,
    series: &[&registry::Series],
    tokens_last: Option<(u64, f64)>,
    clock: &Clock,
) -> Vec<Curve> {
    let mut tokens: Vec<(u64, f64)> = series
        .iter()
        .filter(|one| one.name == TOKENS)
        .flat_map(|one| one.points.iter().map(|point| (point.step, point.value)))
        .collect();
    // Steps of one run see equal numbers of tokens, near enough: where their curve was not read,
    // its end will do.
    if tokens.is_empty() {
        tokens.extend(tokens_last);
    }
    let mut curves: Vec<Curve> = series
        .iter()
        .filter(|one| one.name != TOKENS)
        .map(|one| {
            let at = |point: &registry::Point| Point {
                step: point.step,
                tokens: None,
                seconds: clock.seconds(point.at),
                value: point.value,
            };
            let mut points: Vec<Point> = one.points.iter().map(at).collect();
            if !is_load(&one.name) {
                fill_tokens(&mut points, &tokens);
            }
            Curve {
                execution: execution.id.clone(),
                stage: stage.to_owned(),
                metric: one.name.clone(),
                points,
                n_points: one.n_points as usize,
            }
        })
        .collect();
    curves.sort_by_key(|curve| metric_rank(&curve.metric));
    curves
}

/// Losses first, the load of the machine last; the rest keeps its order.
pub(crate) fn metric_rank(metric: &str) -> usize {
    match metric {
        "loss" => 0,
        "validation_loss" => 1,
        metric if is_load(metric) => 3,
        _ => 2,
    }
}

/// Time spent at work: an execution that went on after a pause has points from before it began,
/// and the pause between them is nobody's work.
#[derive(Clone, Copy)]
struct Clock {
    first_ms: i64,
    began_ms: i64,
    pause_ms: i64,
}

impl Clock {
    fn of(began_ms: i64, series: &[&registry::Series]) -> Clock {
        let times = || {
            series
                .iter()
                .flat_map(|one| one.points.iter().map(|point| point.at))
        };
        let before = times().filter(|at| *at < began_ms).max();
        Clock::new(began_ms, times().min(), before)
    }

    /// Of an execution that began at a moment, its first point, and the last from before it began.
    fn new(began_ms: i64, first: Option<i64>, before: Option<i64>) -> Clock {
        Clock {
            first_ms: first.map_or(began_ms, |first| first.min(began_ms)),
            began_ms,
            pause_ms: before.map_or(0, |at| began_ms - at),
        }
    }

    /// By the longest curve of an execution: a validation's begins late, and the load of the machine
    /// knows nothing of an attempt before.
    fn in_registry(registry: &Registry, execution: &Execution) -> Result<Clock, Error> {
        let ends = registry.curve_ends(&execution.id, None)?;
        let longest = ends.into_iter().filter(|(name, _)| !is_load(name));
        let began_ms = execution.started_at;
        let (first, before) = match longest.max_by_key(|(_, last)| *last) {
            Some((name, _)) => registry.curve_span(&execution.id, &name, began_ms)?,
            None => (None, None),
        };
        Ok(Clock::new(began_ms, first, before))
    }

    fn seconds(&self, at_ms: i64) -> f64 {
        let pause_ms = if at_ms >= self.began_ms {
            self.pause_ms
        } else {
            0
        };
        (at_ms - self.first_ms - pause_ms).max(0) as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_between_two_attempts_is_not_work() {
        let point = |at| registry::Point {
            step: 0,
            value: 0.0,
            at,
        };
        let series = registry::Series {
            points: vec![point(1_000), point(3_000), point(61_000)],
            ..Default::default()
        };
        let clock = Clock::of(60_000, &[&series]);
        assert_eq!(
            [1_000, 3_000, 61_000].map(|at| clock.seconds(at)),
            [0.0, 2.0, 3.0]
        );
    }
}
