//! Documents as n-grams of words, for finding what two texts have in common.

use super::{documents::Document, template::Role};

/// The compared part of a document: who says what, system prompts left out.
pub(crate) fn compared<'a>(
    document: &Document<'a>,
) -> impl Iterator<Item = (u8, &'a str)> + use<'a> {
    let compared = document.contents.iter();
    let compared = compared.filter(|(role, _)| *role != Some(Role::System));
    compared.map(|(role, text)| (role.map_or(0, |role| 1 + role as u8), text))
}

/// The n-grams of documents, each as a number.
#[derive(Default)]
pub(crate) struct Ngrams {
    words: Vec<u64>,
}

const WORD_START: u64 = 0xcbf2_9ce4_8422_2325;
const WORD_FACTOR: u64 = 0x0000_0100_0000_01b3;
const GRAM_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Ngrams {
    /// Replaces `grams` by those of a document, in order; a document shorter than `n` words
    /// has one, and one without words none.
    pub(crate) fn of(&mut self, document: &Document, n: usize, grams: &mut Vec<u64>) {
        self.words.clear();
        for (_, text) in compared(document) {
            push_words(text, &mut self.words);
        }
        grams.clear();
        if self.words.is_empty() {
            return;
        }
        let n = n.min(self.words.len());
        let leaving = GRAM_FACTOR.wrapping_pow(n as u32);
        let mut rolling: u64 = 0;
        for (idx, word) in self.words.iter().enumerate() {
            rolling = rolling.wrapping_mul(GRAM_FACTOR).wrapping_add(*word);
            if idx >= n {
                rolling = rolling.wrapping_sub(leaving.wrapping_mul(self.words[idx - n]));
            }
            if idx + 1 >= n {
                grams.push(mix(rolling));
            }
        }
    }
}

/// Appends a number for each run of letters and digits, ignoring case.
fn push_words(text: &str, words: &mut Vec<u64>) {
    let mut hash = WORD_START;
    let mut add = |c: Option<u32>| match c {
        Some(c) => hash = (hash ^ u64::from(c)).wrapping_mul(WORD_FACTOR),
        None if hash != WORD_START => {
            words.push(mix(hash));
            hash = WORD_START;
        }
        None => {}
    };
    for c in text.chars() {
        if c.is_ascii() {
            let letter = c
                .is_ascii_alphanumeric()
                .then(|| u32::from(c.to_ascii_lowercase()));
            add(letter);
        } else if c.is_alphanumeric() {
            c.to_lowercase().for_each(|c| add(Some(u32::from(c))));
        } else {
            add(None);
        }
    }
    add(None);
}

/// Spreads a number over all bits (the finaliser of SplitMix64).
pub(crate) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::documents::Contents;

    fn grams(text: &str, n: usize) -> Vec<u64> {
        let document = Document {
            id: [0; 32],
            group: [0; 32],
            source: "",
            contents: Contents::Text(text),
        };
        let mut grams = Vec::new();
        Ngrams::default().of(&document, n, &mut grams);
        grams
    }

    #[test]
    fn an_ngram_depends_on_its_words_alone() {
        let a = grams("The cat sat, on THE mat", 3);
        let b = grams("one two the  cat sat on the mat?", 3);
        assert_eq!(a.len(), 4);
        assert_eq!(a[..], b[2..]);
        assert_ne!(a[0], a[1]);
        assert_ne!(grams("cat the sat", 3), grams("the cat sat", 3));
    }

    #[test]
    fn short_and_wordless_documents() {
        assert_eq!(grams("two words", 5).len(), 1);
        assert_eq!(grams("Two, words!", 5), grams("two words", 5));
        assert!(grams("... !", 5).is_empty());
        assert_eq!(grams("ÉTÉ", 1), grams("été", 1));
    }
}
