//! How runs did with each value of each setting that varies.

use serde::Serialize;

use super::{
    frame::{Frame, Group},
    row::{MetricRow, SettingRow},
};
use crate::{curve::serialize_value, metric::Better};

/// How runs with one value of a setting did.
#[derive(Clone, Debug, Serialize)]
pub struct Effect {
    pub setting: String,
    pub value: String,
    pub n_runs: usize,
    #[serde(serialize_with = "serialize_value")]
    pub mean: f64,
    #[serde(serialize_with = "serialize_value")]
    pub best: f64,
    /// Between the means of the setting's best and worst value.
    #[serde(serialize_with = "serialize_value")]
    pub spread: f64,
}

/// Groups the runs of a sweep by each value of each setting that varies.
pub(super) fn of(settings: &[SettingRow], main: &MetricRow) -> Vec<Effect> {
    /// A setting with a value of its own in every run says nothing about its values.
    const VALUES_MAX: usize = 12;
    if main.values.len() < 3 {
        return Vec::new();
    }
    let better = main.better.unwrap_or(Better::Lower);
    // Columns of equal length are always a table, and a setting is always a column of it.
    let Ok(frame) = Frame::new(settings, main) else {
        return Vec::new();
    };
    let groups = settings.iter().filter_map(|setting| {
        let groups = frame.by(&setting.name, better).ok()?;
        let is_telling = (2..=VALUES_MAX).contains(&groups.len());
        is_telling.then(|| setting_effects(&setting.name, groups, better))
    });
    let mut groups: Vec<Vec<Effect>> = groups.collect();
    groups.sort_by(|a, b| b[0].spread.total_cmp(&a[0].spread));
    groups.into_iter().flatten().collect()
}

fn setting_effects(setting: &str, groups: Vec<Group>, better: Better) -> Vec<Effect> {
    let means = groups.iter().map(|group| group.mean);
    let means: Vec<f64> = means.filter(|mean| mean.is_finite()).collect();
    let spread = means.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        - means.iter().copied().fold(f64::INFINITY, f64::min);
    let effect = |group: Group| Effect {
        setting: setting.to_owned(),
        value: group.value,
        n_runs: group.n_runs,
        mean: group.mean,
        best: group.best,
        spread: if means.len() > 1 { spread } else { 0.0 },
    };
    let mut effects: Vec<Effect> = groups.into_iter().map(effect).collect();
    effects.sort_by(|a, b| better.compare(a.mean, b.mean));
    effects
}
