//! The weights a training starts from: a function of the seed and each tensor's name.

use crate::config::{ModelConfig, Parameter, Role};
use crate::noise;

/// Matrices start normal, with the spread that keeps activations' size (a third of one over
/// the inputs, as PyTorch's linear layers have), smaller where many layers add up.
pub(crate) fn initial(parameter: &Parameter, config: &ModelConfig, seed: u64) -> Vec<f32> {
    let n_in = parameter.shape.last().copied().unwrap_or(1);
    let spread = 1.0 / (3.0 * n_in as f32).sqrt();
    let deviation = match parameter.role {
        Role::Gain => return vec![1.0; parameter.n()],
        Role::Bias => return vec![0.0; parameter.n()],
        Role::Embedding => 0.02,
        Role::Hidden | Role::Head => spread,
        Role::Residual => spread / (2.0 * config.n_layers as f32).sqrt(),
    };
    let mut data = vec![0.0; parameter.n()];
    noise::fill_normal(&mut data, deviation, seed, &parameter.name);
    data
}
