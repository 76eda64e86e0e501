//! The stage kinds, one file each, listed once.

pub mod binarize;
pub mod command;
pub mod datasets;
pub mod dedupe;
pub mod download;
pub mod evaluate;
pub mod finetune;
pub mod normalize;
pub mod pretrain;
pub mod sample;
pub mod speak;
pub mod template;
pub mod tokenizer;
pub mod tokens;

mod cell;
mod clean;
mod documents;
mod files;
mod parallel;
mod shapes;
#[cfg(test)]
mod testing;
mod threads;
mod training;

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
