//! A folder of tokens: the format that `binarize` writes and training reads.
//!
//! ```text
//! shards.json        what is there: vocabulary, sources, splits, files
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

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

/// Name of the file that describes a shards folder.
pub const INDEX_NAME: &str = "shards.json";
/// The one version of the format so far.
pub const VERSION: u32 = 1;

/// Raw text, and tags outside any turn.
pub const ROLE_TEXT: u8 = 0;
pub const ROLE_SYSTEM: u8 = 1;
pub const ROLE_USER: u8 = 2;
pub const ROLE_ASSISTANT: u8 = 3;
/// What each role is called in metrics and reports, indexed by role.
pub const ROLE_NAMES: [&str; 4] = ["text", "system", "user", "assistant"];
/// Set on a token that is to be predicted.
pub const TARGET: u8 = 0x80;
/// The bits of a `roles` byte that hold the role.
pub const ROLE_MASK: u8 = 0x7f;

/// The contents of `shards.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardsIndex {
    pub version: u32,
    pub vocab_size: usize,
    /// Names that records' `source` counts into.
    pub sources: Vec<String>,
    pub template: Option<String>,
    /// `train`, `validation`, `test`; a split without documents may be left out.
    pub splits: BTreeMap<String, SplitIndex>,
    #[serde(default)]
    pub stats: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SplitIndex {
    pub tokens: u64,
    pub documents: u64,
    /// Tokens whose `TARGET` bit is set.
    pub targets: u64,
    pub files: Vec<ShardFile>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardFile {
    /// Name of the `.bin` file; its neighbours differ in the extension only.
    pub name: String,
    pub tokens: u64,
    pub documents: u64,
}

/// One record of an `.idx` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentRecord {
    /// Offset of the first token in its file, counted in tokens.
    pub start: u64,
    /// Bytes of content, special tokens excluded: what bits per byte divide by.
    pub bytes: u32,
    pub source: u16,
}

impl DocumentRecord {
    /// Length of an encoded record.
    pub const LEN: usize = 14;

    pub fn encode(self) -> [u8; Self::LEN] {
        let mut record = [0; Self::LEN];
        record[..8].copy_from_slice(&self.start.to_le_bytes());
        record[8..12].copy_from_slice(&self.bytes.to_le_bytes());
        record[12..].copy_from_slice(&self.source.to_le_bytes());
        record
    }

    pub fn decode(record: [u8; Self::LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = record;
        Self {
            start: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            bytes: u32::from_le_bytes([i, j, k, l]),
            source: u16::from_le_bytes([m, n]),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ShardsError {
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot parse `{path}`")]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("`{path}` has version {found}, this program reads version {VERSION}")]
    Version { path: PathBuf, found: u32 },
    #[error("the shards have no `{split}` documents")]
    EmptySplit { split: String },
    #[error("`{path}` has {found} bytes and must have {expected} (as many as {INDEX_NAME} says)")]
    Length {
        path: PathBuf,
        expected: u64,
        found: u64,
    },
    #[error("`{path}` lists document {document} at token {found}, which {problem}")]
    Record {
        path: PathBuf,
        document: usize,
        found: u64,
        problem: &'static str,
    },
    #[error("`{path}` gives document {document} the source {found}, and there are {n_sources}")]
    Source {
        path: PathBuf,
        document: usize,
        found: u16,
        n_sources: usize,
    },
    #[error("`{path}` holds id {found} at token {token}, and the vocabulary has {vocab_size}")]
    Id {
        path: PathBuf,
        token: usize,
        found: u16,
        vocab_size: usize,
    },
    #[error("`{path}` holds the unknown role {found} at token {token}")]
    Role {
        path: PathBuf,
        token: usize,
        found: u8,
    },
    #[error("`{path}` counts {expected} {what} in `{split}`, and its files hold {found}")]
    Count {
        path: PathBuf,
        split: String,
        what: &'static str,
        expected: u64,
        found: u64,
    },
}

impl ShardsError {
    /// Returns what to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::EmptySplit { split } if split == "train" => {
                "give `binarize` documents, or keep a smaller share for `validation` and `test`"
                    .to_owned()
            }
            Self::EmptySplit { split } => {
                format!("set a larger `{split}` in the `binarize` stage, or give it more documents")
            }
            _ => "the shards are damaged or not tinylm's: make them again with `binarize`, \
                  and see `tinylm cache verify`"
                .to_owned(),
        }
    }
}

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

    /// Maps and checks all files of `train`, `validation` or `test`; no documents is an error.
    pub fn split(&self, name: &str) -> Result<Split, ShardsError> {
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
        let shard = Shard {
            start: split.n_tokens(),
            tokens: map(&path, file.tokens * 2)?,
            roles: map(&path.with_extension("roles"), file.tokens)?,
        };
        let idx = path.with_extension("idx");
        let records = map(&idx, file.documents * DocumentRecord::LEN as u64)?;

        check_ids(&path, &shard.tokens, self.index.vocab_size)?;
        check_roles(&path.with_extension("roles"), &shard.roles)?;
        let (records, _) = records.as_chunks();
        let starts = check_records(&idx, records, file.tokens, self.index.sources.len())?;
        for (document_idx, record) in records.iter().enumerate() {
            let record = DocumentRecord::decode(*record);
            split.documents.push(Document {
                start: shard.start + record.start,
                len: (starts[document_idx + 1] - record.start) as u32,
                bytes: record.bytes,
                source: record.source,
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

/// The documents of one split, as one stream of tokens over all its files.
#[derive(Debug, Default)]
pub struct Split {
    shards: Vec<Shard>,
    documents: Vec<Document>,
}

/// Where a document lies in its split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document {
    /// Offset of the first token, counted over all files of the split.
    pub start: u64,
    /// Tokens; never 0.
    pub len: u32,
    pub bytes: u32,
    pub source: u16,
}

#[derive(Debug)]
struct Shard {
    start: u64,
    tokens: Mmap,
    roles: Mmap,
}

/// A stretch of tokens that lies in one file.
#[derive(Debug, Clone, Copy)]
pub struct Stretch<'a> {
    tokens: &'a [[u8; 2]],
    roles: &'a [u8],
}

impl Split {
    /// All documents in the order of their tokens.
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    pub fn n_tokens(&self) -> u64 {
        self.shards.last().map_or(0, |shard| shard.end())
    }

    pub fn n_targets(&self) -> u64 {
        let targets = |shard: &Shard| {
            shard
                .roles
                .iter()
                .filter(|&&role| role & TARGET != 0)
                .count()
        };
        self.shards.iter().map(|shard| targets(shard) as u64).sum()
    }

    /// Index of the document that holds the token at `offset`.
    pub fn document_at(&self, offset: u64) -> usize {
        let after = self
            .documents
            .partition_point(|document| document.start <= offset);
        after.saturating_sub(1)
    }

    /// Tokens `start..start + len` of the split, which must lie in one document.
    pub fn stretch(&self, start: u64, len: usize) -> Stretch<'_> {
        let after = self.shards.partition_point(|shard| shard.start <= start);
        let shard = &self.shards[after - 1];
        let from = (start - shard.start) as usize;
        let (tokens, _) = shard.tokens.as_chunks();
        Stretch {
            tokens: &tokens[from..from + len],
            roles: &shard.roles[from..from + len],
        }
    }

    /// All tokens of one document.
    pub fn tokens(&self, document: &Document) -> Stretch<'_> {
        self.stretch(document.start, document.len as usize)
    }
}

impl Shard {
    fn end(&self) -> u64 {
        self.start + self.roles.len() as u64
    }
}

impl Stretch<'_> {
    pub fn len(&self) -> usize {
        self.roles.len()
    }

    pub fn is_empty(&self) -> bool {
        self.roles.is_empty()
    }

    pub fn id(&self, idx: usize) -> u16 {
        u16::from_le_bytes(self.tokens[idx])
    }

    pub fn role(&self, idx: usize) -> u8 {
        self.roles[idx] & ROLE_MASK
    }

    pub fn is_target(&self, idx: usize) -> bool {
        self.roles[idx] & TARGET != 0
    }

    pub fn ids(&self) -> impl Iterator<Item = u16> {
        self.tokens.iter().map(|&bytes| u16::from_le_bytes(bytes))
    }
}

fn map(path: &Path, expected: u64) -> Result<Mmap, ShardsError> {
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
fn check_ids(path: &Path, tokens: &[u8], vocab_size: usize) -> Result<(), ShardsError> {
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

fn check_roles(path: &Path, roles: &[u8]) -> Result<(), ShardsError> {
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

/// Returns where each document starts, and at last where the final one ends.
fn check_records(
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

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> ShardsError {
    let path = path.to_owned();
    |source| ShardsError::Read { path, source }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Small shards folders for tests.

    use super::*;

    /// A document as `(id, role byte)` pairs.
    pub(crate) type Tokens = Vec<(u16, u8)>;

    /// Every token a target of role text.
    pub(crate) fn text(ids: &[u16]) -> Tokens {
        ids.iter().map(|&id| (id, ROLE_TEXT | TARGET)).collect()
    }

    /// Writes a folder whose splits have one file for each list of documents.
    pub(crate) fn write(folder: &Path, vocab_size: usize, splits: &[(&str, &[Vec<Tokens>])]) {
        let splits = splits.iter().map(|(name, files)| {
            let mut split = SplitIndex::default();
            for (file_idx, documents) in files.iter().enumerate() {
                let file = write_file(folder, &format!("{name}-{file_idx:05}.bin"), documents);
                split.tokens += file.tokens;
                split.documents += file.documents;
                let targets = |tokens: &Tokens| tokens.iter().filter(|t| t.1 & TARGET != 0).count();
                split.targets += documents.iter().map(targets).sum::<usize>() as u64;
                split.files.push(file);
            }
            ((*name).to_owned(), split)
        });
        let index = ShardsIndex {
            version: VERSION,
            vocab_size,
            sources: vec!["one".to_owned()],
            template: None,
            splits: splits.collect(),
            stats: serde_json::Value::Null,
        };
        fs::write(folder.join(INDEX_NAME), serde_json::to_vec(&index).unwrap()).unwrap();
    }

    fn write_file(folder: &Path, name: &str, documents: &[Tokens]) -> ShardFile {
        let (mut bin, mut idx, mut roles) = (Vec::new(), Vec::new(), Vec::new());
        for document in documents {
            let record = DocumentRecord {
                start: roles.len() as u64,
                bytes: document.len() as u32,
                source: 0,
            };
            idx.extend(record.encode());
            for (id, role) in document {
                bin.extend(id.to_le_bytes());
                roles.push(*role);
            }
        }
        let path = folder.join(name);
        fs::write(&path, &bin).unwrap();
        fs::write(path.with_extension("idx"), &idx).unwrap();
        fs::write(path.with_extension("roles"), &roles).unwrap();
        ShardFile {
            name: name.to_owned(),
            tokens: roles.len() as u64,
            documents: documents.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::{
        testing::{text, write},
        *,
    };

    /// Two files, three documents: `1 2 3 | 4 5 || 6 7 8 9`.
    fn folder() -> TempDir {
        let folder = TempDir::new().unwrap();
        let files = [
            vec![text(&[1, 2, 3]), text(&[4, 5])],
            vec![text(&[6, 7, 8, 9])],
        ];
        write(folder.path(), 10, &[("train", &files)]);
        folder
    }

    /// What opening says after `damage`, with the folder's name taken out.
    #[track_caller]
    fn complaint(damage: impl FnOnce(&Path)) -> String {
        let folder = folder();
        damage(folder.path());
        let opened = Shards::open(folder.path()).and_then(|shards| shards.split("train"));
        let place = format!("{}/", folder.path().display());
        opened.unwrap_err().to_string().replace(&place, "")
    }

    fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn documents_of_all_files_form_one_stream() {
        let folder = folder();
        let split = Shards::open(folder.path()).unwrap().split("train").unwrap();
        let documents: Vec<Vec<u16>> = split
            .documents()
            .iter()
            .map(|document| split.tokens(document).ids().collect())
            .collect();
        assert_eq!(documents, [vec![1, 2, 3], vec![4, 5], vec![6, 7, 8, 9]]);
        assert_eq!((split.n_tokens(), split.n_targets()), (9, 9));
        let holders: Vec<usize> = (0..9).map(|offset| split.document_at(offset)).collect();
        assert_eq!(holders, [0, 0, 0, 1, 1, 2, 2, 2, 2]);
        assert_eq!(split.stretch(6, 2).ids().collect::<Vec<_>>(), [7, 8]);
    }

    #[test]
    fn every_kind_of_damage_is_named() {
        let complaints = [
            complaint(|f| fs::remove_file(f.join("shards.json")).unwrap()),
            complaint(|f| fs::write(f.join("shards.json"), "{").unwrap()),
            complaint(|f| fs::remove_file(f.join("train-00001.roles")).unwrap()),
            complaint(|f| edit(&f.join("train-00000.bin"), |b| b.truncate(7))),
            complaint(|f| edit(&f.join("train-00001.roles"), |b| b.truncate(3))),
            complaint(|f| edit(&f.join("train-00000.idx"), |b| b.truncate(14))),
            complaint(|f| edit(&f.join("train-00000.idx"), |b| b[0] = 1)),
            complaint(|f| edit(&f.join("train-00000.idx"), |b| b[14] = 0)),
            complaint(|f| edit(&f.join("train-00000.idx"), |b| b[14] = 5)),
            complaint(|f| edit(&f.join("train-00000.idx"), |b| b[26] = 1)),
            complaint(|f| edit(&f.join("train-00001.bin"), |b| b[2] = 10)),
            complaint(|f| edit(&f.join("train-00001.roles"), |b| b[2] = 0x84)),
            complaint(|f| edit(&f.join("train-00001.roles"), |b| b[2] = 0)),
        ];
        assert_snapshot!(complaints.join("\n"), @"
        cannot read `shards.json`
        cannot parse `shards.json`
        cannot read `train-00001.roles`
        `train-00000.bin` has 7 bytes and must have 10 (as many as shards.json says)
        `train-00001.roles` has 3 bytes and must have 4 (as many as shards.json says)
        `train-00000.idx` has 14 bytes and must have 28 (as many as shards.json says)
        `train-00000.idx` lists document 0 at token 1, which is not the start of the file
        `train-00000.idx` lists document 1 at token 0, which is not after the one before it
        `train-00000.idx` lists document 1 at token 5, which is past the end of the tokens
        `train-00000.idx` gives document 1 the source 1, and there are 1
        `train-00001.bin` holds id 10 at token 1, and the vocabulary has 10
        `train-00001.roles` holds the unknown role 4 at token 2
        `shards.json` counts 9 targets in `train`, and its files hold 8
        ");
    }

    #[test]
    fn a_split_without_documents_is_refused_with_a_remedy() {
        let folder = TempDir::new().unwrap();
        let files = [vec![text(&[1, 2])]];
        write(folder.path(), 10, &[("train", &files), ("test", &[vec![]])]);
        let shards = Shards::open(folder.path()).unwrap();
        let complaint = shards.split("test").unwrap_err();
        let other = shards.split("validation").unwrap_err();
        let said = format!("{complaint}\n{}\n{other}", complaint.help());
        assert_snapshot!(said, @"
        the shards have no `test` documents
        set a larger `test` in the `binarize` stage, or give it more documents
        the shards have no `validation` documents
        ");
    }

    proptest! {
        #[test]
        fn a_record_survives_encoding(start: u64, bytes: u32, source: u16) {
            let record = DocumentRecord { start, bytes, source };
            prop_assert_eq!(DocumentRecord::decode(record.encode()), record);
        }
    }
}
