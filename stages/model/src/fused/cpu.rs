//! Weights in memory, and the passes of a micro-batch over them.

use std::sync::Arc;

use dfdx::prelude::*;
use rayon::{ThreadPool, prelude::*};

use super::{
    Fused,
    gradients::{Slot, device_error, put, take},
    node::Node,
};
use crate::backend::Backend;
use crate::buffer::{Buf, Pool};
use crate::config::ModelConfig;
use crate::engine::{EngineError, Score};
use crate::model::{Weights, forward};
use crate::ops::{Judge, Result, Scene};

/// Weights in memory, for the fused operations.
pub struct FusedCpu {
    device: Cpu,
    pool: Pool<f32>,
    weights: Vec<Node>,
    /// Tokens of the last batch: other sizes need other buffers.
    n_tokens: usize,
}

impl FusedCpu {
    pub(crate) fn new() -> Self {
        FusedCpu {
            device: Cpu::default(),
            pool: Pool::default(),
            weights: Vec::new(),
            n_tokens: 0,
        }
    }

    fn ops<'a, T>(&mut self, scene: Scene<'a>, tape: T) -> Fused<'a, T> {
        if self.n_tokens != scene.n_tokens() {
            self.n_tokens = scene.n_tokens();
            self.pool.clear();
        }
        Fused {
            scene,
            batch: Arc::new(scene.batch.clone()),
            pool: self.pool.clone(),
            device: self.device.clone(),
            tape,
            total: None,
        }
    }

    fn find(&self, config: &ModelConfig, names: &[String]) -> Result<Weights<Node>> {
        let find = |name: &str| {
            let i = names.iter().position(|known| known == name)?;
            self.weights.get(i).cloned()
        };
        Weights::find(config, find).ok_or_else(|| EngineError::MissingTensor("weights".into()))
    }

    fn train(
        &mut self,
        scene: Scene,
        names: &[String],
        grads: &mut [Option<Vec<f32>>],
    ) -> Result<f64> {
        let mut held = Gradients::leaky();
        for (node, grad) in self.weights.iter().zip(grads.iter_mut()) {
            if let (Some(slot), Some(grad)) = (&node.slot, grad.take()) {
                put(&mut held, slot, self.pool.own(grad)).map_err(device_error)?;
            }
        }
        let seed: Slot = self
            .device
            .try_tensor_from_vec(Vec::new(), (0,))
            .map_err(device_error)?;
        let (_, tape) = seed.traced(held).split_tape();
        let mut ops = self.ops(scene, tape);
        let weights = self.find(scene.config, names)?;
        let x = forward(&mut ops, scene.config, &weights)?;
        let (head, bias) = weights.head();
        let total = ops.loss(&x, head, bias)?;
        drop((x, weights));
        let Fused {
            total: value, tape, ..
        } = ops;
        let Some(value) = value else {
            return Ok(total);
        };
        let mut held = value.put_tape(tape).try_backward().map_err(device_error)?;
        for (node, grad) in self.weights.iter().zip(grads) {
            if let Some(slot) = &node.slot {
                let d = take(&mut held, slot, &self.pool).map_err(device_error)?;
                *grad = d.map(Buf::into_vec);
            }
        }
        Ok(total)
    }

    fn score(&mut self, scene: Scene, names: &[String]) -> Result<Vec<Score>> {
        let mut ops = self.ops(scene, NoneTape);
        let weights = self.find(scene.config, names)?;
        let x = forward(&mut ops, scene.config, &weights)?;
        let (head, bias) = weights.head();
        ops.scores(&x, head, bias)
    }
}

impl Backend for FusedCpu {
    fn load(&mut self, weights: Vec<(Vec<f32>, Vec<usize>)>, trained: &[bool]) -> Result<()> {
        self.weights.clear();
        for ((data, shape), &trained) in weights.into_iter().zip(trained) {
            let slot = self
                .device
                .try_tensor_from_vec(Vec::new(), (0,))
                .map_err(device_error)?;
            self.weights.push(Node {
                data: Arc::new(self.pool.own(data)),
                width: shape.last().copied().unwrap_or(1),
                slot: trained.then_some(slot),
                again: None,
            });
        }
        Ok(())
    }

    fn weights(&self, threads: &ThreadPool) -> Result<Vec<Vec<f32>>> {
        let weights: Vec<&Buf<f32>> = self.weights.iter().map(|node| &*node.data).collect();
        let copies = || weights.into_par_iter().map(|data| data.to_vec()).collect();
        Ok(threads.install(copies))
    }

    fn change(
        &mut self,
        threads: &ThreadPool,
        which: &[bool],
        f: &mut (dyn FnMut(usize, &mut [f32]) + Send),
    ) -> Result<()> {
        let wanted = self.weights.iter_mut().enumerate().zip(which);
        let mut wanted = wanted.filter_map(|(node, &which)| which.then_some(node));
        threads.install(|| {
            wanted.try_for_each(|(i, node)| {
                let data = Arc::get_mut(&mut node.data)
                    .ok_or_else(|| EngineError::Device("a weight is still in use".into()))?;
                f(i, data);
                Ok(())
            })
        })
    }

    fn accumulate(
        &mut self,
        threads: &ThreadPool,
        scene: Scene,
        names: &[String],
        grads: &mut [Option<Vec<f32>>],
    ) -> Result<f64> {
        threads.install(|| self.train(scene, names, grads))
    }

    fn scores(
        &mut self,
        threads: &ThreadPool,
        scene: Scene,
        names: &[String],
    ) -> Result<Vec<Score>> {
        threads.install(|| self.score(scene, names))
    }

    fn recycle(&self, grad: Vec<f32>) {
        drop(self.pool.own(grad));
    }
}
