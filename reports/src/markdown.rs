//! A report as Markdown, for an issue or a notebook.
//!
//! Curves and graphs are left out, and so is what is folded away.

use std::fmt::Write;

use crate::{
    block::{Block, ByRun, Cell, Document, Fact, Head, Samples, Section, Table, Tone},
    number::letter,
    text::clean,
};

/// Prints a document as Markdown.
pub fn print(document: &Document<'_>) -> String {
    let mut text = String::new();
    put_head(&mut text, &document.head);
    for section in &document.sections {
        put_section(&mut text, section);
    }
    text
}

fn put_head(text: &mut String, head: &Head) {
    let _ = writeln!(text, "## {}\n", marked(&head.title));
    let lines = [&head.of, &head.question].into_iter();
    for line in lines.filter(|line| !line.is_empty()) {
        let _ = writeln!(text, "{}\n", marked(line));
    }
    if !head.verdict.is_empty() {
        let words: Vec<String> = head.verdict.iter().map(cell).collect();
        let _ = writeln!(text, "{}.\n", words.concat());
    }
    let status = head.status.iter();
    let status = status.map(|status| Fact::text("status", status.text.clone()));
    put_facts(
        text,
        &status
            .chain(head.figures.iter().cloned())
            .collect::<Vec<_>>(),
    );
}

fn put_section(text: &mut String, section: &Section<'_>) {
    let is_shown = |block: &Block<'_>| {
        !matches!(
            block,
            Block::Chart(_)
                | Block::Graph(_)
                | Block::Parallel(_)
                | Block::Plot(_)
                | Block::Fold(..)
                | Block::Title(..)
        )
    };
    if !section.blocks.iter().any(is_shown) {
        return;
    }
    let remark = match section.remark.as_str() {
        "" => String::new(),
        remark => format!(", {}", marked(remark)),
    };
    let _ = writeln!(text, "### {}{remark}\n", marked(&section.title));
    for block in &section.blocks {
        match block {
            Block::Title(title, remark) => {
                let _ = writeln!(text, "**{}** {}\n", marked(title), marked(remark));
            }
            Block::Facts(facts) => put_facts(text, facts),
            Block::Table(table) => put_table(text, table),
            Block::ByRun(runs) => put_by_run(text, runs),
            Block::Samples(samples) => put_samples(text, samples),
            Block::Events(events) => {
                for event in events {
                    let (stage, told) = (marked(&event.stage), marked(&event.text));
                    let _ = writeln!(text, "- {}: {stage}: {told}", event.level);
                }
                text.push('\n');
            }
            Block::Text(told) => {
                for line in told.lines() {
                    let _ = writeln!(text, "> {}", marked(line));
                }
                text.push('\n');
            }
            Block::Chart(_)
            | Block::Graph(_)
            | Block::Parallel(_)
            | Block::Plot(_)
            | Block::Fold(..) => {}
        }
    }
}

fn put_facts(text: &mut String, facts: &[Fact]) {
    let rows = facts
        .iter()
        .map(|fact| vec![marked(&fact.label), marked(&fact.value.joined())]);
    put_rows(text, &[String::new(), String::new()], rows);
}

fn put_table(text: &mut String, table: &Table) {
    let headings: Vec<String> = table
        .columns
        .iter()
        .map(|column| marked(&column.title))
        .collect();
    let rows = table.rows.iter().map(|row| row.iter().map(cell).collect());
    put_rows(text, &headings, rows);
}

/// Writes what is told of each run, read down where the runs are many.
fn put_by_run(text: &mut String, runs: &ByRun) {
    /// More runs than this are read down rather than across.
    const COLUMNS_MAX: usize = 6;
    put_table(text, &runs.heads);
    let letters = (0..runs.names.len()).map(letter);
    let mut rows: Vec<Vec<String>> = vec![std::iter::once(String::new()).chain(letters).collect()];
    for line in runs.groups.iter().flat_map(|group| &group.lines) {
        let name = match line.of.as_str() {
            "" => marked(&line.name),
            of => marked(&format!("{of}.{}", line.name)),
        };
        rows.push(
            std::iter::once(name)
                .chain(line.cells.iter().map(cell))
                .collect(),
        );
    }
    if runs.names.len() > COLUMNS_MAX {
        let column = |idx: usize| rows.iter().map(|row| row[idx].clone()).collect();
        rows = (0..rows[0].len()).map(column).collect();
    }
    put_rows(text, &rows[0], rows[1..].iter().cloned());
}

fn put_samples(text: &mut String, samples: &Samples) {
    for prompt in &samples.prompts {
        for answer in &prompt.answers {
            let letters: Vec<String> = answer.runs.iter().map(|&idx| letter(idx)).collect();
            let by = match letters.is_empty() {
                true => String::new(),
                false => format!("{}: ", letters.join(" ")),
            };
            let (asked, said) = (marked(&prompt.text), marked(&answer.text));
            let _ = writeln!(text, "> **{asked}** {by}{said}\n");
        }
    }
}

/// Writes a cell, bold where it is the best, with its difference from the first.
fn cell(cell: &Cell) -> String {
    let text = marked(&cell.text);
    let change = match &cell.change {
        Some((change, _)) if !change.is_empty() => format!(" ({change})"),
        _ => String::new(),
    };
    match cell.tone {
        Tone::Best | Tone::Strong => format!("**{text}**{change}"),
        _ => format!("{text}{change}"),
    }
}

/// Writes a table, and nothing where there are no rows.
fn put_rows(text: &mut String, headings: &[String], rows: impl Iterator<Item = Vec<String>>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ = writeln!(text, "| {} |", headings.join(" | "));
    let _ = writeln!(text, "|{}", " --- |".repeat(headings.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text.push('\n');
}

/// Returns text that Markdown shows as it is: on one line, nothing in it a tag or a sign.
fn marked(text: &str) -> String {
    let mut marked = String::new();
    for c in clean(text).chars() {
        match c {
            '<' => marked.push_str("&lt;"),
            '>' => marked.push_str("&gt;"),
            '&' => marked.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' => {
                marked.push('\\');
                marked.push(c);
            }
            c => marked.push(c),
        }
    }
    marked
}
