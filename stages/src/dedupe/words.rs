//! Documents as words and n-grams of words, for comparing.

use crate::{documents::Document, template::Role};

/// What is compared of a document: who says what, system prompts left out.
pub(super) fn compared<'a>(
    document: &Document<'a>,
) -> impl Iterator<Item = (u8, &'a str)> + use<'a> {
    let text = document.text;
    let whole = document.turns.is_empty().then_some((0, text));
    let spans: Vec<(u8, usize, usize)> = document
        .turns
        .iter()
        .filter(|turn| turn.role != Role::System)
        .map(|turn| (1 + turn.role as u8, turn.start as usize, turn.end as usize))
        .collect();
    let turns = spans
        .into_iter()
        .filter_map(move |(role, start, end)| Some((role, text.get(start..end)?)));
    whole.into_iter().chain(turns)
}

/// Appends `text` with case and spacing evened out.
pub(super) fn even_out(text: &str, evened: &mut String) {
    if is_evenly_spaced(text) {
        let start = evened.len();
        evened.push_str(text);
        evened[start..].make_ascii_lowercase();
        return;
    }
    let mut space_due = false;
    for word in text.split_whitespace() {
        if space_due {
            evened.push(' ');
        }
        space_due = true;
        if word.is_ascii() {
            let start = evened.len();
            evened.push_str(word);
            evened[start..].make_ascii_lowercase();
        } else {
            evened.extend(word.chars().flat_map(char::to_lowercase));
        }
    }
}

/// Whether a text is ASCII, with one space between any two words and none around them:
/// as most are, and written so that the compiler makes vectors of it.
fn is_evenly_spaced(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return true;
    };
    let is_odd = |byte: u8| byte >= 128 || (b'\t'..=b'\r').contains(&byte);
    let odd = bytes.iter().fold(false, |odd, byte| odd | is_odd(*byte));
    let pairs = bytes.iter().zip(&bytes[1..]);
    let doubled = pairs.fold(false, |doubled, (a, b)| {
        doubled | ((*a == b' ') & (*b == b' '))
    });
    !(odd || doubled || *first == b' ' || *last == b' ')
}

/// The n-grams of documents, each as a number.
#[derive(Default)]
pub(super) struct Ngrams {
    words: Vec<u64>,
}

const WORD_START: u64 = 0xcbf2_9ce4_8422_2325;
const WORD_FACTOR: u64 = 0x0000_0100_0000_01b3;
const GRAM_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Ngrams {
    /// Replaces `grams` by those of a document, in order; a document shorter than `n` words
    /// has one, and one without words none.
    pub(super) fn of(&mut self, document: &Document, n: usize, grams: &mut Vec<u64>) {
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
pub(super) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Returns the share of n-grams that two sorted sets have in common.
pub(super) fn jaccard(a: &[u64], b: &[u64]) -> f32 {
    let (mut i, mut j, mut common) = (0, 0, 0_usize);
    while i < a.len() && j < b.len() {
        let (x, y) = (a[i], b[j]);
        common += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    let all = a.len() + b.len() - common;
    if all == 0 {
        1.0
    } else {
        common as f32 / all as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grams(text: &str, n: usize) -> Vec<u64> {
        let document = Document {
            id: [0; 32],
            group: [0; 32],
            source: "",
            text,
            turns: &[],
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

    #[test]
    fn case_and_spacing_are_evened_out_and_nothing_else() {
        let evened = |text: &str| {
            let mut evened = String::new();
            even_out(text, &mut evened);
            evened
        };
        assert_eq!(evened("  The\tCat \n Été "), "the cat été");
        for text in [
            "", " ", "A", "The Cat", "The  Cat", " The", "The ", "A\tB", "A\u{b}B",
        ] {
            let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
            assert_eq!(evened(text), words.join(" "), "{text:?}");
        }
        assert_ne!(evened("1+1"), evened("1-1"));
    }

    #[test]
    fn jaccard_is_the_common_share() {
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4]), 0.5);
        assert_eq!(jaccard(&[1], &[2]), 0.0);
        assert_eq!(jaccard(&[7, 9], &[7, 9]), 1.0);
    }
}
