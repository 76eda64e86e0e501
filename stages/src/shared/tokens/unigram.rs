//! Learns a Unigram vocabulary with the crate's trainer, always the same one.
//!
//! The trainer adds up probabilities in as many parts as there are threads, and gives
//! the scores of characters that it had dropped in the order of a randomly seeded hash
//! map. So it runs on one thread, over words in order, and those scores are dealt out
//! again afterwards.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokenizers::{models::unigram::Unigram, trainers::UnigramTrainer};

/// The step between the scores that the trainer gives to characters it had dropped.
const PENALTY: f64 = 0.0001;

/// Returns at most `vocab_size` pieces with their scores, `unknown` first.
pub(crate) fn learn(
    words: Vec<(String, u32)>,
    vocab_size: u32,
    unknown: &str,
) -> Result<Vec<(String, f64)>, String> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.map_err(|error| error.to_string())?;
    // The trainer panics where a probability is not a number.
    let learnt = catch_unwind(AssertUnwindSafe(|| {
        pool.install(|| train(words, vocab_size, unknown))
    }));
    let mut pieces = learnt.unwrap_or_else(|_| Err("the trainer gave up".to_owned()))?;
    deal_again(&mut pieces);
    Ok(pieces)
}

fn train(
    words: Vec<(String, u32)>,
    vocab_size: u32,
    unknown: &str,
) -> Result<Vec<(String, f64)>, String> {
    let mut builder = UnigramTrainer::builder();
    let built = builder
        .show_progress(false)
        .vocab_size(vocab_size)
        .unk_token(Some(unknown.to_owned()))
        .build();
    let Ok(trainer) = built;
    let mut model = Unigram::default();
    trainer
        .do_train(words, &mut model)
        .map_err(|error| error.to_string())?;
    Ok(model.iter().cloned().collect())
}

/// Deals the scores of dropped characters out again, in the order of the characters, and sorts
/// equal scores by piece.
///
/// The trainer gave the dropped characters the lowest score, the next one a step above it, and so
/// on, in the order of a hash map. Nothing tells a dropped character from a learned one that
/// happens to have a score of that ladder, so all characters on it are dealt with together: which
/// ones they are, and which scores they share, does not depend on the hash map.
fn deal_again(pieces: &mut [(String, f64)]) {
    let Some((_, learnt)) = pieces.split_first_mut() else {
        return;
    };
    let on_ladder = characters_on_ladder(learnt);
    let mut characters: Vec<String> = on_ladder.iter().map(|&idx| learnt[idx].0.clone()).collect();
    let mut scores: Vec<f64> = on_ladder.iter().map(|&idx| learnt[idx].1).collect();
    characters.sort();
    scores.sort_by(f64::total_cmp);
    for (idx, dealt) in on_ladder
        .into_iter()
        .zip(characters.into_iter().zip(scores))
    {
        learnt[idx] = dealt;
    }
    learnt.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
}

/// Returns where the single characters stand whose score is the lowest of all or a whole number of
/// steps above it, as far up as every step is taken.
fn characters_on_ladder(learnt: &[(String, f64)]) -> Vec<usize> {
    let scores = learnt.iter().map(|(_, score)| *score);
    let lowest = scores.fold(f64::INFINITY, f64::min);
    let mut by_score: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (idx, (piece, score)) in learnt.iter().enumerate() {
        if piece.chars().count() == 1 {
            by_score.entry(score.to_bits()).or_default().push(idx);
        }
    }
    let mut on_ladder = Vec::new();
    // Added up as the trainer does it, so that the sums are equal to the bit.
    let mut penalty = 0.0;
    while let Some(found) = by_score.remove(&(lowest + penalty).to_bits()) {
        on_ladder.extend(found);
        penalty += PENALTY;
    }
    on_ladder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(list: &[(&str, f64)]) -> Vec<(String, f64)> {
        let owned = list
            .iter()
            .map(|(piece, score)| ((*piece).to_owned(), *score));
        [("<unk>".to_owned(), 0.0)]
            .into_iter()
            .chain(owned)
            .collect()
    }

    #[test]
    fn the_order_in_which_dropped_characters_were_scored_leaves_no_trace() {
        // `m` was learnt with the lowest score of all; `x`, `y` and `z` were dropped.
        let step = PENALTY;
        let mut seen = Vec::new();
        for [x, y, z] in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let score = |place: i32| (0..place).fold(0.0, |sum, _| sum + step) - 5.0;
            let mut one = pieces(&[
                ("the", -1.0),
                ("m", -5.0),
                ("x", score(x)),
                ("y", score(y)),
                ("z", score(z)),
            ]);
            one[1..].sort_by(|(_, a), (_, b)| b.total_cmp(a));
            deal_again(&mut one);
            seen.push(one);
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    }

    /// Many rare characters, and a word list in which some of them stay and some are dropped.
    fn words() -> Vec<(String, u32)> {
        let syllables = ["ka", "ro", "mi", "shu", "ten", "lo", "vi", "qu", "ze", "fa"];
        let mut words: Vec<(String, u32)> = Vec::new();
        for (idx, first) in syllables.iter().enumerate() {
            for (jdx, second) in syllables.iter().enumerate() {
                let rare = char::from_u32(0x0391 + (idx * 7 + jdx * 3) as u32 % 40);
                let rare = rare.filter(|rare| rare.is_alphabetic()).unwrap_or('x');
                words.push((format!("\u{2581}{first}{second}"), 1 + (idx * jdx) as u32));
                words.push((format!("\u{2581}{first}{rare}{second}"), 1));
            }
        }
        words.sort();
        words.dedup_by(|(a, _), (b, _)| a == b);
        words
    }

    #[test]
    fn forty_trainings_give_one_vocabulary() {
        let first = learn(words(), 120, "<unk>").unwrap();
        for _ in 0..40 {
            assert_eq!(learn(words(), 120, "<unk>").unwrap(), first);
        }
    }
}
