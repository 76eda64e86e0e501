//! Samples of models, of one run or of several.

use super::screen::{Screen, Span, plain, span};
use crate::{
    block::{Answer, Prompt, Samples, Tone},
    number::{counted, letter},
    text::{fitted, width, wrapped},
};

/// Letters of runs in front of a text they share.
const LETTERS_MAX: usize = 9;

/// Prints the first prompts and counts the rest.
pub(super) fn print(screen: &mut Screen, samples: &Samples, is_brief: bool) {
    let (n_prompts_max, n_lines_max) = if is_brief { (3, 2) } else { (20, 8) };
    for prompt in samples.prompts.iter().take(n_prompts_max) {
        let columns = screen.width.saturating_sub(6);
        let lines = wrapped(prompt.text.trim(), columns);
        print_quoted(screen, "  › ", &lines, Tone::Quiet, n_lines_max.min(3));
        match samples.n_runs {
            1 => {
                let lines = wrapped(prompt.answers[0].text.trim(), columns);
                print_quoted(screen, "    ", &lines, Tone::Plain, n_lines_max);
            }
            2 if screen.width >= 60 => print_pair(screen, prompt),
            _ => print_stack(screen, &prompt.answers),
        }
    }
    if samples.prompts.len() > n_prompts_max {
        let rest = format!("  and {} more", samples.prompts.len() - n_prompts_max);
        screen.line(&[span(rest, Tone::Quiet)]);
    }
}

/// Prints the first lines of a text and says how many it left out.
fn print_quoted(screen: &mut Screen, lead: &str, lines: &[String], tone: Tone, n_max: usize) {
    if lines.iter().all(|line| line.is_empty()) {
        return screen.line(&[span(format!("{lead}(empty)"), Tone::Quiet)]);
    }
    for (idx, line) in lines.iter().take(n_max).enumerate() {
        let lead = if idx == 0 { lead } else { "    " };
        screen.line(&[plain(lead), span(line.clone(), tone)]);
    }
    if lines.len() > n_max {
        let rest = format!("    … {}", counted(lines.len() - n_max, "more line"));
        screen.line(&[span(rest, Tone::Quiet)]);
    }
}

/// Prints two texts in two columns.
fn print_pair(screen: &mut Screen, prompt: &Prompt) {
    const LINES_MAX: usize = 8;
    let columns = (screen.width - 4 - 2 * 2 - 3) / 2;
    let texts = [0, 1].map(|run_idx| {
        let of_run = prompt
            .answers
            .iter()
            .find(|one| one.runs.contains(&run_idx));
        text_lines(of_run.map(|one| one.text.as_str()), columns)
    });
    let n_lines = texts.iter().map(Vec::len).max().unwrap_or(0);
    for line_idx in 0..n_lines.min(LINES_MAX) {
        let mut spans = vec![plain("    ")];
        for (run_idx, lines) in texts.iter().enumerate() {
            let text = lines.get(line_idx).map(String::as_str).unwrap_or_default();
            let is_cut = line_idx + 1 == LINES_MAX && lines.len() > LINES_MAX;
            let text = match is_cut {
                true => fitted(&format!("{text} …"), columns).into_owned(),
                false => text.to_owned(),
            };
            let sign = match line_idx {
                0 => letter(run_idx),
                _ => " ".to_owned(),
            };
            let pad = " ".repeat(columns.saturating_sub(width(&text)));
            spans.extend([span(sign, Tone::Series(run_idx)), plain(" "), plain(text)]);
            if run_idx == 0 {
                spans.extend([plain(pad), plain("   ")]);
            }
        }
        screen.line(&spans);
    }
}

/// Prints one text below the other, the runs that wrote the same one together.
fn print_stack(screen: &mut Screen, answers: &[Answer]) {
    const LINES_MAX: usize = 4;
    const TEXTS_MAX: usize = 8;
    for answer in answers.iter().take(TEXTS_MAX) {
        let mut lead = letters(&answer.runs);
        let indent: usize = lead.iter().map(|span| width(&span.text)).sum();
        let lines = text_lines(Some(&answer.text), screen.width.saturating_sub(indent));
        for line in lines.iter().take(LINES_MAX) {
            let mut spans = std::mem::replace(&mut lead, vec![plain(" ".repeat(indent))]);
            spans.push(plain(line.clone()));
            screen.line(&spans);
        }
        if lines.len() > LINES_MAX {
            screen.line(&[span(format!("{}…", " ".repeat(indent)), Tone::Quiet)]);
        }
    }
    if answers.len() > TEXTS_MAX {
        let rest = counted(answers.len() - TEXTS_MAX, "other text");
        screen.line(&[span(format!("    and {rest}"), Tone::Quiet)]);
    }
}

fn letters(runs: &[usize]) -> Vec<Span> {
    let mut spans = vec![plain("    ")];
    let shown = runs.iter().take(LETTERS_MAX);
    spans.extend(shown.flat_map(|&idx| [span(letter(idx), Tone::Series(idx)), plain(" ")]));
    if runs.len() > LETTERS_MAX {
        let rest = format!("and {} more ", runs.len() - LETTERS_MAX);
        spans.push(span(rest, Tone::Quiet));
    }
    spans
}

fn text_lines(text: Option<&str>, columns: usize) -> Vec<String> {
    match text {
        None => vec!["–".to_owned()],
        Some(text) if text.trim().is_empty() => vec!["(empty)".to_owned()],
        Some(text) => wrapped(text.trim(), columns),
    }
}
