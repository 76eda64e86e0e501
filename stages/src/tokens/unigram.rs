//! Learns a Unigram vocabulary with the crate's trainer, always the same one.
//!
//! The trainer adds up probabilities in as many parts as there are threads, and gives
//! the scores of characters that it had dropped in the order of a randomly seeded hash
//! map. So it runs on one thread, over words in order, and those scores are dealt out
//! again afterwards.

use std::panic::{AssertUnwindSafe, catch_unwind};

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

/// Gives the lowest scores, which went to single characters in any order, out in the
/// order of the characters, and sorts equal scores by piece.
fn deal_again(pieces: &mut [(String, f64)]) {
    let Some((_, learnt)) = pieces.split_first_mut() else {
        return;
    };
    let lowest = learnt
        .iter()
        .map(|(_, score)| *score)
        .fold(f64::INFINITY, f64::min);
    let is_single = |piece: &str| piece.chars().count() == 1;
    let mut dealt: Vec<usize> = Vec::new();
    let mut penalty = 0.0;
    while let Some(idx) = learnt
        .iter()
        .position(|(piece, score)| *score == lowest + penalty && is_single(piece))
    {
        dealt.push(idx);
        penalty += PENALTY;
    }
    let mut characters: Vec<String> = dealt.iter().map(|&idx| learnt[idx].0.clone()).collect();
    characters.sort();
    for (&idx, character) in dealt.iter().zip(characters) {
        learnt[idx].0 = character;
    }
    learnt.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
}
