//! A report as one page for a browser.
//!
//! One file with nothing to fetch: it opens from a mail, a USB stick or a server that knows only
//! files, today and in ten years. Tables, the graph and the samples are plain HTML made here; the
//! script draws the curves and sorts the tables, and without it the rest still reads.
//!
//! Names and samples are other people's text. They are escaped on their way in, and the page's own
//! policy allows exactly one script and one style sheet, named by their digests, and no network.

mod charts;
mod compared;
mod escape;
mod graph;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use sha2::{Digest, Sha256};

pub use compared::comparison;

use crate::{
    metric::{Part, is_result},
    number::{bytes, counted, duration, moment, number, short_digest, thousands},
    phrases::{code_line, cost_line, machine_line, outcome_text, time_line},
    report::{Final, PartTable, Report, Sample, Stage},
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
    samples(&mut body, report);
    events(&mut body, report);
    graph(&mut body, "Graph", &[report]);
    stages(&mut body, report);
    settings(&mut body, report);
    sources(&mut body, report);
    page(
        &report.run.name,
        &body,
        &charts::of_report(report),
        &report.run.version,
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
    fact("started", &time_line(report));
    fact("cost", &cost_line(report));
    fact(
        "seed",
        &run.seed.map(|seed| seed.to_string()).unwrap_or_default(),
    );
    fact("code", &code_line(run));
    fact("machine", &machine_line(run));
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
    let wholes = report.finals.iter();
    let wholes = wholes.filter(|last| Part::of(&last.metric).is_none());
    let (results, counts): (Vec<&Final>, Vec<&Final>) =
        wholes.partition(|last| is_result(&last.metric));
    body.push_str("<section><h2>Results</h2><div class=\"beside\">");
    for of_stage in results.chunk_by(|a, b| a.stage == b.stage) {
        stage_results(body, of_stage);
    }
    body.push_str("</div>");
    for table in report.part_tables() {
        parts(body, &table);
    }
    counted_things(body, &counts);
    body.push_str("</section>\n");
}

fn stage_results(body: &mut String, results: &[&Final]) {
    let _ = write!(
        body,
        "<div class=\"scroll\"><table class=\"sortable\"><thead><tr><th>{}</th><th class=\"figure\">value</th></tr></thead><tbody>",
        escaped(&results[0].stage)
    );
    for last in results {
        let _ = write!(
            body,
            "<tr><td class=\"name\">{}</td>{}</tr>",
            escaped(&last.metric),
            value_cell(Some(last.value), false, "")
        );
    }
    body.push_str("</tbody></table></div>");
}

/// What was measured of each part of a whole.
fn parts(body: &mut String, table: &PartTable<'_>) {
    let _ = write!(
        body,
        "<div class=\"scroll\"><table class=\"sortable\"><thead><tr><th>{} by {}</th>",
        escaped(table.stage),
        escaped(table.by)
    );
    for metric in &table.metrics {
        let _ = write!(body, "<th class=\"figure\">{}</th>", escaped(metric));
    }
    body.push_str("</tr></thead><tbody>");
    for (part_idx, (name, _)) in table.parts.iter().enumerate() {
        let _ = write!(body, "<tr><td>{}</td>", escaped(name));
        for metric_idx in 0..table.metrics.len() {
            body.push_str(&value_cell(table.value(part_idx, metric_idx), false, ""));
        }
        body.push_str("</tr>");
    }
    body.push_str("</tbody></table></div>");
}

/// What was only counted on the way, folded away.
fn counted_things(body: &mut String, counts: &[&Final]) {
    if counts.is_empty() {
        return;
    }
    let _ = write!(
        body,
        "<details><summary>{}</summary><dl class=\"facts\">",
        counted(counts.len(), "count")
    );
    for of_stage in counts.chunk_by(|a, b| a.stage == b.stage) {
        let words: Vec<String> = of_stage
            .iter()
            .map(|last| format!("{} {}", last.metric, number(last.value)))
            .collect();
        let _ = write!(
            body,
            "<dt>{}</dt><dd>{}</dd>",
            escaped(&of_stage[0].stage),
            escaped(&words.join(", "))
        );
    }
    body.push_str("</dl></details>");
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
    let _ = write!(
        body,
        "<section><h2>{title} <small>green was made by this run, grey was there before</small></h2>"
    );
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
        escaped(&outcome_text(report, stage)),
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
