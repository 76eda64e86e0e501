//! A matrix with a low-rank adapter on the device: what `adapted.rs` is for a CPU.
//!
//! A pass reads one matrix, `base + alpha / rank * B A`, made anew after each update; its gradient gives those of
//! the factors, which alone have moments.

use std::rc::Rc;

use super::launcher::{After, Arg, Numbers};
use super::memory::{Buf, Device};
use super::optimizer::Moments;
use super::product::{Layout, RESIDUAL, plainly, product};
use crate::adapted::begin;
use crate::adapter::{Adapter, factors_of};
use crate::config::{Parameter, Precision};
use crate::engine::{EngineSettings, Tensor, Tensors, Update, find};
use crate::moments::names;
use crate::ops::Result;
use crate::optimizer::Optimizer;

/// A matrix with an adapter, while it is trained.
pub(crate) struct Adapted {
    base: Buf,
    scale: f32,
    a: Factor,
    b: Factor,
}

struct Factor {
    parameter: Parameter,
    data: Buf,
    grad: Option<Buf>,
    moments: Moments,
}

impl Factor {
    fn new(
        device: &Rc<Device>,
        parameter: Parameter,
        data: &[f32],
        optimizer: Optimizer,
    ) -> Result<Self> {
        Ok(Factor {
            data: device.upload(Numbers::F32(data))?,
            grad: None,
            moments: Moments::new(device, &parameter, optimizer)?,
            parameter,
        })
    }

    /// The names of its moments and of itself in a checkpoint.
    fn names(&self, optimizer: Optimizer) -> Vec<String> {
        let mut names = names(&self.parameter, optimizer);
        names.push(self.parameter.name.clone());
        names
    }

    fn save(&self, device: &Device, optimizer: Optimizer, to: &mut Tensors) -> Result<()> {
        let names = self.names(optimizer);
        let n_moments = names.len() - 1;
        for (idx, name) in names.into_iter().enumerate() {
            let n = self.parameter.n();
            let data = match idx < n_moments {
                true => self.moments.nth(device, idx, n)?,
                false => device.floats_of(&self.data, n)?,
            };
            let shape = self.parameter.shape.clone();
            to.insert(name, Tensor { shape, data });
        }
        Ok(())
    }

    fn load(&mut self, device: &Rc<Device>, state: &Tensors, optimizer: Optimizer) -> Result<()> {
        let data = find(state, &self.parameter.name, &self.parameter.shape)?;
        self.data = device.upload(Numbers::F32(&data))?;
        self.moments = Moments::load(device, state, &self.parameter, optimizer)?;
        Ok(())
    }

    fn step(
        &mut self,
        device: &Rc<Device>,
        judgement: &Buf,
        how: (&EngineSettings, &Update),
    ) -> Result<()> {
        match self.grad.take() {
            Some(grad) => {
                let to = (&self.data, &grad);
                self.moments
                    .step(device, &self.parameter, to, judgement, how)
            }
            None => Ok(()),
        }
    }
}

impl Adapted {
    /// Starts on this base, which the matrix is then.
    pub(crate) fn new(
        device: &Rc<Device>,
        adapter: &Adapter,
        (parameter, base): (&Parameter, &[f32]),
        optimizer: Optimizer,
        seed: u64,
    ) -> Result<Self> {
        let [a, b] = factors_of(adapter.rank, parameter);
        let [a_data, b_data] = begin(&[&a, &b], seed);
        Ok(Adapted {
            base: device.upload(Numbers::F32(base))?,
            scale: adapter.scale(),
            a: Factor::new(device, a, &a_data, optimizer)?,
            b: Factor::new(device, b, &b_data, optimizer)?,
        })
    }

    /// Inputs and outputs of the matrix, and the rank.
    fn sizes(&self) -> (usize, usize, usize) {
        let (a, b) = (&self.a.parameter.shape, &self.b.parameter.shape);
        (a[1], b[0], a[0])
    }

    /// Takes the gradients of the factors from that of the matrix.
    pub(crate) fn take_gradient(&mut self, device: &Rc<Device>, whole: &Buf) -> Result<()> {
        let (n_in, n_out, rank) = self.sizes();
        let scaled =
            |layout, left: &Buf, right: &Buf, shape: (usize, usize, usize)| -> Result<Buf> {
                let n = shape.0 * shape.1;
                let grad = device.floats(n)?;
                let operands = (grad.at(), left.at(), right.at());
                product(
                    device,
                    layout,
                    operands,
                    shape,
                    Precision::F32,
                    plainly(false),
                )?;
                scale_by(device, &grad, self.scale, n)?;
                Ok(grad)
            };
        let d_a = scaled(Layout::Tn, &self.b.data, whole, (rank, n_in, n_out));
        let d_b = scaled(Layout::Nt, whole, &self.a.data, (n_out, rank, n_in));
        (self.a.grad, self.b.grad) = (Some(d_a?), Some(d_b?));
        Ok(())
    }

    /// The gradients of both factors, each with its size.
    pub(crate) fn gradients(&self) -> impl Iterator<Item = (&Buf, usize)> {
        let factors = [&self.a, &self.b].into_iter();
        factors.filter_map(|factor| Some((factor.grad.as_ref()?, factor.parameter.n())))
    }

    pub(crate) fn discard(&mut self) {
        (self.a.grad, self.b.grad) = (None, None);
    }

    /// Changes the factors by their gradients, as judged, and the matrix with them.
    pub(crate) fn step(
        &mut self,
        device: &Rc<Device>,
        weight: &Buf,
        judgement: &Buf,
        how: (&EngineSettings, &Update),
    ) -> Result<()> {
        self.a.step(device, judgement, how)?;
        self.b.step(device, judgement, how)?;
        self.merge(device, weight)
    }

    /// Makes the matrix of its base and the factors.
    pub(crate) fn merge(&self, device: &Rc<Device>, weight: &Buf) -> Result<()> {
        let (n_in, n_out, rank) = self.sizes();
        let scaled = device.zeros(rank * n_in)?;
        let n = Arg::Long((rank * n_in) as u64);
        let ends = [self.a.data.at(), Arg::Float(self.scale), n];
        let args = [&[scaled.at(), Arg::Float(1.0)], &ends[..]].concat();
        device.each("blend", rank * n_in, &args)?;
        let after = After {
            residual: self.base.address,
            then: RESIDUAL,
            ..plainly(false)
        };
        let operands = (weight.at(), self.b.data.at(), scaled.at());
        let shape = (n_out, n_in, rank);
        product(device, Layout::Nn, operands, shape, Precision::F32, after)
    }

    /// The names of all that it saves.
    pub(crate) fn names(&self, optimizer: Optimizer) -> Vec<String> {
        [self.a.names(optimizer), self.b.names(optimizer)].concat()
    }

    pub(crate) fn save(
        &self,
        device: &Device,
        optimizer: Optimizer,
        to: &mut Tensors,
    ) -> Result<()> {
        self.a.save(device, optimizer, to)?;
        self.b.save(device, optimizer, to)
    }

    pub(crate) fn load(
        &mut self,
        device: &Rc<Device>,
        state: &Tensors,
        optimizer: Optimizer,
    ) -> Result<()> {
        self.a.load(device, state, optimizer)?;
        self.b.load(device, state, optimizer)
    }
}

/// x = scale * x
fn scale_by(device: &Rc<Device>, x: &Buf, scale: f32, n: usize) -> Result<()> {
    let zero = Arg::Float(0.0);
    let args = [x.at(), Arg::Float(scale), x.at(), zero, Arg::Long(n as u64)];
    device.each("blend", n, &args)
}
