//! Learns byte-pair merges from counted words.
//!
//! The crate's own BPE trainer is not used: it keeps one queue entry for each set of
//! places where a pair was found, so that entries can be equal and the order of a
//! randomly seeded hash map decides between them, and it counts in 32 bits. Here a pair
//! has one count and one list of places, the queue orders pairs totally, and the same
//! words give the same merges on any machine.
//!
//! Where two pairs are equally frequent the older one is merged first, which is what
//! Hugging Face's trainers do; the other choice, the greater one by its bytes, is what
//! GPT-2's description of the algorithm gives.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
};

use tinylm_pipeline::choices;

choices! {
    /// Which of two equally frequent pairs is merged first.
    pub enum Ties {
        /// The one whose parts were learnt earlier, as Hugging Face's trainers do.
        Older = "older",
        /// The one that is greater when compared byte by byte, as GPT-2's authors do.
        Greater = "greater",
    }
}

type Pair = (u32, u32);

/// The longest token that is learnt: the library that encodes takes none of 65,536 bytes, and a
/// byte-level token is written in up to two bytes for one. Only a run of equal bytes gets there.
pub(super) const TOKEN_BYTES_MAX: usize = 0x7fff;

/// Where to stop, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits<'a> {
    /// Tokens to have in the end, those given at the start included.
    pub(super) n_tokens: usize,
    /// Pairs found less often are not merged.
    pub(super) min_frequency: u64,
    pub(super) ties: Ties,
    /// Taken off the second part when two are joined (`##`).
    pub(super) prefix: &'a str,
}

/// A word as the ids of its parts, and how often it occurs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) parts: Vec<u32>,
    pub(super) count: u64,
}

/// Extends `tokens` by merging, and returns the merges in order; `None` when cancelled.
pub(super) fn learn(
    tokens: &mut Vec<String>,
    words: &mut [Word],
    limits: &Limits<'_>,
    cancel: &AtomicBool,
) -> Option<Vec<Pair>> {
    let mut ids: HashMap<String, u32> = HashMap::with_capacity(limits.n_tokens);
    for (id, token) in tokens.iter().enumerate() {
        ids.entry(token.clone()).or_insert(id as u32);
    }
    let mut pairs = Pairs::count(words);
    let mut queue = Queue::new(limits.ties, tokens);
    for (&pair, &count) in &pairs.counts {
        queue.push(pair, count);
    }
    let mut merges = Vec::new();
    while tokens.len() < limits.n_tokens {
        if merges.len() % 64 == 0 && cancel.load(Ordering::Relaxed) {
            return None;
        }
        let Some((pair, count)) = queue.pop() else {
            break;
        };
        let now = pairs.counts.get(&pair).copied().unwrap_or(0);
        if now != count {
            queue.push(pair, now);
            continue;
        }
        if count < limits.min_frequency.max(1) as i64 {
            break;
        }
        let (a, b) = (&tokens[pair.0 as usize], &tokens[pair.1 as usize]);
        let joined = format!("{a}{}", b.strip_prefix(limits.prefix).unwrap_or(b));
        if joined.len() > TOKEN_BYTES_MAX {
            pairs.counts.remove(&pair);
            continue;
        }
        let id = *ids.entry(joined.clone()).or_insert_with(|| {
            tokens.push(joined);
            queue.add_token(tokens);
            tokens.len() as u32 - 1
        });
        merges.push(pair);
        for (changed, by) in pairs.merge(words, pair, id) {
            let count = pairs.counts.entry(changed).or_default();
            *count += by;
            if by > 0 {
                queue.push(changed, *count);
            } else if *count <= 0 {
                pairs.counts.remove(&changed);
            }
        }
        pairs.counts.remove(&pair);
        pairs.places.remove(&pair);
    }
    Some(merges)
}

/// How often each pair occurs, and in which words.
struct Pairs {
    counts: HashMap<Pair, i64>,
    places: HashMap<Pair, Vec<u32>>,
}

impl Pairs {
    fn count(words: &[Word]) -> Self {
        let mut this = Self {
            counts: HashMap::new(),
            places: HashMap::new(),
        };
        for (word_idx, word) in words.iter().enumerate() {
            for pair in word.parts.windows(2) {
                let pair = (pair[0], pair[1]);
                *this.counts.entry(pair).or_default() += word.count as i64;
                this.found(pair, word_idx as u32);
            }
        }
        this
    }

    fn found(&mut self, pair: Pair, word_idx: u32) {
        let places = self.places.entry(pair).or_default();
        if places.last() != Some(&word_idx) {
            places.push(word_idx);
        }
    }

    /// Joins every occurrence of `pair` and returns by how much other pairs changed.
    fn merge(&mut self, words: &mut [Word], pair: Pair, id: u32) -> BTreeMap<Pair, i64> {
        let mut changes = BTreeMap::new();
        for word_idx in self.places.remove(&pair).unwrap_or_default() {
            let word = &mut words[word_idx as usize];
            let count = word.count as i64;
            // A place may be out of date, or come twice: then the word does not change.
            let Some(joined) = join(&word.parts, pair, id) else {
                continue;
            };
            for old in word.parts.windows(2) {
                *changes.entry((old[0], old[1])).or_default() -= count;
            }
            for new in joined.windows(2) {
                *changes.entry((new[0], new[1])).or_default() += count;
                if new.contains(&id) {
                    self.found((new[0], new[1]), word_idx);
                }
            }
            word.parts = joined;
        }
        changes.remove(&pair);
        changes
    }
}

/// Returns `parts` with every `pair`, taken from the left, replaced; `None` if there is none.
fn join(parts: &[u32], pair: Pair, id: u32) -> Option<Vec<u32>> {
    let mut joined = Vec::with_capacity(parts.len());
    let mut at = 0;
    while at < parts.len() {
        if parts[at] == pair.0 && parts.get(at + 1) == Some(&pair.1) {
            joined.push(id);
            at += 2;
        } else {
            joined.push(parts[at]);
            at += 1;
        }
    }
    (joined.len() < parts.len()).then_some(joined)
}

/// Pairs by count, then by the rule for ties. Entries may be out of date.
struct Queue {
    heap: BinaryHeap<(i64, Tie, Pair)>,
    ties: Ties,
    /// The tokens' bytes, shared with the entries; empty where they are not compared.
    bytes: Vec<Arc<[u8]>>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Tie {
    Older(Reverse<Pair>),
    Greater(Arc<[u8]>, Arc<[u8]>),
}

impl Queue {
    fn new(ties: Ties, tokens: &[String]) -> Self {
        let mut this = Self {
            heap: BinaryHeap::new(),
            ties,
            bytes: Vec::new(),
        };
        this.add_token(tokens);
        this
    }

    /// Takes note of the tokens added since the last call.
    fn add_token(&mut self, tokens: &[String]) {
        if self.ties == Ties::Greater {
            let new = tokens.iter().skip(self.bytes.len());
            let bytes: Vec<Arc<[u8]>> = new.map(|token| compared(token)).collect();
            self.bytes.extend(bytes);
        }
    }

    fn push(&mut self, pair: Pair, count: i64) {
        if count <= 0 {
            return;
        }
        let tie = match self.ties {
            Ties::Older => Tie::Older(Reverse(pair)),
            Ties::Greater => {
                let bytes = |id: u32| Arc::clone(&self.bytes[id as usize]);
                Tie::Greater(bytes(pair.0), bytes(pair.1))
            }
        };
        self.heap.push((count, tie, pair));
    }

    fn pop(&mut self) -> Option<(Pair, i64)> {
        self.heap.pop().map(|(count, _, pair)| (pair, count))
    }
}

/// Returns what a token is compared by: the bytes it stands for in a byte-level vocabulary,
/// which are in another order than the characters that stand for them.
fn compared(token: &str) -> Arc<[u8]> {
    let hidden = |c: char| match u32::from(c) {
        c @ 0x100..=0x120 => Some((c - 0x100) as u8),
        c @ 0x121..=0x142 => Some((c - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        c => u8::try_from(c).ok(),
    };
    let bytes: Option<Vec<u8>> = token.chars().map(hidden).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_of_equal_characters_gives_no_token_that_is_too_long() {
        let mut tokens = vec!["a".to_owned()];
        let mut words = [Word {
            parts: vec![0; 200_000],
            count: 2,
        }];
        let limits = Limits {
            n_tokens: 100,
            min_frequency: 1,
            ties: Ties::Older,
            prefix: "",
        };
        learn(&mut tokens, &mut words, &limits, &NEVER).unwrap();
        let longest = tokens.iter().map(String::len).max().unwrap();
        // The library takes less than 65,536 bytes, and a byte may be written in two.
        assert!((8192..1 << 15).contains(&longest), "{longest}");
    }

    static NEVER: AtomicBool = AtomicBool::new(false);

    /// Learns from words of letters and returns the merges as text.
    fn merges(
        words: &[(&str, u64)],
        n_merges: usize,
        min_frequency: u64,
        ties: Ties,
    ) -> Vec<String> {
        let mut letters: Vec<String> = words
            .iter()
            .flat_map(|(word, _)| word.chars().map(String::from))
            .collect();
        letters.sort();
        letters.dedup();
        let id = |c: char| letters.iter().position(|l| *l == c.to_string()).unwrap() as u32;
        let mut counted: Vec<Word> = words
            .iter()
            .map(|(word, count)| Word {
                parts: word.chars().map(id).collect(),
                count: *count,
            })
            .collect();
        let mut tokens = letters.clone();
        let limits = Limits {
            n_tokens: letters.len() + n_merges,
            min_frequency,
            ties,
            prefix: "##",
        };
        let merges = learn(&mut tokens, &mut counted, &limits, &NEVER).unwrap();
        let text = |id: u32| tokens[id as usize].clone();
        merges
            .iter()
            .map(|m| format!("{}+{}", text(m.0), text(m.1)))
            .collect()
    }

    #[test]
    fn the_most_frequent_pair_comes_first_and_rare_ones_never() {
        let words = [("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)];
        let learnt = merges(&words, 6, 2, Ties::Older);
        assert_eq!(learnt, ["e+s", "es+t", "l+o", "lo+w", "e+w", "n+ew"]);
        assert!(merges(&words, 20, 10, Ties::Older).is_empty());
    }

    #[test]
    fn ties_go_to_the_older_or_the_greater_as_asked() {
        let words = [("ab", 3), ("cd", 3)];
        assert_eq!(merges(&words, 2, 1, Ties::Older), ["a+b", "c+d"]);
        assert_eq!(merges(&words, 2, 1, Ties::Greater), ["c+d", "a+b"]);
    }

    #[test]
    fn repeated_letters_are_joined_from_the_left() {
        assert_eq!(
            merges(&[("aaaaa", 1)], 3, 1, Ties::Older),
            ["a+a", "aa+a", "aa+aaa"]
        );
    }

    /// The definition: count everything anew before each merge.
    fn merges_by_definition(words: &[(String, u64)], n_merges: usize) -> Vec<(String, String)> {
        let mut words: Vec<(Vec<String>, u64)> = words
            .iter()
            .map(|(word, count)| (word.chars().map(String::from).collect(), *count))
            .collect();
        let mut ids: Vec<String> = words.iter().flat_map(|(w, _)| w.clone()).collect();
        ids.sort();
        ids.dedup();
        let n_tokens = ids.len() + n_merges;
        let mut merges = Vec::new();
        while ids.len() < n_tokens {
            let mut counts: BTreeMap<(usize, usize), u64> = BTreeMap::new();
            for (word, count) in &words {
                for pair in word.windows(2) {
                    let id = |t: &String| ids.iter().position(|i| i == t).unwrap();
                    *counts.entry((id(&pair[0]), id(&pair[1]))).or_default() += count;
                }
            }
            let best = counts
                .iter()
                .max_by_key(|(pair, count)| (**count, Reverse(**pair)));
            let Some((&(a, b), _)) = best else { break };
            let (a, b) = (ids[a].clone(), ids[b].clone());
            let joined = format!("{a}{b}");
            for (word, _) in &mut words {
                let mut at = 0;
                while at + 1 < word.len() {
                    if word[at] == a && word[at + 1] == b {
                        word[at] = joined.clone();
                        word.remove(at + 1);
                    }
                    at += 1;
                }
            }
            if !ids.contains(&joined) {
                ids.push(joined);
            }
            merges.push((a, b));
        }
        merges
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn counting_only_what_changed_is_counting_everything(
            words in proptest::collection::vec(("[abc]{1,8}", 1_u64..5), 1..12),
            n_merges in 1_usize..20,
        ) {
            let expected: Vec<String> = merges_by_definition(&words, n_merges)
                .into_iter()
                .map(|(a, b)| format!("{a}+{b}"))
                .collect();
            let words: Vec<(&str, u64)> = words.iter().map(|(w, c)| (w.as_str(), *c)).collect();
            prop_assert_eq!(merges(&words, n_merges, 1, Ties::Older), expected);
        }
    }
}
