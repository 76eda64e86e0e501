//! The operations in dfdx's own: the definition, and the oracle of the tests.
//!
//! Generic over the dfdx device, so it also is how a GPU is used. Slow on a CPU, and meant to
//! be read: nothing is fused, and masks, rotations and the order of heads are plain tensors
//! made on the host. Everything stays contiguous, because dfdx compiles its kernel for
//! reshaping anything else at run time, on CUDA with include paths of the machine it was built on.

use dfdx::prelude::*;
use rayon::ThreadPool;

use crate::backend::Backend;
use crate::config::{Activation, ModelConfig, Norm, Positions};
use crate::engine::{EngineError, Score};
use crate::kernels::{loss, math, rows};
use crate::model::{Weights, forward};
use crate::noise::{Mask, Place};
use crate::ops::{Judge, Ops, Result, Scene, Then};

/// Values are rows of numbers; vectors are one row.
type Rows<D, T = NoneTape> = Tensor<(usize, usize), f32, D, T>;

struct Plain<'a, D: Device<f32>, T> {
    scene: Scene<'a>,
    device: D,
    tape: T,
    total: Option<Tensor<Rank0, f32, D>>,
}

impl<D: Device<f32>, T: Tape<f32, D>> Plain<'_, D, T> {
    /// Puts the tape on a value, to be computed with.
    fn begin(&mut self, x: &Rows<D>) -> Rows<D, T> {
        x.clone().put_tape(std::mem::take(&mut self.tape))
    }

    /// Takes the tape back from a result.
    fn end(&mut self, y: Rows<D, T>) -> Rows<D> {
        let (y, tape) = y.split_tape();
        self.tape = tape;
        y
    }

    fn constant(&self, data: Vec<f32>, width: usize) -> Result<Rows<D>> {
        let n = data.len() / width;
        self.device
            .try_tensor_from_vec(data, (n, width))
            .map_err(failed)
    }

    fn indices(&self, indices: Vec<usize>) -> Result<Tensor<(usize,), usize, D>> {
        let n = indices.len();
        self.device
            .try_tensor_from_vec(indices, (n,))
            .map_err(failed)
    }

    fn pick(&self, x: Rows<D, T>, rows: Vec<usize>) -> Result<Rows<D, T>> {
        x.try_gather(self.indices(rows)?).map_err(failed)
    }

    /// The mask of rows of `width` numbers, `lanes` rows a token, as a matrix of factors.
    fn drop(&self, x: Rows<D, T>, place: Place) -> Result<Rows<D, T>> {
        match self.scene.mask(place) {
            None => Ok(x),
            Some(mask) => {
                let (n, width) = *x.shape();
                let factors = factors(&mask, n, width);
                x.try_mul(self.constant(factors, width)?).map_err(failed)
            }
        }
    }

    fn add_bias(&self, x: Rows<D, T>, bias: Option<&Rows<D>>) -> Result<Rows<D, T>> {
        let Some(bias) = bias else {
            return Ok(x);
        };
        let shape = *x.shape();
        x.try_add(spread::<D, T>(bias, &shape)?).map_err(failed)
    }

    /// Rotates each row, one head of one token; `at` are the tokens' positions.
    fn rotate(&self, x: Rows<D, T>, at: &[usize]) -> Result<Rows<D, T>> {
        let (n, d_head) = *x.shape();
        let half = d_head / 2;
        let table = math::rotations(
            self.scene.n_positions(),
            d_head,
            self.scene.config.d_turned(),
            self.scene.config.rope_theta,
        );
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for &position in at {
            let (c, s) = table[position * d_head..][..d_head].split_at(half);
            cos.extend([c, c].concat());
            sin.extend(s.iter().map(|s| -s).chain(s.iter().copied()));
        }
        // Halves as rows of their own, to swap them.
        let swapped = x
            .retaped::<T>()
            .try_reshape_like(&(2 * n, half))
            .map_err(failed)?;
        let swapped = self.pick(swapped, (0..2 * n).map(|i| i ^ 1).collect())?;
        let swapped = swapped.try_reshape_like(&(n, d_head)).map_err(failed)?;
        let turned = swapped
            .try_mul(self.constant(sin, d_head)?)
            .map_err(failed)?;
        let straight = x.try_mul(self.constant(cos, d_head)?).map_err(failed)?;
        straight.try_add(turned).map_err(failed)
    }

    fn logits(
        &mut self,
        x: &Rows<D>,
        weight: &Rows<D>,
        bias: Option<&Rows<D>>,
    ) -> Result<Rows<D, T>> {
        let x = self.begin(x);
        let y = x
            .try_matmul(weight.retaped::<T>().try_permute().map_err(failed)?)
            .map_err(failed)?;
        self.add_bias(y, bias)
    }
}

impl<D: Device<f32>, T: Tape<f32, D>> Ops for Plain<'_, D, T> {
    type T = Rows<D>;

    fn embed(&mut self, table: &Rows<D>, positions: Option<&Rows<D>>) -> Result<Rows<D>> {
        let (config, batch) = (self.scene.config, self.scene.batch);
        let table = self.begin(table);
        let mut x = self.pick(table, widen(&batch.tokens))?;
        x = x.try_mul(config.embed_scale).map_err(failed)?;
        if let Some(positions) = positions {
            let added = self.pick(positions.retaped::<T>(), widen(&batch.positions))?;
            x = x.try_add(added).map_err(failed)?;
        }
        if config.positions == Positions::Sinusoidal {
            let table = math::sinusoids(self.scene.n_positions(), config.d_model);
            let table = self.constant(table, config.d_model)?.retaped::<T>();
            x = x
                .try_add(self.pick(table, widen(&batch.positions))?)
                .map_err(failed)?;
        }
        let x = self.drop(x, Place::Embedding)?;
        Ok(self.end(x))
    }

    fn norm(&mut self, x: &Rows<D>, gain: &Rows<D>, bias: Option<&Rows<D>>) -> Result<Rows<D>> {
        let (x, eps) = (self.begin(x), self.scene.config.norm_eps);
        let shape = *x.shape();
        let y = match self.scene.config.norm {
            Norm::Layer => x.try_normalize::<Axis<1>>(eps).map_err(failed)?,
            Norm::Rms => {
                let squares = x.retaped::<T>().try_square().map_err(failed)?;
                let mean = squares.try_mean::<(usize,), Axis<1>>().map_err(failed)?;
                let root = mean
                    .try_add(eps)
                    .map_err(failed)?
                    .try_sqrt()
                    .map_err(failed)?;
                x.try_div(
                    root.try_broadcast_like::<_, Axis<1>>(&shape)
                        .map_err(failed)?,
                )
                .map_err(failed)?
            }
        };
        let y = y.try_mul(spread::<D, T>(gain, &shape)?).map_err(failed)?;
        let y = self.add_bias(y, bias)?;
        Ok(self.end(y))
    }

    fn linear(
        &mut self,
        x: &Rows<D>,
        weight: &Rows<D>,
        bias: Option<&Rows<D>>,
        then: Then<Rows<D>>,
    ) -> Result<Rows<D>> {
        let y = self.logits(x, weight, bias)?;
        let y = match then {
            Then::Nothing => y,
            Then::Activate(place) => {
                let y = activate(y, self.scene.config.activation)?;
                self.drop(y, place)?
            }
            Then::Add(residual, place) => {
                let y = self.drop(y, place)?;
                y.try_add(residual.clone()).map_err(failed)?
            }
        };
        Ok(self.end(y))
    }

    fn gate(&mut self, gate: &Rows<D>, up: &Rows<D>, place: Place) -> Result<Rows<D>> {
        let gate = activate(self.begin(gate), Activation::Silu)?;
        let y = gate.try_mul(up.clone()).map_err(failed)?;
        let y = self.drop(y, place)?;
        Ok(self.end(y))
    }

    fn attention(&mut self, qkv: &Rows<D>, place: Place) -> Result<Rows<D>> {
        let (config, batch) = (self.scene.config, self.scene.batch);
        let (n_rows, len) = (batch.n_rows, batch.len);
        let (n_heads, n_kv, d_head) = (config.n_heads, config.n_kv_heads, config.d_head());
        let in_a_token = n_heads + 2 * n_kv;
        let qkv = self.begin(qkv);
        let qkv = qkv
            .try_reshape_like(&(n_rows * len * in_a_token, d_head))
            .map_err(failed)?;
        // Reads heads in the order (row, head, token), each query's own or its group's.
        let order = |head_at: &dyn Fn(usize) -> usize| -> Vec<usize> {
            let of_row = |row: usize| {
                (0..n_heads).flat_map(move |head| (0..len).map(move |t| (row * len + t, head)))
            };
            let all = (0..n_rows).flat_map(of_row);
            all.map(|(token, head)| token * in_a_token + head_at(head))
                .collect()
        };
        let group = n_heads / n_kv;
        let mut q = self.pick(qkv.retaped::<T>(), order(&|head| head))?;
        let mut k = self.pick(qkv.retaped::<T>(), order(&|head| n_heads + head / group))?;
        let v = self.pick(qkv, order(&|head| n_heads + n_kv + head / group))?;
        if config.positions == Positions::Rope {
            let at: Vec<usize> = order(&|_| 0)
                .into_iter()
                .map(|i| usize::from(batch.positions[i / in_a_token]))
                .collect();
            (q, k) = (self.rotate(q, &at)?, self.rotate(k, &at)?);
        }
        let shape = (n_rows * n_heads, len, d_head);
        let q = q.try_reshape_like(&shape).map_err(failed)?;
        let k = k.try_reshape_like(&shape).map_err(failed)?;
        let v = v.try_reshape_like(&shape).map_err(failed)?;
        let k = k
            .try_permute::<(usize, usize, usize), Axes3<0, 2, 1>>()
            .map_err(failed)?;
        let scores = q.try_matmul(k).map_err(failed)?;
        let scores = scores
            .try_mul(1.0 / (d_head as f32).sqrt())
            .map_err(failed)?;
        let (hidden, kept) = self.visibility(place);
        let square = (n_rows * n_heads, len, len);
        let hidden = self
            .device
            .try_tensor_from_vec(hidden, square)
            .map_err(failed)?;
        let mut p = scores
            .try_add(hidden)
            .map_err(failed)?
            .try_softmax::<Axis<2>>()
            .map_err(failed)?;
        if let Some(kept) = kept {
            let kept = self
                .device
                .try_tensor_from_vec(kept, square)
                .map_err(failed)?;
            p = p.try_mul(kept).map_err(failed)?;
        }
        let y = p.try_matmul(v).map_err(failed)?;
        let y = y
            .try_reshape_like(&(n_rows * n_heads * len, d_head))
            .map_err(failed)?;
        let back = (0..n_rows * len).flat_map(|token| {
            let (row, t) = (token / len, token % len);
            (0..n_heads).map(move |head| (row * n_heads + head) * len + t)
        });
        let y = self.pick(y, back.collect())?;
        let y = y
            .try_reshape_like(&(n_rows * len, n_heads * d_head))
            .map_err(failed)?;
        Ok(self.end(y))
    }
}

impl<D: Device<f32>, T: Tape<f32, D>> Judge for Plain<'_, D, T> {
    fn loss(&mut self, x: &Rows<D>, weight: &Rows<D>, bias: Option<&Rows<D>>) -> Result<f64> {
        let (batch, smoothing) = (self.scene.batch, self.scene.smoothing());
        let n = self.scene.n_tokens();
        let logits = self.logits(x, weight, bias)?;
        let logs = logits.try_log_softmax::<Axis<1>>().map_err(failed)?;
        let everywhere = logs
            .retaped::<T>()
            .try_mean::<(usize,), Axis<1>>()
            .map_err(failed)?;
        let targets = self.indices(widen(&batch.targets))?;
        let at_target = logs
            .try_select::<(usize,), (usize,)>(targets)
            .map_err(failed)?;
        let at_target = at_target.try_mul(1.0 - smoothing).map_err(failed)?;
        let everywhere = everywhere.try_mul(smoothing).map_err(failed)?;
        let each = at_target.try_add(everywhere).map_err(failed)?;
        let weights: Tensor<(usize,), f32, D> = self
            .device
            .try_tensor_from_vec(batch.weights.clone(), (n,))
            .map_err(failed)?;
        let sum = each
            .try_mul(weights)
            .map_err(failed)?
            .try_sum::<Rank0, _>()
            .map_err(failed)?;
        let (loss, tape) = sum.try_mul(-1.0).map_err(failed)?.split_tape();
        self.tape = tape;
        let value = f64::from(loss.as_vec()[0]);
        self.total = Some(loss);
        Ok(value)
    }

    fn scores(
        &mut self,
        x: &Rows<D>,
        weight: &Rows<D>,
        bias: Option<&Rows<D>>,
    ) -> Result<Vec<Score>> {
        let logits = self.logits(x, weight, bias)?;
        let logits = self.end(logits).as_vec();
        let targets = &self.scene.batch.targets;
        let mut scores = vec![Score::default(); targets.len()];
        loss::scores(&logits, targets, &mut scores);
        Ok(scores)
    }
}

impl<D: Device<f32>, T: Tape<f32, D>> Plain<'_, D, T> {
    /// Added to each score (nothing, or very little where a key is not seen), and
    /// what each probability is multiplied by.
    fn visibility(&self, place: Place) -> (Vec<f32>, Option<Vec<f32>>) {
        let batch = self.scene.batch;
        let (n_heads, len) = (self.scene.config.n_heads, batch.len);
        let mask = self.scene.mask(place);
        let (mut hidden, mut kept) = (Vec::new(), Vec::new());
        for row in 0..batch.n_rows {
            for head in 0..n_heads {
                for t in 0..len {
                    let token = row * len + t;
                    let seen = usize::from(batch.starts[token])..=t;
                    hidden.extend((0..len).map(|key| if seen.contains(&key) { 0.0 } else { -1e9 }));
                    if let Some(mask) = &mask {
                        let line = mask.line(token, head);
                        kept.extend((0..len).map(|key| line.factor(key)));
                    }
                }
            }
        }
        (hidden, mask.map(|_| kept))
    }
}

fn activate<D: Device<f32>, T: Tape<f32, D>>(
    x: Rows<D, T>,
    activation: Activation,
) -> Result<Rows<D, T>> {
    match activation {
        Activation::GeluTanh => x.try_fast_gelu(),
        Activation::Gelu => return gelu(x),
        Activation::Relu => x.try_relu(),
        Activation::Silu | Activation::Swiglu => {
            let gate = x.retaped::<T>().try_sigmoid().map_err(failed)?;
            x.try_mul(gate)
        }
    }
    .map_err(failed)
}

/// The exact GELU, `x * Phi(x)` written as `(x + |x| erf(|x| / sqrt 2)) / 2`.
///
/// Not dfdx's `accurate_gelu`, whose slope is wrong in 0.13: the bell in it is too high by
/// the square root of two. The error function is Abramowitz and Stegun's 7.1.26.
fn gelu<D: Device<f32>, T: Tape<f32, D>>(x: Rows<D, T>) -> Result<Rows<D, T>> {
    const P: f32 = 0.327_591_1;
    const A: [f32; 5] = [
        0.254_829_6,
        -0.284_496_72,
        1.421_413_8,
        -1.453_152,
        1.061_405_4,
    ];
    let size = |x: &Rows<D, T>| x.retaped::<T>().try_abs().map_err(failed);
    let z = size(&x)?
        .try_mul(std::f32::consts::FRAC_1_SQRT_2)
        .map_err(failed)?;
    let t = z
        .try_mul(P)
        .map_err(failed)?
        .try_add(1.0)
        .map_err(failed)?
        .try_recip()
        .map_err(failed)?;
    let (t, tape) = t.split_tape();
    let mut sum = t.clone().put_tape(tape).try_mul(A[4]).map_err(failed)?;
    for a in [A[3], A[2], A[1], A[0]] {
        sum = sum
            .try_add(a)
            .map_err(failed)?
            .try_mul(t.clone())
            .map_err(failed)?;
    }
    let bell = x
        .retaped::<T>()
        .try_square()
        .map_err(failed)?
        .try_mul(-0.5)
        .map_err(failed)?;
    let bell = bell.try_exp().map_err(failed)?;
    let tail = sum.try_mul(bell).map_err(failed)?;
    let erf = tail
        .try_mul(-1.0)
        .map_err(failed)?
        .try_add(1.0)
        .map_err(failed)?;
    let even = erf.try_mul(size(&x)?).map_err(failed)?;
    x.try_add(even)
        .map_err(failed)?
        .try_mul(0.5)
        .map_err(failed)
}

/// A vector (one row) repeated for every row.
fn spread<D: Device<f32>, T: Tape<f32, D>>(
    row: &Rows<D>,
    shape: &(usize, usize),
) -> Result<Rows<D, T>> {
    let row = row
        .retaped::<T>()
        .try_reshape_like(&(shape.1,))
        .map_err(failed)?;
    row.try_broadcast_like::<_, Axis<0>>(shape).map_err(failed)
}

fn factors(mask: &Mask, n: usize, width: usize) -> Vec<f32> {
    let row = |token| (0..width).map(move |column| mask.line(token, 0).factor(column));
    (0..n).flat_map(row).collect()
}

fn widen(ids: &[u16]) -> Vec<usize> {
    ids.iter().map(|&id| usize::from(id)).collect()
}

fn failed(error: impl std::fmt::Debug) -> EngineError {
    EngineError::Device(format!("{error:?}"))
}

/// Weights on a dfdx device, for the plain operations.
pub struct PlainDevice<D: Device<f32>> {
    device: D,
    weights: Vec<Rows<D>>,
    trained: Vec<bool>,
}

impl<D: Device<f32>> PlainDevice<D> {
    pub(crate) fn new(device: D) -> Self {
        PlainDevice {
            device,
            weights: Vec::new(),
            trained: Vec::new(),
        }
    }

    fn find(&self, config: &ModelConfig, names: &[String]) -> Result<Weights<Rows<D>>> {
        let find = |name: &str| {
            let i = names.iter().position(|known| known == name)?;
            self.weights.get(i).cloned()
        };
        Weights::find(config, find).ok_or_else(|| EngineError::MissingTensor("weights".into()))
    }

    fn ops<'a, T>(&self, scene: Scene<'a>, tape: T) -> Plain<'a, D, T> {
        Plain {
            scene,
            device: self.device.clone(),
            tape,
            total: None,
        }
    }
}

impl<D: Device<f32>> Backend for PlainDevice<D> {
    fn load(&mut self, weights: Vec<(Vec<f32>, Vec<usize>)>, trained: &[bool]) -> Result<()> {
        self.weights.clear();
        self.trained = trained.to_vec();
        for (data, shape) in weights {
            let width = shape.last().copied().unwrap_or(1);
            let shape = (data.len() / width, width);
            let tensor = self
                .device
                .try_tensor_from_vec(data, shape)
                .map_err(failed)?;
            self.weights.push(tensor);
        }
        Ok(())
    }

    fn weights(&self, _: &ThreadPool) -> Result<Vec<Vec<f32>>> {
        Ok(self.weights.iter().map(|weight| weight.as_vec()).collect())
    }

    fn change(
        &mut self,
        threads: &ThreadPool,
        which: &[bool],
        f: &mut (dyn FnMut(usize, &mut [f32]) + Send),
    ) -> Result<()> {
        for (i, tensor) in self
            .weights
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| which[*i])
        {
            let mut data = tensor.as_vec();
            threads.install(|| f(i, &mut data));
            let shape = *tensor.shape();
            *tensor = self
                .device
                .try_tensor_from_vec(data, shape)
                .map_err(failed)?;
        }
        Ok(())
    }

    fn accumulate(
        &mut self,
        _: &ThreadPool,
        scene: Scene,
        names: &[String],
        grads: &mut [Option<Vec<f32>>],
    ) -> Result<f64> {
        let mut ops = self.ops(scene, OwnedTape::default());
        let weights = self.find(scene.config, names)?;
        let x = forward(&mut ops, scene.config, &weights)?;
        let (head, bias) = weights.head();
        let value = ops.loss(&x, head, bias)?;
        let Some(total) = ops.total else {
            return Ok(value);
        };
        let mut found = total.put_tape(ops.tape).try_backward().map_err(failed)?;
        for (i, weight) in self
            .weights
            .iter()
            .enumerate()
            .filter(|(i, _)| self.trained[*i])
        {
            found.try_alloc_for(weight).map_err(failed)?;
            let d = found.get(weight).as_vec();
            match &mut grads[i] {
                Some(held) => rows::add_all(held, &d),
                none => *none = Some(d),
            }
        }
        Ok(value)
    }

    fn scores(&mut self, _: &ThreadPool, scene: Scene, names: &[String]) -> Result<Vec<Score>> {
        let mut ops = self.ops(scene, NoneTape);
        let weights = self.find(scene.config, names)?;
        let x = forward(&mut ops, scene.config, &weights)?;
        let (head, bias) = weights.head();
        ops.scores(&x, head, bias)
    }

    fn recycle(&self, _: Vec<f32>) {}
}
