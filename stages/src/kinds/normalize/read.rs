//! Files as chunks of rows, a few megabytes at a time.
//!
//! A row is found without being understood: a line, a CSV record, an element of a JSON
//! array, a paragraph. Finding is one pass over the bytes on one thread; understanding
//! is left to the threads that get the chunk. So no file is ever loaded whole, a JSON
//! array of any length included, and every row keeps the number it has in its file.

use std::path::Path;

use encoding_rs::Encoding;
use memchr::memchr_iter;
use tinylm_pipeline::StageError;

use super::{
    chunk::{CHUNK_BYTES, Chunk, Lost, Rows, Unit},
    find::{Finder, Found, Layout, open_quote},
    input::Input,
    row_groups::TableReader,
};

pub(super) enum Reader {
    Units(UnitReader),
    Table(TableReader),
}

impl Reader {
    /// Opens a file; `columns` are those wanted of a table.
    pub(super) fn open(
        path: &Path,
        encoding: &'static Encoding,
        layout: Layout,
        row_bytes_max: usize,
        columns: &[String],
    ) -> Result<Self, StageError> {
        let Some(finder) = layout.finder(row_bytes_max) else {
            return TableReader::open(path, columns).map(Self::Table);
        };
        Ok(Self::Units(UnitReader {
            input: Input::open(path, encoding)?,
            finder,
            looked_at: 0,
            counts_lines: layout != Layout::Json,
            row_bytes_max,
            buffer: Vec::new(),
            at_end: false,
            row: 1,
        }))
    }

    pub(super) fn next(&mut self) -> Result<Option<Chunk>, StageError> {
        match self {
            Self::Units(reader) => reader.next(),
            Self::Table(reader) => reader.next(),
        }
    }

    /// Returns the first names of lists in a JSON object whose elements are rows.
    pub(super) fn lists(&self) -> &[String] {
        match self {
            Self::Units(reader) => reader.finder.lists(),
            Self::Table(_) => &[],
        }
    }
}

/// Returns why a row is rejected that has more than so many bytes.
pub(super) fn too_long(n_bytes: usize, row_bytes_max: usize) -> String {
    format!("has {n_bytes} bytes, more than `row_bytes_max` ({row_bytes_max})")
}

/// Reads the bytes of a file and has rows found in them.
pub(super) struct UnitReader {
    input: Input,
    finder: Box<dyn Finder>,
    /// How many of the bytes behind the last row the finder knows.
    looked_at: usize,
    /// A JSON value is called by its place among the others, all else by its first line.
    counts_lines: bool,
    row_bytes_max: usize,
    buffer: Vec<u8>,
    at_end: bool,
    row: u64,
}

impl UnitReader {
    /// Reads another chunk behind what is in the buffer.
    fn fill(&mut self) -> Result<(), StageError> {
        self.at_end = self.input.read(CHUNK_BYTES, &mut self.buffer)?;
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Chunk>, StageError> {
        loop {
            let (units, rejected, end) = self.find_rows()?;
            let rest = self.buffer.split_off(end);
            let bytes = std::mem::replace(&mut self.buffer, rest);
            if !units.is_empty() || !rejected.is_empty() {
                return Ok(Some(Chunk {
                    rows: Rows::Units { bytes, units },
                    rejected,
                    position: self.input.n_read.saturating_sub(self.buffer.len() as u64),
                }));
            }
            if self.at_end {
                return Ok(None);
            }
        }
    }

    /// Returns the rows of a chunk, those that were passed over, and where the last one ends.
    fn find_rows(&mut self) -> Result<(Vec<Unit>, Vec<Lost>, usize), StageError> {
        let (mut units, mut rejected, mut from) = (Vec::new(), Vec::new(), 0);
        loop {
            match self.find(from)? {
                Found::Row { end, next } => {
                    let (row, at) = (self.row, from..from + end);
                    self.count(from, next, true);
                    if end <= self.row_bytes_max {
                        units.push(Unit { row, at });
                    } else {
                        let n_lines = 1 + newlines(self.buffer[at].trim_ascii_end());
                        rejected.push(self.lost(row, end, n_lines));
                    }
                    from += next;
                }
                Found::Nothing { next } => {
                    self.count(from, next, false);
                    from += next;
                }
                Found::More if self.at_end => break,
                Found::More if from >= CHUNK_BYTES || (from > 0 && !units.is_empty()) => break,
                Found::More if self.buffer.len() - from > self.row_bytes_max => {
                    // There are no units here: they would have ended the chunk.
                    self.buffer.drain(..std::mem::take(&mut from));
                    rejected.extend(self.pass_over()?);
                }
                Found::More => self.fill()?,
            }
        }
        Ok((units, rejected, from))
    }

    fn find(&mut self, from: usize) -> Result<Found, StageError> {
        let (bytes, looked_at) = (&self.buffer[from..], &mut self.looked_at);
        let found = self.finder.find(bytes, self.at_end, looked_at);
        let found =
            found.map_err(|what| self.input.error(&format!("{what}, near row {}", self.row)))?;
        if found != Found::More {
            self.looked_at = 0;
        }
        Ok(found)
    }

    /// Counts the lines that are used up, or the rows.
    fn count(&mut self, from: usize, n_bytes: usize, is_row: bool) {
        self.row += match self.counts_lines {
            true => newlines(&self.buffer[from..from + n_bytes]),
            false => u64::from(is_row),
        };
    }

    /// Passes over the row that the buffer begins with and that is too long to be held.
    fn pass_over(&mut self) -> Result<Option<Lost>, StageError> {
        let (row, mut n_bytes) = (self.row, 0);
        loop {
            // All but the last byte that was looked at, so that the finder knows it has begun.
            let n_passed = self.looked_at.min(self.buffer.len()).saturating_sub(1);
            self.looked_at -= n_passed;
            n_bytes += self.use_up(n_passed, false);
            self.fill()?;
            let (next, is_row) = match self.find(0)? {
                Found::Row { next, .. } => (next, true),
                Found::Nothing { next } => (next, false),
                Found::More => continue,
            };
            n_bytes += self.use_up(next, is_row);
            let n_lines = self.row - row;
            return Ok(is_row.then(|| self.lost(row, n_bytes, n_lines)));
        }
    }

    fn use_up(&mut self, n_bytes: usize, is_row: bool) -> usize {
        self.count(0, n_bytes, is_row);
        self.buffer.drain(..n_bytes).len()
    }

    /// A row of so many lines that is rejected for its length.
    fn lost(&self, row: u64, n_bytes: usize, n_lines: u64) -> Lost {
        let reason = too_long(n_bytes, self.row_bytes_max);
        match self.finder.is_broken() {
            true if n_lines > 1 => Lost {
                row,
                n_rows: n_lines,
                reason: format!("{reason}: {}", open_quote(n_lines)),
            },
            _ => Lost {
                row,
                n_rows: 1,
                reason,
            },
        }
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::{Seek, SeekFrom, Write},
    };

    use encoding_rs::UTF_8;

    use super::*;

    fn units(path: &Path, layout: Layout, row_bytes_max: usize) -> Result<UnitReader, StageError> {
        match Reader::open(path, UTF_8, layout, row_bytes_max, &[])? {
            Reader::Units(reader) => Ok(reader),
            Reader::Table(_) => panic!("a table"),
        }
    }

    /// Returns `row: content` of every row, and the rejections.
    fn rows(layout: Layout, bytes: &[u8], row_bytes_max: usize) -> Result<Vec<String>, StageError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, bytes).unwrap();
        let mut reader = units(&path, layout, row_bytes_max)?;
        let mut found = Vec::new();
        while let Some(chunk) = reader.next()? {
            let Rows::Units { bytes, units } = chunk.rows else {
                panic!("a table");
            };
            for Lost { row, reason, .. } in chunk.rejected {
                found.push(format!("{row}! {reason}"));
            }
            for unit in units {
                found.push(format!(
                    "{}: {}",
                    unit.row,
                    String::from_utf8_lossy(&bytes[unit.at])
                ));
            }
        }
        Ok(found)
    }

    fn all(layout: Layout, text: &str) -> Vec<String> {
        rows(layout, text.as_bytes(), 1 << 20).unwrap()
    }

    #[test]
    fn lines_keep_their_numbers() {
        assert_eq!(all(Layout::Lines, "\u{feff}a\r\n\n  \nb"), ["1: a", "4: b"]);
        assert_eq!(all(Layout::Lines, ""), [""; 0]);
    }

    #[test]
    fn records_may_hold_line_ends_in_quotes_and_stray_quotes() {
        let csv =
            "a,b\n\"x\ny\",\"say \"\"hi\"\"\n!\"\n5\" pipe,z\n5\"\",z\n\"\"\"\",\"\"\nlast,1\n";
        let wanted = [
            "1: a,b",
            "2: \"x\ny\",\"say \"\"hi\"\"\n!\"",
            "5: 5\" pipe,z",
            "6: 5\"\",z",
            "7: \"\"\"\",\"\"",
            "8: last,1",
        ];
        assert_eq!(all(Layout::Csv, csv), wanted);
    }

    #[test]
    fn paragraphs_and_stories() {
        let text = "\n\none\ntwo\r\n\r\n \nthree\n";
        assert_eq!(all(Layout::Paragraphs, text), ["3: one\ntwo", "7: three"]);
        let text = "Once.\n<|endoftext|>\nTwice.<|endoftext|>\n";
        assert_eq!(all(Layout::Separated, text), ["1: Once.", "3: Twice."]);
        assert_eq!(all(Layout::Whole, "a\n\nb\n"), ["1: a\n\nb\n"]);
    }

    #[test]
    fn elements_of_arrays_and_of_arrays_in_objects() {
        let array = r#" [ {"a": "]}\"" } , "x", [1,2],3 ] "#;
        assert_eq!(
            all(Layout::Json, array),
            [r#"1: {"a": "]}\"" }"#, r#"2: "x""#, "3: [1,2]", "4: 3"]
        );
        let object =
            r#"{"version": 1, "data": [{"a": 1}, {"a": 2}], "name": "x", "more": {"a": 3}}"#;
        assert_eq!(
            all(Layout::Json, object),
            [r#"1: {"a": 1}"#, r#"2: {"a": 2}"#, r#"3: {"a": 3}"#]
        );
        let values = "{\n\"a\": 1}\n{\"a\":\n2} ";
        assert_eq!(
            all(Layout::JsonValues, values),
            ["1: {\n\"a\": 1}", "3: {\"a\":\n2}"]
        );
    }

    #[test]
    fn json_that_is_cut_short_is_an_error() {
        for cut in [
            r#"[{"a": 1}, {"a""#,
            r#"[{"a": 1}"#,
            r#"{"data": [1"#,
            r#"{"data""#,
            "[1] 2",
        ] {
            let error = rows(Layout::Json, cut.as_bytes(), 1 << 20).unwrap_err();
            assert!(error.message.contains("JSON"), "{cut}: {error}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_rejected_and_the_rest_is_read() {
        let long = format!("a\n{}\nb\n", "x".repeat(9 << 20));
        let found = rows(Layout::Lines, long.as_bytes(), 1 << 20).unwrap();
        assert_eq!(
            found,
            [
                "1: a",
                "2! has 9437185 bytes, more than `row_bytes_max` (1048576)",
                "3: b"
            ]
        );
    }

    /// A hole in the file, which takes no room on disk.
    #[test]
    fn a_line_of_a_gigabyte_is_passed_over_and_never_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"first\n").unwrap();
        file.seek(SeekFrom::Current(1 << 30)).unwrap();
        file.write_all(b"\nlast\n").unwrap();
        let row_bytes_max = 1 << 20;
        let mut reader = units(&path, Layout::Lines, row_bytes_max).unwrap();
        let (mut rows, mut rejected) = (Vec::new(), Vec::new());
        while let Some(chunk) = reader.next().unwrap() {
            assert!(reader.buffer.capacity() <= row_bytes_max + 3 * CHUNK_BYTES);
            let Rows::Units { bytes, units } = chunk.rows else {
                panic!("a table");
            };
            rejected.extend(chunk.rejected.into_iter().map(|lost| lost.row));
            rows.extend(
                units
                    .into_iter()
                    .map(|unit| (unit.row, bytes[unit.at].to_vec())),
            );
        }
        assert_eq!(rows, [(1, b"first".to_vec()), (3, b"last".to_vec())]);
        assert_eq!(rejected, [2]);
    }

    #[test]
    fn a_row_of_any_layout_that_is_too_long_is_passed_over_to_its_end() {
        let long = "x, y\n".repeat(900_000);
        let json = format!(r#"{{"a": ["}}\"{}"]}}"#, long.replace('\n', " "));
        let layouts = [
            (Layout::Csv, format!("a,b\n1,\"{long}\"\nc,d\n")),
            (Layout::Json, format!(r#"[{{"a": 1}}, {json}, {{"b": 2}}]"#)),
            (
                Layout::Json,
                format!(r#"{{"a": {{"a": 1}}, "c]": {json}, "b": {{"b": 2}}}}"#),
            ),
            (
                Layout::JsonValues,
                format!("{{\"a\": 1}}\n{json}\n{{\"b\": 2}}\n"),
            ),
            (Layout::Paragraphs, format!("one\n\n{long} \r\n\ntwo\n")),
            (
                Layout::Separated,
                format!("one<|endoftext|>{long}<|endoftext|>two"),
            ),
            (
                Layout::Chatml,
                ["one", &long, "two"]
                    .map(|said| format!("<|im_start|>user\n{said}<|im_end|>\n\n"))
                    .concat(),
            ),
        ];
        for (layout, text) in layouts {
            let found = rows(layout, text.as_bytes(), 1 << 20).unwrap();
            let rejected = found
                .iter()
                .filter(|row| row.contains("more than `row_bytes_max`"));
            assert_eq!(
                (found.len(), rejected.count()),
                (3, 1),
                "{layout:?} {found:?}"
            );
            assert!(found.iter().all(|row| row.len() < 70), "{layout:?}");
        }
    }

    #[test]
    fn a_text_of_one_line_is_cut_between_words() {
        let text = "word ".repeat(500_000);
        let found = rows(Layout::Whole, text.as_bytes(), 1 << 20).unwrap();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|row| row.starts_with("1: word ")));
        assert_eq!(
            found.iter().map(|row| row.len() - 3).sum::<usize>(),
            text.len()
        );
    }

    #[test]
    fn a_word_that_is_too_long_is_rejected_and_what_is_behind_it_is_read() {
        let word = "x".repeat(2 << 20);
        let rejected = "1! has 2097152 bytes, more than `row_bytes_max` (1048576)";
        let found = |text: &str| rows(Layout::Whole, text.as_bytes(), 1 << 20).unwrap();
        assert_eq!(found(&word), [rejected]);
        let found = found(&format!("{word} y"));
        assert_eq!(found, [rejected.replace("52", "53").as_str(), "1: y"]);
    }

    #[test]
    fn rows_across_chunks_are_whole() {
        let line = format!("{}\n", "y".repeat(99_999));
        let text = line.repeat(100);
        let found = all(Layout::Lines, &text);
        assert_eq!(found.len(), 100);
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(idx, row)| row.len() == format!("{}: ", idx + 1).len() + 99_999)
        );
        let json = format!(
            "[{}]",
            vec![format!("\"{}\"", "z".repeat(99_999)); 100].join(",")
        );
        assert_eq!(all(Layout::Json, &json).len(), 100);
    }

    #[test]
    fn utf_16_is_named() {
        let error = rows(Layout::Lines, b"\xff\xfea\0", 1 << 20).unwrap_err();
        assert!(error.message.contains("UTF-16"), "{error}");
    }
}
