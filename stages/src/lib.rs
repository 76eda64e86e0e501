//! The stage kinds, one file each, listed once.

pub mod binarize;
pub mod dedupe;
pub mod evaluate;
pub mod finetune;
pub mod pretrain;
pub mod sample;
pub mod speak;
pub mod template;
pub mod tokenizer;
pub mod tokens;
mod training;

#[expect(
    dead_code,
    reason = "the stages that read and write documents are being added"
)]
mod documents;
mod parallel;
#[cfg(test)]
mod testing;
mod threads;

use tinylm_pipeline::Kind;

/// Returns every kind; `tinylm stages` and the hints are made from this list.
pub fn catalog() -> Vec<Kind> {
    vec![
        Kind::of::<dedupe::Dedupe>(),
        Kind::of::<tokenizer::TokenizerStage>(),
        Kind::of::<binarize::Binarize>(),
        Kind::of::<pretrain::Pretrain>(),
        Kind::of::<finetune::Finetune>(),
        Kind::of::<evaluate::Evaluate>(),
        Kind::of::<sample::Sample>(),
    ]
}
