//! One split: its documents, and stretches of its tokens.

use memmap2::Mmap;

use super::format::{ROLE_MASK, TARGET};

/// The documents of one split, as one stream of tokens over all its files.
#[derive(Debug, Default)]
pub struct Split {
    pub(super) shards: Vec<Shard>,
    pub(super) documents: Vec<Document>,
}

/// Where a document lies in its split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document {
    /// Offset of the first token, counted over all files of the split.
    pub start: u64,
    /// Tokens; never 0.
    pub len: u32,
    pub bytes: u32,
    pub source: u32,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) start: u64,
    pub(super) tokens: Mmap,
    pub(super) roles: Mmap,
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
