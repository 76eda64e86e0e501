//! Laws of batches: every token once, and no neighbour seen.

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::shards::{
    ROLE_ASSISTANT, ROLE_TEXT, ROLE_USER, Shards, TARGET,
    testing::{Tokens, text, write},
};

fn split(documents: &[Tokens]) -> Split {
    let folder = TempDir::new().unwrap();
    // Two files, so that the stream crosses from one to the other.
    let middle = documents.len() / 2;
    let files = [documents[..middle].to_vec(), documents[middle..].to_vec()];
    write(folder.path(), 4000, &[("train", &files)]);
    Shards::open(folder.path()).unwrap().split("train").unwrap()
}

fn settings(batching: Batching, context: usize, batch: usize) -> BatchSettings {
    BatchSettings {
        batching,
        stride: context.min(5),
        context,
        batch,
        long_documents: LongDocuments::Split,
        loss_on: LossOn::Targets,
        pairs: false,
    }
}

/// Document `d` of `len` tokens is `100 d, 100 d + 1, ...`: every pair is unique.
fn documents(lens: &[usize]) -> Vec<Tokens> {
    let ids =
        |(d, &len): (usize, &usize)| text(&Vec::from_iter((0..len).map(|i| (100 * d + i) as u16)));
    lens.iter().enumerate().map(ids).collect()
}

/// The (input, target) pairs that count, and a check of all that must hold in any batch.
fn pairs(batches: &[Batch]) -> Vec<(u16, u16)> {
    let mut pairs = Vec::new();
    for batch in batches {
        for place in 0..batch.n_rows * batch.len {
            let (start, t) = (usize::from(batch.starts[place]), place % batch.len);
            assert!(start <= t);
            if batch.weights[place] == 0.0 {
                continue;
            }
            assert_eq!(usize::from(batch.positions[place]), t - start);
            for seen in place - (t - start)..place {
                assert_eq!(batch.starts[seen], batch.starts[place]);
                assert_eq!(batch.tokens[seen] / 100, batch.tokens[place] / 100);
                assert_eq!(batch.targets[seen], batch.tokens[seen + 1]);
            }
            pairs.push((batch.tokens[place], batch.targets[place]));
        }
    }
    pairs
}

fn epoch(batches: &mut Batches<'_>, epoch: u64, micro_batch: usize) -> Vec<Batch> {
    let n = batches.n_per_epoch();
    (epoch * n..(epoch + 1) * n)
        .flat_map(|step| batches.step(step, micro_batch))
        .collect()
}

fn sorted(mut pairs: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    pairs.sort_unstable();
    pairs
}

fn all_pairs(lens: &[usize]) -> Vec<(u16, u16)> {
    let pairs = |(d, &len): (usize, &usize)| {
        (1..len).map(move |i| ((100 * d + i - 1) as u16, (100 * d + i) as u16))
    };
    lens.iter().enumerate().flat_map(pairs).collect()
}

proptest! {
    #[test]
    fn an_epoch_predicts_every_token_of_every_document_once(
        lens in prop::collection::vec(1_usize..40, 2..10),
        context in 1_usize..24,
        batch in 1_usize..5,
        micro_batch in 1_usize..5,
        padded: bool,
    ) {
        prop_assume!(lens.iter().any(|&len| len > 1));
        let split = split(&documents(&lens));
        let batching = if padded { Batching::Padded } else { Batching::Packed };
        let settings = settings(batching, context, batch);
        let mut batches = Batches::new(&split, &settings, 7).unwrap();
        for epoch_idx in 0..2 {
            let read = sorted(pairs(&epoch(&mut batches, epoch_idx, micro_batch)));
            prop_assert_eq!(read, all_pairs(&lens));
        }
    }

    #[test]
    fn sliding_windows_leave_no_token_out(
        lens in prop::collection::vec(1_usize..40, 2..6),
        context in 1_usize..24,
        stride in 1_usize..24,
    ) {
        prop_assume!(lens.iter().any(|&len| len > 1));
        let split = split(&documents(&lens));
        let stride = stride.min(context);
        let settings = BatchSettings {
            stride,
            ..settings(Batching::Sliding, context, 3)
        };
        let mut batches = Batches::new(&split, &settings, 7).unwrap();
        let mut read = sorted(pairs(&epoch(&mut batches, 0, 2)));
        read.dedup();
        prop_assert_eq!(read, all_pairs(&lens));
    }

    #[test]
    fn a_step_is_the_same_however_it_is_divided(
        lens in prop::collection::vec(2_usize..20, 6..12),
        micro_batch in 1_usize..8,
        step in 0_u64..20,
        mode in 0_usize..4,
    ) {
        let split = split(&documents(&lens));
        let batching = [
            Batching::Packed,
            Batching::Padded,
            Batching::Windows,
            Batching::Sliding,
        ][mode];
        let settings = settings(batching, 16, 6);
        let whole = Batches::new(&split, &settings, 7).unwrap().step(step, 6);
        // Asked for out of order, as a resumed run does.
        let mut again = Batches::new(&split, &settings, 7).unwrap();
        again.step(step + 5, 6);
        let parts = again.step(step, micro_batch);
        let offsets: Vec<usize> = parts.iter().map(|part| part.row_offset).collect();
        let expected: Vec<usize> = (0..whole[0].n_rows).step_by(micro_batch).collect();
        prop_assert_eq!(offsets, expected);
        let joined: Vec<u16> = parts.iter().flat_map(|part| part.tokens.clone()).collect();
        prop_assert_eq!(joined, whole[0].tokens.clone());
    }
}

#[test]
fn packing_fills_rows_and_padding_does_not() {
    let split = split(&documents(&[5, 5, 9, 3, 7, 13, 4, 2, 10]));
    let n_rows = |batching| {
        let batches = Batches::new(&split, &settings(batching, 16, 4), 7).unwrap();
        (batches.coverage().rows, batches.coverage().places)
    };
    assert_eq!(n_rows(Batching::Padded), (9, 49));
    let (n_packed, places) = n_rows(Batching::Packed);
    assert_eq!(places, 49);
    assert!(n_packed <= 5, "{n_packed} rows for 49 places in rows of 16");
}

#[test]
fn random_windows_read_the_stream_and_do_not_cross_documents() {
    let lens = [30, 2, 50];
    let split = split(&documents(&lens));
    let settings = settings(Batching::Windows, 8, 4);
    let mut batches = Batches::new(&split, &settings, 7).unwrap();
    assert_eq!(batches.coverage().rows, 11);
    let [first, second] = [0, 1].map(|idx| pairs(&epoch(&mut batches, idx, 4)));
    let all = all_pairs(&lens);
    assert!(first.len() > 60 && first.iter().all(|pair| all.contains(pair)));
    assert_ne!(first, second);
}

#[test]
fn long_documents_are_split_or_cropped_and_counted() {
    let split = split(&documents(&[25, 4]));
    let mut settings = settings(Batching::Packed, 10, 4);
    let whole = Batches::new(&split, &settings, 7).unwrap();
    assert_eq!(whole.coverage().tokens_cropped, 0);
    assert_eq!(
        (whole.coverage().documents_long, whole.coverage().places),
        (1, 27)
    );
    settings.long_documents = LongDocuments::Crop;
    let cropped = Batches::new(&split, &settings, 7).unwrap();
    assert_eq!(cropped.coverage().tokens_cropped, 14);
    assert_eq!(
        (cropped.coverage().documents_long, cropped.coverage().places),
        (1, 13)
    );
}

#[test]
fn the_loss_is_on_targets_or_on_all() {
    let answer = vec![
        (1, ROLE_USER),
        (2, ROLE_USER),
        (3, ROLE_ASSISTANT | TARGET),
        (4, TARGET),
    ];
    let silent = vec![(5, ROLE_USER), (6, ROLE_USER)];
    let split = split(&[answer, silent.clone()]);
    let mut settings = settings(Batching::Padded, 10, 4);
    let weights = |settings: &BatchSettings| {
        let mut batches = Batches::new(&split, settings, 7).unwrap();
        let weights = batches.step(0, 4)[0].weights.clone();
        (weights, batches.coverage().pieces_without_target)
    };
    assert_eq!(weights(&settings), (vec![0.0, 1.0, 1.0], 1));
    settings.loss_on = LossOn::All;
    let (all, left_out) = weights(&settings);
    assert_eq!((all.iter().sum::<f32>(), left_out), (4.0, 0));
}

#[test]
fn an_evaluation_knows_the_role_of_what_is_predicted() {
    let answer = vec![(1, ROLE_USER), (2, ROLE_ASSISTANT | TARGET), (3, TARGET)];
    let split = split(&[answer.clone(), answer]);
    let settings = settings(Batching::Packed, 5, 4);
    let batches = Batches::for_evaluation(&split, &settings, 10).unwrap();
    let read: Vec<EvaluationBatch> = batches.evaluation(4).collect();
    assert_eq!(
        read[0].roles,
        [ROLE_ASSISTANT, ROLE_TEXT, ROLE_ASSISTANT, ROLE_TEXT]
    );
}

#[test]
fn data_that_teaches_nothing_is_refused() {
    let masked = split(&[vec![(1, ROLE_USER), (2, ROLE_USER)]]);
    let short = split(&[text(&[1]), text(&[2])]);
    for batching in [Batching::Packed, Batching::Windows] {
        let settings = settings(batching, 8, 2);
        let refusal = |split| Batches::new(split, &settings, 7).unwrap_err();
        assert_eq!(refusal(&masked), BatchError::AllMasked);
        assert_eq!(refusal(&short), BatchError::NothingToPredict);
    }
    let zero = Batches::new(&masked, &settings(Batching::Packed, 0, 2), 7);
    assert_eq!(zero.unwrap_err(), BatchError::Zero("context"));
}

#[test]
fn validation_reads_a_fixed_spread_of_rows() {
    let lens = [9; 20];
    let split = split(&documents(&lens));
    let settings = settings(Batching::Padded, 8, 4);
    let some = Batches::for_evaluation(&split, &settings, 5).unwrap();
    let firsts: Vec<u16> = some
        .evaluation(2)
        .flat_map(|read| {
            let rows = read.batch.tokens.chunks(8);
            rows.map(|row| row[0]).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(firsts, [0, 400, 800, 1200, 1600]);
    let all = Batches::for_evaluation(&split, &settings, usize::MAX).unwrap();
    let read: Vec<Batch> = all.evaluation(3).map(|read| read.batch).collect();
    assert_eq!(sorted(pairs(&read)), all_pairs(&lens));
}
