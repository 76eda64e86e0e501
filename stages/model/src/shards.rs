//! A folder of tokens: the format that `binarize` writes and training reads.
//!
//! ```text
//! shards.json        what is there: vocabulary, sources, splits, files, and whether documents come in pairs
//! train-00000.bin    ids, little-endian u16, documents end to end
//! train-00000.idx    one 14-byte record a document: start u64, bytes u32, source u16
//! train-00000.roles  one byte a token: its role, and whether it is to be predicted
//! ```
//!
//! A split that `Shards::split` returns has been checked whole: lengths agree with
//! `shards.json`, records are in order and cover their file, ids and sources are in
//! range. So no later code has to ask, and a file cut short is an error before the
//! first step rather than a strange loss. The check reads every token once, at
//! memory speed; the files stay mapped, so a corpus larger than memory is fine.

mod check;
mod error;
mod format;
mod split;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    fs,
    path::{Path, PathBuf},
};

pub use error::ShardsError;
pub use format::{
    DocumentRecord, INDEX_NAME, ROLE_ASSISTANT, ROLE_MASK, ROLE_NAMES, ROLE_SYSTEM, ROLE_TEXT,
    ROLE_USER, ShardFile, ShardsIndex, SplitIndex, TARGET, VERSION,
};
pub use split::{Document, Split, Stretch};

use check::{check_ids, check_records, check_roles, check_sources, map, read_error};
use split::Shard;

/// A shards folder whose `shards.json` has been read.
#[derive(Debug)]
pub struct Shards {
    folder: PathBuf,
    index: ShardsIndex,
}

impl Shards {
    pub fn open(folder: &Path) -> Result<Self, ShardsError> {
        let path = folder.join(INDEX_NAME);
        let text = fs::read(&path).map_err(read_error(&path))?;
        let index: ShardsIndex =
            serde_json::from_slice(&text).map_err(|source| ShardsError::Parse {
                path: path.clone(),
                source,
            })?;
        if index.version != VERSION {
            let found = index.version;
            return Err(ShardsError::Version { path, found });
        }
        let folder = folder.to_owned();
        Ok(Self { folder, index })
    }

    pub fn index(&self) -> &ShardsIndex {
        &self.index
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns whether `train`, `validation` or `test` has documents.
    pub fn has(&self, name: &str) -> bool {
        let split = self.index.splits.get(name);
        split.is_some_and(|split| split.documents > 0)
    }

    /// Maps and checks all files of `train`, `validation` or `test`; no documents is an error, and
    /// so are pairs, of which every second answer is not to be learnt.
    pub fn split(&self, name: &str) -> Result<Split, ShardsError> {
        match self.index.pairs {
            true => Err(ShardsError::Pairs),
            false => self.whole_split(name),
        }
    }

    /// As `split`, of pairs.
    pub fn split_of_pairs(&self, name: &str) -> Result<Split, ShardsError> {
        let split = match self.index.pairs {
            true => self.whole_split(name)?,
            false => return Err(ShardsError::NoPairs),
        };
        match split.documents.len().is_multiple_of(2) {
            true => Ok(split),
            false => Err(ShardsError::HalfPair {
                split: name.to_owned(),
            }),
        }
    }

    fn whole_split(&self, name: &str) -> Result<Split, ShardsError> {
        let empty = || ShardsError::EmptySplit {
            split: name.to_owned(),
        };
        let counts = self.index.splits.get(name).ok_or_else(empty)?;
        let mut split = Split::default();
        for file in &counts.files {
            self.append(file, &mut split)?;
        }
        self.check_counts(name, counts, &split)?;
        if split.documents.is_empty() {
            return Err(empty());
        }
        Ok(split)
    }

    fn append(&self, file: &ShardFile, split: &mut Split) -> Result<(), ShardsError> {
        let path = self.folder.join(&file.name);
        if Path::new(&file.name).file_name() != Some(file.name.as_ref()) {
            return Err(ShardsError::Name { path });
        }
        let shard = Shard {
            start: split.n_tokens(),
            tokens: map(&path, file.tokens.saturating_mul(2))?,
            roles: map(&path.with_extension("roles"), file.tokens)?,
        };
        let idx = path.with_extension("idx");
        let records = map(
            &idx,
            file.documents.saturating_mul(DocumentRecord::LEN as u64),
        )?;

        check_ids(&path, &shard.tokens, self.index.vocab_size)?;
        check_roles(&path.with_extension("roles"), &shard.roles)?;
        let (records, _) = records.as_chunks();
        let n_sources = self.index.sources.len();
        let own = file.sources.as_deref();
        check_sources(&path, own.unwrap_or_default(), n_sources)?;
        let n_own = own.map_or(n_sources, <[u32]>::len);
        let starts = check_records(&idx, records, file.tokens, n_own)?;
        for (document_idx, record) in records.iter().enumerate() {
            let record = DocumentRecord::decode(*record);
            split.documents.push(Document {
                start: shard.start + record.start,
                len: (starts[document_idx + 1] - record.start) as u32,
                bytes: record.bytes,
                source: own.map_or(u32::from(record.source), |own| {
                    own[usize::from(record.source)]
                }),
            });
        }
        split.shards.push(shard);
        Ok(())
    }

    fn check_counts(
        &self,
        name: &str,
        counts: &SplitIndex,
        split: &Split,
    ) -> Result<(), ShardsError> {
        let found = [
            ("tokens", counts.tokens, split.n_tokens()),
            ("documents", counts.documents, split.documents.len() as u64),
            ("targets", counts.targets, split.n_targets()),
        ];
        match found.into_iter().find(|(_, a, b)| a != b) {
            None => Ok(()),
            Some((what, expected, found)) => Err(ShardsError::Count {
                path: self.folder.join(INDEX_NAME),
                split: name.to_owned(),
                what,
                expected,
                found,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
