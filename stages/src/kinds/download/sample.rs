//! `max_samples`: how much of a source is taken.
//!
//! Rows are counted where a row is a line (JSON lines, tab-separated), a record (CSV)
//! or stands in the footer (Parquet, whose files are taken whole); other formats have
//! no rows that could be counted without knowing their shape, and are taken whole.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, ErrorKind, Read, Write},
    path::Path,
};

use parquet::file::reader::{FileReader, SerializedFileReader};
use tinylm_pipeline::{At, StageError, StageIo, copy_file, end_at_fault};

use crate::shared::cut::{Cut, RowEnds};

/// Counts rows over all files of a source.
#[derive(Debug, Clone)]
pub(super) struct Sampler {
    rows_max: Option<u64>,
    rows: u64,
    /// Files of formats whose rows cannot be counted.
    uncounted: u64,
    /// Whether a file that is taken whole held more rows than were wanted.
    is_past: bool,
}

impl Sampler {
    pub(super) fn new(rows_max: Option<u64>) -> Self {
        Self {
            rows_max,
            rows: 0,
            uncounted: 0,
            is_past: false,
        }
    }

    /// Whether nothing more is wanted.
    pub(super) fn is_full(&self) -> bool {
        self.rows_max.is_some_and(|max| self.rows >= max)
    }

    /// Returns what can tell, while a file arrives, that enough of it has.
    pub(super) fn cut(&self, name: &str) -> Option<Cut> {
        let ends = RowEnds::of(name)?;
        let wanted = self.rows_max?.saturating_sub(self.rows) + ends.n_header();
        Some(Cut { ends, wanted })
    }

    /// Moves a whole file to its place, leaving out the rows that are too many.
    pub(super) fn place(&mut self, whole: &Path, to: &Path) -> Result<(), StageError> {
        let mut file = BufReader::new(File::open(whole).at(whole)?);
        let name = to.to_string_lossy();
        let Some(cut) = self.cut(&name) else {
            self.count_whole(whole, &name)?;
            return move_file(whole, to);
        };
        self.write_rows(&mut file, whole, to, cut)?;
        fs::remove_file(whole).at(whole)
    }

    /// Writes a stream to its place, leaving out the rows that are too many.
    pub(super) fn write(
        &mut self,
        from: &mut dyn Read,
        origin: &Path,
        to: &Path,
    ) -> Result<(), StageError> {
        let name = to.to_string_lossy();
        if let Some(cut) = self.cut(&name) {
            return self.write_rows(from, origin, to, cut);
        }
        let mut file = create(to)?;
        std::io::copy(from, &mut file).map_err(|error| match end_at_fault(&error, origin, to) {
            end if end == to => StageError::io(to, &error),
            _ => broken(origin, &error),
        })?;
        file.flush().at(to)?;
        self.count_whole(to, &name)
    }

    fn write_rows(
        &mut self,
        from: &mut dyn Read,
        origin: &Path,
        to: &Path,
        mut cut: Cut,
    ) -> Result<(), StageError> {
        let n_header = cut.ends.n_header();
        let before = cut.wanted;
        let mut file = create(to)?;
        let mut buffer = vec![0; 1 << 16];
        let mut ends_in_row = false;
        while cut.wanted > 0 {
            let n_read = from
                .read(&mut buffer)
                .map_err(|error| broken(origin, &error))?;
            if n_read == 0 {
                break;
            }
            let n_taken = cut.take(&buffer[..n_read]);
            file.write_all(&buffer[..n_taken]).at(to)?;
            ends_in_row = buffer[n_taken - 1] != b'\n';
        }
        file.flush().at(to)?;
        self.rows += (before - cut.wanted + u64::from(ends_in_row)).saturating_sub(n_header);
        Ok(())
    }

    fn count_whole(&mut self, path: &Path, name: &str) -> Result<(), StageError> {
        if self.rows_max.is_none() {
            return Ok(());
        }
        if name.ends_with(".parquet") {
            let file = File::open(path).at(path)?;
            let reader = SerializedFileReader::new(file)
                .map_err(|error| StageError::new(format!("`{name}`: {error}")))?;
            self.rows += reader.metadata().file_metadata().num_rows().max(0) as u64;
            self.is_past = self.rows_max.is_some_and(|max| self.rows > max);
        } else {
            self.uncounted += 1;
        }
        Ok(())
    }

    /// Says where `max_samples` could not be kept.
    pub(super) fn report(&self, io: &StageIo) {
        if self.uncounted > 0 {
            io.info(format!(
                "`max_samples` does not cut {} of the files: their rows cannot be counted here",
                self.uncounted
            ));
        }
        if self.is_past {
            io.info(format!(
                "`max_samples` does not cut Parquet files, which are taken whole: {} rows are taken",
                self.rows
            ));
        }
    }
}

fn create(to: &Path) -> Result<BufWriter<File>, StageError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).at(parent)?;
    }
    // Two files of one name (an archive beside its contents) must not end up as one.
    let file = File::create_new(to).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            let name = to.file_name().unwrap_or_default().display();
            StageError::new(format!(
                "`{name}` comes twice: by itself, and out of an archive"
            ))
            .help("choose with `files`, or write `open: false`")
            .is_final()
        }
        _ => StageError::io(to, &error),
    })?;
    Ok(BufWriter::with_capacity(1 << 18, file))
}

/// Renames, or copies where the two places are on different file systems.
fn move_file(from: &Path, to: &Path) -> Result<(), StageError> {
    drop(create(to)?);
    if fs::rename(from, to).is_err() {
        copy_file(from, to)?;
        fs::remove_file(from).at(from)?;
    }
    Ok(())
}

/// Says that a file cannot be read to its end.
fn broken(origin: &Path, error: &std::io::Error) -> StageError {
    StageError::new(format!("`{}` cannot be read: {error}", origin.display())).is_final()
}
