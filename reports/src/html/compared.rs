//! Several runs on one page.
//!
//! As on a terminal, a few runs stand as columns and many as rows, and a run keeps its letter and
//! its colour through all tables and charts.

use std::fmt::Write;

use super::{
    THEME_BUTTON, charts, curves,
    escape::{breakable, escaped},
    graph, page, value_cell,
};
use crate::{
    comparison::{Comparison, MetricRow, SampleRow},
    metric::Better,
    number::{bytes, counted, duration, moment, number, percent},
    phrases::letter,
    report::Report,
};

/// Renders several runs side by side.
pub fn comparison(comparison: &Comparison) -> String {
    let mut body = String::new();
    head(&mut body, comparison);
    settings(&mut body, comparison);
    metrics(&mut body, comparison);
    let charts = charts::of_comparison(comparison);
    curves(&mut body, &charts);
    effects(&mut body, comparison);
    samples(&mut body, comparison);
    stages(&mut body, comparison);
    let version = comparison
        .runs
        .first()
        .map(|report| report.run.version.as_str())
        .unwrap_or_default();
    page(
        &format!("{} side by side", counted(comparison.runs.len(), "run")),
        &body,
        &charts,
        version,
    )
}

fn head(body: &mut String, comparison: &Comparison) {
    let n_runs = comparison.runs.len();
    let _ = writeln!(
        body,
        "<header><div class=\"top\"><div><h1>{} side by side</h1>{}</div>{THEME_BUTTON}</div></header>",
        counted(n_runs, "run"),
        verdict(comparison)
    );
    body.push_str(
        "<section><h2>Runs</h2><div class=\"scroll\"><table class=\"wide sortable\"><thead><tr><th></th><th>run</th><th>experiment</th><th>status</th><th>started, UTC</th>\
         <th class=\"figure\">time</th><th class=\"figure\">cpu</th><th class=\"figure\">memory</th><th class=\"figure\">made, hit</th></tr></thead><tbody>",
    );
    for (idx, report) in comparison.runs.iter().enumerate() {
        let (run, cost) = (&report.run, &comparison.costs[idx]);
        let tags: String = run
            .tags
            .iter()
            .map(|tag| format!(" <span class=\"tag\">{}</span>", escaped(tag)))
            .collect();
        let _ = write!(
            body,
            "<tr><td class=\"name\" data-v=\"{idx}\">{}</td><td class=\"name\">{}{tags}</td><td class=\"name\">{}</td><td>{}</td><td class=\"name quiet\" data-v=\"{}\">{}</td>\
             <td class=\"figure\" data-v=\"{}\">{}</td><td class=\"figure\" data-v=\"{}\">{}</td><td class=\"figure\" data-v=\"{}\">{}</td><td class=\"figure\">{}, {}</td></tr>",
            run_sign(idx),
            escaped(&run.name),
            escaped(&run.experiment),
            escaped(&run.status),
            run.started_ms,
            moment(run.started_ms).trim_end_matches(" UTC"),
            cost.elapsed_seconds,
            duration(cost.elapsed_seconds),
            cost.cpu_seconds,
            duration(cost.cpu_seconds),
            cost.peak_memory_bytes,
            if cost.peak_memory_bytes == 0 {
                "–".to_owned()
            } else {
                bytes(cost.peak_memory_bytes)
            },
            cost.n_made,
            cost.n_hit,
        );
    }
    body.push_str("</tbody></table></div></section>\n");
}

/// Returns a run's letter with its colour, drawn so that no inline style is needed.
fn run_sign(run_idx: usize) -> String {
    format!(
        "<svg width=\"10\" height=\"10\" aria-hidden=\"true\"><circle cx=\"5\" cy=\"5\" r=\"5\" fill=\"var(--s{})\"/></svg> {}",
        run_idx % 8,
        letter(run_idx)
    )
}

/// Says in a sentence which run is best, and by how much.
fn verdict(comparison: &Comparison) -> String {
    let Some(row) = comparison.main_row() else {
        return String::new();
    };
    let Some(best) = row.is_best.iter().position(|is_best| *is_best) else {
        return String::new();
    };
    let value = |idx: usize| row.values[idx].map(number).unwrap_or_default();
    let name = escaped(&comparison.runs[best].run.name);
    let metric = escaped(&row.metric).replace('_', " ");
    let other = if best == 0 {
        second_best(row, best)
    } else {
        Some(0)
    };
    let against = match other.and_then(|other| Some((other, row.values[other]?, row.values[best]?)))
    {
        Some((other, from, to)) if from.is_finite() && from != 0.0 => {
            let change = percent((to - from) / from.abs() * 100.0);
            format!(
                " against {} of {} <span class=\"good\">({change})</span>",
                value(other),
                escaped(&comparison.runs[other].run.name)
            )
        }
        _ => String::new(),
    };
    format!(
        "<p class=\"verdict\"><strong>{name}</strong> has the best {metric}: {}{against}.</p>",
        value(best)
    )
}

fn second_best(row: &MetricRow, best: usize) -> Option<usize> {
    let better = row.better.unwrap_or(Better::Lower);
    let others = (0..row.values.len()).filter(|&idx| idx != best && row.values[idx].is_some());
    others.min_by(|&a, &b| {
        let value = |idx: usize| row.values[idx].unwrap_or(f64::NAN);
        crate::comparison::preference(better, value(a), value(b))
    })
}

/// Runs shown as columns; beyond them a table has a line for each run.
const COLUMNS_MAX: usize = 8;
/// Letters of runs over a text they share.
const LETTERS_MAX: usize = 12;

fn run_headings(body: &mut String, comparison: &Comparison, class: &str) {
    for (idx, report) in comparison.runs.iter().enumerate() {
        let _ = write!(
            body,
            "<th class=\"{class}\" title=\"{}\">{}</th>",
            escaped(&report.run.name),
            run_sign(idx)
        );
    }
}

fn settings(body: &mut String, comparison: &Comparison) {
    if comparison.runs.len() > COLUMNS_MAX {
        return;
    }
    body.push_str("<section><h2>Settings that differ</h2>");
    if comparison.settings.is_empty() {
        body.push_str("<p class=\"quiet\">None.</p></section>\n");
        return;
    }
    body.push_str("<div class=\"scroll\"><table><thead><tr><th></th>");
    run_headings(body, comparison, "");
    body.push_str("</tr></thead><tbody>");
    for row in &comparison.settings {
        let _ = write!(
            body,
            "<tr><td class=\"mono name\">{}</td>",
            escaped(&row.name)
        );
        for value in &row.values {
            let _ = write!(
                body,
                "<td class=\"mono value\">{}</td>",
                escaped(value.as_deref().unwrap_or("–"))
            );
        }
        body.push_str("</tr>");
    }
    body.push_str("</tbody></table></div></section>\n");
}

fn metrics(body: &mut String, comparison: &Comparison) {
    if comparison.metrics.is_empty() {
        return;
    }
    if comparison.runs.len() > COLUMNS_MAX {
        return metrics_by_run(body, comparison);
    }
    body.push_str(
        "<section><h2>Metrics <small>the better in green, difference from the first</small></h2>",
    );
    let rows = comparison.telling().into_iter();
    let mut rows: Vec<_> = rows
        .map(|row| (row.stage.clone(), row.metric.as_str(), row))
        .collect();
    for whole in comparison.part_losses() {
        let title = format!("{}: loss by {}", whole.stage, whole.by);
        let parts = whole.parts.iter();
        rows.extend(parts.map(|&(part, row)| (title.clone(), part, row)));
    }
    metric_table(body, comparison, &rows);
    body.push_str("</section>\n");
}

/// Writes metrics under the titles they have in common.
fn metric_table(body: &mut String, comparison: &Comparison, rows: &[(String, &str, &MetricRow)]) {
    body.push_str("<div class=\"scroll\"><table class=\"wide metrics\"><thead><tr><th></th>");
    run_headings(body, comparison, "figure");
    body.push_str("</tr></thead><tbody>");
    for of_title in rows.chunk_by(|a, b| a.0 == b.0) {
        let _ = write!(
            body,
            "<tr class=\"group\"><td colspan=\"{}\">{}</td></tr>",
            1 + comparison.runs.len(),
            escaped(&of_title[0].0)
        );
        for (_, name, row) in of_title {
            let _ = write!(body, "<tr><td class=\"name\">{}</td>", breakable(name));
            for idx in 0..row.values.len() {
                body.push_str(&value_cell(
                    row.values[idx],
                    row.is_best[idx],
                    &change_note(row, idx),
                ));
            }
            body.push_str("</tr>");
        }
    }
    body.push_str("</tbody></table></div>");
}

fn change_note(row: &MetricRow, run_idx: usize) -> String {
    let Some(change) = row.changes[run_idx] else {
        return String::new();
    };
    let class = match row.is_better(run_idx) {
        Some(true) => "good",
        Some(false) => "bad",
        None => "quiet",
    };
    format!(
        " <span class=\"change {class}\">{}</span>",
        escaped(&percent(change))
    )
}

/// A line for each run, the settings that differ and the metrics as columns: for sweeps.
fn metrics_by_run(body: &mut String, comparison: &Comparison) {
    body.push_str("<section><h2>Settings and metrics <small>click a heading to sort</small></h2><div class=\"scroll\"><table class=\"wide sortable\"><thead><tr><th></th><th>run</th>");
    for row in &comparison.settings {
        let _ = write!(
            body,
            "<th title=\"{}\">{}</th>",
            escaped(&row.name),
            escaped(row.name.rsplit('.').next().unwrap_or_default())
        );
    }
    let mut metrics = comparison.telling();
    metrics.retain(|row| row.better.is_some());
    for row in &metrics {
        let _ = write!(
            body,
            "<th class=\"figure\" title=\"{}\">{}</th>",
            escaped(&row.full_name()),
            escaped(&row.metric)
        );
    }
    body.push_str("</tr></thead><tbody>");
    for (idx, report) in comparison.runs.iter().enumerate() {
        let _ = write!(
            body,
            "<tr><td class=\"name\" data-v=\"{idx}\">{}</td><td class=\"name\">{}</td>",
            run_sign(idx),
            escaped(&report.run.name)
        );
        for row in &comparison.settings {
            let _ = write!(
                body,
                "<td class=\"mono\">{}</td>",
                escaped(row.values[idx].as_deref().unwrap_or("–"))
            );
        }
        for row in &metrics {
            body.push_str(&value_cell(row.values[idx], row.is_best[idx], ""));
        }
        body.push_str("</tr>");
    }
    body.push_str("</tbody></table></div></section>\n");
}

fn effects(body: &mut String, comparison: &Comparison) {
    if comparison.effects.is_empty() {
        return;
    }
    let metric = comparison.main.as_deref().unwrap_or_default();
    let _ = write!(
        body,
        "<section><h2>Effect of each setting <small>on {}, the largest first</small></h2><div class=\"scroll\"><table class=\"sortable\"><thead><tr><th>setting</th><th>value</th>\
         <th class=\"figure\">runs</th><th class=\"figure\">mean</th><th class=\"figure\">best</th></tr></thead><tbody>",
        escaped(metric)
    );
    for effect in &comparison.effects {
        let _ = write!(
            body,
            "<tr><td class=\"mono name\">{}</td><td class=\"mono\">{}</td><td class=\"figure\">{}</td>{}{}</tr>",
            escaped(&effect.setting),
            escaped(&effect.value),
            effect.n_runs,
            value_cell(Some(effect.mean), false, ""),
            value_cell(Some(effect.best), false, ""),
        );
    }
    body.push_str("</tbody></table></div></section>\n");
}

fn samples(body: &mut String, comparison: &Comparison) {
    let rows: Vec<&SampleRow> = comparison
        .samples
        .iter()
        .filter(|row| row.texts.iter().flatten().count() > 1)
        .collect();
    let mut stage_before: Option<&str> = None;
    for row in rows {
        if stage_before != Some(&row.stage) {
            if stage_before.is_some() {
                body.push_str("</div></section>\n");
            }
            let _ = write!(
                body,
                "<section><h2>Samples of {}</h2><div class=\"samples\">",
                escaped(&row.stage)
            );
            stage_before = Some(&row.stage);
        }
        let _ = write!(
            body,
            "<div class=\"sample\"><div class=\"prompt\">{}</div><div class=\"side\">",
            escaped(row.prompt.trim())
        );
        for (text, runs) in row.groups().into_iter().take(COLUMNS_MAX) {
            let signs: Vec<String> = runs
                .iter()
                .take(LETTERS_MAX)
                .map(|&idx| run_sign(idx))
                .collect();
            let _ = write!(
                body,
                "<div><div class=\"by\">{}{}</div><div class=\"answer\">{}</div></div>",
                signs.join("&ensp;"),
                if runs.len() > LETTERS_MAX { " …" } else { "" },
                escaped(text.trim())
            );
        }
        body.push_str("</div></div>");
    }
    if stage_before.is_some() {
        body.push_str("</div></section>\n");
    }
}

fn stages(body: &mut String, comparison: &Comparison) {
    const PICTURES_MAX: usize = 4;
    if !comparison.shared.is_empty() {
        body.push_str("<section><h2>Stages shared <small>the same artifacts, made once</small></h2><dl class=\"facts\">");
        for (runs, stages) in comparison.shared_by_runs() {
            let _ = write!(
                body,
                "<dt>{runs}</dt><dd>{}</dd>",
                escaped(&stages.join(", "))
            );
        }
        body.push_str("</dl></section>\n");
    }
    let reports: Vec<&Report> = comparison.runs.iter().take(PICTURES_MAX).collect();
    graph(body, "Graphs", &reports);
}
