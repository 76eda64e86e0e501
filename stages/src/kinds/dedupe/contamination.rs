//! Documents that share a long n-gram with an evaluation set.
//!
//! Thirteen words in a row, by default, is what chance does not give. A document, or an
//! evaluation document, that is shorter than that is one n-gram, so a short one counts
//! only where it is repeated whole.
//!
//! An evaluation set whose n-grams do not fit into the memory is looked at in several
//! passes, each about some of the n-grams; what they find is put together afterwards, so
//! that it does not show how many passes there were.

use std::collections::HashMap;

use tinylm_pipeline::StageError;

use super::{
    spill::{Sorter, Table},
    verdict::{Dropped, Verdict, Why},
    work::Work,
};
use crate::shared::{
    documents::{Digest, Documents, RowGroup, Rows},
    ngrams::Ngrams,
};

/// The memory that an n-gram and its document take in a map that is neither full nor empty.
const GRAM_BYTES: u64 = 40;

/// Drops documents that overlap and returns the ids of the evaluation documents.
pub(super) fn find(
    documents: &Documents,
    evaluation: &Documents,
    ngram: usize,
    work: &Work,
    dropped: &mut Dropped,
) -> Result<Table<32>, StageError> {
    let (ids, n_grams) = survey(evaluation, ngram, work)?;
    let n_passes = (n_grams * GRAM_BYTES)
        .div_ceil(work.memory(1, 2) as u64)
        .max(1);
    let mut overlaps = work.sorter("overlaps", 1, 8);
    for pass in 0..n_passes {
        let is_of_pass = |gram: u64| gram % n_passes == pass;
        let n_expected = (n_grams / n_passes) as usize;
        let held = held(evaluation, ngram, is_of_pass, n_expected, work)?;
        look_up(documents, &held, ngram, is_of_pass, work, &mut overlaps)?;
    }
    drop_overlapping(overlaps, dropped)?;
    Ok(ids)
}

/// Returns the ids of all documents, and how many n-grams they have.
fn survey(
    evaluation: &Documents,
    ngram: usize,
    work: &Work,
) -> Result<(Table<32>, u64), StageError> {
    let mut ids = Table::create(work.scratch.path(), "evaluation-ids")?;
    let mut n_grams = 0;
    let count = |_: &RowGroup, rows: Rows| {
        let (mut ngrams, mut grams, mut n_grams) = (Ngrams::default(), Vec::new(), 0);
        for document in rows.iter() {
            ngrams.of(&document, ngram, &mut grams);
            n_grams += grams.len() as u64;
        }
        let ids: Vec<Digest> = rows.iter().map(|document| document.id).collect();
        Ok((ids, n_grams))
    };
    let note = "reading the evaluation set";
    work.each_group(evaluation, note, count, |_, (of_group, n)| {
        n_grams += n;
        ids.append(&of_group)
    })?;
    Ok((ids, n_grams))
}

/// Returns the n-grams of a pass, each with the first document that has it.
fn held(
    evaluation: &Documents,
    ngram: usize,
    is_of_pass: impl Fn(u64) -> bool + Sync,
    n_expected: usize,
    work: &Work,
) -> Result<HashMap<u64, u32>, StageError> {
    let mut held: HashMap<u64, u32> = HashMap::with_capacity(n_expected);
    let grams_of = |group: &RowGroup, rows: Rows| {
        let (mut ngrams, mut grams, mut of_group) = (Ngrams::default(), Vec::new(), Vec::new());
        for (number, document) in (group.first_row as u32..).zip(rows.iter()) {
            ngrams.of(&document, ngram, &mut grams);
            let of_pass = grams.iter().filter(|gram| is_of_pass(**gram));
            of_group.extend(of_pass.map(|gram| (*gram, number)));
        }
        Ok(of_group)
    };
    let note = "reading the evaluation set";
    work.each_group(evaluation, note, grams_of, |_, of_group| {
        for (gram, number) in of_group {
            held.entry(gram).or_insert(number);
        }
        Ok(())
    })?;
    Ok(held)
}

/// For each document that shares n-grams: its number, the place of the first one and the
/// evaluation document that has it, how many are shared and how many there are.
fn look_up(
    documents: &Documents,
    held: &HashMap<u64, u32>,
    ngram: usize,
    is_of_pass: impl Fn(u64) -> bool + Sync,
    work: &Work,
    overlaps: &mut Sorter<5>,
) -> Result<(), StageError> {
    let look_up = |group: &RowGroup, rows: Rows| {
        let (mut ngrams, mut grams) = (Ngrams::default(), Vec::new());
        let mut found: Vec<[u32; 5]> = Vec::new();
        for (number, document) in (group.first_row as u32..).zip(rows.iter()) {
            ngrams.of(&document, ngram, &mut grams);
            let of_pass = grams.iter().zip(0..).filter(|(gram, _)| is_of_pass(**gram));
            let mut shared = of_pass.filter_map(|(gram, at)| Some((at, *held.get(gram)?)));
            if let Some((at, evaluation)) = shared.next() {
                let n_shared = 1 + shared.count() as u32;
                found.push([number, at, evaluation, n_shared, grams.len() as u32]);
            }
        }
        Ok(found)
    };
    let note = "comparing with the evaluation set";
    work.each_group(documents, note, look_up, |_, found| {
        found
            .into_iter()
            .try_for_each(|record| overlaps.push(record))
    })
}

fn drop_overlapping(overlaps: Sorter<5>, dropped: &mut Dropped) -> Result<(), StageError> {
    let overlaps = overlaps.sorted();
    let mut overlaps = overlaps.reader()?;
    let mut next = overlaps.next()?;
    while let Some([number, _, evaluation, mut n_shared, n_grams]) = next {
        // Finds of other passes in the same document stand behind the first place.
        loop {
            next = overlaps.next()?;
            match next {
                Some([same, _, _, more, _]) if same == number => n_shared += more,
                _ => break,
            }
        }
        let verdict = Verdict {
            why: Why::Contamination,
            kept: evaluation,
            similarity: n_shared as f32 / n_grams as f32,
        };
        dropped.add(number, verdict)?;
    }
    Ok(())
}
