//! The kinds of stages, one file each, listed once. No kind imports another: what two of them need
//! is in [`shared`](crate::shared).

pub mod binarize;
pub mod command;
pub mod dedupe;
pub mod download;
pub mod evaluate;
pub mod export;
pub mod finetune;
pub mod import;
pub mod normalize;
pub mod pretrain;
pub mod sample;
pub mod tokenizer;

use tinylm_pipeline::Kind;

/// Returns every kind; `tinylm stages` and the hints are made from this list.
pub fn catalog() -> Vec<Kind> {
    vec![
        Kind::of::<download::Download>().with_parts(download::PARTS),
        Kind::of::<normalize::Normalize>().with_parts(normalize::PARTS),
        Kind::of::<dedupe::Dedupe>().with_parts(dedupe::PARTS),
        Kind::of::<tokenizer::TokenizerStage>(),
        Kind::of::<binarize::Binarize>().with_parts(binarize::PARTS),
        Kind::of::<pretrain::Pretrain>(),
        Kind::of::<finetune::Finetune>(),
        Kind::of::<import::Import>(),
        Kind::of::<evaluate::Evaluate>(),
        Kind::of::<sample::Sample>(),
        Kind::of::<export::Export>(),
        Kind::of::<command::Command>(),
    ]
}

#[cfg(test)]
mod tests {
    use tinylm_pipeline::Device;

    use super::*;

    /// All others compute on the CPU, whatever was asked for, and so wait for its lock and not a GPU's.
    #[test]
    fn only_what_trains_or_reads_a_model_computes_on_a_gpu() {
        let gpu = Device::CUDA;
        let kinds = catalog().into_iter();
        let (on_gpu, others): (Vec<Kind>, Vec<Kind>) =
            kinds.partition(|kind| kind.device(gpu) == gpu);
        let names: Vec<&str> = on_gpu.iter().map(|kind| kind.name).collect();
        assert_eq!(names, ["pretrain", "finetune", "evaluate", "sample"]);
        assert!(others.iter().all(|kind| kind.device(gpu) == Device::Cpu));
        assert!(
            on_gpu
                .iter()
                .all(|kind| kind.device(Device::Cpu) == Device::Cpu)
        );
    }
}
