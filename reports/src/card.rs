//! The part of a model's card that tells of the run that made it.

use std::fmt::Write;

use crate::{
    curve::Curve,
    markdown,
    metric::{Part, is_result},
    number::{number, thousands},
    report::Report,
    sections,
    text::clean,
};

/// Points of a curve that stand in a table.
const POINTS_MAX: usize = 12;

/// The registry's knowledge of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// The hub's names of the data that was downloaded there.
    pub datasets: Vec<String>,
    /// The measurements of the stage that the run is judged by.
    pub figures: Vec<(String, f64)>,
    /// The run in Markdown.
    pub history: String,
}

/// Tells of a run with an eye on the model that one of its stages made.
pub fn card(report: &Report, model: &str) -> Card {
    let mut history = markdown::print(&sections::of_card(report));
    put_data(&mut history, report);
    let curves = ["validation_loss", "loss"].map(|metric| report.curve(model, metric));
    if let Some(curve) = curves.into_iter().flatten().next() {
        put_curve(&mut history, curve);
    }
    Card {
        datasets: datasets(report),
        figures: figures(report),
        history,
    }
}

/// The downloads: from where, and the digest of the bytes.
fn put_data(text: &mut String, report: &Report) {
    let _ = write!(
        text,
        "### Data\n\n| stage | from | digest of what came |\n| --- | --- | --- |\n"
    );
    let downloads = report
        .stages
        .iter()
        .filter(|stage| stage.row.kind == "download");
    for stage in downloads {
        let settings = &stage.row.settings;
        let places = ["hub", "url", "kaggle", "path"];
        let mut places = places.iter().filter_map(|name| settings[name].as_str());
        let from = places.next().unwrap_or("rows in the experiment's file");
        let digest = stage.row.artifact.as_deref().unwrap_or_default();
        let (name, from) = (clean(&stage.row.name), clean(from));
        let _ = writeln!(text, "| {name} | `{from}` | `{digest}` |");
    }
    text.push('\n');
}

fn datasets(report: &Report) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let is_data = |stage: &&crate::report::Stage| stage.row.settings["repo"] != "model";
    for stage in report.stages.iter().filter(is_data) {
        let name = stage.row.settings["hub"].as_str();
        let is_new = |name: &&str| !names.iter().any(|known| known == name);
        if let Some(name) = name.filter(is_new) {
            names.push(name.to_owned());
        }
    }
    names
}

fn figures(report: &Report) -> Vec<(String, f64)> {
    let Some(judged) = report.headline_value() else {
        return Vec::new();
    };
    let measured = report.finals.iter().filter(|last| {
        let is_whole = Part::of(&last.metric).is_none() && is_result(&last.metric);
        last.stage == judged.stage && is_whole && last.value.is_finite()
    });
    measured
        .map(|last| (last.metric.clone(), last.value))
        .collect()
}

fn put_curve(text: &mut String, curve: &Curve) {
    let n = curve.points.len();
    let _ = write!(
        text,
        "### The course of `{}`\n\n| step | {} |\n| ---: | ---: |\n",
        curve.metric, curve.metric
    );
    let n_shown = n.min(POINTS_MAX);
    for idx in 0..n_shown {
        let last = n_shown.max(2) - 1;
        let point = &curve.points[idx * (n - 1) / last];
        let _ = writeln!(
            text,
            "| {} | {} |",
            thousands(point.step),
            number(point.value)
        );
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::dialogue;

    #[test]
    fn a_card_has_data_figures_settings_and_the_course_of_training() {
        let mut report = dialogue();
        report.stages[0].row.settings = json!({"hub": "roskoN/dailydialog", "url": null});
        let card = card(&report, "base");
        assert_eq!(card.datasets, ["roskoN/dailydialog"]);
        assert!(card.figures.contains(&("perplexity".to_owned(), 6.95)));
        assert!(card.figures.iter().all(|(name, _)| !name.contains("by_")));
        for part in [
            "### Results",
            "### Samples of answers",
            "### Made from",
            "### Data\n\n| stage | from |",
            "| dialogs | `roskoN/dailydialog` |",
            "### Settings",
            "base.train.lr",
            "### The course of `validation_loss`",
        ] {
            assert!(card.history.contains(part), "{part}: {}", card.history);
        }
        let curve = report.curve("base", "validation_loss").unwrap();
        let last = curve.points.last().unwrap();
        let row = format!("| {} | {} |", thousands(last.step), number(last.value));
        assert!(card.history.trim_end().ends_with(&row), "{}", card.history);
    }
}
