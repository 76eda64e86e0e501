//! A report for a terminal.
//!
//! Plain lines of text that fit the width they are given, with colour only where it was asked for:
//! this module never looks at the terminal itself, so that a test sees what a person sees.
//!
//! Details and what is folded away are printed where everything was asked for, and named otherwise.
//! A brief report fits on about one screen: what is long is named too, curves are low, and of each
//! stage there are the first numbers and samples.

mod chart;
mod curves;
mod options;
mod plot;
mod runs;
mod samples;
mod screen;
mod table;
#[cfg(test)]
mod tests;

pub use options::TerminalOptions;
pub use screen::code as colour_code;

use crate::{
    block::{Block, Document, Event, Fact, Head, Section, Table, Tone},
    text::{clean, fitted, width, wrapped},
};
use screen::{Screen, Span, plain, span};
use table::Grid;

/// Prints a document as lines.
pub fn print(document: &Document<'_>, options: &TerminalOptions) -> String {
    // Below this a table is no table any more, whatever the terminal says.
    let mut screen = Screen::new(options.width.max(20), options.colour);
    print_head(&mut screen, &document.head);
    let mut left_out = Vec::new();
    // The table of stages tells what a graph would draw.
    let is_told = |block: &Block<'_>| {
        !matches!(
            block,
            Block::Graph(_) | Block::Parallel(_) | Block::Title(..)
        )
    };
    let sections = document.sections.iter();
    for section in sections.filter(|section| section.blocks.iter().any(is_told)) {
        if section.is_detail && !options.is_full || section.is_long && options.is_brief {
            left_out.push(section.title.to_lowercase());
        } else {
            print_section(&mut screen, section, options, &mut left_out);
        }
    }
    if !left_out.is_empty() {
        screen.gap();
        for line in wrapped(
            &format!("-v tells more: {}", left_out.join(", ")),
            screen.width,
        ) {
            screen.line(&[span(line, Tone::Quiet)]);
        }
    }
    screen.finish()
}

/// Prints a table by itself; where everything was asked for, whole, however wide that is.
pub fn print_table(table: &Table, options: &TerminalOptions) -> String {
    let columns = match options.is_full {
        true => usize::MAX,
        false => options.width.max(20),
    };
    let mut screen = Screen::new(columns, options.colour);
    Grid::of(table, screen.width)
        .unindented()
        .print(&mut screen);
    screen.finish()
}

fn print_head(screen: &mut Screen, head: &Head) {
    let mut left = vec![span(head.title.clone(), Tone::Strong)];
    if !head.of.is_empty() {
        left.push(plain(format!("  {}", head.of)));
    }
    match &head.status {
        Some(status) => screen.line_between(left, status.into()),
        None => screen.line(&left),
    }
    for line in wrapped(&head.question, screen.width) {
        screen.line(&[span(line, Tone::Quiet)]);
    }
    if !head.verdict.is_empty() {
        let spans: Vec<Span> = head.verdict.iter().map(Span::from).collect();
        screen.words(&spans);
    }
    if !head.figures.is_empty() {
        screen.gap();
        let entry = |fact: &Fact| {
            let label = span(format!("{} ", fact.label), Tone::Quiet);
            vec![label, span(fact.value.joined(), Tone::Strong)]
        };
        screen.flow(&head.figures.iter().map(entry).collect::<Vec<_>>());
    }
}

fn print_section(
    screen: &mut Screen,
    section: &Section<'_>,
    options: &TerminalOptions,
    left_out: &mut Vec<String>,
) {
    let is_shown = |block: &Block<'_>| match block {
        Block::Graph(_) | Block::Parallel(_) => false,
        Block::Fold(..) => options.is_full,
        _ => true,
    };
    for block in &section.blocks {
        if let Block::Fold(title, _) = block
            && !options.is_full
        {
            left_out.push(title.clone());
        }
    }
    if !section.blocks.iter().any(is_shown) {
        return;
    }
    // Charts carry their names in their legends, runs in their tables.
    let is_headed = !matches!(
        section.blocks[0],
        Block::Chart(_) | Block::ByRun(_) | Block::Plot(_)
    );
    if is_headed {
        screen.heading_with(&section.title, &section.remark);
    }
    print_blocks(screen, &section.blocks, options, is_headed, left_out);
}

fn print_blocks(
    screen: &mut Screen,
    blocks: &[Block<'_>],
    options: &TerminalOptions,
    is_headed: bool,
    left_out: &mut Vec<String>,
) {
    let charts = blocks.iter().filter_map(|block| match block {
        Block::Chart(chart) => Some(chart),
        _ => None,
    });
    curves::print(screen, &charts.collect::<Vec<_>>(), options, left_out);
    let is_table = |block: Option<&Block<'_>>| matches!(block, Some(Block::Table(_)));
    let mut is_passed_over = false;
    for (idx, block) in blocks.iter().enumerate() {
        if std::mem::take(&mut is_passed_over) {
            continue;
        }
        match block {
            Block::Title(title, _) if options.is_brief && is_table(blocks.get(idx + 1)) => {
                left_out.push(title.clone());
                is_passed_over = true;
            }
            Block::Title(title, remark) => {
                if idx > 0 || !is_headed {
                    screen.gap();
                }
                let remark = span(format!("  {remark}"), Tone::Quiet);
                screen.line(&[plain(format!("  {title}")), remark]);
            }
            Block::Facts(facts) => print_facts(screen, facts),
            Block::Table(table) if table.is_grouped && options.is_brief => {
                let (table, n_more) = shortened(table);
                Grid::of(&table, screen.width).print(screen);
                if n_more > 0 {
                    left_out.push(format!("{n_more} more numbers"));
                }
            }
            Block::Table(table) => Grid::of(table, screen.width).print(screen),
            Block::ByRun(runs) => runs::print(screen, runs),
            Block::Plot(plot) => plot::print(screen, plot),
            Block::Samples(samples) => samples::print(screen, samples, options.is_brief),
            Block::Events(events) => print_events(screen, events),
            Block::Text(text) => {
                for line in wrapped(text, screen.width.saturating_sub(4)) {
                    screen.line(&[plain(format!("    {line}"))]);
                }
            }
            Block::Fold(title, blocks) if options.is_full => {
                screen.gap();
                screen.line(&[plain(format!("  {title}"))]);
                print_blocks(screen, blocks, options, true, left_out);
            }
            Block::Fold(..) | Block::Chart(_) | Block::Graph(_) | Block::Parallel(_) => {}
        }
    }
}

/// Returns the first rows of each group of a table, and how many are left.
fn shortened(table: &Table) -> (Table, usize) {
    const ROWS_MAX: usize = 3;
    let groups = table.rows.chunk_by(|a, b| a[0].text == b[0].text);
    let rows: Vec<_> = groups
        .flat_map(|group| group.iter().take(ROWS_MAX).cloned())
        .collect();
    let n_more = table.rows.len() - rows.len();
    let table = Table {
        columns: table.columns.clone(),
        rows,
        is_grouped: true,
    };
    (table, n_more)
}

/// Prints facts below each other, their values in one column and wrapped below themselves.
fn print_facts(screen: &mut Screen, facts: &[Fact]) {
    let widest = facts.iter().map(|fact| width(&clean(&fact.label))).max();
    let columns = (widest.unwrap_or(0) + 2).clamp(10, 24);
    for fact in facts {
        let label = clean(&fact.label);
        let label = fitted(&label, columns - 2);
        let mut lead = format!("  {label}{}", " ".repeat(columns - width(&label)));
        let room = screen.width.saturating_sub(columns + 2);
        for line in wrapped(&fact.value.joined(), room) {
            screen.line(&[span(lead.as_str(), Tone::Quiet), plain(line)]);
            lead = " ".repeat(columns + 2);
        }
    }
}

fn print_events(screen: &mut Screen, events: &[Event]) {
    /// Events shown; the rest is counted.
    const EVENTS_MAX: usize = 20;
    for event in events.iter().take(EVENTS_MAX) {
        let of = match event.stage.as_str() {
            "" => String::new(),
            stage => format!("{stage}: "),
        };
        let mut lead = "  ! ";
        let room = screen.width.saturating_sub(4);
        for line in wrapped(&format!("{of}{}", event.text), room) {
            screen.line(&[span(lead, event.tone), plain(line)]);
            lead = "    ";
        }
    }
    if events.len() > EVENTS_MAX {
        let rest = format!("    and {} more", events.len() - EVENTS_MAX);
        screen.line(&[span(rest, Tone::Quiet)]);
    }
}
