//! The kinds of stages, one file each, listed once. No kind imports another: what two of them need
//! is in [`shared`](crate::shared).

pub mod binarize;
pub mod command;
pub mod dedupe;
pub mod download;
pub mod evaluate;
pub mod finetune;
pub mod normalize;
pub mod pretrain;
pub mod sample;
pub mod tokenizer;

use tinylm_pipeline::Kind;

/// Returns every kind; `tinylm stages` and the hints are made from this list.
pub fn catalog() -> Vec<Kind> {
    vec![
        Kind::of::<download::Download>(),
        Kind::of::<normalize::Normalize>(),
        Kind::of::<dedupe::Dedupe>(),
        Kind::of::<tokenizer::TokenizerStage>(),
        Kind::of::<binarize::Binarize>(),
        Kind::of::<pretrain::Pretrain>(),
        Kind::of::<finetune::Finetune>(),
        Kind::of::<evaluate::Evaluate>(),
        Kind::of::<sample::Sample>(),
        Kind::of::<command::Command>(),
    ]
}
