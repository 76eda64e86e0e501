//! How an engine trains.

use super::error::EngineError;
use crate::adapter::{Adapter, factors_of};
use crate::config::{ModelConfig, Parameter, Precision};
use crate::noise::Dropout;
use crate::optimizer::Optimizer;

/// How an engine trains. Whatever varies from step to step is in `Update`.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSettings {
    pub precision: Precision,
    pub optimizer: Optimizer,
    /// AdamW's decays of its two moments.
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// Decay of matrices per unit of learning rate; gains and biases are never decayed.
    pub weight_decay: f32,
    /// Muon's momentum.
    pub momentum: f32,
    pub dropout: Dropout,
    /// The share of each target's probability that is spread over the vocabulary.
    pub label_smoothing: f32,
    /// Tensors that are not trained, by name or by the start of one: `embed`, `blocks.0`.
    pub frozen: Vec<String>,
    /// Trained in place of the matrices that it is on; `frozen` ones have none.
    pub adapter: Option<Adapter>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        EngineSettings {
            precision: Precision::F32,
            optimizer: Optimizer::Adamw,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            momentum: 0.95,
            dropout: Dropout::default(),
            label_smoothing: 0.0,
            frozen: Vec::new(),
            adapter: None,
        }
    }
}

impl EngineSettings {
    /// Returns which of these tensors are trained, or which name in `frozen` is none of them.
    pub(crate) fn trained(&self, parameters: &[Parameter]) -> Result<Vec<bool>, EngineError> {
        let covers = |frozen: &str, name: &str| {
            name.strip_prefix(frozen)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        for frozen in &self.frozen {
            if !parameters.iter().any(|p| covers(frozen, &p.name)) {
                return Err(EngineError::UnknownTensor(frozen.clone()));
            }
        }
        let is_trained = |p: &Parameter| !self.frozen.iter().any(|frozen| covers(frozen, &p.name));
        Ok(parameters.iter().map(is_trained).collect())
    }
    /// Returns how many numbers of a model are trained.
    pub fn n_trained(&self, config: &ModelConfig) -> Result<usize, EngineError> {
        let parameters = config.parameters();
        let trained = self.trained(&parameters)?;
        let all = parameters.iter().zip(trained);
        let n = all
            .filter(|(_, trained)| *trained)
            .map(|(p, _)| match self.adapter_of(p) {
                Some(adapter) => factors_of(adapter.rank, p).iter().map(Parameter::n).sum(),
                None => p.n(),
            });
        Ok(n.sum())
    }

    /// Returns the adapter of a tensor that is trained.
    pub(crate) fn adapter_of(&self, parameter: &Parameter) -> Option<&Adapter> {
        let adapter = self.adapter.as_ref();
        adapter.filter(|adapter| adapter.is_on(&parameter.name))
    }
}
