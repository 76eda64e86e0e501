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
mod parallel;
mod plot;
mod samples;
mod table;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    block::{self, Block, Cell, Document, Event, Fact, Head, Section, Table},
    curve::Curve,
};
use escape::{class_of_tone, class_of_word, escaped, script_json};

/// How a page looks.
pub const STYLE: &str = include_str!("html/page.css");
/// What a page does when touched. A live page's own script goes on from it.
pub const SCRIPT: &str = include_str!("html/page.js");

/// A part of a page that is replaced when it changes: the head, or a section by its title.
pub struct Piece {
    pub id: String,
    pub html: String,
}

/// Returns the parts of a page that lives, in their order.
pub fn pieces(document: &Document<'_>) -> Vec<Piece> {
    let head = Piece {
        id: HEAD.to_owned(),
        html: written(|body| put_head(body, &document.head)),
    };
    let sections = document.sections.iter().map(|section| Piece {
        id: section.title.clone(),
        html: written(|body| put_section(body, section)),
    });
    std::iter::once(head).chain(sections).collect()
}

/// The id of the piece that comes first.
const HEAD: &str = "head";

fn written(put: impl FnOnce(&mut String)) -> String {
    let mut body = String::new();
    put(&mut body);
    body
}

/// Returns the data that the script draws curves from.
pub fn charts(document: &Document<'_>) -> Value {
    serde_json::json!({ "charts": charts::of(document) })
}

/// Returns the points of curves alone, by the ids that they have in [`charts`].
pub fn points(curves: &[Curve]) -> Value {
    charts::points(curves)
}

/// Returns a table as HTML.
pub fn table(table: &Table) -> String {
    written(|body| table::put(body, table))
}

/// Returns text as HTML: nothing in it a tag or the end of an attribute.
pub fn text(text: &str) -> String {
    escaped(text).into_owned()
}

/// Returns JSON as it may stand in a page's script.
pub fn data(value: &Value) -> String {
    script_json(&value.to_string())
}

/// Prints a document as a page.
pub fn print(document: &Document<'_>) -> String {
    let mut body = String::new();
    put_head(&mut body, &document.head);
    for section in &document.sections {
        put_section(&mut body, section);
    }
    let head = &document.head;
    page(&head.title, &body, &charts(document), &head.version)
}

fn page(title: &str, body: &str, charts: &Value, version: &str) -> String {
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
        data(charts),
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

const THEME_BUTTON: &str = "<button id=\"theme\" type=\"button\" aria-label=\"light or dark\" title=\"light or dark\">\
    <svg width=\"16\" height=\"16\" viewBox=\"0 0 16 16\" aria-hidden=\"true\"><circle cx=\"8\" cy=\"8\" r=\"6.5\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.4\"/><path d=\"M8 1.5a6.5 6.5 0 0 1 0 13z\" fill=\"currentColor\"/></svg></button>";

fn put_head(body: &mut String, head: &Head) {
    body.push_str("<header><div class=\"top\"><div>");
    if !head.of.is_empty() {
        let _ = write!(body, "<p class=\"crumb\">{}</p>", escaped(&head.of));
    }
    let _ = write!(body, "<h1>{}", escaped(&head.title));
    if let Some(Cell { text, .. }) = &head.status {
        let (class, text) = (class_of_word(text), escaped(text));
        let _ = write!(body, " <span class=\"pill {class}\">{text}</span>");
    }
    body.push_str("</h1>");
    if !head.question.is_empty() {
        let question = escaped(&head.question);
        let _ = write!(body, "<p class=\"question\">{question}</p>");
    }
    if !head.verdict.is_empty() {
        body.push_str("<p class=\"verdict\">");
        for word in &head.verdict {
            let (class, text) = (class_of_tone(word.tone), escaped(&word.text));
            let _ = write!(body, "<span class=\"{class}\">{text}</span>");
        }
        body.push_str(".</p>");
    }
    let _ = writeln!(body, "</div>{THEME_BUTTON}</div>");
    if !head.figures.is_empty() {
        body.push_str("<dl class=\"figures\">");
        for fact in &head.figures {
            let (label, value) = (escaped(&fact.label), fact.value.joined());
            let _ = write!(
                body,
                "<div><dt>{label}</dt><dd>{}</dd></div>",
                escaped(&value)
            );
        }
        body.push_str("</dl>");
    }
    body.push_str("</header>\n");
}

fn put_section(body: &mut String, section: &Section<'_>) {
    let title = escaped(&section.title);
    let remark = match section.remark.as_str() {
        "" => String::new(),
        remark => format!(" <small>{}</small>", escaped(remark)),
    };
    let _ = write!(body, "<section><h2>{title}{remark}</h2>");
    put_blocks(body, &section.blocks);
    body.push_str("</section>\n");
}

fn put_blocks(body: &mut String, blocks: &[Block<'_>]) {
    if blocks.iter().any(|block| matches!(block, Block::Chart(_))) {
        body.push_str(CHARTS);
    }
    for block in blocks {
        match block {
            Block::Title(title, remark) => {
                let (title, remark) = (escaped(title), escaped(remark));
                let _ = write!(
                    body,
                    "<h3>{title} <span class=\"quiet\">{remark}</span></h3>"
                );
            }
            Block::Facts(facts) => put_facts(body, facts),
            Block::Table(table) => table::put(body, table),
            Block::ByRun(runs) => table::put_by_run(body, runs),
            // The script draws them all into one place.
            Block::Chart(_) => {}
            Block::Samples(samples) => samples::put(body, samples),
            Block::Events(events) => put_events(body, events),
            Block::Text(text) => {
                let _ = write!(body, "<pre>{}</pre>", escaped(text));
            }
            Block::Graph(graph) => graph::put(body, graph),
            Block::Parallel(parallel) => parallel::put(body, parallel),
            Block::Plot(plot) => plot::put(body, plot),
            Block::Fold(title, blocks) => {
                let _ = write!(body, "<details><summary>{}</summary>", escaped(title));
                put_blocks(body, blocks);
                body.push_str("</details>");
            }
        }
    }
}

/// The place that the script draws curves in, with its controls.
pub const CHARTS: &str = "<div class=\"controls\"><span class=\"choice\" role=\"group\" aria-label=\"horizontal axis\">\
    <button type=\"button\" data-x=\"step\" aria-pressed=\"true\">step</button><button type=\"button\" data-x=\"tokens\" aria-pressed=\"false\">tokens</button>\
    <button type=\"button\" data-x=\"seconds\" aria-pressed=\"false\">time</button></span>\
    <label>smoothing <input id=\"smooth\" type=\"range\" min=\"0\" max=\"0.98\" step=\"0.02\" value=\"0\"></label>\
    <label title=\"the values in decades\"><input id=\"log\" type=\"checkbox\"> logarithmic ↑</label></div>\
    <div class=\"charts\" id=\"charts\"></div><noscript>The curves need JavaScript; nothing else does.</noscript>";

fn put_facts(body: &mut String, facts: &[Fact]) {
    body.push_str("<dl class=\"facts\">");
    for fact in facts {
        let _ = write!(body, "<dt>{}</dt><dd>", escaped(&fact.label));
        match &fact.value {
            block::Value::Text(text) => body.push_str(&escaped(text)),
            block::Value::Code(text) => {
                let _ = write!(body, "<code>{}</code>", escaped(text));
            }
            block::Value::Tags(tags) => {
                for tag in tags {
                    let _ = write!(body, "<span class=\"tag\">{}</span>", escaped(tag));
                }
            }
        }
        body.push_str("</dd>");
    }
    body.push_str("</dl>");
}

fn put_events(body: &mut String, events: &[Event]) {
    body.push_str("<ul class=\"events\">");
    for event in events {
        let _ = write!(
            body,
            "<li><span class=\"{}\">{}</span> <span class=\"quiet\">{}</span> {}</li>",
            class_of_tone(event.tone),
            escaped(&event.level),
            escaped(&event.stage),
            escaped(&event.text)
        );
    }
    body.push_str("</ul>");
}
