//! A remote as one file, to be handed to anybody: a tar, compressed by zstd.
//!
//! It holds a remote in a folder as it stands, so whatever is taken from it is verified by the same hands that
//! fetch from a bucket; this module knows only that names are short, plain and of files. In front stands what
//! a person looks for first: which run it is, and the experiment's file. The same run makes the same bytes.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The shape of packs that this program writes.
const VERSION: u32 = 1;

/// The first file of a pack.
const HEAD: &str = "pack.json";
/// The experiment as it was written.
const EXPERIMENT: &str = "experiment.yaml";
/// The folder of the remote.
const REMOTE: &str = "v1";

const HEAD_MAX: u64 = 1 << 20;
const LEVEL: i32 = 3;

/// Which run a pack is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackHead {
    pub tinylm_pack: u32,
    pub run: String,
    pub experiment: String,
    /// Whether artifacts are in it, or only what is remembered of them.
    pub has_artifacts: bool,
}

impl PackHead {
    #[must_use]
    pub fn new(run: &str, experiment: &str, has_artifacts: bool) -> Self {
        Self {
            tinylm_pack: VERSION,
            run: run.to_owned(),
            experiment: experiment.to_owned(),
            has_artifacts,
        }
    }
}

/// Why a file could not be taken for a pack.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("it is no pack of a run: {0}")]
    NotOne(String),
    #[error("it was packed by a newer tinylm (format {0})")]
    Newer(u32),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes a remote in a folder, with the head and the experiment's file before it.
pub fn write(out: impl Write, head: &PackHead, experiment: &str, remote: &Path) -> io::Result<()> {
    let mut zstd = zstd::Encoder::new(BufWriter::new(out), LEVEL)?;
    zstd.include_checksum(true)?;
    let mut tar = tar::Builder::new(zstd);
    let text = serde_json::to_vec_pretty(head)?;
    append(&mut tar, Path::new(HEAD), text.len() as u64, &text[..])?;
    let bytes = experiment.as_bytes();
    append(&mut tar, Path::new(EXPERIMENT), bytes.len() as u64, bytes)?;
    for name in files_below(remote, Path::new(REMOTE))? {
        let file = File::open(remote.join(&name))?;
        append(&mut tar, &name, file.metadata()?.len(), file)?;
    }
    tar.into_inner()?.finish()?.flush()
}

/// Nothing of who packed it, where or when goes along.
fn append(
    tar: &mut tar::Builder<impl Write>,
    name: &Path,
    bytes: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, content)
}

fn files_below(root: &Path, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(root.join(folder))?
        .map(|entry| Ok(folder.join(entry?.file_name())))
        .collect::<io::Result<_>>()?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        match root.join(&entry).is_dir() {
            true => files.extend(files_below(root, &entry)?),
            false => files.push(entry),
        }
    }
    Ok(files)
}

/// Lays the remote of a pack into an empty folder; returns which run it is of.
pub fn read(pack: impl Read, into: &Path) -> Result<PackHead, PackError> {
    let zstd = zstd::Decoder::new(BufReader::new(pack));
    let mut tar = tar::Archive::new(zstd.map_err(damaged)?);
    let mut entries = tar.entries().map_err(damaged)?;
    let mut first = entries
        .next()
        .ok_or_else(|| not_one("it is empty"))?
        .map_err(damaged)?;
    if first.path().map_err(damaged)?.as_ref() != Path::new(HEAD) {
        return Err(not_one(&format!("it does not begin with `{HEAD}`")));
    }
    let mut text = String::new();
    (&mut first)
        .take(HEAD_MAX)
        .read_to_string(&mut text)
        .map_err(damaged)?;
    let head = read_head(&text)?;
    let mut seen = HashSet::new();
    for entry in entries {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.into_owned();
        if name == Path::new(EXPERIMENT) {
            continue;
        }
        if !is_of_remote(&name) || !entry.header().entry_type().is_file() {
            return Err(not_one(&format!(
                "`{}` does not belong there",
                name.display()
            )));
        }
        if !seen.insert(name.clone()) {
            return Err(not_one(&format!("`{}` is there twice", name.display())));
        }
        let path = into.join(&name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = File::create_new(&path)?;
        copy(&mut entry, &mut file)?;
    }
    // What was compressed ends with a checksum of all of it.
    copy(&mut tar.into_inner(), &mut io::sink())?;
    Ok(head)
}

fn read_head(text: &str) -> Result<PackHead, PackError> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| not_one(&error.to_string()))?;
    match value["tinylm_pack"].as_u64() {
        Some(version) if version > u64::from(VERSION) => {
            Err(PackError::Newer(u32::try_from(version).unwrap_or(u32::MAX)))
        }
        Some(_) => serde_json::from_value(value).map_err(|error| not_one(&error.to_string())),
        None => Err(not_one("it does not say so")),
    }
}

/// What is wrong with what is read is not said like what is wrong with the disk.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(), PackError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer).map_err(damaged)? {
            0 => return Ok(()),
            n => to.write_all(&buffer[..n])?,
        }
    }
}

/// A name as a remote gives them: plain words below `v1`, of letters that no file system reads otherwise.
fn is_of_remote(name: &Path) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_word = |part: Component| match part {
        Component::Normal(word) => word
            .to_str()
            .is_some_and(|word| word.chars().all(is_letter)),
        _ => false,
    };
    name.starts_with(REMOTE) && name.components().all(is_word) && name.components().count() <= 4
}

fn not_one(why: &str) -> PackError {
    PackError::NotOne(why.to_owned())
}

fn damaged(error: io::Error) -> PackError {
    PackError::NotOne(format!("it is damaged or cut short ({error})"))
}

#[cfg(test)]
mod tests;
