//! A report as one page for a browser.
//!
//! One file with nothing to fetch: it opens from a mail, a USB stick or a server that knows only
//! files, today and in ten years. Tables, the graph and the samples are plain HTML made here; the
//! script draws the curves and sorts the tables, and without it the rest still reads.
//!
//! Names and samples are other people's text. They are escaped on their way in, and the page's own
//! policy allows exactly one script and one style sheet, named by their digests, and no network.

mod charts;
mod escape;
mod graph;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::{
    comparison::{Comparison, MetricRow, SampleRow},
    number::{bytes, counted, duration, moment, number, percent, short_digest, thousands},
    report::{Better, Final, Report, Sample, Stage},
    terminal::{self, letter},
};
use escape::{escaped, script_json};

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// Renders one run.
pub fn report(report: &Report) -> String {
    let mut body = String::new();
    head(&mut body, report);
    curves(&mut body, &charts::of_report(report));
    results(&mut body, report);
    graph(&mut body, "Graph", &[report]);
    stages(&mut body, report);
    samples(&mut body, report);
    settings(&mut body, report);
    sources(&mut body, report);
    events(&mut body, report);
    page(
        &report.run.name,
        &body,
        &charts::of_report(report),
        &report.run.version,
    )
}

/// Renders several runs side by side.
pub fn comparison(comparison: &Comparison) -> String {
    let mut body = String::new();
    compared_head(&mut body, comparison);
    compared_settings(&mut body, comparison);
    compared_metrics(&mut body, comparison);
    let charts = charts::of_comparison(comparison);
    curves(&mut body, &charts);
    effects(&mut body, comparison);
    compared_samples(&mut body, comparison);
    compared_stages(&mut body, comparison);
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

fn page(title: &str, body: &str, charts: &[charts::Chart], version: &str) -> String {
    // Charts are numbers and texts; they cannot fail to become JSON.
    let data = serde_json::to_string(&serde_json::json!({ "charts": charts }))
        .unwrap_or_else(|_| "{\"charts\":[]}".to_owned());
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{} · tinylm</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>Made by tinylm {}. Everything here is in this file.</footer>\n</main>\n\
         <script type=\"application/json\" id=\"data\">{}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        sha256_base64(SCRIPT),
        sha256_base64(STYLE),
        escaped(title),
        escaped(version),
        script_json(&data),
    )
}

fn sha256_base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digest = Sha256::digest(text.as_bytes());
    let mut encoded = String::new();
    for chunk in digest.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for idx in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * idx)) as usize & 63];
            encoded.push(if idx <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    encoded
}

/// Returns a word of the registry as a CSS class: letters only.
fn class_of(word: &str) -> String {
    word.chars().filter(char::is_ascii_lowercase).collect()
}

const THEME_BUTTON: &str = "<button id=\"theme\" type=\"button\" aria-label=\"light or dark\" title=\"light or dark\">\
    <svg width=\"16\" height=\"16\" viewBox=\"0 0 16 16\" aria-hidden=\"true\"><circle cx=\"8\" cy=\"8\" r=\"6.5\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.4\"/><path d=\"M8 1.5a6.5 6.5 0 0 1 0 13z\" fill=\"currentColor\"/></svg></button>";

fn pill(status: &str) -> String {
    format!(
        "<span class=\"pill {}\">{}</span>",
        class_of(status),
        escaped(status)
    )
}

fn head(body: &mut String, report: &Report) {
    let run = &report.run;
    let _ = write!(
        body,
        "<header><div class=\"top\"><div><p class=\"crumb\">{}</p><h1>{} {}</h1>",
        escaped(&run.experiment),
        escaped(&run.name),
        pill(&run.status)
    );
    if !run.question.is_empty() {
        let _ = write!(body, "<p class=\"question\">{}</p>", escaped(&run.question));
    }
    let _ = writeln!(body, "</div>{THEME_BUTTON}</div>");
    figures(body, report);
    body.push_str("</header>\n<section><h2>Run</h2><dl class=\"facts\">");
    let mut fact = |label: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(body, "<dt>{label}</dt><dd>{}</dd>", escaped(value));
        }
    };
    fact("started", &terminal::time_line(report));
    fact("cost", &terminal::cost_line(report));
    fact(
        "seed",
        &run.seed.map(|seed| seed.to_string()).unwrap_or_default(),
    );
    fact("code", &terminal::code_line(run));
    fact("machine", &terminal::machine_line(run));
    fact("file", &run.file);
    fact("sweep", run.sweep.as_deref().unwrap_or_default());
    fact("uuid", &run.id);
    if !run.command.is_empty() {
        let _ = write!(
            body,
            "<dt>command</dt><dd><code>{}</code></dd>",
            escaped(&run.command)
        );
    }
    if !run.tags.is_empty() {
        let tags: String = run
            .tags
            .iter()
            .map(|tag| format!("<span class=\"tag\">{}</span>", escaped(tag)))
            .collect();
        let _ = write!(body, "<dt>tags</dt><dd>{tags}</dd>");
    }
    body.push_str("</dl>");
    for note in &report.notes {
        let _ = write!(
            body,
            "<h3>Note <span class=\"quiet\">{}</span></h3><div class=\"prompt\">{}</div>",
            moment(note.at_ms),
            escaped(&note.text)
        );
    }
    body.push_str("</section>\n");
}

/// The few numbers a reader came for.
fn figures(body: &mut String, report: &Report) {
    const WANTED: [&str; 7] = [
        "perplexity",
        "best_validation_loss",
        "validation_loss",
        "bits_per_byte",
        "loss",
        "accuracy_top1",
        "tokens_per_second",
    ];
    let has_validation = report
        .finals
        .iter()
        .any(|last| last.metric.ends_with("validation_loss"));
    let found = WANTED
        .iter()
        .filter(|wanted| **wanted != "loss" || !has_validation)
        .filter_map(|wanted| {
            report
                .finals
                .iter()
                .rev()
                .find(|last| last.metric == *wanted)
        })
        .take(4);
    body.push_str("<dl class=\"figures\">");
    for last in found {
        let label = last.metric.replace('_', " ");
        let _ = write!(
            body,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escaped(&label),
            number(last.value)
        );
    }
    let _ = writeln!(
        body,
        "<div><dt>time</dt><dd>{}</dd></div></dl>",
        duration(report.run.elapsed_seconds)
    );
}

fn curves(body: &mut String, charts: &[charts::Chart]) {
    if charts.is_empty() {
        return;
    }
    body.push_str(
        "<section><h2>Curves</h2><div class=\"controls\"><span class=\"choice\" role=\"group\" aria-label=\"horizontal axis\">\
         <button type=\"button\" data-x=\"step\" aria-pressed=\"true\">step</button><button type=\"button\" data-x=\"tokens\" aria-pressed=\"false\">tokens</button>\
         <button type=\"button\" data-x=\"seconds\" aria-pressed=\"false\">time</button></span>\
         <label>smoothing <input id=\"smooth\" type=\"range\" min=\"0\" max=\"0.98\" step=\"0.02\" value=\"0\"></label>\
         <label><input id=\"log\" type=\"checkbox\"> logarithmic</label></div>\
         <div class=\"charts\" id=\"charts\"></div><noscript>The curves need JavaScript; nothing else does.</noscript></section>\n",
    );
}

fn results(body: &mut String, report: &Report) {
    if report.finals.is_empty() {
        return;
    }
    body.push_str("<section><h2>Results</h2><div class=\"scroll\"><table class=\"sortable\"><thead><tr><th>stage</th><th>metric</th><th class=\"figure\">value</th></tr></thead><tbody>");
    // What is good or bad comes before what is only counted.
    let (judged, counted): (Vec<&Final>, Vec<&Final>) = report
        .finals
        .iter()
        .partition(|last| Better::of(&last.metric).is_some());
    for last in judged.into_iter().chain(counted) {
        let _ = write!(
            body,
            "<tr><td class=\"name quiet\">{}</td><td class=\"name\">{}</td>{}</tr>",
            escaped(&last.stage),
            escaped(&last.metric),
            value_cell(Some(last.value), false, "")
        );
    }
    body.push_str("</tbody></table></div></section>\n");
}

/// A figure with its exact value beside it for sorting.
fn value_cell(value: Option<f64>, is_best: bool, change: &str) -> String {
    let Some(value) = value else {
        return "<td class=\"figure quiet\">–</td>".to_owned();
    };
    let class = match (is_best, value.is_finite()) {
        (true, _) => " best",
        (_, false) => " bad",
        _ => "",
    };
    let exact = if value.is_nan() {
        "nan".to_owned()
    } else {
        value.to_string()
    };
    format!(
        "<td class=\"figure{class}\" data-v=\"{exact}\">{}{change}</td>",
        number(value)
    )
}

fn graph(body: &mut String, title: &str, reports: &[&Report]) {
    let pictures: Vec<String> = reports.iter().map(|report| graph::svg(report)).collect();
    if pictures.iter().all(String::is_empty) {
        return;
    }
    let _ = write!(body, "<section><h2>{title}</h2>");
    for (report, picture) in reports.iter().zip(&pictures) {
        if reports.len() > 1 {
            let _ = write!(body, "<h3>{}</h3>", escaped(&report.run.name));
        }
        let _ = write!(body, "<div class=\"scroll\">{picture}</div>");
    }
    body.push_str("</section>\n");
}

fn stages(body: &mut String, report: &Report) {
    body.push_str(
        "<section><h2>Stages</h2><div class=\"scroll\"><table class=\"wide sortable\"><thead><tr><th>stage</th><th>kind</th><th>outcome</th>\
         <th class=\"figure\">time</th><th class=\"figure\">cpu</th><th class=\"figure\">memory</th><th>artifact</th></tr></thead><tbody>",
    );
    for stage in &report.stages {
        stage_row(body, report, stage);
    }
    body.push_str("</tbody></table></div>");
    for stage in report.stages.iter().filter(|stage| stage.outcome != "hit") {
        if let Some(error) = stage
            .execution
            .as_ref()
            .and_then(|execution| execution.error.as_ref())
        {
            let _ = write!(
                body,
                "<h3 class=\"bad\">{} {}</h3><pre>{}</pre>",
                escaped(&stage.name),
                escaped(&stage.outcome),
                escaped(error)
            );
        }
    }
    body.push_str("</section>\n");
}

fn stage_row(body: &mut String, report: &Report, stage: &Stage) {
    let execution = stage.execution.as_ref();
    let figure = |value: Option<f64>, written: Option<String>| match (value, written) {
        (Some(value), Some(written)) => {
            format!("<td class=\"figure\" data-v=\"{value}\">{written}</td>")
        }
        _ => "<td class=\"figure quiet\">–</td>".to_owned(),
    };
    let seconds = execution.map(|execution| execution.elapsed_seconds);
    let cpu = execution.and_then(|execution| execution.cpu_seconds);
    let memory = execution.and_then(|execution| execution.peak_memory_bytes);
    let class = match stage.outcome.as_str() {
        "made" => "good",
        "failed" => "bad",
        "running" | "cancelled" => "warn",
        _ => "quiet",
    };
    let artifact = stage.artifact.as_deref().unwrap_or_default();
    let _ = write!(
        body,
        "<tr><td class=\"name\">{}</td><td class=\"name quiet\">{}</td><td class=\"{class}\">{}</td>{}{}{}<td class=\"digest quiet\" title=\"{}\">{}</td></tr>",
        escaped(&stage.name),
        escaped(&stage.kind),
        escaped(&terminal::outcome_text(report, stage)),
        figure(seconds, seconds.map(duration)),
        figure(cpu, cpu.map(duration)),
        figure(memory.map(|n| n as f64), memory.map(bytes)),
        escaped(artifact),
        escaped(short_digest(artifact)),
    );
}

fn settings(body: &mut String, report: &Report) {
    let (changed, defaults): (Vec<_>, Vec<_>) = report
        .settings
        .iter()
        .partition(|setting| !setting.is_default);
    if report.settings.is_empty() {
        return;
    }
    body.push_str("<section><h2>Settings <small>that differ from the defaults</small></h2>");
    for (is_folded, settings) in [(false, changed), (true, defaults)] {
        if settings.is_empty() {
            continue;
        }
        if is_folded {
            let _ = write!(
                body,
                "<details><summary>{} left at their defaults</summary>",
                counted(settings.len(), "setting")
            );
        }
        body.push_str("<div class=\"scroll\"><table><tbody>");
        for setting in settings {
            let _ = write!(
                body,
                "<tr><td class=\"mono name\">{}</td><td class=\"mono value\">{}</td></tr>",
                escaped(&setting.name),
                escaped(&setting.value)
            );
        }
        body.push_str("</tbody></table></div>");
        if is_folded {
            body.push_str("</details>");
        }
    }
    body.push_str("</section>\n");
}

fn samples(body: &mut String, report: &Report) {
    for stage in &report.stages {
        let last: Vec<&Sample> = report
            .samples_last()
            .into_iter()
            .filter(|sample| sample.stage == stage.name)
            .collect();
        let Some(first) = last.first() else { continue };
        let remark = first
            .step
            .map(|step| format!("at step {}", thousands(step as i64)))
            .unwrap_or_default();
        let _ = write!(
            body,
            "<section><h2>Samples of {} <small>{remark}</small></h2><div class=\"samples\">",
            escaped(&stage.name)
        );
        for sample in &last {
            sample_block(body, &sample.prompt, &sample.text);
        }
        body.push_str("</div>");
        earlier_samples(body, report, stage, first.step);
        body.push_str("</section>\n");
    }
}

fn sample_block(body: &mut String, prompt: &str, text: &str) {
    let _ = write!(
        body,
        "<div class=\"sample\"><div class=\"prompt\">{}</div><div class=\"answer\">{}</div></div>",
        escaped(prompt.trim()),
        escaped(text.trim())
    );
}

/// What a stage wrote while it was still learning, folded away.
fn earlier_samples(body: &mut String, report: &Report, stage: &Stage, last_step: Option<u64>) {
    let earlier: Vec<&Sample> = report
        .samples
        .iter()
        .filter(|sample| sample.stage == stage.name && sample.step != last_step)
        .collect();
    if earlier.is_empty() {
        return;
    }
    body.push_str("<details><summary>earlier, while it was learning</summary>");
    let mut step_before = None;
    for sample in earlier {
        if step_before != Some(sample.step) {
            step_before = Some(sample.step);
            let _ = write!(
                body,
                "<h3>step {}</h3>",
                sample
                    .step
                    .map(|step| thousands(step as i64))
                    .unwrap_or_default()
            );
        }
        sample_block(body, &sample.prompt, &sample.text);
    }
    body.push_str("</details>");
}

fn sources(body: &mut String, report: &Report) {
    let mut headed = false;
    for stage in &report.stages {
        let Some(origin) = stage
            .execution
            .as_ref()
            .and_then(|execution| execution.origin.as_ref())
        else {
            continue;
        };
        if !headed {
            body.push_str("<section><h2>Made from</h2>");
            headed = true;
        }
        let _ = write!(
            body,
            "<h3>{}</h3><dl class=\"facts\">",
            escaped(&stage.name)
        );
        let artifact = stage
            .artifact
            .iter()
            .map(|digest| ("artifact".to_owned(), digest.clone()));
        for (label, value) in crate::sources::facts(origin).into_iter().chain(artifact) {
            let _ = write!(
                body,
                "<dt>{}</dt><dd class=\"mono\">{}</dd>",
                escaped(&label),
                escaped(&value)
            );
        }
        body.push_str("</dl>");
    }
    if headed {
        body.push_str("</section>\n");
    }
}

fn events(body: &mut String, report: &Report) {
    let mut warnings = report.warnings().peekable();
    if warnings.peek().is_none() {
        return;
    }
    body.push_str("<section><h2>Warnings</h2><ul class=\"events\">");
    for event in warnings {
        let class = if event.level == "error" {
            "bad"
        } else {
            "warn"
        };
        let stage = event.stage.as_deref().unwrap_or_default();
        let _ = write!(
            body,
            "<li><span class=\"{class}\">{}</span> <span class=\"quiet\">{}</span> {}</li>",
            escaped(&event.level),
            escaped(stage),
            escaped(&event.message)
        );
    }
    body.push_str("</ul></section>\n");
}

fn compared_head(body: &mut String, comparison: &Comparison) {
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

fn compared_settings(body: &mut String, comparison: &Comparison) {
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

fn compared_metrics(body: &mut String, comparison: &Comparison) {
    if comparison.metrics.is_empty() {
        return;
    }
    if comparison.runs.len() > COLUMNS_MAX {
        return metrics_by_run(body, comparison);
    }
    body.push_str("<section><h2>Metrics <small>the better in green, difference from the first</small></h2><div class=\"scroll\"><table class=\"wide\"><thead><tr><th>stage</th><th>metric</th>");
    run_headings(body, comparison, "figure");
    body.push_str("</tr></thead><tbody>");
    let mut stage_before = "";
    for row in comparison.metrics.iter().filter(|row| row.is_telling()) {
        let stage = if row.stage == stage_before {
            ""
        } else {
            &row.stage
        };
        stage_before = &row.stage;
        let _ = write!(
            body,
            "<tr><td class=\"name quiet\">{}</td><td class=\"name\">{}</td>",
            escaped(stage),
            escaped(&row.metric)
        );
        for idx in 0..row.values.len() {
            body.push_str(&value_cell(
                row.values[idx],
                row.is_best[idx],
                &change_note(row, idx),
            ));
        }
        body.push_str("</tr>");
    }
    body.push_str("</tbody></table></div></section>\n");
}

fn change_note(row: &MetricRow, run_idx: usize) -> String {
    let Some(change) = row.changes[run_idx] else {
        return String::new();
    };
    let is_better = match (row.better, row.values[0], row.values[run_idx]) {
        (Some(better), Some(first), Some(value)) if first != value => {
            Some(better.prefers(value, first))
        }
        _ => None,
    };
    let class = match is_better {
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
    let metrics: Vec<&MetricRow> = comparison
        .metrics
        .iter()
        .filter(|row| row.better.is_some())
        .collect();
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

fn compared_samples(body: &mut String, comparison: &Comparison) {
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

fn compared_stages(body: &mut String, comparison: &Comparison) {
    const PICTURES_MAX: usize = 4;
    if !comparison.shared.is_empty() {
        body.push_str("<section><h2>Stages shared <small>the same artifact, made once</small></h2><div class=\"scroll\"><table><thead><tr><th>stage</th><th>kind</th><th>runs</th><th>artifact</th></tr></thead><tbody>");
        for stage in &comparison.shared {
            let runs = if stage.runs.len() == comparison.runs.len() {
                "all".to_owned()
            } else {
                stage
                    .runs
                    .iter()
                    .map(|&idx| letter(idx))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            let _ = write!(
                body,
                "<tr><td class=\"name\">{}</td><td class=\"name quiet\">{}</td><td>{runs}</td><td class=\"digest quiet\" title=\"{}\">{}</td></tr>",
                escaped(&stage.stage),
                escaped(&stage.kind),
                escaped(&stage.artifact),
                escaped(short_digest(&stage.artifact)),
            );
        }
        body.push_str("</tbody></table></div></section>\n");
    }
    let reports: Vec<&Report> = comparison.runs.iter().take(PICTURES_MAX).collect();
    graph(body, "Graphs", &reports);
}
