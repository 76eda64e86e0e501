//! Which documents are dropped, each with its first verdict.

use tinylm_pipeline::StageError;

use super::{
    spill::{Numbers, Reader, Sorter},
    work::Work,
};
use crate::shared::documents::{Documents, RowGroup};

/// Why a document is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict<K = u32> {
    pub(super) why: Why,
    /// Names, here by number, the document that is kept in its place, or the evaluation
    /// document that it repeats.
    pub(super) kept: K,
    pub(super) similarity: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Exact,
    Near,
    Contamination,
}

impl Why {
    pub(super) const ALL: [Self; 3] = [Self::Exact, Self::Near, Self::Contamination];
}

/// Documents to drop, each with its first verdict.
pub(super) struct Dropped<'a> {
    numbers: Numbers,
    /// Number, reason, the document that is kept, similarity.
    pub(super) verdicts: Sorter<'a, 4>,
}

impl<'a> Dropped<'a> {
    pub(super) fn new(documents: &Documents, work: &'a Work) -> Self {
        Self {
            numbers: Numbers::none_of(documents.n_documents()),
            verdicts: work.sorter("verdicts", 1, 8),
        }
    }

    pub(super) fn add(&mut self, document: u32, verdict: Verdict) -> Result<(), StageError> {
        if !self.numbers.insert(document) {
            return Ok(());
        }
        let Verdict {
            why,
            kept,
            similarity,
        } = verdict;
        self.verdicts
            .push([document, why as u32, kept, similarity.to_bits()])
    }

    pub(super) fn contains(&self, document: u32) -> bool {
        self.numbers.contains(document)
    }

    pub(super) fn numbers(&self) -> &Numbers {
        &self.numbers
    }
}

/// The verdicts of one row group after the other.
pub(super) struct Verdicts<'a> {
    reader: Reader<'a, 4>,
    pub(super) next: Option<[u32; 4]>,
}

impl<'a> Verdicts<'a> {
    pub(super) fn new(mut reader: Reader<'a, 4>) -> Result<Self, StageError> {
        let next = reader.next()?;
        Ok(Self { reader, next })
    }

    /// Returns those of the next group, with their place in it.
    pub(super) fn of_group(
        &mut self,
        group: &RowGroup,
    ) -> Result<Vec<(usize, Verdict)>, StageError> {
        let first = group.first_row;
        let mut of_group = Vec::new();
        while let Some([number, why, kept, similarity]) = self.next
            && u64::from(number) < first + group.n_rows as u64
        {
            let verdict = Verdict {
                why: Why::ALL[why as usize],
                kept,
                similarity: f32::from_bits(similarity),
            };
            of_group.push(((u64::from(number) - first) as usize, verdict));
            self.next = self.reader.next()?;
        }
        Ok(of_group)
    }
}
