//! The engine: weights, held gradients and moments, on one of two sets of operations.
//!
//! `CpuEngine` runs the fused operations and is what people use. `PlainEngine<D>` runs the plain
//! ones on any dfdx device, the GPU included. They share everything here: how weights start,
//! how gradients add up and are clipped, and the optimizer, which always runs on this
//! machine's CPU over all its threads.
//!
//! Gradients are sums over places that count. They are divided once, at the update, so one
//! micro-batch of 32 rows and eight of four rows with ragged masks make the same step.

use std::collections::BTreeSet;

use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use tinylm_settings::Device;

use crate::adapted::Adapted;
use crate::backend::Backend;
use crate::config::{ModelConfig, Parameter};
use crate::engine::{
    Batch, Engine, EngineError, EngineSettings, LossSum, Pass, Score, Tensor, Tensors, Update,
    UpdateStats, find, no_strangers,
};
use crate::fused::FusedCpu;
use crate::initial::initial;
use crate::kernels::optimizer::sum_squares;
use crate::machine::Machine;
use crate::moments::{Moments, names};
use crate::ops::{Result, Scene, Training};
use crate::plain::PlainDevice;

/// Trains on this machine's CPU.
pub type CpuEngine = DfdxEngine<FusedCpu>;

/// A model and its optimizer; see the two names it goes by.
#[expect(private_bounds, reason = "the backends are this crate's two")]
pub struct DfdxEngine<B: Backend> {
    config: ModelConfig,
    settings: EngineSettings,
    parameters: Vec<Parameter>,
    names: Vec<String>,
    trained: Vec<bool>,
    adapted: Vec<Option<Adapted>>,
    seed: u64,
    moments: Vec<Option<Moments>>,
    grads: Vec<Option<Vec<f32>>>,
    backend: B,
    threads: ThreadPool,
    pub(crate) machine: Machine,
}

impl CpuEngine {
    /// Starts from random weights, a function of the seed and each tensor's name.
    pub fn new(
        config: ModelConfig,
        settings: EngineSettings,
        seed: u64,
        threads: usize,
    ) -> Result<Self> {
        DfdxEngine::with_backend(
            FusedCpu::new(),
            Device::Cpu,
            config,
            settings,
            seed,
            threads,
        )
    }
}

/// Trains on any dfdx device with dfdx's own operations: slower on a CPU, and its oracle.
/// Products are always in f32 there.
pub type PlainEngine<D> = DfdxEngine<PlainDevice<D>>;

impl<D: dfdx::tensor_ops::Device<f32>> PlainEngine<D> {
    /// As `CpuEngine::new`, on this device; the threads are the optimizer's.
    pub fn on(
        device: D,
        config: ModelConfig,
        settings: EngineSettings,
        seed: u64,
        threads: usize,
    ) -> Result<Self> {
        Self::called(Device::Cpu, device, config, settings, seed, threads)
    }

    fn called(
        name: Device,
        device: D,
        config: ModelConfig,
        settings: EngineSettings,
        seed: u64,
        threads: usize,
    ) -> Result<Self> {
        let backend = PlainDevice::new(device);
        DfdxEngine::with_backend(backend, name, config, settings, seed, threads)
    }
}

/// Trains on a GPU.
#[cfg(feature = "cuda")]
pub type CudaEngine = PlainEngine<dfdx::tensor::Cuda>;

#[cfg(feature = "cuda")]
impl CudaEngine {
    /// As `CpuEngine::new`, on the GPU of this number; the threads are the optimizer's.
    pub fn on_gpu(
        ordinal: usize,
        config: ModelConfig,
        settings: EngineSettings,
        seed: u64,
        threads: usize,
    ) -> Result<Self> {
        let device = dfdx::tensor::Cuda::try_build(ordinal, seed)
            .map_err(|error| EngineError::Device(format!("cannot use GPU {ordinal}: {error:?}")))?;
        let name = tinylm_settings::Gpus::one(ordinal).map_or(Device::CUDA, Device::Cuda);
        Self::called(name, device, config, settings, seed, threads)
    }
}

#[expect(private_bounds, reason = "the backends are this crate's two")]
impl<B: Backend> DfdxEngine<B> {
    pub(crate) fn with_backend(
        backend: B,
        device: Device,
        config: ModelConfig,
        settings: EngineSettings,
        seed: u64,
        threads: usize,
    ) -> Result<Self> {
        config.check()?;
        let machine = Machine {
            device,
            ..Machine::here()
        };
        let parameters = config.parameters();
        let trained = settings.trained(&parameters)?;
        let threads = ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| EngineError::Device(format!("cannot start threads: {error}")))?;
        let n = parameters.len();
        let mut engine = DfdxEngine {
            names: parameters.iter().map(|p| p.name.clone()).collect(),
            trained,
            adapted: (0..n).map(|_| None).collect(),
            seed,
            moments: (0..n).map(|_| None).collect(),
            grads: vec![None; n],
            config,
            settings,
            parameters,
            backend,
            threads,
            machine,
        };
        let start = |p: &Parameter| (initial(p, &engine.config, seed), p.shape.clone());
        let weights = engine
            .threads
            .install(|| engine.parameters.iter().map(start).collect());
        engine.start(weights)?;
        Ok(engine)
    }

    /// Begins with these weights, on which adapters start anew.
    fn start(&mut self, weights: Vec<(Vec<f32>, Vec<usize>)>) -> Result<()> {
        let optimizer = self.settings.optimizer;
        for (i, (weight, _)) in weights.iter().enumerate() {
            let parameter = &self.parameters[i];
            let adapter = self.settings.adapter_of(parameter);
            let adapter = adapter.filter(|_| self.trained[i]);
            let adapted =
                |adapter| Adapted::new(adapter, parameter, weight.clone(), optimizer, self.seed);
            self.adapted[i] = self.threads.install(|| adapter.map(adapted));
        }
        self.backend.load(weights, &self.trained)
    }

    /// Checks weights and puts them in order.
    fn in_order(&self, weights: &Tensors) -> Result<Vec<(Vec<f32>, Vec<usize>)>> {
        no_strangers(weights, |name| self.names.iter().any(|known| known == name))?;
        let expected = self.parameters.iter();
        let found = expected.map(|p| Ok((find(weights, &p.name, &p.shape)?, p.shape.clone())));
        found.collect()
    }

    /// Exchanges gradients of matrices with an adapter for those of its factors.
    fn pass_gradients_on(&mut self) {
        for (grad, adapted) in self.grads.iter_mut().zip(&mut self.adapted) {
            let Some(adapted) = adapted else {
                continue;
            };
            if let Some(whole) = grad.take() {
                self.threads.install(|| adapted.take_gradient(&whole));
                self.backend.recycle(whole);
            }
        }
    }

    fn apply(&mut self, update: &Update, scale: f32) -> Result<()> {
        let changes = self.grads.iter().zip(&self.adapted);
        let changes = changes.map(|(grad, adapted)| {
            grad.is_some() || adapted.as_ref().is_some_and(Adapted::has_gradient)
        });
        let which: Vec<bool> = changes.collect();
        let (settings, parameters) = (&self.settings, &self.parameters);
        let (grads, held) = (&mut self.grads, &mut self.moments);
        let adapted = &mut self.adapted;
        let mut change = |i: usize, weight: &mut [f32]| {
            if let Some(adapted) = &mut adapted[i] {
                return adapted.step(weight, (settings, update, scale));
            }
            let (parameter, Some(grad)) = (&parameters[i], &mut grads[i]) else {
                return;
            };
            let new = || Moments::new(parameter, settings.optimizer);
            let moments = held[i].get_or_insert_with(new);
            moments.step(parameter, weight, grad, (settings, update, scale));
        };
        self.backend.change(&self.threads, &which, &mut change)?;
        self.discard();
        Ok(())
    }

    /// The tensors that are trained themselves, each with its place.
    fn whole(&self) -> impl Iterator<Item = (usize, &Parameter)> {
        let all = self.parameters.iter().enumerate();
        all.filter(|(i, _)| self.trained[*i] && self.adapted[*i].is_none())
    }
}

impl<B: Backend> Engine for DfdxEngine<B> {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn accumulate(&mut self, batch: &Batch, pass: Pass) -> Result<LossSum> {
        batch.check(&self.config)?;
        let weight = batch.weights.iter().map(|&w| f64::from(w)).sum();
        let training = Training {
            pass,
            dropout: self.settings.dropout,
            label_smoothing: self.settings.label_smoothing,
        };
        let scene = Scene {
            config: &self.config,
            batch,
            precision: self.settings.precision,
            training: Some(training),
        };
        let (names, grads) = (&self.names, &mut self.grads);
        let nll = self
            .backend
            .accumulate(&self.threads, scene, names, grads)?;
        Ok(LossSum { nll, weight })
    }

    fn each_gradient(&mut self, f: &mut dyn FnMut(&str, &mut [f32])) -> Result<()> {
        let all = self.parameters.iter().zip(&mut self.grads);
        for ((parameter, grad), _) in all.zip(&self.trained).filter(|(_, trained)| **trained) {
            f(
                &parameter.name,
                grad.get_or_insert_with(|| vec![0.0; parameter.n()]),
            );
        }
        Ok(())
    }

    fn update(&mut self, update: &Update) -> Result<UpdateStats> {
        self.pass_gradients_on();
        let (grads, adapted) = (&self.grads, &self.adapted);
        let norm = || grad_norm(grads, adapted, update.divisor);
        let norm = self.threads.install(norm);
        if !norm.is_finite() {
            self.discard();
            return Ok(UpdateStats {
                grad_norm: norm,
                applied: false,
            });
        }
        let clip = (f64::from(update.clip) / (norm + 1e-6)).min(1.0);
        let scale = (clip / update.divisor) as f32;
        let _span = crate::profile::span("optimizer");
        self.apply(update, scale)?;
        Ok(UpdateStats {
            grad_norm: norm,
            applied: true,
        })
    }

    fn discard(&mut self) {
        for grad in self.grads.iter_mut().filter_map(Option::take) {
            self.backend.recycle(grad);
        }
        self.adapted.iter_mut().flatten().for_each(Adapted::discard);
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Vec<Score>> {
        batch.check(&self.config)?;
        let scene = Scene {
            config: &self.config,
            batch,
            precision: self.settings.precision,
            training: None,
        };
        self.backend.scores(&self.threads, scene, &self.names)
    }

    fn weights(&self) -> Result<Tensors> {
        let weights = self.backend.weights(&self.threads)?;
        let named = self
            .parameters
            .iter()
            .zip(weights)
            .map(|(parameter, data)| {
                let shape = parameter.shape.clone();
                (parameter.name.clone(), Tensor { shape, data })
            });
        Ok(named.collect())
    }

    fn load_weights(&mut self, weights: &Tensors) -> Result<()> {
        let weights = self.in_order(weights)?;
        self.discard();
        self.start(weights)
    }

    fn optimizer(&self) -> Result<Tensors> {
        let named = self.whole().flat_map(|(i, parameter)| {
            let names = names(parameter, self.settings.optimizer);
            let held = self.moments[i].as_ref();
            let named = names.into_iter().enumerate();
            named.map(move |(idx, name)| (name, parameter, held.map(|moments| moments.nth(idx))))
        });
        let named: Vec<_> = named.collect();
        let copy = |(name, parameter, held): (String, &Parameter, Option<&[f32]>)| {
            let data = held.map_or_else(|| vec![0.0; parameter.n()], <[f32]>::to_vec);
            let shape = parameter.shape.clone();
            (name, Tensor { shape, data })
        };
        // Over all threads: training stands still meanwhile.
        let copies = || named.into_par_iter().map(copy).collect();
        let mut state: Tensors = self.threads.install(copies);
        for adapted in self.adapted.iter().flatten() {
            state.extend(adapted.saved(self.settings.optimizer));
        }
        Ok(state)
    }

    fn load_optimizer(&mut self, state: &Tensors) -> Result<()> {
        let optimizer = self.settings.optimizer;
        let mut loaded: Vec<Option<Moments>> = (0..self.parameters.len()).map(|_| None).collect();
        let mut known = BTreeSet::new();
        for (i, parameter) in self.whole() {
            loaded[i] = Some(Moments::load(state, parameter, optimizer)?);
            known.extend(names(parameter, optimizer));
        }
        for adapted in self.adapted.iter_mut().flatten() {
            adapted.load(state, optimizer)?;
            known.extend(adapted.names(optimizer));
        }
        no_strangers(state, |name| known.contains(name))?;
        self.moments = loaded;
        let which: Vec<bool> = self.adapted.iter().map(Option::is_some).collect();
        let adapted = &self.adapted;
        let mut merge = |i: usize, weight: &mut [f32]| {
            adapted[i].iter().for_each(|adapted| adapted.merge(weight));
        };
        self.backend.change(&self.threads, &which, &mut merge)
    }

    fn restore(&mut self, weights: &Tensors, optimizer: &Tensors) -> Result<()> {
        let weights = self.in_order(weights)?;
        self.discard();
        self.backend.load(weights, &self.trained)?;
        self.load_optimizer(optimizer)
    }
}

/// The norm of the mean loss's gradient.
fn grad_norm(grads: &[Option<Vec<f32>>], adapted: &[Option<Adapted>], divisor: f64) -> f64 {
    let whole: f64 = grads.iter().flatten().map(|grad| sum_squares(grad)).sum();
    let factors = adapted.iter().flatten().map(Adapted::sum_squares);
    (whole + factors.sum::<f64>()).sqrt() / divisor
}

#[cfg(test)]
pub(crate) mod tests;
