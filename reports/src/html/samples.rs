//! Samples of models, on a page.

use std::fmt::Write;

use super::{escape::escaped, table::dot};
use crate::{
    block::{Answer, Samples},
    number::letter,
};

/// Answers of several runs to one prompt.
const ANSWERS_MAX: usize = 8;
/// Letters of runs over a text they share.
const LETTERS_MAX: usize = 12;

pub(super) fn put(body: &mut String, samples: &Samples) {
    body.push_str("<div class=\"samples\">");
    for prompt in &samples.prompts {
        let text = escaped(prompt.text.trim());
        let _ = write!(
            body,
            "<div class=\"sample\"><div class=\"prompt\">{text}</div>"
        );
        match &prompt.answers[..] {
            [only] if samples.n_runs == 1 => put_answer(body, &only.text),
            answers => put_side_by_side(body, answers),
        }
        body.push_str("</div>");
    }
    body.push_str("</div>");
}

fn put_answer(body: &mut String, text: &str) {
    let text = escaped(text.trim());
    let _ = write!(body, "<div class=\"answer\">{text}</div>");
}

fn put_side_by_side(body: &mut String, answers: &[Answer]) {
    body.push_str("<div class=\"side\">");
    for answer in answers.iter().take(ANSWERS_MAX) {
        let shown = answer.runs.iter().take(LETTERS_MAX);
        let signs: Vec<String> = shown.map(|&idx| dot(idx) + &letter(idx)).collect();
        let signs = signs.join("&ensp;");
        let rest = if answer.runs.len() > LETTERS_MAX {
            " …"
        } else {
            ""
        };
        let _ = write!(body, "<div><div class=\"by\">{signs}{rest}</div>");
        put_answer(body, &answer.text);
        body.push_str("</div>");
    }
    body.push_str("</div>");
}
