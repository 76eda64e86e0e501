//! How the rows of a `.json` file are told apart: by what it begins with.

use std::path::Path;

use encoding_rs::Encoding;
use tinylm_pipeline::StageError;

use super::{
    auto::recognised,
    cell::Cell,
    find::{Layout, string_end, value_end},
    first_rows::{SNIFF_BYTES, head_of},
    shapes::{Format, Shape},
};

/// A `.json` file may be an array, an object of rows, or in truth JSON lines.
pub(super) fn json_layout(
    path: &Path,
    encoding: &'static Encoding,
    head: &[u8],
    shape: &Shape,
    row_bytes_max: u64,
) -> Result<Layout, StageError> {
    if let Some(layout) = layout_of(head, shape) {
        return Ok(layout);
    }
    if !is_object(head) {
        return Ok(Layout::Json);
    }
    let head = head_of(path, encoding, row_bytes_max.max(SNIFF_BYTES))?;
    if let Some(layout) = layout_of(&head, shape) {
        return Ok(layout);
    }
    // Too long for a row, but what it begins with tells what it is.
    let is_of_rows = closed(&head)
        .and_then(|start| Some(is_row(&Cell::parse(&start).ok()?, shape)))
        .is_none_or(|is_row| !is_row);
    Ok(if is_of_rows {
        Layout::Json
    } else {
        Layout::Lines
    })
}

fn is_object(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'{')
}

/// Whether nothing else stands in the line of a value that ends here.
fn is_line(text: &[u8], end: usize) -> bool {
    let behind = text[end..].split(|byte| *byte == b'\n').next();
    !text[..end].contains(&b'\n') && behind.is_some_and(|rest| rest.trim_ascii().is_empty())
}

/// Returns the layout of a file whose first value ends here: where another stands behind it there
/// are many, however little is known of what they say.
fn layout_of(head: &[u8], shape: &Shape) -> Option<Layout> {
    let head = head.trim_ascii_start();
    let line_end = memchr::memchr(b'\n', head).unwrap_or(head.len());
    let is_row = |text: &[u8]| Cell::parse(text).is_ok_and(|row| is_row(&row, shape));
    if is_object(head) && is_row(&head[..line_end]) {
        return Some(Layout::Lines);
    }
    let end = value_end(head)?;
    let has_more = matches!(head[end..].trim_ascii_start().first(), Some(b'{' | b'['));
    Some(
        match has_more || (is_object(head) && is_row(&head[..end])) {
            true if has_more && is_line(head, end) => Layout::Lines,
            true => Layout::JsonValues,
            false => Layout::Json,
        },
    )
}

/// Returns the start of a JSON object that goes on, cut behind an element and closed.
fn closed(head: &[u8]) -> Option<Vec<u8>> {
    let head = head.trim_ascii_start();
    let mut open = Vec::new();
    let mut cut = None;
    let mut idx = 0;
    while idx < head.len() {
        match head[idx] {
            b'"' => match string_end(head, idx + 1) {
                Ok(end) => idx = end - 1,
                Err(_) => break,
            },
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            b'}' | b']' => _ = open.pop(),
            // Further in, it would cut a turn or a row in two.
            b',' if open.len() <= 2 => cut = Some((idx, open.clone())),
            _ => {}
        }
        idx += 1;
    }
    let (end, open) = cut?;
    Some([&head[..end], &open.into_iter().rev().collect::<Vec<u8>>()].concat())
}

fn is_row(row: &Cell, shape: &Shape) -> bool {
    if shape.format == Format::Auto {
        recognised(std::slice::from_ref(row), shape).is_some()
    } else {
        shape.read(row).is_ok()
    }
}
