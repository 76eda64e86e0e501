//! The settings of a finetuning.

use tinylm_model::{adapter::Projection, folder::Which};
use tinylm_pipeline::{
    choices,
    settings::{Choice as _, LocalPath, defaults},
};

use crate::shared::training::{ModelSettings, TrainSettings};

choices! {
    pub enum OptimizerStateName {
        Reset = "reset",
        Keep = "keep",
    }
}

tinylm_pipeline::settings! {
    /// Parts that stay as they are.
    pub struct FreezeSettings {
        /// Token and position embeddings, and a tied head with them.
        pub embeddings: bool = false,
        /// The first so many blocks.
        pub blocks: usize = 0,
    }
}

tinylm_pipeline::settings! {
    /// Thin matrices that are trained in place of the model's own (LoRA).
    pub struct AdapterSettings {
        /// Rows of the thin matrices: how much they can learn.
        pub rank: usize = 8,
        /// Their product is multiplied by this over `rank`.
        pub alpha: f64 = 16.0,
        /// The matrices of each block that get one; what a model has not is passed over.
        pub on: Vec<Projection> = Projection::ALL.to_vec(),
    }
}

tinylm_pipeline::settings! {
    /// Trains a model further.
    pub struct FinetuneSettings {
        /// A model folder, or a safetensors file, in place of the role `model`.
        pub from: Option<LocalPath> = None,
        /// The model's shape, where `from` is a safetensors file alone; the folder's own description is not read then.
        pub model: Option<ModelSettings> = None,
        /// Which weights to start from: `best`, or `last` with `optimizer_state: keep`.
        pub start: Option<Which> = None,
        /// `keep` goes on with moments that an earlier stage wrote with `keep_optimizer`.
        pub optimizer_state: OptimizerStateName = OptimizerStateName::Reset,
        /// Longest sequence the model reads from now on; learned positions are extended or sliced.
        pub context: Option<usize> = None,
        /// Parts that stay as they are.
        pub freeze: FreezeSettings = defaults(),
        /// Trains thin matrices (LoRA) in place of the model's own, which takes less memory; `{}` for the usual ones.
        pub adapter: Option<AdapterSettings> = None => neutral None,
        /// How the model is trained.
        pub train: TrainSettings,
        /// Writes the optimizer's state too.
        pub keep_optimizer: bool = false,
        /// Instead of the experiment's seed.
        pub seed: Option<u64> = None,
    }
}
