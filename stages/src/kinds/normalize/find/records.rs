//! Rows that are records of comma-separated values, which may hold line ends in quotes.

use memchr::{memchr, memchr_iter};

use super::found::{Finder, Found, Search, without_return};

#[derive(Default)]
pub(crate) struct Records {
    quotes: Quotes,
    /// Whether more of the record was seen than may be its end.
    is_filled: bool,
}

impl Finder for Records {
    fn find(&mut self, bytes: &[u8], at_end: bool, looked_at: &mut usize) -> Search {
        if *looked_at == 0 {
            *self = Self::default();
        }
        let rest = &bytes[*looked_at..];
        let record_end = rest.iter().position(|byte| self.quotes.ends_record(*byte));
        let end = *looked_at + record_end.unwrap_or(rest.len());
        let next = end + usize::from(record_end.is_some());
        *looked_at = next;
        if record_end.is_none() && (!at_end || bytes.is_empty()) {
            self.is_filled |= end > 1;
            return Ok(Found::More);
        }
        Ok(match without_return(bytes, end) {
            0 if !self.is_filled => Found::Nothing { next },
            end => Found::Row { end, next },
        })
    }

    fn is_broken(&self) -> bool {
        self.quotes.is_broken()
    }
}

/// Where in a CSV record one is. A quote opens only at the start of a field: elsewhere it is
/// an inch mark.
struct Quotes {
    is_open: bool,
    at_field_start: bool,
    /// Behind the quote that closed a field, or the first of a doubled one.
    is_closed: bool,
    is_odd: bool,
}

impl Default for Quotes {
    fn default() -> Self {
        Self {
            is_open: false,
            at_field_start: true,
            is_closed: false,
            is_odd: false,
        }
    }
}

impl Quotes {
    /// Takes another byte; returns whether it ends the record.
    fn ends_record(&mut self, byte: u8) -> bool {
        let was_open = self.is_open;
        self.is_odd |= self.is_closed && !matches!(byte, b'"' | b',' | b'\r' | b'\n');
        self.is_open = match byte {
            b'"' => !was_open && (self.at_field_start || self.is_closed),
            _ => was_open,
        };
        self.is_closed = was_open && !self.is_open;
        self.at_field_start = byte == b',';
        byte == b'\n' && !was_open
    }

    /// Whether a quote was left open, or there was something behind one that closed.
    fn is_broken(&self) -> bool {
        self.is_open || self.is_odd
    }
}

/// Whether a quote in a record is never closed, or by the next one that opens.
fn is_broken(record: &[u8]) -> bool {
    let Some(first) = memchr(b'"', record) else {
        return false;
    };
    let mut quotes = Quotes::default();
    for byte in &record[first.saturating_sub(1)..] {
        quotes.ends_record(*byte);
    }
    quotes.is_broken()
}

/// Returns how many rows a record may be that is rejected: where a quote is left open,
/// all lines up to the next one are taken for one record.
pub(crate) fn n_swallowed(record: &[u8]) -> u64 {
    if is_broken(record) {
        1 + memchr_iter(b'\n', record.trim_ascii_end()).count() as u64
    } else {
        1
    }
}

/// Says what became of the lines behind a quote that is not closed.
pub(crate) fn open_quote(n_rows: u64) -> String {
    format!("a quote that is not closed takes {n_rows} lines with it")
}
