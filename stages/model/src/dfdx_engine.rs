//! The engine: weights, held gradients and moments, on one of two sets of operations.
//!
//! `CpuEngine` runs the fused operations and is what people use. `PlainEngine<D>` runs the plain
//! ones on any dfdx device, the GPU included. They share everything here: how weights start,
//! how gradients add up and are clipped, and the optimizer, which always runs on this
//! machine's CPU over all its threads.
//!
//! Gradients are sums over places that count. They are divided once, at the update, so one
//! micro-batch of 32 rows and eight of four rows with ragged masks make the same step.

use dfdx::tensor_ops::Device;
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use tinylm_settings::choices;

use crate::config::{ModelConfig, Parameter, Positions, Precision, Role};
use crate::engine::{
    Batch, Engine, EngineError, LossSum, Pass, Score, Tensor, Tensors, Update, UpdateStats,
};
use crate::fused::FusedCpu;
use crate::kernels::optimizer::{AdamStep, MuonStep, adam, muon, sum_squares};
use crate::noise::{self, Dropout};
use crate::ops::{Result, Scene, Training};
use crate::plain::PlainDevice;

/// How an engine trains; what varies from step to step is in `Update`.
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
        }
    }
}

choices! {
    /// What turns gradients into changes of weights.
    pub enum Optimizer {
        Adamw = "adamw",
        /// Muon for the matrices inside blocks, AdamW for everything else.
        Muon = "muon",
    }
}

impl Optimizer {
    /// Returns whether Muon, not AdamW, updates tensors of this role.
    fn is_muon_for(self, role: Role) -> bool {
        self == Optimizer::Muon && role.is_hidden()
    }

    /// Moments kept for each number of a tensor.
    pub fn n_moments(self, role: Role) -> usize {
        if self.is_muon_for(role) { 1 } else { 2 }
    }
}

/// Trains on this machine's CPU.
pub type CpuEngine = DfdxEngine<FusedCpu>;

/// Where weights live and what computes gradients.
///
/// Not `Send`, because CUDA's handles are not; so a backend enters the thread pool itself.
pub(crate) trait Backend {
    /// Takes over all weights with their shapes, and which of them are trained.
    fn load(&mut self, weights: Vec<(Vec<f32>, Vec<usize>)>, trained: &[bool]) -> Result<()>;

    /// Copies all weights, in order.
    fn weights(&self, threads: &ThreadPool) -> Result<Vec<Vec<f32>>>;

    /// Lets `f` change these weights, in order, on these threads.
    fn change(
        &mut self,
        threads: &ThreadPool,
        which: &[bool],
        f: &mut (dyn FnMut(usize, &mut [f32]) + Send),
    ) -> Result<()>;

    /// Adds to the gradients and returns the summed loss.
    fn accumulate(
        &mut self,
        threads: &ThreadPool,
        scene: Scene,
        names: &[String],
        grads: &mut [Option<Vec<f32>>],
    ) -> Result<f64>;

    fn scores(
        &mut self,
        threads: &ThreadPool,
        scene: Scene,
        names: &[String],
    ) -> Result<Vec<Score>>;

    /// Takes back a gradient that was used.
    fn recycle(&self, grad: Vec<f32>);
}

/// A model and its optimizer; see the two names it goes by.
#[expect(private_bounds, reason = "the backends are this crate's two")]
pub struct DfdxEngine<B: Backend> {
    config: ModelConfig,
    settings: EngineSettings,
    parameters: Vec<Parameter>,
    names: Vec<String>,
    trained: Vec<bool>,
    moments: Vec<Option<Moments>>,
    grads: Vec<Option<Vec<f32>>>,
    backend: B,
    threads: ThreadPool,
}

/// One tensor's moments: AdamW has both, Muon only the first.
struct Moments {
    m: Vec<f32>,
    v: Vec<f32>,
}

impl CpuEngine {
    /// Starts from random weights, a function of the seed and each tensor's name.
    pub fn new(
        config: ModelConfig,
        settings: EngineSettings,
        seed: u64,
        threads: usize,
    ) -> Result<Self> {
        DfdxEngine::with_backend(FusedCpu::new(), config, settings, seed, threads)
    }
}

/// Trains on any dfdx device with dfdx's own operations: slower on a CPU, and its oracle.
/// Products are always in f32 there.
pub type PlainEngine<D> = DfdxEngine<PlainDevice<D>>;

impl<D: Device<f32>> PlainEngine<D> {
    /// As `CpuEngine::new`, on this device; the threads are the optimizer's.
    pub fn on(
        device: D,
        config: ModelConfig,
        settings: EngineSettings,
        seed: u64,
        threads: usize,
    ) -> Result<Self> {
        DfdxEngine::with_backend(PlainDevice::new(device), config, settings, seed, threads)
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
        PlainEngine::on(device, config, settings, seed, threads)
    }
}

#[expect(private_bounds, reason = "the backends are this crate's two")]
impl<B: Backend> DfdxEngine<B> {
    pub(crate) fn with_backend(
        backend: B,
        config: ModelConfig,
        settings: EngineSettings,
        seed: u64,
        threads: usize,
    ) -> Result<Self> {
        config.check()?;
        let parameters = config.parameters();
        let trained = trained(&parameters, &settings.frozen)?;
        let threads = ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| EngineError::Device(format!("cannot start threads: {error}")))?;
        let n = parameters.len();
        let mut engine = DfdxEngine {
            names: parameters.iter().map(|p| p.name.clone()).collect(),
            trained,
            moments: (0..n).map(|_| None).collect(),
            grads: vec![None; n],
            config,
            settings,
            parameters,
            backend,
            threads,
        };
        let start = |p: &Parameter| (initial(p, &engine.config, seed), p.shape.clone());
        let weights = engine
            .threads
            .install(|| engine.parameters.iter().map(start).collect());
        engine.backend.load(weights, &engine.trained)?;
        Ok(engine)
    }

    pub fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    /// Returns whether Muon, not AdamW, updates this tensor.
    fn is_muons(&self, i: usize) -> bool {
        self.settings.optimizer.is_muon_for(self.parameters[i].role)
    }

    fn apply(&mut self, update: &Update, scale: f32) -> Result<()> {
        let which: Vec<bool> = self.grads.iter().map(Option::is_some).collect();
        let is_muons: Vec<bool> = (0..which.len()).map(|i| self.is_muons(i)).collect();
        let (settings, parameters) = (&self.settings, &self.parameters);
        let (grads, all_moments) = (&mut self.grads, &mut self.moments);
        let mut change = |i: usize, weight: &mut [f32]| {
            let Some(grad) = &mut grads[i] else {
                return;
            };
            let moments =
                all_moments[i].get_or_insert_with(|| Moments::new(grad.len(), is_muons[i]));
            let Moments { m, v } = moments;
            let decay = if parameters[i].role.decays() {
                settings.weight_decay
            } else {
                0.0
            };
            let keep = 1.0 - update.lr * decay;
            if is_muons[i] {
                let (momentum, lr, cols) = (settings.momentum, update.lr, parameters[i].shape[1]);
                muon(
                    MuonStep {
                        momentum,
                        lr,
                        keep,
                        scale,
                    },
                    weight,
                    grad,
                    m,
                    cols,
                );
            } else {
                adam(adam_step(settings, update, keep, scale), weight, grad, m, v);
            }
        };
        self.backend.change(&self.threads, &which, &mut change)?;
        self.discard();
        Ok(())
    }
}

impl<B: Backend> Engine for DfdxEngine<B> {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn accumulate(&mut self, batch: &Batch, pass: Pass) -> Result<LossSum> {
        check(batch, &self.config)?;
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

    fn update(&mut self, update: &Update) -> Result<UpdateStats> {
        let grads = &self.grads;
        let norm = self.threads.install(|| grad_norm(grads, update.divisor));
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
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Vec<Score>> {
        check(batch, &self.config)?;
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
        no_strangers(weights, |name| self.names.iter().any(|known| known == name))?;
        let expected = self.parameters.iter();
        let found = expected.map(|p| Ok((find(weights, &p.name, &p.shape)?, p.shape.clone())));
        let found = found.collect::<Result<Vec<_>>>()?;
        self.discard();
        self.backend.load(found, &self.trained)
    }

    fn optimizer(&self) -> Result<Tensors> {
        let trained = (0..self.parameters.len()).filter(|&i| self.trained[i]);
        let moments = trained.flat_map(|i| {
            let names = moment_names(&self.parameters[i].name, self.is_muons(i));
            names
                .into_iter()
                .map(move |(name, second)| (i, name, second))
        });
        let moments: Vec<(usize, String, bool)> = moments.collect();
        let (parameters, held) = (&self.parameters, &self.moments);
        let copy = |(i, name, second): (usize, String, bool)| {
            let data = match &held[i] {
                Some(moments) if second => moments.v.clone(),
                Some(moments) => moments.m.clone(),
                None => vec![0.0; parameters[i].n()],
            };
            let shape = parameters[i].shape.clone();
            (name, Tensor { shape, data })
        };
        // Over all threads: training stands still meanwhile.
        let copies = || moments.into_par_iter().map(copy).collect();
        Ok(self.threads.install(copies))
    }

    fn load_optimizer(&mut self, state: &Tensors) -> Result<()> {
        let mut loaded: Vec<Option<Moments>> = (0..self.parameters.len()).map(|_| None).collect();
        let mut known = std::collections::BTreeSet::new();
        for (i, parameter) in self
            .parameters
            .iter()
            .enumerate()
            .filter(|(i, _)| self.trained[*i])
        {
            let mut moments = Moments::new(0, true);
            for (name, second) in moment_names(&parameter.name, self.is_muons(i)) {
                let data = find(state, &name, &parameter.shape)?;
                *(if second {
                    &mut moments.v
                } else {
                    &mut moments.m
                }) = data;
                known.insert(name);
            }
            loaded[i] = Some(moments);
        }
        no_strangers(state, |name| known.contains(name))?;
        self.moments = loaded;
        Ok(())
    }
}

/// The norm of the mean loss's gradient.
fn grad_norm(grads: &[Option<Vec<f32>>], divisor: f64) -> f64 {
    let sum: f64 = grads.iter().flatten().map(|grad| sum_squares(grad)).sum();
    sum.sqrt() / divisor
}

impl Moments {
    fn new(n: usize, is_muons: bool) -> Self {
        Moments {
            m: vec![0.0; n],
            v: vec![0.0; if is_muons { 0 } else { n }],
        }
    }
}

fn adam_step(settings: &EngineSettings, update: &Update, keep: f32, scale: f32) -> AdamStep {
    // In f64 and by exponent, so that step 100,000 is as exact as step 1.
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(update.step as f64);
    AdamStep {
        beta1: settings.beta1,
        beta2: settings.beta2,
        eps: settings.eps,
        lr: (f64::from(update.lr) / correction(settings.beta1)) as f32,
        correction2: (1.0 / correction(settings.beta2)) as f32,
        keep,
        scale,
    }
}

/// The names under which a tensor's moments are stored, and whether each is the second.
fn moment_names(name: &str, is_muons: bool) -> Vec<(String, bool)> {
    if is_muons {
        vec![(format!("muon.m.{name}"), false)]
    } else {
        vec![
            (format!("adam.m.{name}"), false),
            (format!("adam.v.{name}"), true),
        ]
    }
}

fn find(tensors: &Tensors, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let tensor = tensors
        .get(name)
        .ok_or_else(|| EngineError::MissingTensor(name.into()))?;
    if tensor.shape != shape || tensor.data.len() != shape.iter().product::<usize>() {
        return Err(EngineError::Shape {
            name: name.into(),
            found: tensor.shape.clone(),
            expected: shape.to_vec(),
        });
    }
    Ok(tensor.data.clone())
}

fn no_strangers(tensors: &Tensors, is_known: impl Fn(&str) -> bool) -> Result<()> {
    match tensors.keys().find(|name| !is_known(name)) {
        Some(name) => Err(EngineError::UnknownTensor(name.clone())),
        None => Ok(()),
    }
}

fn trained(parameters: &[Parameter], frozen: &[String]) -> Result<Vec<bool>> {
    let covers = |frozen: &str, name: &str| {
        name.strip_prefix(frozen)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    for frozen in frozen {
        if !parameters.iter().any(|p| covers(frozen, &p.name)) {
            return Err(EngineError::UnknownTensor(frozen.clone()));
        }
    }
    let is_trained = |p: &Parameter| !frozen.iter().any(|frozen| covers(frozen, &p.name));
    Ok(parameters.iter().map(is_trained).collect())
}

/// Matrices start normal, with the spread that keeps activations' size (a third of one over
/// the inputs, as PyTorch's linear layers have), smaller where many layers add up.
fn initial(parameter: &Parameter, config: &ModelConfig, seed: u64) -> Vec<f32> {
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

/// Refuses a batch that would read outside a table or a row; kernels rely on it.
fn check(batch: &Batch, config: &ModelConfig) -> Result<()> {
    let refuse = |what: String| Err(EngineError::Batch(what));
    let n = batch.n_rows * batch.len;
    if n == 0 {
        return refuse("it has no tokens".into());
    }
    let lengths = [
        ("tokens", batch.tokens.len()),
        ("targets", batch.targets.len()),
        ("weights", batch.weights.len()),
        ("positions", batch.positions.len()),
        ("starts", batch.starts.len()),
    ];
    if let Some((name, found)) = lengths.into_iter().find(|(_, found)| *found != n) {
        return refuse(format!("it has {found} {name} for {n} places"));
    }
    let ids = batch.tokens.iter().chain(&batch.targets);
    if let Some(id) = ids
        .max()
        .filter(|&&id| usize::from(id) >= config.vocab_size)
    {
        let size = config.vocab_size;
        return refuse(format!("token id {id} is outside the vocabulary of {size}"));
    }
    let position = batch.positions.iter().max().map_or(0, |&p| usize::from(p));
    if config.positions == Positions::Learned && position >= config.context {
        let context = config.context;
        return refuse(format!(
            "position {position} is outside the model's `context` of {context}"
        ));
    }
    let in_row = batch.starts.iter().enumerate();
    if let Some((i, start)) = in_row
        .map(|(i, &s)| (i % batch.len, usize::from(s)))
        .find(|(t, s)| s > t)
    {
        return refuse(format!(
            "the document of token {i} starts after it, at {start}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
