//! Rows of text: lines, paragraphs, what stands between marks, a whole file.

use memchr::{memchr, memchr_iter, memchr2, memmem, memrchr};

use super::found::{Finder, Found, Search, white_space, without_return};

pub(crate) const END_OF_TEXT: &str = "<|endoftext|>";
const MARK: &[u8] = END_OF_TEXT.as_bytes();
const TURN: &[u8] = b"<|im_start|>";
const TURN_END: &[u8] = b"<|im_end|>";
const SYSTEM: &[u8] = b"system";

/// Finds lines that are not blank, or paragraphs of them.
pub(crate) struct Lines {
    in_paragraphs: bool,
    /// Whether there is anything but white space in the line at hand.
    is_filled: bool,
    /// Where the last line of the paragraph at hand ends.
    end: Option<usize>,
}

impl Lines {
    pub(crate) fn new(in_paragraphs: bool) -> Self {
        Self {
            in_paragraphs,
            is_filled: false,
            end: None,
        }
    }
}

impl Finder for Lines {
    fn find(&mut self, bytes: &[u8], at_end: bool, looked_at: &mut usize) -> Search {
        while *looked_at < bytes.len() || at_end {
            let rest = &bytes[*looked_at..];
            let line_end = memchr(b'\n', rest);
            let line = &rest[..line_end.unwrap_or(rest.len())];
            self.is_filled = self.is_filled || !line.iter().all(u8::is_ascii_whitespace);
            let end = *looked_at + line.len();
            *looked_at = end + usize::from(line_end.is_some());
            if line_end.is_none() && !at_end {
                break;
            }
            let is_filled = std::mem::take(&mut self.is_filled);
            if is_filled {
                self.end = Some(end);
            }
            if is_filled && self.in_paragraphs && line_end.is_some() {
                continue;
            }
            let next = *looked_at;
            return Ok(match self.end.take() {
                Some(end) => Found::Row {
                    end: without_return(bytes, end.min(bytes.len())),
                    next,
                },
                None if next == 0 => Found::More,
                None => Found::Nothing { next },
            });
        }
        Ok(Found::More)
    }
}

/// Finds the whole text, or parts of it that end behind a line or a word.
pub(crate) struct Whole {
    pub(crate) bytes_max: usize,
}

impl Finder for Whole {
    fn find(&mut self, bytes: &[u8], at_end: bool, looked_at: &mut usize) -> Search {
        let mut cut = None;
        if *looked_at == 0 && bytes.len() >= self.bytes_max {
            let text = &bytes[..self.bytes_max];
            // Some corpora are one long line.
            cut = memrchr(b'\n', text).or_else(|| memrchr(b' ', text));
            *looked_at = self.bytes_max;
        }
        if cut.is_none() && *looked_at > 0 {
            // And some are one long word.
            let end = memchr2(b'\n', b' ', &bytes[*looked_at..]);
            cut = end.map(|end| *looked_at + end);
            *looked_at = bytes.len();
        }
        Ok(match cut.map(|last| last + 1) {
            None if !at_end || bytes.is_empty() => Found::More,
            end => {
                let end = end.unwrap_or(bytes.len());
                Found::Row { end, next: end }
            }
        })
    }
}

/// Returns what is before a row, so that its number is that of the line it begins in.
fn before_row(bytes: &[u8]) -> Option<Found> {
    match white_space(bytes) {
        0 => bytes.is_empty().then_some(Found::More),
        next => Some(Found::Nothing { next }),
    }
}

/// Returns a text up to a mark, without the white space at its end. One of which a part was passed
/// is a row, whatever is left of it.
fn row(text: &[u8], next: usize, is_begun: bool) -> Found {
    match text.trim_ascii_end().len() {
        0 if !is_begun => Found::Nothing { next },
        end => Found::Row { end, next },
    }
}

/// Looks for a mark; where there is none, one may begin in the last bytes, and `looked_at` is there.
fn find(bytes: &[u8], mark: &[u8], looked_at: &mut usize) -> Option<usize> {
    let found = memmem::find(&bytes[*looked_at..], mark);
    let last = bytes.len().saturating_sub(mark.len() - 1);
    *looked_at = found.map_or(last.max(*looked_at), |n_bytes| *looked_at + n_bytes);
    found.map(|_| *looked_at)
}

/// Finds texts between `<|endoftext|>` marks.
pub(crate) struct Separated;

impl Finder for Separated {
    fn find(&mut self, bytes: &[u8], at_end: bool, looked_at: &mut usize) -> Search {
        let is_begun = *looked_at > 0;
        if !is_begun && let Some(before) = before_row(bytes) {
            return Ok(before);
        }
        Ok(match find(bytes, MARK, looked_at) {
            Some(end) => row(&bytes[..end], end + MARK.len(), is_begun),
            None if at_end => row(bytes, bytes.len(), is_begun),
            None => Found::More,
        })
    }
}

/// Finds dialogues: turns up to the next system prompt, blank line or `<|endoftext|>` mark.
#[derive(Default)]
pub(crate) struct Dialogues {
    /// Behind a turn, where it ends.
    end: Option<usize>,
    /// The lines and marks behind it.
    n_lines: usize,
    has_mark: bool,
    /// Whether more was seen than a mark.
    is_filled: bool,
}

impl Dialogues {
    /// Goes on to the next turn; returns where that begins and if it is the next dialogue's.
    fn turn(&mut self, bytes: &[u8], at_end: bool, looked_at: &mut usize) -> Option<(usize, bool)> {
        if self.end.is_none() {
            *looked_at = find(bytes, TURN_END, looked_at)? + TURN_END.len();
            (self.end, self.n_lines, self.has_mark) = (Some(*looked_at), 0, false);
        }
        let (from, rest) = (*looked_at, &bytes[*looked_at..]);
        let turn = memmem::find(rest, TURN);
        let said = turn.map_or(&[][..], |turn| &rest[turn + TURN.len()..]);
        let between = &rest[..turn.unwrap_or(rest.len())];
        self.has_mark |= memmem::find(between, MARK).is_some();
        let is_known = turn.is_some() && (at_end || said.len() >= SYSTEM.len());
        *looked_at = match turn {
            Some(turn) if is_known => from + turn,
            Some(_) => from,
            None => (bytes.len() + 1).saturating_sub(MARK.len()).max(from),
        };
        self.n_lines += memchr_iter(b'\n', &bytes[from..*looked_at]).count();
        let is_apart = self.n_lines > 1 || self.has_mark || said.starts_with(SYSTEM);
        is_known.then_some((*looked_at, is_apart))
    }
}

impl Finder for Dialogues {
    fn find(&mut self, bytes: &[u8], at_end: bool, looked_at: &mut usize) -> Search {
        if *looked_at == 0
            && let Some(before) = before_row(bytes)
        {
            return Ok(before);
        }
        while let Some((next, is_apart)) = self.turn(bytes, at_end, looked_at) {
            let end = self.end.take().unwrap_or(next);
            if is_apart {
                self.is_filled = false;
                return Ok(Found::Row { end, next });
            }
        }
        let text = bytes.trim_ascii_end();
        if !at_end {
            self.is_filled |= text.len() > MARK.len();
            return Ok(Found::More);
        }
        let text = text.strip_suffix(MARK).unwrap_or(text);
        let is_begun = std::mem::take(self).is_filled;
        Ok(row(text, bytes.len(), is_begun))
    }
}
