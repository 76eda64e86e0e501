//! Documents to ids, roles and targets, in one pass: for shards, and for measuring a model on documents.

use serde::{Deserialize, Serialize};
use tinylm_model::shards::{ROLE_ASSISTANT, ROLE_SYSTEM, ROLE_TEXT, ROLE_USER, TARGET};
use tinylm_pipeline::{StageError, StageIo, choices};

use crate::shared::{
    documents::{Contents, Document, Rows},
    hex::hex,
    template::{Piece, Role, What},
    tokens::{Encoder, Tokenizer, TokensError},
};

choices! {
    /// Which tokens of a dialogue a model learns to write.
    pub enum Targets {
        /// The assistant's words, and the token that ends its turn.
        Assistant = "assistant",
        /// Every token.
        All = "all",
    }
}

/// Documents that one thread encodes.
#[derive(Default)]
pub(crate) struct Block<'a> {
    pub(crate) documents: Vec<Place<'a>>,
}

/// A document, or a part of a raw text, and the split it belongs to.
pub(crate) struct Place<'a> {
    pub(crate) document: Document<'a>,
    pub(crate) split: usize,
    /// The rest of the document is in the next place, so that it counts once.
    pub(crate) is_cut: bool,
}

impl<'a> Place<'a> {
    pub(crate) fn whole(document: Document<'a>, split: usize) -> Self {
        Self {
            document,
            split,
            is_cut: false,
        }
    }

    pub(crate) fn cut(document: Document<'a>, split: usize) -> Self {
        Self {
            document,
            split,
            is_cut: true,
        }
    }
}

/// A block's tokens, document by document.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) ids: Vec<u16>,
    pub(crate) roles: Vec<u8>,
    pub(crate) documents: Vec<Encoded>,
    /// The names that documents' `source` counts into.
    pub(crate) sources: Vec<String>,
    pub(crate) rejected: Vec<Rejected>,
    pub(crate) n_read: u64,
    pub(crate) n_dialogues: u64,
    /// Pairs of answers, each of which is two documents: the chosen one and the rejected one.
    pub(crate) n_pairs: u64,
    /// Words, by white space, and unknown ids of all contents.
    pub(crate) n_words: u64,
    pub(crate) n_content_tokens: u64,
    pub(crate) n_unknown: u64,
    pub(crate) n_empty: u64,
}

/// One document's place in its [`Part`].
pub(crate) struct Encoded {
    pub(crate) split: usize,
    pub(crate) n_tokens: usize,
    pub(crate) n_targets: u64,
    /// Bytes of contents.
    pub(crate) bytes: u32,
    pub(crate) source: usize,
}

/// A document that cannot be written with this vocabulary.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Rejected {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) reason: String,
}

pub(crate) fn encode(
    block: &Block,
    tokenizer: &Tokenizer,
    targets: Targets,
    io: &StageIo,
) -> Result<Part, StageError> {
    if io.is_cancelled() {
        return Err(StageError::cancelled());
    }
    let mut writer = DocumentEncoder {
        encoder: tokenizer.encoder(),
        unknown_id: tokenizer.unknown_id(),
        targets,
        part: Part::default(),
    };
    for Place {
        document,
        split,
        is_cut,
    } in &block.documents
    {
        writer.part.n_read += u64::from(!is_cut);
        let is_dialogue = matches!(document.contents, Contents::Dialogue(_));
        writer.part.n_dialogues += u64::from(is_dialogue);
        match tokenizer.pieces_of_pair(document.contents) {
            Some(pair) => writer.pair(document, *split, &pair),
            None => {
                let pieces = tokenizer.pieces_of(document.contents);
                writer.document(document, *split, &pieces);
            }
        }
    }
    Ok(writer.part)
}

/// A document as training would read it.
pub(crate) struct EncodedDocument {
    pub(crate) ids: Vec<u16>,
    pub(crate) roles: Vec<u8>,
    /// Bytes of contents.
    pub(crate) bytes: u32,
    pub(crate) source: String,
}

/// Returns documents as shards would hold them; those that cannot be encoded are left out.
pub(crate) fn encode_documents(
    rows: &Rows,
    tokenizer: &Tokenizer,
    io: &StageIo,
) -> Result<Vec<EncodedDocument>, StageError> {
    let places = rows.iter().map(|document| Place::whole(document, 0));
    let block = Block {
        documents: places.collect(),
    };
    let part = encode(&block, tokenizer, Targets::Assistant, io)?;
    let (mut ids, mut roles) = (part.ids.into_iter(), part.roles.into_iter());
    let documents = part.documents.into_iter();
    let documents = documents.map(|document| EncodedDocument {
        ids: ids.by_ref().take(document.n_tokens).collect(),
        roles: roles.by_ref().take(document.n_tokens).collect(),
        bytes: document.bytes,
        source: part.sources[document.source].clone(),
    });
    // Nobody is measured on answers that were rejected.
    let step = if part.n_pairs > 0 { 2 } else { 1 };
    Ok(documents.step_by(step).collect())
}

struct DocumentEncoder<'a> {
    encoder: Encoder<'a>,
    unknown_id: Option<u32>,
    targets: Targets,
    part: Part,
}

impl DocumentEncoder<'_> {
    /// Appends both answers to a prompt, or neither.
    fn pair(&mut self, document: &Document, split: usize, answers: &[Vec<Piece>; 2]) {
        let (n_documents, n_tokens) = (self.part.documents.len(), self.part.ids.len());
        let (n_rejected, n_empty) = (self.part.rejected.len(), self.part.n_empty);
        self.targets = Targets::Assistant;
        for pieces in answers {
            let start = self.part.ids.len();
            self.document(document, split, pieces);
            let n_targets = only_last(&mut self.part.roles[start..]);
            if let Some(encoded) = self
                .part
                .documents
                .get_mut(n_documents..)
                .and_then(<[_]>::last_mut)
            {
                encoded.n_targets = n_targets;
            }
        }
        if self.part.documents.len() == n_documents + 2 {
            self.part.n_pairs += 1;
            return;
        }
        self.part.documents.truncate(n_documents);
        self.part.ids.truncate(n_tokens);
        self.part.roles.truncate(n_tokens);
        self.part.rejected.truncate(n_rejected + 1);
        self.part.n_empty = n_empty + u64::from(self.part.rejected.len() == n_rejected);
    }

    fn document(&mut self, document: &Document, split: usize, pieces: &[Piece]) {
        let is_empty = |piece: &Piece| piece.what == What::Content && !piece.text.is_empty();
        if !pieces.iter().any(is_empty) {
            self.part.n_empty += 1;
            return;
        }
        let start = self.part.ids.len();
        match self.pieces(pieces, matches!(document.contents, Contents::Text(_))) {
            Ok(bytes) => {
                let source = self.source(document.source);
                let roles = &self.part.roles[start..];
                self.part.documents.push(Encoded {
                    split,
                    n_tokens: roles.len(),
                    n_targets: roles.iter().filter(|&&role| role & TARGET != 0).count() as u64,
                    bytes,
                    source,
                });
            }
            Err(error) => {
                self.part.ids.truncate(start);
                self.part.roles.truncate(start);
                self.part.rejected.push(Rejected {
                    id: hex(&document.id),
                    source: document.source.to_owned(),
                    reason: error.to_string(),
                });
            }
        }
    }

    fn source(&mut self, name: &str) -> usize {
        let sources = &mut self.part.sources;
        let known = sources.iter().rposition(|source| source == name);
        known.unwrap_or_else(|| {
            sources.push(name.to_owned());
            sources.len() - 1
        })
    }

    /// Appends the pieces of a document and returns its bytes of content.
    fn pieces(&mut self, pieces: &[Piece], is_raw: bool) -> Result<u32, TokensError> {
        let Self {
            encoder,
            unknown_id,
            targets,
            part,
        } = self;
        let is_all = is_raw || *targets == Targets::All;
        let mut bytes = 0;
        encoder.pieces(pieces, |piece, ids| {
            let is_target = is_all || is_learnt(piece);
            let role = role_byte(piece) | if is_target { TARGET } else { 0 };
            if piece.what == What::Content {
                bytes += piece.text.len();
                part.n_words += n_words(piece.text);
                part.n_content_tokens += ids.len() as u64;
                if let Some(unknown) = unknown_id {
                    part.n_unknown += ids.iter().filter(|id| *id == unknown).count() as u64;
                }
            }
            // A tokenizer with an id above 16 bits cannot be loaded.
            part.ids.extend(ids.iter().map(|&id| id as u16));
            part.roles.resize(part.ids.len(), role);
        })?;
        Ok(u32::try_from(bytes).unwrap_or(u32::MAX))
    }
}

/// Leaves the last answer as what is judged: what an assistant said before belongs to the prompt.
/// Returns how many tokens it has.
fn only_last(roles: &mut [u8]) -> u64 {
    let is_target = |role: &u8| role & TARGET != 0;
    let end = roles.iter().rposition(is_target).map_or(0, |last| last + 1);
    let before = roles[..end].iter().rposition(|role| !is_target(role));
    let start = before.map_or(0, |last| last + 1);
    roles[..start].iter_mut().for_each(|role| *role &= !TARGET);
    (end - start) as u64
}

/// Whether an assistant is to learn to write it.
fn is_learnt(piece: &Piece) -> bool {
    let is_said = piece.what == What::Content || piece.closes;
    is_said && piece.role == Some(Role::Assistant)
}

fn role_byte(piece: &Piece) -> u8 {
    match piece.role {
        None => ROLE_TEXT,
        Some(Role::System) => ROLE_SYSTEM,
        Some(Role::User) => ROLE_USER,
        Some(Role::Assistant | Role::Rejected) => ROLE_ASSISTANT,
    }
}

/// Returns the number of words between white space; other white space than ASCII is rare
/// enough not to be looked for. A word begins behind a space, or first.
fn n_words(text: &str) -> u64 {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | 0x0c | b'\r');
    let bytes = text.as_bytes();
    let Some((first, others)) = bytes.split_first() else {
        return 0;
    };
    // In chunks that a byte can count, which the compiler makes vectors of.
    let before = bytes[..others.len()].chunks(255);
    let begun = before.zip(others.chunks(255)).map(|(before, bytes)| {
        let pairs = before.iter().zip(bytes);
        let begins = pairs.map(|(before, byte)| u8::from(is_space(*before) & !is_space(*byte)));
        u64::from(begins.sum::<u8>())
    });
    u64::from(!is_space(*first)) + begun.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_between_white_space() {
        let long = "word and  word\t".repeat(100);
        for text in [
            "",
            " ",
            "a",
            " a",
            "a ",
            "a b",
            "  two \n words ",
            "é\r\nü",
            &long,
        ] {
            let wanted = text.split_ascii_whitespace().count() as u64;
            assert_eq!(n_words(text), wanted, "{text:?}");
        }
    }
}
