//! Large files of JSON lines as several smaller ones.
//!
//! Where one ends is drawn from its lines, as where a part ends is drawn from its files: behind a line, with
//! the chance that its length is of the size. So lines that come at the end change the last file, and a line
//! in the middle the file that it is in. No line is held, however long.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use memchr::memchr;
use tinylm_pipeline::{At, StageError, StageIo};

use super::local::held_twice;
use crate::shared::{
    files::files_below,
    partition::{Partition, is_drawn},
};

/// Chance makes no file larger than so many times the size, and none smaller than one such part of it.
const TIMES: u64 = 4;

/// Cuts those files of a folder that are larger than the size.
pub(super) fn cut_large(io: &StageIo, size: Partition) -> Result<(), StageError> {
    for (name, path) in files_below(io.out())? {
        let is_lines = name.ends_with(".jsonl") || name.ends_with(".ndjson");
        if is_lines && fs::metadata(&path).at(&path)?.len() > size.0 {
            cut(&path, size, io)?;
            fs::remove_file(&path).at(&path)?;
        }
    }
    Ok(())
}

fn cut(path: &Path, size: Partition, io: &StageIo) -> Result<(), StageError> {
    let mut lines = BufReader::with_capacity(1 << 20, File::open(path).at(path)?);
    let mut pieces = Pieces {
        path,
        n: 0,
        open: None,
        n_bytes: 0,
    };
    let (mut line, mut n_in_line) = (blake3::Hasher::new(), 0_u64);
    loop {
        if io.is_cancelled() {
            return Err(StageError::cancelled());
        }
        let held = lines.fill_buf().at(path)?;
        if held.is_empty() {
            return pieces.close();
        }
        let end = memchr(b'\n', held).map(|at| at + 1);
        let taken = end.unwrap_or(held.len());
        line.update(&held[..taken]);
        n_in_line += taken as u64;
        pieces.write(&held[..taken])?;
        lines.consume(taken);
        if end.is_some() {
            let drawn = is_drawn(line.finalize().as_bytes(), n_in_line, size);
            if pieces.n_bytes >= size.0 * TIMES || (drawn && pieces.n_bytes >= size.0 / TIMES) {
                pieces.close()?;
            }
            (line, n_in_line) = (blake3::Hasher::new(), 0);
        }
    }
}

/// The files that are made of one.
struct Pieces<'a> {
    path: &'a Path,
    n: usize,
    open: Option<(PathBuf, BufWriter<File>)>,
    n_bytes: u64,
}

impl Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StageError> {
        let (path, file) = match &mut self.open {
            Some(open) => open,
            closed => {
                let path = numbered(self.path, self.n);
                if path.exists() {
                    let name = path.file_name().unwrap_or_default();
                    return Err(held_twice(&name.to_string_lossy()));
                }
                let file = File::create_new(&path).at(&path)?;
                closed.insert((path, BufWriter::with_capacity(1 << 20, file)))
            }
        };
        file.write_all(bytes).at(path)?;
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }

    fn close(&mut self) -> Result<(), StageError> {
        if let Some((path, mut file)) = self.open.take() {
            file.flush().at(&path)?;
            self.n += 1;
            self.n_bytes = 0;
        }
        Ok(())
    }
}

/// `talk.jsonl` as `talk-00003.jsonl`.
fn numbered(path: &Path, n: usize) -> PathBuf {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{n:05}.{ending}"))
}
