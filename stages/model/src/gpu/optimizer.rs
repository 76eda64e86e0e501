//! The update on the device: the norm of all gradients, what it scales, and moments.

use std::rc::Rc;

use super::launcher::{AdamArg, Arg, Numbers, NumbersMut};
use super::memory::{Buf, Device};
use super::product::{Layout, plainly, product};
use crate::config::{Parameter, Precision};
use crate::engine::{EngineError, EngineSettings, Tensors, Update, UpdateStats, find};
use crate::moments::{adam_step, kept, names};
use crate::ops::Result;
use crate::optimizer::Optimizer;

/// Numbers whose squares one block adds; `SQUARES` of `optimizer.cu`.
const SQUARES: usize = 4096;

/// The gradients' norm and what follows from it; `Judgement` of `optimizer.cu`.
pub(crate) struct Judgement(pub(crate) Buf);

impl Judgement {
    /// Judges all held gradients, each with its size.
    pub(crate) fn of(
        device: &Rc<Device>,
        held: Vec<(&Buf, usize)>,
        update: &Update,
    ) -> Result<Self> {
        let n_parts: usize = held.iter().map(|(_, n)| n.div_ceil(SQUARES)).sum();
        let parts = device.take(8 * n_parts)?;
        let mut first = 0;
        for (grad, n) in held {
            squares(device, &parts, first, grad, n)?;
            first += n.div_ceil(SQUARES);
        }
        let judgement = device.take(16)?;
        let args = [
            judgement.at(),
            parts.at(),
            Arg::Int(n_parts as i32),
            Arg::Double(update.divisor),
            Arg::Double(f64::from(update.clip)),
        ];
        device.launch("judge", [1, 1, 1], 256, 2048, &args)?;
        Ok(Judgement(judgement))
    }

    /// Waits for the update.
    pub(crate) fn read(self, device: &Device) -> Result<UpdateStats> {
        let mut found = [0; 2];
        let launcher = &device.launcher;
        launcher.read(NumbersMut::U32(&mut found), self.0.address)?;
        let [low, high] = found;
        let grad_norm = launcher.double([low, high]);
        let applied = grad_norm.is_finite();
        Ok(UpdateStats { grad_norm, applied })
    }
}

fn squares(device: &Rc<Device>, parts: &Buf, first: usize, x: &Buf, n: usize) -> Result<()> {
    let args = [parts.behind(2 * first), x.at(), Arg::Long(n as u64)];
    device.launch("squares", [n.div_ceil(SQUARES), 1, 1], 256, 2048, &args)
}

/// One tensor's moments, in the order of their names.
pub(crate) struct Moments(Vec<Buf>);

impl Moments {
    /// Moments before the first gradient.
    pub(crate) fn new(
        device: &Rc<Device>,
        parameter: &Parameter,
        optimizer: Optimizer,
    ) -> Result<Self> {
        let n_moments = optimizer.n_moments(parameter.role);
        let moments = (0..n_moments).map(|_| device.zeros(parameter.n()));
        moments.collect::<Result<_>>().map(Moments)
    }

    pub(crate) fn load(
        device: &Rc<Device>,
        state: &Tensors,
        parameter: &Parameter,
        optimizer: Optimizer,
    ) -> std::result::Result<Self, EngineError> {
        let names = names(parameter, optimizer).into_iter();
        let found =
            names.map(|name| device.upload(Numbers::F32(&find(state, &name, &parameter.shape)?)));
        found.collect::<Result<_>>().map(Moments)
    }

    pub(crate) fn nth(&self, device: &Device, at: usize, n: usize) -> Result<Vec<f32>> {
        device.floats_of(&self.0[at], n)
    }

    /// Changes a tensor by its gradient, as judged.
    pub(crate) fn step(
        &self,
        device: &Rc<Device>,
        parameter: &Parameter,
        (weight, grad): (&Buf, &Buf),
        judgement: &Buf,
        (settings, update): (&EngineSettings, &Update),
    ) -> Result<()> {
        let (n, keep) = (parameter.n(), kept(parameter, settings, update));
        let size = Arg::Long(n as u64);
        match &self.0[..] {
            [m, v] => {
                let step = adam_step(settings, update, keep, 1.0);
                let step = AdamArg {
                    beta1: step.beta1,
                    beta2: step.beta2,
                    eps: step.eps,
                    lr: step.lr,
                    correction2: step.correction2,
                    keep,
                };
                let args = [
                    weight.at(),
                    grad.at(),
                    m.at(),
                    v.at(),
                    judgement.at(),
                    Arg::Adam(step),
                    size,
                ];
                device.each("adam", n, &args)
            }
            [m] => {
                let args = [
                    grad.at(),
                    m.at(),
                    judgement.at(),
                    Arg::Float(settings.momentum),
                    size,
                ];
                device.each("look_ahead", n, &args)?;
                let cols = parameter.shape[1];
                let rows = n / cols;
                let direction = orthogonal(device, grad, (rows, cols))?;
                let lr = update.lr * 0.2 * (rows.max(cols) as f32).sqrt();
                let direction = direction.as_ref().unwrap_or(grad);
                let args = [
                    weight.at(),
                    direction.at(),
                    judgement.at(),
                    Arg::Float(keep),
                    Arg::Float(lr),
                    size,
                ];
                device.each("move", n, &args)
            }
            _ => Ok(()),
        }
    }
}

/// Steps and coefficients of Newton and Schulz, as in `kernels/optimizer.rs`.
const STEPS: usize = 5;
const A: f32 = 3.4445;
const B: f32 = -4.7750;
const C: f32 = 2.0315;

/// The nearest matrix whose singular values are all about one; `None` says that `x` became it.
fn orthogonal(device: &Rc<Device>, x: &Buf, (rows, cols): (usize, usize)) -> Result<Option<Buf>> {
    let (tall, n, size) = (rows > cols, rows.min(cols), rows * cols);
    let parts = device.take(8 * size.div_ceil(SQUARES))?;
    squares(device, &parts, 0, x, size)?;
    let n_parts = Arg::Int(size.div_ceil(SQUARES) as i32);
    device.each(
        "to_unit",
        size,
        &[x.at(), parts.at(), n_parts, Arg::Long(size as u64)],
    )?;
    let (gram, squared) = (device.floats(n * n)?, device.floats(n * n)?);
    let multiply = |layout, operands, shape| {
        product(
            device,
            layout,
            operands,
            shape,
            Precision::F32,
            plainly(false),
        )
    };
    let blend = |to: &Buf, a: f32, x: &Buf, b: f32, n: usize| {
        let args = [
            to.at(),
            Arg::Float(a),
            x.at(),
            Arg::Float(b),
            Arg::Long(n as u64),
        ];
        device.each("blend", n, &args)
    };
    let mut now: Option<Buf> = None;
    for _ in 0..STEPS {
        let at = now.as_ref().unwrap_or(x);
        let (layout, k) = if tall {
            (Layout::Tn, rows)
        } else {
            (Layout::Nt, cols)
        };
        multiply(layout, (gram.at(), at.at(), at.at()), (n, n, k))?;
        multiply(Layout::Nn, (squared.at(), gram.at(), gram.at()), (n, n, n))?;
        blend(&gram, B, &squared, C, n * n)?;
        let next = device.floats(size)?;
        let (left, right) = if tall { (at, &gram) } else { (&gram, at) };
        multiply(
            Layout::Nn,
            (next.at(), left.at(), right.at()),
            (rows, cols, n),
        )?;
        blend(&next, 1.0, at, A, size)?;
        now = Some(next);
    }
    Ok(now)
}
