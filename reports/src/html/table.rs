//! Tables of a page: they scroll by themselves where they are too wide, and are sorted by the script.

use std::fmt::Write;

use super::escape::{breakable, class_of_tone, escaped};
use crate::{
    block::{ByRun, Cell, Column, Group, Holds, Line, Table, Tone},
    number::letter,
};

/// Runs shown as columns; beyond them a table has a line for each run.
const COLUMNS_MAX: usize = 8;

/// Writes a table; one of several groups as a table for each, beside each other.
pub(crate) fn put(body: &mut String, table: &Table) {
    if !table.is_grouped {
        return put_rows(body, &table.columns, &table.rows, 0);
    }
    body.push_str("<div class=\"beside\">");
    let mut columns = table.columns[1..].to_vec();
    for group in table.rows.chunk_by(|a, b| a[0].text == b[0].text) {
        columns[0].title.clone_from(&group[0][0].text);
        put_rows(body, &columns, group, 1);
    }
    body.push_str("</div>");
}

fn put_rows(body: &mut String, columns: &[Column], rows: &[Vec<Cell>], skipped: usize) {
    // A table of figures alone is narrow; one with several texts takes the width there is.
    let n_texts = columns
        .iter()
        .filter(|column| column.holds != Holds::Figures);
    let width = if n_texts.count() > 2 { " wide" } else { "" };
    let _ = write!(
        body,
        "<div class=\"scroll\"><table class=\"sortable{width}\"><thead><tr>"
    );
    for column in columns {
        let class = if column.holds == Holds::Figures {
            " class=\"figure\""
        } else {
            ""
        };
        let _ = write!(body, "<th{class}>{}</th>", escaped(&column.title));
    }
    body.push_str("</tr></thead><tbody>");
    for row in rows {
        body.push_str("<tr>");
        for (idx, (column, cell)) in columns.iter().zip(&row[skipped..]).enumerate() {
            let is_name = idx == 0 || column.holds == Holds::Names;
            put_cell(body, cell, column.holds, is_name);
        }
        body.push_str("</tr>");
    }
    body.push_str("</tbody></table></div>");
}

fn put_cell(body: &mut String, cell: &Cell, holds: Holds, is_name: bool) {
    let class = match (holds, is_name) {
        (Holds::Names | Holds::Texts, true) => "name",
        (Holds::Names | Holds::Texts, false) => "",
        (Holds::Codes, true) => "mono name",
        (Holds::Codes, false) => "mono value",
        (Holds::Figures, _) => "figure",
        (Holds::Digests, _) => "digest",
    };
    let _ = write!(body, "<td class=\"{class} {}\"", class_of_tone(cell.tone));
    if let Some(exact) = cell.exact {
        let exact = if exact.is_nan() {
            "nan".to_owned()
        } else {
            exact.to_string()
        };
        let _ = write!(body, " data-v=\"{exact}\"");
    }
    if let Some(whole) = &cell.whole {
        let _ = write!(body, " title=\"{}\"", escaped(whole));
    }
    if let Some(at) = &cell.at {
        let _ = write!(body, " data-at=\"{}\"", escaped(at));
    }
    body.push('>');
    if let Tone::Series(idx) = cell.tone {
        body.push_str(&dot(idx));
    }
    body.push_str(&escaped(&cell.text));
    if let Some((text, tone)) = &cell.change {
        let (class, text) = (class_of_tone(*tone), escaped(text));
        let _ = write!(body, " <span class=\"change {class}\">{text}</span>");
    }
    body.push_str("</td>");
}

/// Returns a run's colour, drawn so that no inline style is needed.
pub(super) fn dot(run_idx: usize) -> String {
    format!(
        "<svg width=\"10\" height=\"10\" aria-hidden=\"true\"><circle cx=\"5\" cy=\"5\" r=\"5\" fill=\"var(--s{})\"/></svg> ",
        run_idx % 8
    )
}

/// Writes who the runs are, and what is told of each: a few as columns, many as rows.
pub(super) fn put_by_run(body: &mut String, runs: &ByRun) {
    put(body, &runs.heads);
    if runs.names.len() > COLUMNS_MAX {
        return put_as_rows(body, runs);
    }
    for group in &runs.groups {
        put_group(body, group, &runs.names);
    }
}

fn put_group(body: &mut String, group: &Group, names: &[String]) {
    let title = escaped(&group.title);
    let has_best = group
        .lines
        .iter()
        .any(|line| line.cells.iter().any(is_best));
    let remark = match group.remark.as_str() {
        "" if has_best => "the better in green, difference from the first",
        remark => remark,
    };
    let _ = write!(
        body,
        "</section>\n<section><h2>{title} <small>{}</small></h2>\
         <div class=\"scroll\"><table class=\"wide runs\"><thead><tr><th></th>",
        escaped(remark)
    );
    let class = match group.holds {
        Holds::Figures => "figure",
        _ => "",
    };
    for (idx, name) in names.iter().enumerate() {
        let (name, sign) = (escaped(name), dot(idx));
        let letter = letter(idx);
        let _ = write!(
            body,
            "<th class=\"{class}\" title=\"{name}\">{sign}{letter}</th>"
        );
    }
    body.push_str("</tr></thead><tbody>");
    for of_stage in group.lines.chunk_by(|a, b| a.of == b.of) {
        if !of_stage[0].of.is_empty() {
            let (n_columns, of) = (1 + names.len(), escaped(&of_stage[0].of));
            let _ = write!(
                body,
                "<tr class=\"group\"><td colspan=\"{n_columns}\">{of}</td></tr>"
            );
        }
        for line in of_stage {
            put_line(body, line, group.holds);
        }
    }
    body.push_str("</tbody></table></div>");
}

fn put_line(body: &mut String, line: &Line, holds: Holds) {
    let class = match holds {
        Holds::Codes => "mono name",
        _ => "name",
    };
    let _ = write!(
        body,
        "<tr><td class=\"{class}\">{}</td>",
        breakable(&line.name)
    );
    for cell in &line.cells {
        put_cell(body, cell, holds, false);
    }
    body.push_str("</tr>");
}

fn is_best(cell: &Cell) -> bool {
    cell.tone == Tone::Best
}

/// Writes a line for each run, what varies and what came of it as columns.
fn put_as_rows(body: &mut String, runs: &ByRun) {
    let remark = match runs.remark.as_str() {
        "" => String::new(),
        remark => format!("{}; ", escaped(remark)),
    };
    let _ = write!(
        body,
        "</section>\n<section><h2>What differs <small>{remark}click a heading to sort</small></h2>"
    );
    let lines = runs.groups.iter().flat_map(|group| {
        let lines = group.lines.iter().filter(|line| line.rank.is_some());
        lines.map(move |line| (group.holds, line))
    });
    let lines: Vec<(Holds, &Line)> = lines.collect();
    let mut columns = runs.heads.columns[..2].to_vec();
    columns.extend(lines.iter().map(|(holds, line)| Column {
        title: line.name.rsplit('.').next().unwrap_or_default().to_owned(),
        holds: *holds,
        is_spare: false,
    }));
    let row = |idx: usize| {
        let head = runs.heads.rows[idx][..2].iter().cloned();
        let cells = lines.iter().map(|(_, line)| Cell {
            change: None,
            ..line.cells[idx].clone()
        });
        head.chain(cells).collect()
    };
    let rows: Vec<Vec<Cell>> = (0..runs.names.len()).map(row).collect();
    put_rows(body, &columns, &rows, 0);
}
