//! The check that a split's files are whole, before anything relies on it.

use std::{fs::File, io, path::Path};

use memmap2::Mmap;

use super::{
    error::ShardsError,
    format::{DocumentRecord, ROLE_MASK, ROLE_NAMES},
};

pub(super) fn map(path: &Path, expected: u64) -> Result<Mmap, ShardsError> {
    let file = File::open(path).map_err(read_error(path))?;
    let found = file.metadata().map_err(read_error(path))?.len();
    if found != expected {
        let path = path.to_owned();
        return Err(ShardsError::Length {
            path,
            expected,
            found,
        });
    }
    // SAFETY: an artifact's files are immutable once committed. If someone cuts one all
    // the same, the kernel ends the process with SIGBUS, and the stage has failed.
    unsafe { Mmap::map(&file) }.map_err(read_error(path))
}

/// Looks for a bad id only after learning that there is one: `max` runs at memory speed.
pub(super) fn check_ids(path: &Path, tokens: &[u8], vocab_size: usize) -> Result<(), ShardsError> {
    let (tokens, _) = tokens.as_chunks();
    let ids = || tokens.iter().map(|&bytes| u16::from_le_bytes(bytes));
    if ids().max().is_none_or(|id| usize::from(id) < vocab_size) {
        return Ok(());
    }
    match ids()
        .enumerate()
        .find(|&(_, id)| usize::from(id) >= vocab_size)
    {
        None => Ok(()),
        Some((token, found)) => Err(ShardsError::Id {
            path: path.to_owned(),
            token,
            found,
            vocab_size,
        }),
    }
}

pub(super) fn check_roles(path: &Path, roles: &[u8]) -> Result<(), ShardsError> {
    let unknown = |&role: &u8| role & ROLE_MASK >= ROLE_NAMES.len() as u8;
    match roles.iter().position(unknown) {
        None => Ok(()),
        Some(token) => Err(ShardsError::Role {
            path: path.to_owned(),
            token,
            found: roles[token] & ROLE_MASK,
        }),
    }
}

/// Checks the places of a file's own sources in the list of all.
pub(super) fn check_sources(
    path: &Path,
    sources: &[u32],
    n_sources: usize,
) -> Result<(), ShardsError> {
    let wrong = sources.iter().find(|source| **source as usize >= n_sources);
    wrong.map_or(Ok(()), |source| {
        Err(ShardsError::SourceOfFile {
            path: path.to_owned(),
            found: *source,
            n_sources,
        })
    })
}

/// Returns where each document starts, and at last where the final one ends.
pub(super) fn check_records(
    path: &Path,
    records: &[[u8; DocumentRecord::LEN]],
    n_tokens: u64,
    n_sources: usize,
) -> Result<Vec<u64>, ShardsError> {
    let mut starts = Vec::with_capacity(records.len() + 1);
    for (document, record) in records.iter().enumerate() {
        let record = DocumentRecord::decode(*record);
        if usize::from(record.source) >= n_sources {
            return Err(ShardsError::Source {
                path: path.to_owned(),
                document,
                found: record.source,
                n_sources,
            });
        }
        let problem = match starts.last() {
            None if record.start != 0 => Some("is not the start of the file"),
            Some(&before) if record.start <= before => Some("is not after the one before it"),
            _ if record.start >= n_tokens => Some("is past the end of the tokens"),
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(ShardsError::Record {
                path: path.to_owned(),
                document,
                found: record.start,
                problem,
            });
        }
        starts.push(record.start);
    }
    if records.is_empty() && n_tokens > 0 {
        return Err(ShardsError::Record {
            path: path.to_owned(),
            document: 0,
            found: n_tokens,
            problem: "belongs to no document",
        });
    }
    starts.push(n_tokens);
    Ok(starts)
}

pub(super) fn read_error(path: &Path) -> impl FnOnce(io::Error) -> ShardsError {
    let path = path.to_owned();
    |source| ShardsError::Read { path, source }
}
