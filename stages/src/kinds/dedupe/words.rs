//! Documents as words and n-grams of words, for comparing.

use crate::shared::{documents::Document, template::Role};

/// The compared part of a document: who says what, system prompts left out.
pub(super) fn compared<'a>(
    document: &Document<'a>,
) -> impl Iterator<Item = (u8, &'a str)> + use<'a> {
    let compared = document.contents.iter();
    let compared = compared.filter(|(role, _)| *role != Some(Role::System));
    compared.map(|(role, text)| (role.map_or(0, |role| 1 + role as u8), text))
}

/// Appends `text` with case and spacing evened out: no space at either end, one between any
/// two words.
pub(super) fn even_out(text: &str, evened: &mut Vec<u8>) {
    let start = evened.len();
    // Lower case takes at most half as many bytes again.
    evened.resize(start + text.len() + text.len().div_ceil(2), 0);
    let mut out = Evened {
        places: &mut evened[start..],
        n: 0,
        is_behind_space: true,
    };
    let mut at = 0;
    while at < text.len() {
        let chunk = text.as_bytes()[at..].first_chunk();
        let n_even = chunk.map_or(0, |chunk| out.put_even(chunk));
        at += n_even;
        if n_even == CHUNK_BYTES {
            continue;
        }
        // Something else follows; letters that are not ASCII seldom come alone.
        for c in text[at..].chars() {
            out.put(c);
            at += c.len_utf8();
            if c.is_ascii() {
                break;
            }
        }
    }
    let n = out.n - usize::from(out.n > 0 && out.is_behind_space);
    evened.truncate(start + n);
}

const CHUNK_BYTES: usize = 16;

/// Where evened text goes.
struct Evened<'a> {
    /// There is room for all that will come.
    places: &'a mut [u8],
    n: usize,
    /// The last thing put was a space, or nothing was put.
    is_behind_space: bool,
}

impl Evened<'_> {
    /// Puts the start of a chunk that is even but for case, mostly all of it, and returns
    /// its length. Written so that the compiler makes vectors of it.
    fn put_even(&mut self, chunk: &[u8; CHUNK_BYTES]) -> usize {
        let spaces = flags(chunk, |byte| byte == b' ');
        let behind_spaces = spaces << 8 | u128::from(self.is_behind_space);
        let odd = flags(chunk, |byte| !byte.is_ascii() | is_tab_or_line_end(byte));
        let n_even = (odd | spaces & behind_spaces).trailing_zeros() as usize / 8;
        // Bytes written too many are written over.
        let places = &mut self.places[self.n..self.n + CHUNK_BYTES];
        places.copy_from_slice(&chunk.map(|byte| byte.to_ascii_lowercase()));
        self.n += n_even;
        if let Some(last) = n_even.checked_sub(1) {
            self.is_behind_space = chunk[last] == b' ';
        }
        n_even
    }

    fn put(&mut self, c: char) {
        let is_space = c.is_whitespace();
        if is_space {
            // Of several, each is written over the one before it.
            self.places[self.n] = b' ';
            self.n += usize::from(!self.is_behind_space);
        } else if c.is_ascii() {
            self.places[self.n] = c.to_ascii_lowercase() as u8;
            self.n += 1;
        } else {
            for lower in c.to_lowercase() {
                self.n += lower.encode_utf8(&mut self.places[self.n..]).len();
            }
        }
        self.is_behind_space = is_space;
    }
}

/// Returns a byte of one or zero for each byte, in order.
fn flags(chunk: &[u8; CHUNK_BYTES], is_set: impl Fn(u8) -> bool) -> u128 {
    u128::from_le_bytes(chunk.map(|byte| u8::from(is_set(byte))))
}

fn is_tab_or_line_end(byte: u8) -> bool {
    byte.wrapping_sub(b'\t') < 5
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

    #[test]
    fn case_and_spacing_are_evened_out_and_nothing_else() {
        let evened = |text: &str| {
            let mut evened = Vec::new();
            even_out(text, &mut evened);
            String::from_utf8(evened).unwrap()
        };
        assert_eq!(evened("  The\tCat \n Été "), "the cat été");
        let pieces = [
            "A", "The Cat", " ", "  ", "\t", "\r\n", "\u{b}", "É", "\u{a0}", "\u{85}", "Ⱥ",
        ];
        let long = "Twenty-one LETTERS, and more";
        let n_pieces = pieces.len();
        for n in 0..n_pieces.pow(3) {
            let [a, b, c] =
                [n / n_pieces.pow(2), n / n_pieces, n].map(|idx| pieces[idx % n_pieces]);
            for text in [format!("{a}{b}{c}"), format!("{a}{long}{b}{long}{c}")] {
                let words = text.split_whitespace();
                let words: Vec<String> = words.map(str::to_lowercase).collect();
                assert_eq!(evened(&text), words.join(" "), "{text:?}");
            }
        }
        assert_eq!(evened(""), "");
        assert_ne!(evened("1+1"), evened("1-1"));
    }

    #[test]
    fn jaccard_is_the_common_share() {
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4]), 0.5);
        assert_eq!(jaccard(&[1], &[2]), 0.0);
        assert_eq!(jaccard(&[7, 9], &[7, 9]), 1.0);
    }
}
