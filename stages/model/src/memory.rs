//! The memory that training will need, estimated before any of it is taken.

use crate::adapter::factors_of;
use crate::config::{Activation, ModelConfig, Parameter, Precision};
use crate::engine::EngineSettings;
use crate::optimizer::Optimizer;

/// Bytes that training on the CPU will need, by purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    pub weights: u64,
    pub gradients: u64,
    pub moments: u64,
    /// Kept by the forward pass for the backward pass.
    pub activations: u64,
    /// Buffers in use for a moment: logits, packed operands, gradients of activations.
    pub scratch: u64,
    /// Copies of weights and moments, which exist while a checkpoint is written.
    pub checkpoint: u64,
}

impl MemoryEstimate {
    pub fn total(&self) -> u64 {
        self.step().saturating_add(self.checkpoint)
    }

    /// Returns what a step needs that no checkpoint is taken after.
    pub fn step(&self) -> u64 {
        self.model()
            .saturating_add(self.activations)
            .saturating_add(self.scratch)
    }

    /// Returns what the model takes with its optimizer, whatever is read at a time.
    pub fn model(&self) -> u64 {
        self.weights
            .saturating_add(self.gradients)
            .saturating_add(self.moments)
    }
}

/// Rows of logits that exist at one time in the fused head.
pub(crate) const HEAD_ROWS: usize = 1024;

impl ModelConfig {
    /// Estimates the memory of training on the CPU with micro-batches of
    /// `n_rows` sequences of `len` tokens.
    pub fn memory(
        &self,
        n_rows: usize,
        len: usize,
        precision: Precision,
        optimizer: Optimizer,
    ) -> MemoryEstimate {
        let bytes = |n: usize| (n as u64).saturating_mul(4);
        let parameters = self.parameters();
        let n_params: usize = parameters.iter().map(Parameter::n).sum();
        let n_moments: usize = parameters
            .iter()
            .map(|p| p.n() * optimizer.n_moments(p.role))
            .sum();
        let n_tokens = n_rows.saturating_mul(len);
        let (d, f, v) = (self.d_model, self.d_ff, self.vocab_size);
        let d_qkv = d + 2 * self.d_kv();
        // Norms' results and the MLP's values after the activation are made again backward.
        let n_hidden = match self.activation {
            Activation::Swiglu => 2,
            _ => 1,
        };
        let per_layer = 3 * d + d_qkv + n_hidden * f + self.n_heads + 4;
        let logits = n_tokens.min(HEAD_ROWS) * v;
        let widest = d_qkv.max((n_hidden + 1) * f);
        let operands = match precision {
            Precision::Bf16 if crate::kernels::copies_operands() => logits + v * d,
            // A few megabytes are packed at a time.
            Precision::F32 | Precision::Bf16 => 2 << 20,
        };
        MemoryEstimate {
            weights: bytes(n_params),
            gradients: bytes(n_params),
            moments: bytes(n_moments),
            activations: bytes(n_tokens.saturating_mul(self.n_layers * per_layer + 3 * d)),
            scratch: bytes((logits + operands).saturating_add(n_tokens.saturating_mul(2 * widest))),
            checkpoint: bytes(n_params + n_moments),
        }
    }
}

impl EngineSettings {
    /// Estimates the memory of training a model with these settings.
    pub fn memory(&self, config: &ModelConfig, n_rows: usize, len: usize) -> MemoryEstimate {
        let whole = config.memory(n_rows, len, self.precision, self.optimizer);
        let parameters = config.parameters();
        // A name that is no tensor's is refused by the engine.
        let trained = match (&self.adapter, self.trained(&parameters)) {
            (Some(_), Ok(trained)) => trained,
            _ => return whole,
        };
        let (mut bases, mut gradients, mut moments, mut factors) = (0, 0, 0, 0);
        for (parameter, _) in parameters
            .iter()
            .zip(trained)
            .filter(|(_, trained)| *trained)
        {
            gradients += parameter.n();
            let Some(adapter) = self.adapter_of(parameter) else {
                moments += parameter.n() * self.optimizer.n_moments(parameter.role);
                continue;
            };
            bases += parameter.n();
            for factor in factors_of(adapter.rank, parameter) {
                factors += factor.n();
                moments += factor.n() * self.optimizer.n_moments(factor.role);
            }
        }
        let bytes = |n: usize| (n as u64).saturating_mul(4);
        MemoryEstimate {
            weights: whole.weights + bytes(bases + factors),
            gradients: bytes(gradients),
            moments: bytes(moments),
            checkpoint: whole.weights + bytes(factors + moments),
            ..whole
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;

    #[test]
    fn memory_grows_with_the_batch_but_weights_do_not() {
        let config = Preset::FortyOne.config(32_105);
        let one = config.memory(1, 80, Precision::F32, Optimizer::Adamw);
        let many = config.memory(32, 80, Precision::F32, Optimizer::Adamw);
        assert_eq!(one.weights, many.weights);
        assert_eq!(many.activations, 32 * one.activations);
        assert_eq!(many.moments, 2 * 4 * 41_343_965);
        assert!(one.total() < many.total());
    }
}
