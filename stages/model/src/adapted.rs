//! A matrix with a low-rank adapter, while that is trained.
//!
//! A matrix with an adapter is `base + alpha / rank * B A`, made anew after each update. Passes and
//! generation read one matrix as ever, and its gradient gives those of `A` and `B`, which alone have
//! moments; the base stays to the bit. The usual form, `B (A x)` beside `W x` in every pass, would
//! save the matrix's gradient and cost two products more, and each operation would have to know of
//! it. It alone could drop out what `A` reads, so there is no dropout of an adapter.

use rayon::prelude::*;

use crate::{
    adapter::{A, Adapter, B, add_product, factors_of},
    config::{Parameter, Precision},
    engine::{EngineError, EngineSettings, Tensor, Tensors, Update, find},
    kernels::{View, matmul, optimizer::sum_squares},
    moments::{Moments, names},
    noise::fill_uniform,
    optimizer::Optimizer,
};

/// Keeps the factors of what an engine's `optimizer` returned.
pub(crate) fn only_factors(mut state: Tensors) -> Tensors {
    state.retain(|name, _| name.starts_with("blocks.") && (name.ends_with(A) || name.ends_with(B)));
    state
}

/// What both factors start with, as PEFT's do: `A` uniform within one over the root of its inputs, `B` zero, so that
/// the matrix is its base.
pub(crate) fn begin([a, b]: &[&Parameter; 2], seed: u64) -> [Vec<f32>; 2] {
    let mut data = vec![0.0; a.n()];
    let bound = 1.0 / (a.shape[1] as f32).sqrt();
    fill_uniform(&mut data, bound, seed, &a.name);
    [data, vec![0.0; b.n()]]
}

/// A matrix with an adapter, while it is trained.
pub(crate) struct Adapted {
    base: Vec<f32>,
    scale: f32,
    a: Factor,
    b: Factor,
}

struct Factor {
    parameter: Parameter,
    data: Vec<f32>,
    grad: Option<Vec<f32>>,
    moments: Moments,
}

impl Factor {
    fn new(parameter: Parameter, data: Vec<f32>, optimizer: Optimizer) -> Self {
        Factor {
            data,
            grad: None,
            moments: Moments::new(&parameter, optimizer),
            parameter,
        }
    }

    fn view(&self) -> View<'_> {
        View::new(&self.data, self.parameter.shape[1])
    }

    fn step(&mut self, how: (&EngineSettings, &Update, f32)) {
        if let Some(mut grad) = self.grad.take() {
            let (parameter, data) = (&self.parameter, &mut self.data);
            self.moments.step(parameter, data, &mut grad, how);
        }
    }

    /// The names of its moments and of itself in a checkpoint.
    fn names(&self, optimizer: Optimizer) -> Vec<String> {
        let mut names = names(&self.parameter, optimizer);
        names.push(self.parameter.name.clone());
        names
    }

    fn saved(&self, optimizer: Optimizer) -> impl Iterator<Item = (String, Tensor)> {
        let names = self.names(optimizer);
        let n_moments = names.len() - 1;
        names.into_iter().enumerate().map(move |(idx, name)| {
            let data = match idx < n_moments {
                true => self.moments.nth(idx),
                false => &self.data,
            };
            let (shape, data) = (self.parameter.shape.clone(), data.to_vec());
            (name, Tensor { shape, data })
        })
    }

    fn load(&mut self, state: &Tensors, optimizer: Optimizer) -> Result<(), EngineError> {
        self.data = find(state, &self.parameter.name, &self.parameter.shape)?;
        self.moments = Moments::load(state, &self.parameter, optimizer)?;
        Ok(())
    }
}

impl Adapted {
    /// Starts on this base, which the matrix is then.
    pub(crate) fn new(
        adapter: &Adapter,
        parameter: &Parameter,
        base: Vec<f32>,
        optimizer: Optimizer,
        seed: u64,
    ) -> Self {
        let [a, b] = factors_of(adapter.rank, parameter);
        let [a_data, b_data] = begin(&[&a, &b], seed);
        Adapted {
            base,
            scale: adapter.scale(),
            a: Factor::new(a, a_data, optimizer),
            b: Factor::new(b, b_data, optimizer),
        }
    }

    /// Takes the gradients of the factors from that of the matrix.
    pub(crate) fn take_gradient(&mut self, whole: &[f32]) {
        let whole = View::new(whole, self.a.parameter.shape[1]);
        let product = |n: usize, left, right| {
            let mut grad = vec![0.0; n];
            matmul(&mut grad, false, left, right, Precision::F32);
            grad.par_iter_mut().for_each(|x| *x *= self.scale);
            Some(grad)
        };
        let d_a = product(self.a.data.len(), self.b.view().t(), whole);
        let d_b = product(self.b.data.len(), whole, self.a.view().t());
        (self.a.grad, self.b.grad) = (d_a, d_b);
    }

    pub(crate) fn has_gradient(&self) -> bool {
        self.a.grad.is_some()
    }

    pub(crate) fn discard(&mut self) {
        (self.a.grad, self.b.grad) = (None, None);
    }

    pub(crate) fn sum_squares(&self) -> f64 {
        let grads = [&self.a.grad, &self.b.grad].into_iter().flatten();
        grads.map(|grad| sum_squares(grad)).sum()
    }

    /// Changes the factors by their gradients, and the matrix with them.
    pub(crate) fn step(&mut self, weight: &mut [f32], how: (&EngineSettings, &Update, f32)) {
        self.a.step(how);
        self.b.step(how);
        self.merge(weight);
    }

    /// Makes the matrix of its base and the factors.
    pub(crate) fn merge(&self, weight: &mut [f32]) {
        weight.copy_from_slice(&self.base);
        add_product(
            weight,
            &self.a.data,
            &self.b.data,
            self.scale,
            self.a.parameter.shape[1],
        );
    }

    /// The names of all that `saved` returns.
    pub(crate) fn names(&self, optimizer: Optimizer) -> Vec<String> {
        [self.a.names(optimizer), self.b.names(optimizer)].concat()
    }

    pub(crate) fn saved(&self, optimizer: Optimizer) -> impl Iterator<Item = (String, Tensor)> {
        self.a.saved(optimizer).chain(self.b.saved(optimizer))
    }

    pub(crate) fn load(
        &mut self,
        state: &Tensors,
        optimizer: Optimizer,
    ) -> Result<(), EngineError> {
        self.a.load(state, optimizer)?;
        self.b.load(state, optimizer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{adapter::Projection, config::Role};

    #[test]
    fn gradients_of_the_factors_are_the_slopes_of_the_loss() {
        let numbers = |n: usize, seed| {
            let mut numbers = vec![0.0; n];
            fill_uniform(&mut numbers, 1.0, seed, "x");
            numbers
        };
        let matrix = Parameter {
            name: "blocks.0.qkv.weight".to_owned(),
            shape: vec![7, 5],
            role: Role::Hidden,
        };
        let adapter = Adapter {
            rank: 3,
            alpha: 6.0,
            on: vec![Projection::Qkv],
        };
        let (base, slopes) = (numbers(35, 1), numbers(35, 2));
        let mut adapted = Adapted::new(&adapter, &matrix, base, Optimizer::Adamw, 3);
        adapted.b.data = numbers(21, 4);
        adapted.take_gradient(&slopes);
        let loss = |adapted: &Adapted| {
            let mut weight = vec![0.0; 35];
            adapted.merge(&mut weight);
            let terms = weight.iter().zip(&slopes);
            terms.map(|(x, slope)| f64::from(x * slope)).sum::<f64>()
        };
        fn factor(adapted: &mut Adapted, is_a: bool) -> &mut Factor {
            match is_a {
                true => &mut adapted.a,
                false => &mut adapted.b,
            }
        }
        for is_a in [true, false] {
            let grad = factor(&mut adapted, is_a).grad.clone().unwrap();
            for (i, expected) in grad.iter().enumerate() {
                let mut at = |step: f32| {
                    factor(&mut adapted, is_a).data[i] += step;
                    let loss = loss(&adapted);
                    factor(&mut adapted, is_a).data[i] -= step;
                    loss
                };
                let slope = (at(0.25) - at(-0.25)) / 0.5;
                assert!(
                    (slope - f64::from(*expected)).abs() < 1e-5,
                    "{slope} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_factor_starts_within_its_bound_and_the_other_at_zero() {
        let matrix = Parameter {
            name: "blocks.0.up.weight".to_owned(),
            shape: vec![40, 100],
            role: Role::Hidden,
        };
        let adapter = Adapter {
            rank: 8,
            alpha: 8.0,
            on: vec![Projection::Up],
        };
        let adapted = Adapted::new(&adapter, &matrix, vec![0.5; 4000], Optimizer::Muon, 1);
        let a = &adapted.a.data;
        assert!(a.iter().all(|x| x.abs() <= 0.1) && a.iter().any(|x| x.abs() > 0.09));
        let mean = a.iter().sum::<f32>() / a.len() as f32;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!(adapted.b.data.iter().all(|x| *x == 0.0));
        let mut weight = vec![0.0; 4000];
        adapted.merge(&mut weight);
        assert_eq!(weight, adapted.base);
    }
}
