//! The engine on a device: weights, held gradients and moments stay there from step to step.
//!
//! What it computes is `DfdxEngine`'s, with sums in another order. Whether a norm is finite is decided on
//! the device, so that an update waits for nothing before it is launched.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::adapted::Adapted;
use super::inputs::Inputs;
use super::launcher::{Launcher, Numbers};
use super::memory::{self, Buf};
use super::opening::{Work, check_heads, open};
use super::ops::{GpuOps, Tables};
use super::optimizer::{Judgement, Moments};
use super::tape::{Grads, Node};
use crate::config::{ModelConfig, Parameter};
use crate::engine::{
    Batch, Engine, EngineError, EngineSettings, LossSum, Pass, Score, Tensor, Tensors, Update,
    UpdateStats, find, no_strangers,
};
use crate::initial::initial;
use crate::machine::{Device, Machine};
use crate::model::{Weights, forward};
use crate::moments::names;
use crate::ops::{Judge, Result, Scene, Training};

/// A model and its optimizer on a GPU.
pub struct GpuEngine {
    config: ModelConfig,
    settings: EngineSettings,
    parameters: Vec<Parameter>,
    trained: Vec<bool>,
    device: Rc<memory::Device>,
    tables: Tables,
    weights: Vec<Node>,
    grads: Grads,
    moments: Vec<Option<Moments>>,
    adapted: Vec<Option<Adapted>>,
    seed: u64,
    machine: Machine,
    /// False from an update's first launch to its end: one that broke off leaves weights and moments of no step.
    is_whole: bool,
    /// Tokens of the last batch: other sizes need other buffers.
    n_tokens: usize,
}

impl GpuEngine {
    /// As `CpuEngine::new`, on a GPU; of several, on the first.
    pub fn new(
        device: Device,
        config: ModelConfig,
        settings: EngineSettings,
        seed: u64,
    ) -> Result<Self> {
        let device = device.alone();
        Self::on(
            open(device, Work::Training)?,
            device,
            (config, settings),
            seed,
        )
    }

    /// Starts from random weights, a function of the seed and each tensor's name.
    pub(crate) fn on(
        launcher: Box<dyn Launcher>,
        name: Device,
        (config, settings): (ModelConfig, EngineSettings),
        seed: u64,
    ) -> Result<Self> {
        config.check()?;
        check_heads(&*launcher, &config)?;
        let parameters = config.parameters();
        let trained = settings.trained(&parameters)?;
        let machine = Machine {
            device: name,
            kernels: launcher.name(),
            memory_bytes: launcher.free_bytes(),
        };
        let device = memory::Device::new(launcher);
        let mut engine = GpuEngine {
            grads: Grads::new(&device, parameters.len()),
            moments: parameters.iter().map(|_| None).collect(),
            adapted: parameters.iter().map(|_| None).collect(),
            seed,
            tables: Tables::default(),
            weights: Vec::new(),
            n_tokens: 0,
            is_whole: true,
            config,
            settings,
            parameters,
            trained,
            device,
            machine,
        };
        let start = |p: &Parameter| initial(p, &engine.config, seed);
        let weights: Vec<Vec<f32>> = engine.parameters.iter().map(start).collect();
        engine.start(&weights)?;
        Ok(engine)
    }

    /// Begins with these weights, on which adapters start anew.
    fn start(&mut self, weights: &[Vec<f32>]) -> Result<()> {
        let optimizer = self.settings.optimizer;
        for (i, data) in weights.iter().enumerate() {
            let parameter = &self.parameters[i];
            let adapter = self.settings.adapter_of(parameter);
            let adapted = adapter.filter(|_| self.trained[i]).map(|adapter| {
                let of = (parameter, &data[..]);
                Adapted::new(&self.device, adapter, of, optimizer, self.seed)
            });
            self.adapted[i] = adapted.transpose()?;
        }
        self.take_weights(weights)
    }

    /// Exchanges gradients of matrices with an adapter for those of its factors.
    fn pass_gradients_on(&mut self) -> Result<()> {
        for (i, adapted) in self.adapted.iter_mut().enumerate() {
            let Some(adapted) = adapted else { continue };
            if let Some(whole) = self.grads.take(i) {
                adapted.take_gradient(&self.device, &whole)?;
            }
        }
        Ok(())
    }

    fn take_weights(&mut self, weights: &[Vec<f32>]) -> Result<()> {
        self.weights.clear();
        for (i, data) in weights.iter().enumerate() {
            let width = self.parameters[i].shape.last().copied().unwrap_or(1);
            let slot = self.trained[i].then_some(i);
            let held = self.device.upload(Numbers::F32(data))?;
            self.weights.push(Node::new(held, data.len(), width, slot));
        }
        Ok(())
    }

    /// The operations of one pass over a batch.
    fn ops<'a>(&'a self, scene: Scene<'a>) -> Result<GpuOps<'a>> {
        Ok(GpuOps {
            inputs: Rc::new(Inputs::new(
                &self.device,
                scene.batch,
                scene.training.is_some(),
            )?),
            device: Rc::clone(&self.device),
            tables: &self.tables,
            tape: scene.training.map(|_| Vec::new()),
            cached: None,
            n_slots: self.parameters.len(),
            scene,
        })
    }

    fn find(&self) -> Result<Weights<Node>> {
        let find = |name: &str| {
            let i = self
                .parameters
                .iter()
                .position(|known| known.name == name)?;
            self.weights.get(i).cloned()
        };
        Weights::find(&self.config, find)
            .ok_or_else(|| EngineError::MissingTensor("weights".into()))
    }

    fn scene<'a>(&'a self, batch: &'a Batch, pass: Option<Pass>) -> Scene<'a> {
        let training = pass.map(|pass| Training {
            pass,
            dropout: self.settings.dropout,
            label_smoothing: self.settings.label_smoothing,
        });
        Scene {
            config: &self.config,
            batch,
            precision: self.settings.precision,
            training,
        }
    }

    fn prepare(&mut self, batch: &Batch) -> Result<()> {
        batch.check(&self.config)?;
        let n_tokens = batch.n_rows * batch.len;
        if self.n_tokens != n_tokens {
            self.n_tokens = n_tokens;
            self.device.clear();
        }
        Ok(())
    }

    /// The sum of a pass, and what it does backward.
    fn pass(&self, batch: &Batch, pass: Pass, held: Grads) -> (Grads, Result<f64>) {
        let mut grads = held;
        let run = |grads: &mut Grads| {
            let mut ops = self.ops(self.scene(batch, Some(pass)))?;
            let weights = self.find()?;
            let x = forward(&mut ops, &self.config, &weights)?;
            let (head, bias) = weights.head();
            let total = ops.loss(&x, head, bias)?;
            drop((x, weights));
            grads.resize(ops.n_slots);
            let tape = ops.tape.take().unwrap_or_default();
            tape.into_iter().rev().try_for_each(|back| back(grads))?;
            Ok(total)
        };
        let total = run(&mut grads);
        grads.resize(self.parameters.len());
        (grads, total)
    }

    fn check_whole(&self) -> Result<()> {
        match self.is_whole {
            true => Ok(()),
            false => Err(EngineError::Device("an update broke off".to_owned())),
        }
    }

    /// The tensors that are trained themselves, each with its place.
    fn whole(&self) -> impl Iterator<Item = (usize, &Parameter)> {
        let all = self.parameters.iter().enumerate();
        all.filter(|(i, _)| self.trained[*i] && self.adapted[*i].is_none())
    }

    fn in_order(&self, weights: &Tensors) -> Result<Vec<Vec<f32>>> {
        no_strangers(weights, |name| {
            self.parameters.iter().any(|p| p.name == name)
        })?;
        let expected = self.parameters.iter();
        expected.map(|p| find(weights, &p.name, &p.shape)).collect()
    }

    fn apply(&mut self, update: &Update, judgement: &Buf) -> Result<()> {
        for i in 0..self.parameters.len() {
            let (parameter, weight) = (&self.parameters[i], &self.weights[i]);
            if let Some(adapted) = &mut self.adapted[i] {
                let how = (&self.settings, update);
                adapted.step(&self.device, &weight.data, judgement, how)?;
                continue;
            }
            let Some(grad) = self.grads.take(i) else {
                continue;
            };
            let moments = match self.moments[i].take() {
                Some(moments) => moments,
                None => Moments::new(&self.device, parameter, self.settings.optimizer)?,
            };
            let to = (&*weight.data, &grad);
            moments.step(
                &self.device,
                parameter,
                to,
                judgement,
                (&self.settings, update),
            )?;
            self.moments[i] = Some(moments);
        }
        Ok(())
    }
}

impl Engine for GpuEngine {
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
        self.prepare(batch)?;
        let weight = batch.weights.iter().map(|&w| f64::from(w)).sum();
        let held = std::mem::replace(&mut self.grads, Grads::new(&self.device, 0));
        let (grads, nll) = self.pass(batch, pass, held);
        self.grads = grads;
        Ok(LossSum { nll: nll?, weight })
    }

    fn each_gradient(&mut self, f: &mut dyn FnMut(&str, &mut [f32])) -> Result<()> {
        for i in 0..self.parameters.len() {
            let parameter = &self.parameters[i];
            if !self.trained[i] {
                continue;
            }
            let mut shown = match self.grads.take(i) {
                Some(grad) => self.device.floats_of(&grad, parameter.n())?,
                None => vec![0.0; parameter.n()],
            };
            f(&parameter.name, &mut shown);
            let grad = self.device.upload(Numbers::F32(&shown))?;
            self.grads.put(i, grad);
        }
        Ok(())
    }

    fn take_gradient(&mut self, to: &mut Vec<f32>) -> Result<()> {
        for (i, parameter) in self.parameters.iter().enumerate() {
            match self.grads.held(i) {
                Some(grad) => to.extend(self.device.floats_of(grad, parameter.n())?),
                None if self.trained[i] => to.resize(to.len() + parameter.n(), 0.0),
                None => (),
            }
        }
        self.discard();
        Ok(())
    }

    fn hold_gradient(&mut self, from: &[f32]) -> Result<()> {
        self.discard();
        let mut rest = from;
        for i in 0..self.parameters.len() {
            if self.trained[i] {
                let (own, others) = rest.split_at(self.parameters[i].n().min(rest.len()));
                let grad = self.device.upload(Numbers::F32(own))?;
                self.grads.put(i, grad);
                rest = others;
            }
        }
        Ok(())
    }

    fn update(&mut self, update: &Update) -> Result<UpdateStats> {
        self.pass_gradients_on()?;
        let mut held = self.grads.all(&self.parameters);
        held.extend(self.adapted.iter().flatten().flat_map(Adapted::gradients));
        let judgement = Judgement::of(&self.device, held, update)?;
        self.is_whole = false;
        self.apply(update, &judgement.0)?;
        let stats = judgement.read(&self.device)?;
        self.is_whole = true;
        Ok(stats)
    }

    fn discard(&mut self) {
        self.grads = Grads::new(&self.device, self.parameters.len());
        self.adapted.iter_mut().flatten().for_each(Adapted::discard);
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Vec<Score>> {
        self.prepare(batch)?;
        let mut ops = self.ops(self.scene(batch, None))?;
        let weights = self.find()?;
        let x = forward(&mut ops, &self.config, &weights)?;
        let (head, bias) = weights.head();
        ops.scores(&x, head, bias)
    }

    fn device_bytes(&self) -> Option<u64> {
        Some(self.device.most_bytes())
    }

    fn weights(&self) -> Result<Tensors> {
        self.check_whole()?;
        let named = self
            .parameters
            .iter()
            .zip(&self.weights)
            .map(|(parameter, node)| {
                let data = self.device.floats_of(&node.data, node.n)?;
                let shape = parameter.shape.clone();
                Ok((parameter.name.clone(), Tensor { shape, data }))
            });
        named.collect()
    }

    fn load_weights(&mut self, weights: &Tensors) -> Result<()> {
        let weights = self.in_order(weights)?;
        self.discard();
        self.start(&weights)
    }

    fn restore(&mut self, weights: &Tensors, optimizer: &Tensors) -> Result<()> {
        let weights = self.in_order(weights)?;
        self.discard();
        self.take_weights(&weights)?;
        self.load_optimizer(optimizer)
    }

    fn optimizer(&self) -> Result<Tensors> {
        self.check_whole()?;
        let mut state = Tensors::new();
        for (i, parameter) in self.whole() {
            for (at, name) in names(parameter, self.settings.optimizer)
                .into_iter()
                .enumerate()
            {
                let data = match &self.moments[i] {
                    Some(moments) => moments.nth(&self.device, at, parameter.n())?,
                    None => vec![0.0; parameter.n()],
                };
                let shape = parameter.shape.clone();
                state.insert(name, Tensor { shape, data });
            }
        }
        for adapted in self.adapted.iter().flatten() {
            adapted.save(&self.device, self.settings.optimizer, &mut state)?;
        }
        Ok(state)
    }

    fn load_optimizer(&mut self, state: &Tensors) -> Result<()> {
        let optimizer = self.settings.optimizer;
        let of_factors = self.adapted.iter().flatten();
        let known: BTreeSet<String> = self
            .whole()
            .flat_map(|(_, p)| names(p, optimizer))
            .chain(of_factors.flat_map(|adapted| adapted.names(optimizer)))
            .collect();
        no_strangers(state, |name| known.contains(name))?;
        let mut loaded: Vec<Option<Moments>> = self.parameters.iter().map(|_| None).collect();
        for (i, parameter) in self.whole() {
            loaded[i] = Some(Moments::load(&self.device, state, parameter, optimizer)?);
        }
        self.moments = loaded;
        for (adapted, weight) in self.adapted.iter_mut().zip(&self.weights) {
            if let Some(adapted) = adapted {
                adapted.load(&self.device, state, optimizer)?;
                adapted.merge(&self.device, &weight.data)?;
            }
        }
        Ok(())
    }
}
