//! The settings of a finetuning.

use tinylm_model::{adapter::Projection, dpo::Dpo, folder::Which};
use tinylm_pipeline::{
    choices,
    settings::{Choice as _, LocalPath, SettingError, defaults},
};

use crate::shared::training::{ModelSettings, TrainSettings};

impl FinetuneSettings {
    /// Spells out what the objective needs, and refuses what contradicts it.
    pub(super) fn with_objective(mut self) -> Result<Self, SettingError> {
        let refuse = |name: &str, message: &str| Err(SettingError::new(name, message));
        match (self.objective, self.beta) {
            (Objective::Likelihood, None) => return Ok(self),
            (Objective::Likelihood, Some(_)) => {
                return refuse("beta", "is for `objective: dpo` alone");
            }
            (Objective::Dpo, beta) => self.beta = Some(beta.unwrap_or(0.1)),
        }
        if !self.beta.is_some_and(|beta| beta > 0.0 && beta <= 1e3) {
            return refuse("beta", "must be above 0 and at most 1000");
        }
        let train = &self.train;
        let dropouts = [
            train.dropout,
            train.dropout_embedding,
            train.dropout_attention,
            train.dropout_residual,
            train.dropout_mlp,
        ];
        if dropouts.into_iter().flatten().any(|rate| rate > 0.0) {
            let message = "is not for `objective: dpo`: the reference drops nothing";
            return refuse("train.dropout", message);
        }
        if train.label_smoothing > 0.0 {
            return refuse("train.label_smoothing", "is not for `objective: dpo`");
        }
        if train.leaves.is_some() {
            return refuse("train.leaves", "is not for `objective: dpo`");
        }
        Ok(self)
    }

    pub(super) fn dpo(&self) -> Option<Dpo> {
        let beta = self.beta.filter(|_| self.objective == Objective::Dpo);
        beta.map(|beta| Dpo { beta })
    }
}

choices! {
    pub enum OptimizerStateName {
        Reset = "reset",
        Keep = "keep",
    }
}

choices! {
    pub enum Objective {
        Likelihood = "likelihood",
        Dpo = "dpo",
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
        #[range(1)]
        pub rank: usize = 8,
        /// Their product is multiplied by this over `rank`.
        #[range(above 0.0, 1e6)]
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
        /// `likelihood` learns to write the targets; `dpo` learns from pairs (`normalize` with `format: preferences`) to
        /// prefer the chosen answers to the rejected ones; `lr` is then far smaller, such as 1e-6.
        pub objective: Objective = Objective::Likelihood => neutral Objective::Likelihood,
        /// How far `dpo` may go from the model that it begins with: less goes further; 0.1 if not given.
        pub beta: Option<f64> = None => neutral None,
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
