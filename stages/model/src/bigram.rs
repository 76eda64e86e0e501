//! The smallest engine that can be trained: a table of logits by the token before.
//!
//! For tests of the loop, which must not depend on the transformer being right. It has
//! moments, uses the seed, the step and the row of its pass, and can be made to fail.

use std::{fs, path::PathBuf};

use tinylm_settings::Device;

use crate::{
    config::{Activation, Bias, ModelConfig, Norm, NormAt, Positions},
    engine::{
        Batch, Engine, EngineError, EngineSettings, LossSum, Pass, Score, Tensor, Tensors, Update,
        UpdateStats,
    },
    machine::Machine,
};

#[derive(Debug)]
pub(crate) struct Bigram {
    config: ModelConfig,
    settings: EngineSettings,
    pub(crate) machine: Machine,
    weights: Vec<f32>,
    momentum: Vec<f32>,
    gradient: Vec<f64>,
    /// Steps at which the loss is not a number.
    pub(crate) broken_steps: Vec<u64>,
    /// Steps at which a gradient is not a number.
    pub(crate) broken_gradients: Vec<u64>,
    /// Steps after which a validation's loss is not a number.
    pub(crate) broken_validations: Vec<u64>,
    /// Steps at which the loss is far too high.
    pub(crate) spiking_steps: Vec<u64>,
    /// Where no checkpoint may be in the making while weights are copied.
    pub(crate) checkpoints: Option<PathBuf>,
    step: u64,
}

/// An engine whose process is killed after so many passes.
pub(crate) struct Mortal<E> {
    pub(crate) engine: E,
    pub(crate) passes_left: u64,
}

/// The payload that a killed `Mortal` unwinds with.
pub(crate) struct Killed;

pub(crate) fn config(vocab_size: usize) -> ModelConfig {
    ModelConfig {
        vocab_size,
        context: 8,
        d_model: 4,
        n_layers: 1,
        n_heads: 1,
        n_kv_heads: 1,
        d_ff: 4,
        positions: Positions::Learned,
        rope_theta: 10_000.0,
        rope_share: 1.0,
        norm: Norm::Rms,
        norm_at: NormAt::Pre,
        parallel: false,
        final_norm: true,
        norm_eps: 1e-5,
        activation: Activation::Relu,
        bias: Bias {
            norm: false,
            qkv: false,
            proj: false,
            mlp: false,
            head: false,
        },
        tied: true,
        embed_scale: 1.0,
    }
}

impl Bigram {
    pub(crate) fn new(vocab_size: usize) -> Self {
        let n = vocab_size * vocab_size;
        Self {
            config: config(vocab_size),
            settings: EngineSettings::default(),
            machine: Machine {
                device: Device::Cpu,
                kernels: "plain".to_owned(),
                memory_bytes: None,
            },
            weights: vec![0.0; n],
            momentum: vec![0.0; n],
            gradient: vec![0.0; n],
            broken_steps: Vec::new(),
            broken_gradients: Vec::new(),
            broken_validations: Vec::new(),
            spiking_steps: Vec::new(),
            checkpoints: None,
            step: 0,
        }
    }

    fn probabilities(&self, token: u16) -> Vec<f64> {
        let v = self.config.vocab_size;
        let row = &self.weights[usize::from(token) * v..][..v];
        let exps = row.iter().map(|&logit| f64::from(logit).exp());
        let exps: Vec<f64> = exps.collect();
        let sum: f64 = exps.iter().sum();
        exps.into_iter().map(|exp| exp / sum).collect()
    }

    fn tensors(&self, name: &str, data: &[f32]) -> Tensors {
        let tensor = Tensor {
            shape: vec![self.config.vocab_size; 2],
            data: data.to_vec(),
        };
        Tensors::from([(name.to_owned(), tensor)])
    }
}

fn data(tensors: &Tensors, name: &str) -> Result<Vec<f32>, EngineError> {
    let tensor = tensors.get(name);
    let tensor = tensor.ok_or_else(|| EngineError::MissingTensor(name.to_owned()))?;
    Ok(tensor.data.clone())
}

impl Engine for Bigram {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn each_gradient(&mut self, f: &mut dyn FnMut(&str, &mut [f32])) -> Result<(), EngineError> {
        let mut gradient: Vec<f32> = self.gradient.iter().map(|g| *g as f32).collect();
        f("table", &mut gradient);
        self.gradient = gradient.into_iter().map(f64::from).collect();
        Ok(())
    }

    fn accumulate(&mut self, batch: &Batch, pass: Pass) -> Result<LossSum, EngineError> {
        let v = self.config.vocab_size;
        let mut sum = LossSum::default();
        self.step = pass.step;
        for place in 0..batch.tokens.len() {
            let weight = f64::from(batch.weights[place]);
            let row = (batch.row_offset + place / batch.len) as u64;
            // Stands for dropout: noise that depends on the pass and the row.
            let noise = 1.0 + 0.1 * ((pass.seed + 3 * pass.step + 7 * row) % 5) as f64;
            let (token, target) = (batch.tokens[place], usize::from(batch.targets[place]));
            let probabilities = self.probabilities(token);
            sum.nll -= weight * probabilities[target].ln();
            sum.weight += weight;
            for (id, p) in probabilities.into_iter().enumerate() {
                let hit = if id == target { 1.0 } else { 0.0 };
                self.gradient[usize::from(token) * v + id] += weight * noise * (p - hit);
            }
        }
        if self.broken_steps.contains(&pass.step) {
            sum.nll = f64::NAN;
        }
        if self.broken_gradients.contains(&pass.step) {
            self.gradient[0] = f64::NAN;
        }
        if self.spiking_steps.contains(&pass.step) {
            sum.nll += 50.0 * sum.weight;
        }
        Ok(sum)
    }

    fn update(&mut self, update: &Update) -> Result<UpdateStats, EngineError> {
        let norm = self.gradient.iter().map(|g| (g / update.divisor).powi(2));
        let grad_norm = norm.sum::<f64>().sqrt();
        if !grad_norm.is_finite() {
            self.discard();
            return Ok(UpdateStats {
                grad_norm,
                applied: false,
            });
        }
        // Uses the number of the update, as AdamW's correction does.
        let lr = update.lr * (1.0 + 1.0 / update.step as f32);
        for (i, gradient) in self.gradient.iter().enumerate() {
            self.momentum[i] = 0.9 * self.momentum[i] + (gradient / update.divisor) as f32;
            self.weights[i] -= lr * self.momentum[i];
        }
        self.discard();
        Ok(UpdateStats {
            grad_norm,
            applied: true,
        })
    }

    fn discard(&mut self) {
        self.gradient.fill(0.0);
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Vec<Score>, EngineError> {
        if self.broken_validations.contains(&self.step) {
            let broken = Score {
                nll: f32::NAN,
                rank: 255,
            };
            return Ok(vec![broken; batch.tokens.len()]);
        }
        let places = batch.tokens.iter().zip(&batch.targets);
        let scores = places.map(|(&token, &target)| Score {
            nll: -self.probabilities(token)[usize::from(target)].ln() as f32,
            rank: 0,
        });
        Ok(scores.collect())
    }

    fn weights(&self) -> Result<Tensors, EngineError> {
        if let Some(folder) = &self.checkpoints {
            for entry in fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name();
                assert!(!name.to_string_lossy().starts_with("writing-"), "{name:?}");
            }
        }
        Ok(self.tensors("table", &self.weights))
    }

    fn load_weights(&mut self, weights: &Tensors) -> Result<(), EngineError> {
        self.weights = data(weights, "table")?;
        Ok(())
    }

    fn optimizer(&self) -> Result<Tensors, EngineError> {
        Ok(self.tensors("momentum.table", &self.momentum))
    }

    fn load_optimizer(&mut self, state: &Tensors) -> Result<(), EngineError> {
        self.momentum = data(state, "momentum.table")?;
        Ok(())
    }
}

impl<E: Engine> Engine for Mortal<E> {
    fn config(&self) -> &ModelConfig {
        self.engine.config()
    }

    fn settings(&self) -> &EngineSettings {
        self.engine.settings()
    }

    fn machine(&self) -> &Machine {
        self.engine.machine()
    }

    fn each_gradient(&mut self, f: &mut dyn FnMut(&str, &mut [f32])) -> Result<(), EngineError> {
        self.engine.each_gradient(f)
    }

    fn accumulate(&mut self, batch: &Batch, pass: Pass) -> Result<LossSum, EngineError> {
        if self.passes_left == 0 {
            std::panic::resume_unwind(Box::new(Killed));
        }
        self.passes_left -= 1;
        self.engine.accumulate(batch, pass)
    }

    fn update(&mut self, update: &Update) -> Result<UpdateStats, EngineError> {
        self.engine.update(update)
    }

    fn discard(&mut self) {
        self.engine.discard();
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Vec<Score>, EngineError> {
        self.engine.evaluate(batch)
    }

    fn weights(&self) -> Result<Tensors, EngineError> {
        self.engine.weights()
    }

    fn load_weights(&mut self, weights: &Tensors) -> Result<(), EngineError> {
        self.engine.load_weights(weights)
    }

    fn optimizer(&self) -> Result<Tensors, EngineError> {
        self.engine.optimizer()
    }

    fn load_optimizer(&mut self, state: &Tensors) -> Result<(), EngineError> {
        self.engine.load_optimizer(state)
    }
    fn restore(&mut self, weights: &Tensors, optimizer: &Tensors) -> Result<(), EngineError> {
        self.engine.restore(weights, optimizer)
    }
}
