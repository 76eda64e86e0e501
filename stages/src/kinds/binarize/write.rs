//! Shards on disk: three files that grow side by side.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use tinylm_model::shards::{DocumentRecord, ShardFile, SplitIndex};
use tinylm_pipeline::{At, StageError};

use super::split::NAMES;
use crate::shared::encode::Part;

/// One writer a split.
pub(super) struct Writers {
    splits: [SplitWriter; 3],
    sources: Vec<String>,
}

struct SplitWriter {
    folder: PathBuf,
    name: &'static str,
    tokens_max: u64,
    index: SplitIndex,
    open: Option<OpenShard>,
}

struct OpenShard {
    file: ShardFile,
    tokens: Output,
    roles: Output,
    records: Output,
}

/// A file and its path, for errors.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    fn create(path: PathBuf) -> Result<Self, StageError> {
        let file = File::create_new(&path).at(&path)?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { path, file })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StageError> {
        self.file.write_all(bytes).at(&self.path)
    }

    fn finish(mut self) -> Result<(), StageError> {
        self.file.flush().at(&self.path)
    }
}

impl Writers {
    pub(super) fn new(folder: &Path, tokens_max: u64) -> Self {
        Self {
            splits: NAMES.map(|name| SplitWriter {
                folder: folder.to_owned(),
                name,
                tokens_max,
                index: SplitIndex::default(),
                open: None,
            }),
            sources: Vec::new(),
        }
    }

    /// Appends the documents of a block, each to its split.
    pub(super) fn add(&mut self, part: Part) -> Result<(), StageError> {
        let mut start = 0;
        let mut bytes = Vec::new();
        let sources: Vec<u16> = part
            .sources
            .iter()
            .map(|name| source_number(&mut self.sources, name))
            .collect::<Result<_, _>>()?;
        for document in part.documents {
            let end = start + document.n_tokens;
            let source = sources[document.source];
            bytes.resize(2 * document.n_tokens, 0);
            let (in_file, _) = bytes.as_chunks_mut();
            for (in_file, id) in in_file.iter_mut().zip(&part.ids[start..end]) {
                *in_file = id.to_le_bytes();
            }
            let split = &mut self.splits[document.split];
            split.add(&bytes, &part.roles[start..end], document.bytes, source)?;
            split.index.targets += document.n_targets;
            start = end;
        }
        Ok(())
    }

    /// Closes all files and returns the sources and what each split holds.
    pub(super) fn finish(self) -> Result<(Vec<String>, BTreeMap<String, SplitIndex>), StageError> {
        let mut splits = BTreeMap::new();
        for mut split in self.splits {
            split.close()?;
            if split.index.documents > 0 {
                splits.insert(split.name.to_owned(), split.index);
            }
        }
        Ok((self.sources, splits))
    }
}

/// Returns the number of a source, which is put behind those that are known if it is new.
pub(super) fn source_number(known: &mut Vec<String>, name: &str) -> Result<u16, StageError> {
    let idx = known.iter().position(|source| source == name);
    let idx = idx.unwrap_or_else(|| {
        known.push(name.to_owned());
        known.len() - 1
    });
    u16::try_from(idx).map_err(|_| {
        StageError::new("there are more than 65,536 sources in the documents").is_final()
    })
}

impl SplitWriter {
    fn add(&mut self, ids: &[u8], roles: &[u8], bytes: u32, source: u16) -> Result<(), StageError> {
        let n_tokens = roles.len() as u64;
        let is_full = |open: &OpenShard| open.file.tokens + n_tokens > self.tokens_max;
        if self.open.as_ref().is_some_and(is_full) {
            self.close()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(OpenShard::create(
                &self.folder,
                self.name,
                self.index.files.len(),
            )?),
        };
        let record = DocumentRecord {
            start: open.file.tokens,
            bytes,
            source,
        };
        open.tokens.write(ids)?;
        open.roles.write(roles)?;
        open.records.write(&record.encode())?;
        open.file.tokens += n_tokens;
        open.file.documents += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), StageError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        open.tokens.finish()?;
        open.roles.finish()?;
        open.records.finish()?;
        self.index.tokens += open.file.tokens;
        self.index.documents += open.file.documents;
        self.index.files.push(open.file);
        Ok(())
    }
}

impl OpenShard {
    fn create(folder: &Path, split: &str, n_before: usize) -> Result<Self, StageError> {
        let name = format!("{split}-{n_before:05}.bin");
        let path = folder.join(&name);
        Ok(Self {
            file: ShardFile {
                name,
                tokens: 0,
                documents: 0,
                sources: None,
            },
            roles: Output::create(path.with_extension("roles"))?,
            records: Output::create(path.with_extension("idx"))?,
            tokens: Output::create(path)?,
        })
    }
}
