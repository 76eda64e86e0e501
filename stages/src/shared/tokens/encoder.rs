//! Texts and the pieces of dialogues turned into ids.

use tokenizers::pipeline::PipelineToken;

use super::{Tokenizer, error::TokensError, steps::Buffers};
use crate::shared::{
    documents::Contents,
    template::{Piece, Role, Spacing, What, written},
};

impl Tokenizer {
    /// Returns the ids of a text that somebody wrote; none of them is a tag's.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokensError> {
        let mut ids = Vec::with_capacity(text.len() / 4);
        let is_bare = !text.is_empty() && !text.starts_with(' ');
        let space = is_bare && self.spacing == Spacing::Everywhere;
        self.encoder().text(text, space, &mut ids)?;
        Ok(ids)
    }

    /// Returns the ids that others' tools give to a text: special tokens are found first, and what
    /// stands between two of them is one text.
    pub fn encode_marked(&self, text: &str) -> Result<Vec<u32>, TokensError> {
        let (mut ids, mut rest) = (Vec::new(), text);
        let mut encoder = self.encoder();
        while !rest.is_empty() {
            let (at, len, id) = self.next_special(rest);
            let (before, space) = (&rest[..at], rest.len() == text.len());
            if !before.is_empty() {
                let space =
                    space && self.spacing == Spacing::Everywhere && !before.starts_with(' ');
                encoder.text(before, space, &mut ids)?;
            }
            ids.extend(id);
            rest = &rest[at + len..];
        }
        Ok(ids)
    }

    /// Returns where the first special token of a text begins, its length and its id; the end
    /// where there is none.
    fn next_special(&self, text: &str) -> (usize, usize, Option<u32>) {
        let specials = self.specials.iter();
        let found = specials.filter_map(|(name, id)| Some((text.find(name)?, name.len(), *id)));
        let first = found.min_by_key(|(at, len, _)| (*at, std::cmp::Reverse(*len)));
        first.map_or((text.len(), 0, None), |(at, len, id)| (at, len, Some(id)))
    }

    /// Returns an encoder, whose buffers serve call after call on one thread.
    pub fn encoder(&self) -> Encoder<'_> {
        Encoder {
            tokenizer: self,
            buffers: Some(self.steps.take_buffers()),
            output: Vec::new(),
            spaced: String::new(),
            ids: Vec::new(),
        }
    }

    /// Returns a dialogue's ids; with `add_generation_prompt` they end where a reply begins.
    pub fn render_chat(
        &self,
        turns: &[(Role, &str)],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, TokensError> {
        let turns = match &self.generation.form {
            Some(form) => form.with_system(turns),
            None => turns.to_vec(),
        };
        let pieces = match add_generation_prompt {
            true => self.form.prompt(turns, self.spacing),
            false => self.form.pieces(turns, self.spacing),
        };
        let mut ids = Vec::new();
        let take = |_: &Piece, some: &[u32]| ids.extend_from_slice(some);
        self.encoder().pieces(&pieces, take)?;
        Ok(ids)
    }

    /// Returns the pieces of a document, framed and spaced as this tokenizer needs it; of a pair of
    /// answers, with the chosen one.
    pub(crate) fn pieces_of<'t>(&'t self, contents: Contents<'t>) -> Vec<Piece<'t>> {
        match (contents.chosen(), &self.generation.form) {
            (Contents::Text(text), _) => self.form.text_pieces(text, self.spacing),
            (Contents::Dialogue(turns), None) => self.form.pieces(turns.iter(), self.spacing),
            (Contents::Dialogue(turns), Some(_)) => {
                let turns: Vec<(Role, &str)> = turns.iter().collect();
                self.pieces_of_turns(&turns)
            }
        }
    }

    /// Returns the pieces of both dialogues of a pair of answers, the chosen one's first; nothing of
    /// another document.
    pub(crate) fn pieces_of_pair<'t>(
        &'t self,
        contents: Contents<'t>,
    ) -> Option<[Vec<Piece<'t>>; 2]> {
        let worse = contents.rejected()?;
        let Contents::Dialogue(turns) = contents.chosen() else {
            return None;
        };
        let turns: Vec<(Role, &str)> = turns.iter().collect();
        let [prompt @ .., chosen] = &turns[..] else {
            return None;
        };
        let ending_in = |answer| self.pieces_of_turns(&[prompt, &[answer]].concat());
        Some([ending_in(*chosen), ending_in((Role::Assistant, worse))])
    }

    fn pieces_of_turns<'t>(&'t self, turns: &[(Role, &'t str)]) -> Vec<Piece<'t>> {
        match &self.generation.form {
            None => self.form.pieces(turns.iter().copied(), self.spacing),
            Some(form) => self.form.pieces(form.with_system(turns), self.spacing),
        }
    }
}

/// Encodes texts one after the other without allocating for each.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Until they are given back.
    buffers: Option<Buffers>,
    output: Vec<PipelineToken>,
    spaced: String,
    /// Ids of the piece at hand.
    ids: Vec<u32>,
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        if let Some(buffers) = self.buffers.take() {
            self.tokenizer.steps.give_back(buffers);
        }
    }
}

impl Encoder<'_> {
    /// Hands over each piece of a document with its ids, which are those of the document
    /// as one text.
    pub fn pieces<'p>(
        &mut self,
        pieces: &[Piece<'p>],
        mut take: impl FnMut(&Piece<'p>, &[u32]),
    ) -> Result<(), TokensError> {
        let mut ids = std::mem::take(&mut self.ids);
        let mut pieces = pieces.iter().peekable();
        while let Some(piece) = pieces.next() {
            ids.clear();
            if let Some(content) = pieces.next_if(|content| are_joined(piece, content)) {
                let n_of_tag = self.joined(piece, content, &mut ids)?;
                take(piece, &ids[..n_of_tag]);
                take(content, &ids[n_of_tag..]);
            } else {
                self.piece(piece, &mut ids)?;
                take(piece, &ids);
            }
        }
        self.ids = ids;
        Ok(())
    }

    /// Appends the ids of one piece by itself.
    fn piece(&mut self, piece: &Piece<'_>, ids: &mut Vec<u32>) -> Result<(), TokensError> {
        match piece.what {
            What::Content => self.text(piece.text, piece.space, ids),
            What::Special(name) => {
                let id = self.tokenizer.special(name);
                ids.push(id.ok_or_else(|| self.tokenizer.missing(name))?);
                Ok(())
            }
            What::Tag => match self.tokenizer.tag(piece) {
                Some(known) => {
                    ids.extend_from_slice(known);
                    Ok(())
                }
                None => self.text(piece.text, piece.space, ids),
            },
        }
    }

    /// Appends the ids of a tag and a content that are cut as one text; returns how many
    /// are the tag's. A token of both is the content's.
    fn joined(
        &mut self,
        tag: &Piece<'_>,
        content: &Piece<'_>,
        ids: &mut Vec<u32>,
    ) -> Result<usize, TokensError> {
        let mut of_tag = Vec::new();
        self.piece(tag, &mut of_tag)?;
        let text = written(&[
            Piece {
                space: false,
                ..*tag
            },
            *content,
        ]);
        self.text(&text, tag.space, ids)?;
        let same = of_tag.iter().zip(ids.iter()).take_while(|(a, b)| a == b);
        Ok(same.count())
    }

    /// Appends the ids of a text without special tokens, where `space` behind a space.
    fn text(&mut self, text: &str, space: bool, ids: &mut Vec<u32>) -> Result<(), TokensError> {
        let Self {
            tokenizer,
            buffers,
            output,
            spaced,
            ..
        } = self;
        let steps = &tokenizer.steps;
        let buffers = buffers.get_or_insert_with(|| steps.take_buffers());
        let mut text = text;
        if tokenizer.puts_space_before(text, space) {
            spaced.clear();
            spaced.push(' ');
            spaced.push_str(text);
            text = spaced;
        }
        output.clear();
        let encoded = steps.encode(text, buffers, output);
        encoded.map_err(|reason| TokensError::Encode {
            bytes: text.len(),
            reason,
        })?;
        let reserved = &tokenizer.reserved;
        if output.iter().any(|token| reserved.contains(token.id())) {
            return spell_out(tokenizer, output, ids);
        }
        ids.extend_from_slice(PipelineToken::cast_slice(output));
        Ok(())
    }
}

/// Whether a tag's white space and a content's may be one token.
fn are_joined(tag: &Piece, content: &Piece) -> bool {
    (tag.what, content.what) == (What::Tag, What::Content)
        && content.text.starts_with(char::is_whitespace)
        && tag.text.ends_with(char::is_whitespace)
}

/// Copies ids, with those that only a tag may have written out in others.
pub(super) fn spell_out(
    tokenizer: &Tokenizer,
    output: &[PipelineToken],
    ids: &mut Vec<u32>,
) -> Result<(), TokensError> {
    for token in output {
        let id = token.id();
        if !tokenizer.reserved.contains(id) {
            ids.push(id);
            continue;
        }
        let spelling = tokenizer.spellings.get(&id);
        match spelling.and_then(|spelling| spelling.ids.as_ref()) {
            Some(spelt) => ids.extend_from_slice(spelt),
            None => {
                let name = spelling.map_or_else(String::new, |spelling| spelling.name.clone());
                return Err(TokensError::Unspellable { name });
            }
        }
    }
    Ok(())
}
