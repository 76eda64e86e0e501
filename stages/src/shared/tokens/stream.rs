//! Ids turned into text while they come.

use super::{Tokenizer, error::TokensError};

/// How many ids a stream waits for a character to become whole: the longest has four bytes.
const UNFINISHED_MAX: usize = 4;

impl Tokenizer {
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream {
            tokenizer: self,
            ids: Vec::new(),
            printed: 0,
        }
    }
}

/// Turns ids into text as they come, whole characters only.
///
/// The text of an id can depend on the one before it (a first space is dropped), so the
/// last ids printed are decoded again together with the new ones.
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// How many of `ids` have been printed.
    printed: usize,
}

impl DecodeStream<'_> {
    /// Takes one id and returns the text that can be printed now: often a word, sometimes nothing.
    pub fn push(&mut self, id: u32) -> Result<String, TokensError> {
        self.ids.push(id);
        let waiting = self.ids.len() - self.printed;
        let (before, text) = self.texts()?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) && waiting < UNFINISHED_MAX {
            return Ok(String::new());
        }
        let new = new_part(&before, &text).to_owned();
        if new.is_empty() {
            // A tag shows nothing, and the next word still needs the one before it.
            return Ok(new);
        }
        self.ids.drain(..self.printed);
        self.printed = self.ids.len();
        Ok(new)
    }

    /// Returns what was still waiting for the rest of a character.
    pub fn finish(self) -> Result<String, TokensError> {
        let (before, text) = self.texts()?;
        Ok(new_part(&before, &text).to_owned())
    }

    fn texts(&self) -> Result<(String, String), TokensError> {
        let before = self.tokenizer.decode(&self.ids[..self.printed])?;
        let text = self.tokenizer.decode(&self.ids)?;
        Ok((before, text))
    }
}

/// Returns what `text` has beyond `before`; where a decoder changed what it had printed
/// (a space before a full stop), beyond what they share.
fn new_part<'a>(before: &str, text: &'a str) -> &'a str {
    let same = before.chars().zip(text.chars()).take_while(|(a, b)| a == b);
    let len: usize = same.map(|(c, _)| c.len_utf8()).sum();
    &text[len..]
}
