//! The runs of a sweep as lines over its settings.

use crate::{
    block::{Across, Block, Parallel, Section, Upright},
    comparison::{Comparison, MetricRow},
    metric::Better,
    number::number,
    places,
};

/// Fewer runs or settings are told by their table.
const RUNS_MIN: usize = 4;
const SETTINGS_MIN: usize = 2;
const SETTINGS_MAX: usize = 8;
/// Numbers that differ by more than this stand on a logarithmic axis.
const LOGARITHMIC: f64 = 20.0;
/// Values named at an axis.
const MARKS_MAX: usize = 12;

/// Draws the settings with an effect, the largest first, and what the runs are judged by.
pub(super) fn section(comparison: &Comparison) -> Option<Section<'_>> {
    let main = comparison.main_row()?;
    let mut names: Vec<&str> = Vec::new();
    for effect in &comparison.effects {
        if !names.contains(&effect.setting.as_str()) {
            names.push(&effect.setting);
        }
    }
    names.truncate(SETTINGS_MAX);
    if names.len() < SETTINGS_MIN || comparison.runs.len() < RUNS_MIN {
        return None;
    }
    let rows = names.iter().rev().filter_map(|name| {
        let row = comparison.settings.iter().find(|row| row.name == *name)?;
        Some((name.rsplit('.').next().unwrap_or(name), &row.values))
    });
    let mut axes = Vec::new();
    let mut places: Vec<Vec<Option<f64>>> = Vec::new();
    for (title, values) in rows {
        let (axis, of_runs) = upright(title, values);
        axes.push(axis);
        places.push(of_runs);
    }
    let (axis, of_runs) = judged(main);
    let merits = merits(main, &of_runs);
    axes.push(axis);
    places.push(of_runs);
    let lines = comparison
        .runs
        .iter()
        .enumerate()
        .map(|(idx, report)| Across {
            name: report.run.name.clone(),
            at: places::run(&report.run.name),
            places: places.iter().map(|of_runs| of_runs[idx]).collect(),
            merit: merits[idx],
        });
    let parallel = Parallel {
        axes,
        lines: lines.collect(),
    };
    let section = Section::new(
        "Settings and what came of them",
        vec![Block::Parallel(parallel)],
    );
    Some(section.remark("a line for each run, the best in green"))
}

/// An axis for the values of a setting: numbers by their size, words in their order.
fn upright(title: &str, values: &[Option<String>]) -> (Upright, Vec<Option<f64>>) {
    let mut distinct: Vec<&String> = values.iter().flatten().collect();
    distinct.sort();
    distinct.dedup();
    let figures: Option<Vec<f64>> = distinct.iter().map(|text| text.parse().ok()).collect();
    let scale = figures.as_deref().and_then(Scale::of);
    let place = |text: &String| match &scale {
        Some(scale) => scale.place(text.parse().unwrap_or(f64::NAN)),
        None => {
            let idx = distinct
                .iter()
                .position(|other| *other == text)
                .unwrap_or(0);
            (idx as f64 + 0.5) / distinct.len() as f64
        }
    };
    let marks = distinct
        .iter()
        .take(MARKS_MAX)
        .map(|text| (place(text), (*text).clone()));
    let axis = Upright {
        title: title.to_owned(),
        marks: marks.collect(),
    };
    let places = values.iter().map(|value| value.as_ref().map(place));
    (axis, places.collect())
}

/// The axis of what the runs are judged by, with its ends named.
fn judged(main: &MetricRow) -> (Upright, Vec<Option<f64>>) {
    let finite = |value: &Option<f64>| value.filter(|value| value.is_finite());
    let values: Vec<f64> = main.values.iter().filter_map(finite).collect();
    let scale = Scale::of(&values);
    let place = |value: f64| scale.as_ref().map_or(0.5, |scale| scale.place(value));
    let mut ends = [f64::INFINITY, f64::NEG_INFINITY];
    for value in &values {
        ends = [ends[0].min(*value), ends[1].max(*value)];
    }
    let ends = ends.iter().filter(|end| end.is_finite());
    let axis = Upright {
        title: main.full_name(),
        marks: ends.map(|&end| (place(end), number(end))).collect(),
    };
    let places = main.values.iter().map(|value| finite(value).map(place));
    (axis, places.collect())
}

/// How good each run is, from 0 to 1.
fn merits(main: &MetricRow, places: &[Option<f64>]) -> Vec<f64> {
    let merit = |place: f64| match main.better {
        Some(Better::Higher) => place,
        _ => 1.0 - place,
    };
    places
        .iter()
        .map(|place| place.map_or(0.0, merit))
        .collect()
}

struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Scale {
    fn of(values: &[f64]) -> Option<Scale> {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let is_log = low > 0.0 && high / low > LOGARITHMIC;
        (low < high && (high - low).is_finite()).then_some(Scale { low, high, is_log })
    }

    fn place(&self, value: f64) -> f64 {
        match self.is_log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_by_their_size_and_words_beside_each_other() {
        let values = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| Some(text.to_owned()))
                .collect::<Vec<_>>()
        };
        let (_, places) = upright("lr", &values(&["0.0001", "0.001", "0.01"]));
        let places: Vec<f64> = places.into_iter().flatten().collect();
        assert!(
            places[0] == 0.0 && (places[1] - 0.5).abs() < 1e-9 && places[2] == 1.0,
            "{places:?}"
        );
        let (_, places) = upright("d", &values(&["100", "150", "200"]));
        assert_eq!(places, [Some(0.0), Some(0.5), Some(1.0)]);
        let (axis, places) = upright(
            "o",
            &[Some("muon".to_owned()), None, Some("adamw".to_owned())],
        );
        assert_eq!(places, [Some(0.75), None, Some(0.25)]);
        assert_eq!(axis.marks.len(), 2);
    }
}
