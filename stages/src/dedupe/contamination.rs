//! Documents that share a long n-gram with an evaluation set.
//!
//! Thirteen words in a row, by default, is what chance does not give. A document, or an
//! evaluation document, that is shorter than that is one n-gram, so a short one counts
//! only where it is repeated whole.

use std::collections::HashMap;

use tinylm_pipeline::StageError;

use super::{Dropped, Verdict, Why, Work, words::Ngrams};
use crate::documents::{Digest, Documents, RowGroup, Rows};

pub(super) fn find(
    documents: &Documents,
    evaluation: &Documents,
    work: &Work,
    dropped: &mut Dropped,
) -> Result<(), StageError> {
    let n = work.settings.contamination_ngram;
    let mut held: HashMap<u64, u32> = HashMap::new();
    let mut ids: Vec<Digest> = Vec::new();
    let grams_of = |_: &RowGroup, rows: Rows| {
        let mut ngrams = Ngrams::default();
        let sets = rows.iter().map(|document| {
            let mut grams = Vec::new();
            ngrams.of(&document, n, &mut grams);
            (document.id, grams)
        });
        Ok(sets.collect::<Vec<(Digest, Vec<u64>)>>())
    };
    work.each_group(
        evaluation,
        "reading the evaluation set",
        grams_of,
        |_, sets| {
            for (id, grams) in sets {
                for gram in grams {
                    held.entry(gram).or_insert(ids.len() as u32);
                }
                ids.push(id);
            }
            Ok(())
        },
    )?;
    dropped.evaluation_ids = ids;

    let look_up = |group: &RowGroup, rows: Rows| {
        let (mut ngrams, mut grams) = (Ngrams::default(), Vec::new());
        let mut found: Vec<(u32, u32, f32)> = Vec::new();
        for (number, document) in (group.first_row as u32..).zip(rows.iter()) {
            ngrams.of(&document, n, &mut grams);
            let mut shared = grams.iter().filter_map(|gram| held.get(gram));
            if let Some(&first) = shared.next() {
                let share = (1 + shared.count()) as f32 / grams.len() as f32;
                found.push((number, first, share));
            }
        }
        Ok(found)
    };
    work.each_group(
        documents,
        "comparing with the evaluation set",
        look_up,
        |_, found| {
            for (number, evaluation, similarity) in found {
                let verdict = Verdict {
                    why: Why::Contamination,
                    kept: evaluation,
                    similarity,
                };
                dropped.add(number, verdict);
            }
            Ok(())
        },
    )
}
