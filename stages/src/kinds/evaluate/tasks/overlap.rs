//! Examples that the training documents hold: what they measure is memory.
//!
//! As in `dedupe`, thirteen words in a row are what chance does not give; an example that is shorter
//! counts where a document is that example and no more.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use tinylm_pipeline::{StageError, StageIo};

use super::example::Example;
use crate::shared::{
    documents::{Contents, Document, Documents, RowGroup},
    ngrams::Ngrams,
};

const N_WORDS: usize = 13;

/// Which examples of which tasks were seen in training, where that was asked.
pub(super) struct Overlap(Option<HashSet<(usize, usize)>>);

impl Overlap {
    pub(super) fn of<'a>(
        tasks: impl Iterator<Item = &'a [Example]>,
        io: &StageIo,
    ) -> Result<Self, StageError> {
        let training = io.inputs("training");
        if training.is_empty() {
            return Ok(Self(None));
        }
        let (mut ngrams, mut grams) = (Ngrams::default(), Vec::new());
        let mut examples: HashMap<u64, Vec<(usize, usize)>> = HashMap::new();
        for (task, of_task) in tasks.enumerate() {
            for (at, example) in of_task.iter().enumerate() {
                let text = example.solved(" ");
                ngrams.of(&document(&text), N_WORDS, &mut grams);
                for gram in &grams {
                    examples.entry(*gram).or_default().push((task, at));
                }
            }
        }
        let mut seen = HashSet::new();
        let folders: Vec<&Path> = training.iter().map(|input| input.path.as_path()).collect();
        let documents = Documents::open(&folders)?;
        for group in documents.row_groups() {
            if io.is_cancelled() {
                return Err(StageError::cancelled());
            }
            for document in RowGroup::read(group)?.iter() {
                ngrams.of(&document, N_WORDS, &mut grams);
                let found = grams.iter().filter_map(|gram| examples.get(gram));
                seen.extend(found.flatten());
            }
        }
        Ok(Self(Some(seen)))
    }

    pub(super) fn holds(&self, task: usize, at: usize) -> bool {
        self.0
            .as_ref()
            .is_some_and(|seen| seen.contains(&(task, at)))
    }

    /// How many examples of a task were seen, where that was asked.
    pub(super) fn count(&self, task: usize) -> Option<usize> {
        let seen = self.0.as_ref()?;
        Some(seen.iter().filter(|(of, _)| *of == task).count())
    }
}

fn document(text: &str) -> Document<'_> {
    Document {
        id: [0; 32],
        group: [0; 32],
        source: "",
        contents: Contents::Text(text),
    }
}
