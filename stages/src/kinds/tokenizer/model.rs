//! Each way of cutting words: its form as `tokenizer.json`, and how it is learnt.

use std::{collections::HashMap, sync::atomic::AtomicBool};

use serde_json::{Map, Value, json};
use tinylm_pipeline::{StageError, choices};

use super::bpe::{self, Limits, Ties, Word};
use crate::shared::tokens::{
    byte_level_char,
    json::{SPACE, bpe_json, byte_level_decoder, byte_level_pre_tokenizer, pieces_decoder},
    unigram,
};

choices! {
    /// How words are cut into tokens.
    pub enum Algorithm {
        /// Byte-pair merges over bytes, as GPT-2: any text, no unknown token.
        ByteLevelBpe = "byte-level-bpe",
        /// Byte-pair merges over characters with spaces marked, as Llama: what it has not seen falls back to bytes.
        SentencepieceBpe = "sentencepiece-bpe",
        /// The most probable cut under a model of pieces, as T5; falls back to bytes.
        Unigram = "unigram",
        /// Longest match from the left with `##` for what goes on, as BERT.
        Wordpiece = "wordpiece",
        /// Whole lower-cased words without punctuation.
        WordLevel = "word-level",
    }
}

/// The settings of learning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) algorithm: Algorithm,
    pub(super) vocab_size: usize,
    pub(super) min_frequency: u64,
    pub(super) ties: Ties,
    pub(super) lowercase: bool,
    pub(super) coverage: f64,
}

/// A word and how often it was found, in an order of its own.
pub(super) type Counted = (String, u64);

pub(super) const UNKNOWN: &str = "<unk>";
/// The same as Python's `\W+`; the engines of other languages each mean something else by that.
const NO_WORD: &str = r"[^\p{L}\p{N}_]+";
const CONTINUES: &str = "##";
/// Above this many characters WordPiece takes a word as unknown without looking at it.
const WORD_CHARS_MAX: usize = 100;
/// Below any score that is learnt: a byte is only written where no piece fits.
const BYTE_SCORE: f64 = -1000.0;

impl Plan {
    pub(super) fn normalizer(&self) -> Value {
        match self.algorithm {
            Algorithm::Wordpiece => json!({
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": true,
                "strip_accents": null,
                "lowercase": self.lowercase,
            }),
            // All but letters, digits and underscores only separates words. A `Split` on `\w+`
            // would say it shorter, and the crate's reader does not take patterns of one's own there.
            Algorithm::WordLevel => {
                let spaces =
                    json!({"type": "Replace", "pattern": {"Regex": NO_WORD}, "content": " "});
                let lowercase = self.lowercase.then(|| json!({"type": "Lowercase"}));
                let members: Vec<Value> = lowercase.into_iter().chain([spaces]).collect();
                json!({"type": "Sequence", "normalizers": members})
            }
            _ if self.lowercase => json!({"type": "Lowercase"}),
            _ => Value::Null,
        }
    }

    pub(super) fn pre_tokenizer(&self) -> Value {
        match self.algorithm {
            Algorithm::ByteLevelBpe => byte_level_pre_tokenizer(),
            Algorithm::SentencepieceBpe | Algorithm::Unigram => json!({
                "type": "Metaspace",
                "replacement": SPACE,
                "prepend_scheme": "always",
                "split": true,
            }),
            Algorithm::Wordpiece => json!({"type": "BertPreTokenizer"}),
            Algorithm::WordLevel => json!({"type": "WhitespaceSplit"}),
        }
    }

    pub(super) fn decoder(&self) -> Value {
        match self.algorithm {
            Algorithm::ByteLevelBpe => byte_level_decoder(),
            Algorithm::SentencepieceBpe | Algorithm::Unigram => pieces_decoder(),
            Algorithm::Wordpiece => json!({
                "type": "WordPiece",
                "prefix": CONTINUES,
                "cleanup": true,
            }),
            Algorithm::WordLevel => Value::Null,
        }
    }

    /// Whether words are cut further for learning, at characters that no piece should hold
    /// with others (a line's end).
    pub(super) fn cuts_controls(&self) -> bool {
        matches!(
            self.algorithm,
            Algorithm::SentencepieceBpe | Algorithm::Unigram
        )
    }

    /// Returns the name of the token for what cannot be written, where there is one.
    pub(super) fn unknown(&self) -> Option<&'static str> {
        (self.algorithm != Algorithm::ByteLevelBpe).then_some(UNKNOWN)
    }

    /// Learns from `words` and returns the `model` part of `tokenizer.json`.
    pub(super) fn learn(
        &self,
        words: Vec<Counted>,
        cancel: &AtomicBool,
    ) -> Result<Value, StageError> {
        match self.algorithm {
            Algorithm::ByteLevelBpe => self.learn_byte_level(&words, cancel),
            Algorithm::SentencepieceBpe => self.learn_pieces(&words, cancel),
            Algorithm::Wordpiece => self.learn_wordpiece(&words, cancel),
            Algorithm::WordLevel => Ok(self.learn_words(words)),
            Algorithm::Unigram => self.learn_unigram(&words),
        }
    }

    fn limits(&self, prefix: &'static str) -> Limits<'static> {
        Limits {
            n_tokens: self.vocab_size,
            min_frequency: self.min_frequency,
            ties: self.ties,
            prefix,
        }
    }

    fn check_size(&self, n_needed: usize, what: &str) -> Result<(), StageError> {
        if n_needed <= self.vocab_size {
            return Ok(());
        }
        let message = format!(
            "`vocab_size` is {}, and {n_needed} tokens are needed for {what} alone",
            self.vocab_size
        );
        Err(StageError::new(message)
            .help(format!("set `vocab_size` to at least {n_needed}"))
            .is_final())
    }

    fn learn_byte_level(
        &self,
        words: &[Counted],
        cancel: &AtomicBool,
    ) -> Result<Value, StageError> {
        let mut alphabet: Vec<char> = (0..=255).map(byte_level_char).collect();
        alphabet.sort_unstable();
        let mut ids = [0; 256];
        for byte in 0..=255 {
            let found = alphabet.binary_search(&byte_level_char(byte));
            ids[usize::from(byte)] = found.unwrap_or_default() as u32;
        }
        let mut tokens: Vec<String> = alphabet.into_iter().map(String::from).collect();
        self.check_size(tokens.len(), "the bytes")?;
        let parts = |word: &str| word.bytes().map(|byte| ids[usize::from(byte)]).collect();
        let mut words = to_parts(words, parts);
        let merges = bpe::learn(&mut tokens, &mut words, &self.limits(""), cancel)
            .ok_or_else(StageError::cancelled)?;
        Ok(bpe_model(&tokens, &merges, None))
    }

    fn learn_pieces(&self, words: &[Counted], cancel: &AtomicBool) -> Result<Value, StageError> {
        let mut tokens = vec![UNKNOWN.to_owned()];
        tokens.extend((0..=255).map(byte_piece));
        let alphabet = self.alphabet(words);
        let first = tokens.len() as u32;
        tokens.extend(alphabet.iter().map(|c| c.to_string()));
        self.check_size(tokens.len(), "the bytes and characters")?;
        let ids: HashMap<char, u32> = alphabet.into_iter().zip(first..).collect();
        let mut words = to_parts_within(words, |c, _| ids.get(&c).copied());
        let merges = bpe::learn(&mut tokens, &mut words, &self.limits(""), cancel)
            .ok_or_else(StageError::cancelled)?;
        Ok(bpe_model(&tokens, &merges, Some(UNKNOWN)))
    }

    fn learn_wordpiece(&self, words: &[Counted], cancel: &AtomicBool) -> Result<Value, StageError> {
        let alphabet = self.alphabet(words);
        let mut tokens = vec![UNKNOWN.to_owned()];
        tokens.extend(alphabet.iter().map(|c| c.to_string()));
        tokens.extend(alphabet.iter().map(|c| format!("{CONTINUES}{c}")));
        self.check_size(tokens.len(), "the characters")?;
        let n_chars = alphabet.len() as u32;
        let ids: HashMap<char, u32> = alphabet.into_iter().zip(1..).collect();
        let short: Vec<Counted> = words
            .iter()
            .filter(|(word, _)| word.chars().count() <= WORD_CHARS_MAX)
            .cloned()
            .collect();
        let id = |c: char, idx: usize| ids.get(&c).map(|id| id + if idx > 0 { n_chars } else { 0 });
        let mut words = to_parts_within(&short, id);
        let limits = self.limits(CONTINUES);
        bpe::learn(&mut tokens, &mut words, &limits, cancel).ok_or_else(StageError::cancelled)?;
        Ok(json!({
            "type": "WordPiece",
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": CONTINUES,
            "max_input_chars_per_word": WORD_CHARS_MAX,
            "vocab": vocab_map(&tokens),
        }))
    }

    /// Takes the most frequent words; equally frequent ones in the order they were found.
    fn learn_words(&self, mut words: Vec<Counted>) -> Value {
        let is_word = |word: &str| word.len() <= bpe::TOKEN_BYTES_MAX;
        words.retain(|(word, count)| *count >= self.min_frequency && is_word(word));
        words.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut tokens = vec![UNKNOWN.to_owned()];
        let room = self.vocab_size.saturating_sub(1);
        tokens.extend(words.into_iter().map(|(word, _)| word).take(room));
        json!({
            "type": "WordLevel",
            "vocab": vocab_map(&tokens),
            "unk_token": UNKNOWN,
        })
    }

    fn learn_unigram(&self, words: &[Counted]) -> Result<Value, StageError> {
        let alphabet = self.alphabet(words);
        self.check_size(alphabet.len() + 257, "the bytes and characters")?;
        let mut words = words_within(words, &alphabet);
        // A piece must occur twice to be learnt in any case, and most of a small corpus's pieces do
        // so in words that occur once: without those words the cut is some percent longer.
        if self.min_frequency > 2 {
            words.retain(|(_, count)| u64::from(*count) >= self.min_frequency);
        }
        words.sort();
        if words.is_empty() {
            return Err(StageError::new(format!(
                "no word occurs {} times (`min_frequency`)",
                self.min_frequency
            ))
            .is_final());
        }
        let n_pieces = self.vocab_size - 256;
        let mut pieces = unigram::learn(words, n_pieces as u32, UNKNOWN)
            .map_err(|error| StageError::new("cannot learn a unigram model").cause(error))?;
        pieces.extend((0..=255).map(|byte| (byte_piece(byte), BYTE_SCORE)));
        Ok(json!({
            "type": "Unigram",
            "unk_id": 0,
            "vocab": pieces,
            "byte_fallback": true,
        }))
    }

    /// Returns the characters, the most frequent ones first to be taken, until they make
    /// up `coverage` of the text; in their own order.
    fn alphabet(&self, words: &[Counted]) -> Vec<char> {
        let mut counts: HashMap<char, u64> = HashMap::new();
        for (word, count) in words {
            for c in word.chars() {
                *counts.entry(c).or_default() += count;
            }
        }
        let total: u64 = counts.values().sum();
        let mut chars: Vec<(char, u64)> = counts.into_iter().collect();
        chars.sort_by_key(|&(c, count)| (std::cmp::Reverse(count), c));
        let enough = (total as f64 * self.coverage).ceil() as u64;
        let mut covered = 0;
        let mut alphabet: Vec<char> = chars
            .into_iter()
            .take_while(|(_, count)| {
                let wanted = covered < enough;
                covered += count;
                wanted
            })
            .map(|(c, _)| c)
            .collect();
        alphabet.sort_unstable();
        alphabet
    }
}

fn to_parts(words: &[Counted], parts: impl Fn(&str) -> Vec<u32>) -> Vec<Word> {
    let words = words.iter().map(|(word, count)| Word {
        parts: parts(word),
        count: *count,
    });
    words.collect()
}

/// Cuts words at characters that have no id; `id` is asked with the character's place in its word.
fn to_parts_within(words: &[Counted], id: impl Fn(char, usize) -> Option<u32>) -> Vec<Word> {
    let mut cut = Vec::with_capacity(words.len());
    for (word, count) in words {
        let mut parts = Vec::new();
        for (idx, c) in word.chars().enumerate() {
            match id(c, idx) {
                Some(id) => parts.push(id),
                None => cut.push(Word {
                    parts: std::mem::take(&mut parts),
                    count: *count,
                }),
            }
        }
        cut.push(Word {
            parts,
            count: *count,
        });
    }
    cut.retain(|word| word.parts.len() > 1);
    cut
}

/// The same for the words themselves, added up again.
fn words_within(words: &[Counted], alphabet: &[char]) -> Vec<(String, u32)> {
    let mut cut: HashMap<&str, u64> = HashMap::new();
    for (word, count) in words {
        let foreign = |c: char| alphabet.binary_search(&c).is_err();
        for part in word.split(foreign).filter(|part| !part.is_empty()) {
            *cut.entry(part).or_default() += count;
        }
    }
    let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    cut.into_iter()
        .map(|(word, count)| (word.to_owned(), narrow(count)))
        .collect()
}

fn byte_piece(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

fn vocab_map(tokens: &[String]) -> Map<String, Value> {
    let entries = tokens.iter().enumerate();
    entries
        .map(|(id, token)| (token.clone(), Value::from(id)))
        .collect()
}

fn bpe_model(tokens: &[String], merges: &[(u32, u32)], unknown: Option<&str>) -> Value {
    let merges: Vec<[&str; 2]> = merges
        .iter()
        .map(|&(a, b)| [tokens[a as usize].as_str(), tokens[b as usize].as_str()])
        .collect();
    bpe_json(vocab_map(tokens), json!(merges), unknown)
}
