//! Counts the words of a corpus, or of a stated share of it.
//!
//! Which documents count is
//! decided by a hash of their ids, so the sample is spread evenly, does not change with
//! the number of threads, and loses little when the corpus grows. Memory is bounded by
//! dropping the rarest words where a corpus has very many different ones; that too goes
//! by what was counted so far in the order of the corpus.

use std::collections::HashMap;

use rayon::prelude::*;
use tinylm_pipeline::{StageError, StageIo};

use super::model::{Counted, Plan};
use crate::shared::{
    documents::{Document, Documents, RowGroup},
    tokens::words::{SplitBuffers, Splitter},
};

/// More different words than this are not kept: about 400 MB.
pub(super) const WORDS_MAX: usize = 4_000_000;

/// The sample that was looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Sample {
    pub(super) documents: u64,
    pub(super) documents_sampled: u64,
    /// Bytes of contents in the sample.
    pub(super) bytes_sampled: u64,
    pub(super) words: u64,
    pub(super) different_words: u64,
    /// Words found this often or less were dropped to bound memory.
    pub(super) words_dropped_up_to: u64,
}

/// Returns the words in the order they were found first.
pub(super) fn count(
    documents: &Documents,
    plan: &Plan,
    sample_bytes: u64,
    words_max: usize,
    io: &StageIo,
) -> Result<(Vec<Counted>, Sample), StageError> {
    let splitter = Splitter::new(&plan.normalizer(), &plan.pre_tokenizer())
        .map_err(|error| StageError::new("words cannot be cut").cause(error))?;
    let groups = documents.row_groups();
    let total: u64 = groups.iter().map(RowGroup::content_bytes).sum();
    let chosen = Chosen::share(sample_bytes, total);
    let counter = Counter {
        splitter: &splitter,
        chosen,
        cuts_controls: plan.cuts_controls(),
    };
    let mut counts = Counts::default();
    let mut sample = Sample {
        documents: documents.n_documents(),
        ..Sample::default()
    };
    let mut done = 0;
    for some in documents.batches(2 * io.threads().max(1)) {
        let counted: Vec<(Counts, Sample)> = some
            .par_iter()
            .map(|group| counter.count(group, io))
            .collect::<Result<_, StageError>>()?;
        for (group, (found, looked_at)) in some.iter().zip(counted) {
            counts.add(found);
            sample.documents_sampled += looked_at.documents_sampled;
            sample.bytes_sampled += looked_at.bytes_sampled;
            sample.words += looked_at.words;
            sample.words_dropped_up_to = sample.words_dropped_up_to.max(counts.bound(words_max));
            done += group.n_rows as u64;
        }
        io.progress(done, Some(documents.n_documents()), "documents")?;
    }
    sample.different_words = counts.entries.len() as u64;
    Ok((counts.into_words(), sample))
}

/// Which documents are looked at.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    /// Those whose digest, taken as a number, is not above this.
    up_to: u64,
}

impl Chosen {
    fn share(wanted: u64, total: u64) -> Self {
        if wanted >= total {
            return Self { up_to: u64::MAX };
        }
        let share = u128::from(u64::MAX) * u128::from(wanted) / u128::from(total);
        Self {
            up_to: share as u64,
        }
    }

    fn takes(self, document: &Document) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = document.id;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) <= self.up_to
    }
}

struct Counter<'a> {
    splitter: &'a Splitter,
    chosen: Chosen,
    cuts_controls: bool,
}

impl Counter<'_> {
    fn count(&self, group: &RowGroup, io: &StageIo) -> Result<(Counts, Sample), StageError> {
        let mut counts = Counts::default();
        let mut sample = Sample::default();
        if io.is_cancelled() {
            return Err(StageError::cancelled());
        }
        let rows = group.read()?;
        let mut buffers = SplitBuffers::default();
        for document in rows.iter().filter(|document| self.chosen.takes(document)) {
            sample.documents_sampled += 1;
            for (_, content) in document.contents.iter() {
                sample.bytes_sampled += content.len() as u64;
                let each = |word: &str| self.count_word(word, &mut counts, &mut sample);
                self.splitter
                    .words(content, &mut buffers, each)
                    .map_err(|error| StageError::new("words cannot be cut").cause(error))?;
            }
        }
        Ok((counts, sample))
    }

    fn count_word(&self, word: &str, counts: &mut Counts, sample: &mut Sample) {
        sample.words += 1;
        if !self.cuts_controls {
            counts.add_word(word, 1);
            return;
        }
        // A line's end or a tab is a piece by itself; with a word it would be learnt as one.
        for part in word.split_inclusive(char::is_control) {
            match part.char_indices().next_back() {
                Some((at, last)) if last.is_control() => {
                    counts.add_word(&part[..at], 1);
                    counts.add_word(&part[at..], 1);
                }
                _ => counts.add_word(part, 1),
            }
        }
    }
}

/// Words with their counts and the order in which they were found.
#[derive(Default)]
struct Counts {
    entries: HashMap<Box<str>, (u64, u64)>,
    n_found: u64,
    dropped: u64,
}

impl Counts {
    fn add_word(&mut self, word: &str, count: u64) {
        if word.is_empty() {
            return;
        }
        if let Some((known, _)) = self.entries.get_mut(word) {
            *known += count;
            return;
        }
        self.entries.insert(word.into(), (count, self.n_found));
        self.n_found += 1;
    }

    fn add(&mut self, other: Self) {
        for (word, count) in other.into_words() {
            self.add_word(&word, count);
        }
    }

    /// Drops the rarest words until few enough are left; returns how rare.
    fn bound(&mut self, words_max: usize) -> u64 {
        while self.entries.len() > words_max {
            self.dropped += 1;
            let dropped = self.dropped;
            self.entries.retain(|_, (count, _)| *count > dropped);
        }
        self.dropped
    }

    fn into_words(self) -> Vec<Counted> {
        let mut words: Vec<(Box<str>, (u64, u64))> = self.entries.into_iter().collect();
        words.sort_unstable_by_key(|(_, (_, found))| *found);
        let words = words.into_iter();
        words
            .map(|(word, (count, _))| (word.into(), count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tempfile::TempDir;
    use tinylm_pipeline::{Outside, io::Assignment};

    use super::*;
    use crate::kinds::tokenizer::{Algorithm, Ties};
    use crate::shared::testing::Corpus;

    const PLAN: Plan = Plan {
        algorithm: Algorithm::WordLevel,
        vocab_size: 100,
        min_frequency: 1,
        ties: Ties::Older,
        lowercase: false,
        coverage: 1.0,
    };

    /// Counts texts of which each is a row group of its own.
    fn counted(texts: &[&str], words_max: usize, threads: usize) -> (String, Sample) {
        let dir = TempDir::new().unwrap();
        let mut folders = Vec::new();
        for (idx, text) in texts.iter().enumerate() {
            let folder = dir.path().join(idx.to_string());
            let mut corpus = Corpus::new();
            corpus.text(text);
            corpus.write(&folder);
            folders.push(folder);
        }
        let folders: Vec<&std::path::Path> =
            folders.iter().map(|folder| folder.as_path()).collect();
        let documents = Documents::open(&folders).unwrap();
        assert_eq!(documents.row_groups().len(), texts.len());
        let assignment = Assignment {
            inputs: Vec::new(),
            local_files: Vec::new(),
            pins: Vec::new(),
            out: dir.path().to_owned(),
            checkpoints: dir.path().to_owned(),
            seed: 1,
            threads,
            device: tinylm_pipeline::Device::Cpu,
            ranks: Default::default(),
        };
        let (outside, cancel) = (Outside::default(), AtomicBool::new(false));
        let io = StageIo::new(&assignment, &outside, &cancel, &|_| ());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let counting = || count(&documents, &PLAN, u64::MAX, words_max, &io).unwrap();
        let (words, sample) = pool.build().unwrap().install(counting);
        let words: Vec<String> = words
            .iter()
            .map(|(word, n)| format!("{word} {n}"))
            .collect();
        (words.join(", "), sample)
    }

    #[test]
    fn the_rarest_words_are_dropped_where_there_are_too_many() {
        let texts = ["a a a b b c", "d d b", "c e", "c"];
        let (all, sample) = counted(&texts, 5, 1);
        assert_eq!(all, "a 3, b 3, c 3, d 2, e 1");
        assert_eq!(sample.words_dropped_up_to, 0);
        // Behind the second text what was found once is dropped, behind the third what was
        // found twice; `c` is then counted from nothing.
        let (kept, sample) = counted(&texts, 3, 1);
        assert_eq!(kept, "a 3, b 3, c 1");
        assert_eq!((sample.words, sample.different_words), (12, 3));
        assert_eq!(sample.words_dropped_up_to, 2);
    }

    #[test]
    fn any_number_of_threads_drops_the_same_words() {
        let texts: Vec<String> = (0..17_u32)
            .map(|text| {
                let words = (0..40).map(|n| format!("w{}", n * n * (text + 3) % 61 % (text + 20)));
                words.collect::<Vec<String>>().join(" ")
            })
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (words, sample) = counted(&texts, 20, 1);
        assert!(sample.words_dropped_up_to > 0);
        for threads in [2, 3] {
            assert_eq!(counted(&texts, 20, threads), (words.clone(), sample));
        }
    }
}
