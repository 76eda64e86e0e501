//! Journals: what happened in a run, as lines that are only ever added to.
//!
//! A run's journals stand in `runs/RUN`: `journal.jsonl`, which whoever carries out the run writes,
//! and a file of words for each machine from which people said something of it. So no file has two
//! machines that write to it, which on a shared file system would write over each other. The
//! registry is an index of these lines: it knows of each file how far it has read it. A file that
//! is written anew gets another mark in its first line, by which a reader notices.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{Error, Place, entry::Entry, names};

/// The shape of journals that this program writes.
const VERSION: u32 = 1;

/// What the driver of a run writes down.
pub(crate) const DRIVER: &str = "journal.jsonl";

/// The first line of a journal.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    tinylm_journal: u32,
    run: String,
    /// No two files share it.
    mark: String,
}

/// How far a journal has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) mark: String,
    pub(crate) bytes: u64,
    /// Whole lines, and how many of them nobody could read.
    pub(crate) lines: u64,
    pub(crate) unread: u64,
}

/// A journal that is open to be added to.
#[derive(Debug)]
pub(crate) struct Journal {
    place: Place,
    file: File,
}

impl Journal {
    pub(crate) fn open(place: &Place) -> Result<Journal, Error> {
        Ok(Journal {
            place: place.clone(),
            file: place.open_to_append()?,
        })
    }

    /// The length of the file; nothing once it is not the one under its name any more.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let about = self.file.metadata().ok()?;
        (about.nlink() > 0).then_some(about.len())
    }

    /// Adds a line; returns where it ends. After a torn one it begins on a line of its own.
    pub(crate) fn append(&mut self, entry: &Entry, is_torn: bool) -> Result<(u64, u64), Error> {
        let mut text = if is_torn { b"\n".to_vec() } else { Vec::new() };
        write_line(&mut text, entry);
        let failed = |error| Error::io_of("write", &self.place, Some(text.len() as u64), error);
        self.file.write_all(&text).map_err(failed)?;
        // Where the system put it: another process of this machine may have added a line meanwhile.
        let end = self.file.stream_position().map_err(failed)?;
        Ok((end - text.len() as u64, end))
    }
}

/// The file of what is said of a run from this machine.
pub(crate) fn words_file() -> String {
    let system = rustix::system::uname();
    let host: String = system
        .nodename()
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    format!("words-{host}-{}.jsonl", rustix::process::getuid().as_raw())
}

/// Makes a journal that begins with these lines, in the place of one that is there.
pub(crate) fn make(place: &Place, run_id: &str, entries: &[Entry]) -> Result<Position, Error> {
    let mark = names::unique();
    let text = with_head(run_id, &mark, entries);
    place.replace(&text)?;
    Ok(Position {
        mark,
        bytes: text.len() as u64,
        lines: entries.len() as u64 + 1,
        unread: 0,
    })
}

fn with_head(run_id: &str, mark: &str, entries: &[Entry]) -> Vec<u8> {
    let head = Head {
        tinylm_journal: VERSION,
        run: run_id.to_owned(),
        mark: mark.to_owned(),
    };
    let mut text = serde_json::to_vec(&head).unwrap_or_default();
    text.push(b'\n');
    text.extend(self::text(entries));
    text
}

/// A journal to be given away: the same lines are the same bytes.
pub(crate) fn whole(run_id: &str, entries: &[Entry]) -> Vec<u8> {
    with_head(run_id, "", entries)
}

/// The run of a journal that was given, and its lines; nothing if that is not what it is, or if a line of it
/// cannot be read.
pub(crate) fn read_whole(text: &[u8]) -> Option<(String, Vec<Entry>)> {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let head: Head = serde_json::from_slice(lines.next()?).ok()?;
    let lines: Result<Vec<Entry>, _> = lines.map(serde_json::from_slice).collect();
    (head.tinylm_journal <= VERSION).then_some((head.run, lines.ok()?))
}

/// Lines as they stand in a journal, below its head.
pub(crate) fn text(entries: &[Entry]) -> Vec<u8> {
    let mut text = Vec::new();
    for entry in entries {
        write_line(&mut text, entry);
    }
    text
}

/// Returns whether a journal holds no more than the beginning of these lines.
pub(crate) fn is_beginning_of(path: &Path, lines: &[u8]) -> bool {
    let text = std::fs::read(path).unwrap_or_default();
    match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => lines.starts_with(&text[end + 1..]),
        None => true,
    }
}

/// Returns whether whole lines stand in a journal behind what has been read.
pub(crate) fn has_lines_after(path: &Path, bytes: u64) -> bool {
    let rest = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(bytes))?;
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut rest).map(|_| rest)
    };
    rest().is_ok_and(|rest| rest.contains(&b'\n'))
}

fn write_line(text: &mut Vec<u8>, entry: &Entry) {
    // Into memory, of types that have no way to fail.
    let _ = serde_json::to_writer(&mut *text, entry);
    text.push(b'\n');
}

/// Reads on in a journal from where it was read last, and passes on what is new. Returns how far it
/// came, or nothing if this is not the file that was read then.
pub(crate) fn read_on(
    path: &Path,
    from: &Position,
    mut on_entry: impl FnMut(Entry) -> Result<(), Error>,
) -> Result<Option<Position>, Error> {
    let failed = |error| Error::io("read", path, error);
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut line = Vec::new();
    let Some(head) = read_head(&mut reader, &mut line, path)? else {
        return Ok(Some(from.clone()));
    };
    if !from.mark.is_empty() && from.mark != head.mark {
        return Ok(None);
    }
    let mut position = from.clone();
    if from.mark.is_empty() {
        position = Position {
            mark: head.mark,
            bytes: line.len() as u64,
            lines: 1,
            unread: 0,
        };
    }
    reader
        .seek(SeekFrom::Start(position.bytes))
        .map_err(failed)?;
    while read_line(&mut reader, &mut line, path)? {
        position.bytes += line.len() as u64;
        position.lines += 1;
        match serde_json::from_slice(&line) {
            Ok(entry) => on_entry(entry)?,
            Err(_) => position.unread += 1,
        }
    }
    Ok(Some(position))
}

/// The mark of a journal; nothing of a file that is none.
pub(crate) fn mark_of(path: &Path) -> Option<String> {
    let mut reader = BufReader::new(File::open(path).ok()?);
    let head = read_head(&mut reader, &mut Vec::new(), path).ok()??;
    Some(head.mark)
}

/// The first lines of a journal: its head, and the first that says something.
pub(crate) fn first_entry(path: &Path) -> Option<Entry> {
    let mut reader = BufReader::new(File::open(path).ok()?);
    let mut line = Vec::new();
    read_head(&mut reader, &mut line, path).ok()??;
    read_line(&mut reader, &mut line, path).ok()?;
    serde_json::from_slice(&line).ok()
}

/// The head of a journal; nothing while it is not there yet, or of a file that is none.
fn read_head(
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
    path: &Path,
) -> Result<Option<Head>, Error> {
    read_line(reader, line, path)?;
    let Ok(head) = serde_json::from_slice::<Head>(line) else {
        return Ok(None);
    };
    if head.tinylm_journal > VERSION {
        return Err(Error::Newer {
            path: path.to_owned(),
            found: head.tinylm_journal,
            known: VERSION,
        });
    }
    Ok(Some(head))
}

/// Reads one whole line; one that does not end yet is left for later.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>, path: &Path) -> Result<bool, Error> {
    line.clear();
    reader
        .read_until(b'\n', line)
        .map_err(|error| Error::io("read", path, error))?;
    Ok(line.ends_with(b"\n"))
}
