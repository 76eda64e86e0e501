//! Low-rank adapters: which matrices change by the product of two thin ones, and what those are called.

use rayon::prelude::*;
use tinylm_settings::{Choice as _, choices};

use crate::{
    config::{Parameter, Precision, Role},
    kernels::{View, matmul},
};

choices! {
    /// A matrix of each block.
    pub enum Projection {
        Qkv = "qkv",
        Proj = "proj",
        Gate = "gate",
        Up = "up",
        Down = "down",
    }
}

/// How thin the matrices are, and which of the model's they change.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    pub rank: usize,
    /// The product is multiplied by this over the rank.
    pub alpha: f32,
    pub on: Vec<Projection>,
}

impl Adapter {
    /// Returns whether the tensor of this name is one that it changes.
    pub fn is_on(&self, name: &str) -> bool {
        let mut on = self.on.iter().map(|projection| projection.word());
        let parts: Vec<&str> = name.split('.').collect();
        matches!(parts[..], ["blocks", _, part, "weight"] if on.any(|word| word == part))
    }

    pub(crate) fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }
}

/// The thin matrices that change one of the model's: `A` is `(rank, in)`, `B` is `(out, rank)`.
pub(crate) fn factors_of(rank: usize, matrix: &Parameter) -> [Parameter; 2] {
    let (n_out, n_in) = (matrix.shape[0], matrix.shape[1]);
    let named = |end: &str, shape| Parameter {
        name: factor_name(&matrix.name, end),
        shape,
        role: Role::Hidden,
    };
    [named(A, vec![rank, n_in]), named(B, vec![n_out, rank])]
}

/// The ends of factors' names, as they are called everywhere.
pub const A: &str = "lora_A";
pub const B: &str = "lora_B";

/// `blocks.0.qkv.lora_A` for `blocks.0.qkv.weight`.
pub fn factor_name(matrix: &str, end: &str) -> String {
    let module = matrix.strip_suffix("weight").unwrap_or(matrix);
    format!("{module}{end}")
}

/// Adds `scale * B A` to a matrix with this many columns.
///
/// # Panics
/// When the shapes do not fit.
pub fn add_product(weight: &mut [f32], a: &[f32], b: &[f32], scale: f32, n_in: usize) {
    let scaled: Vec<f32> = a.par_iter().map(|x| x * scale).collect();
    let rank = a.len() / n_in;
    let (left, right) = (View::new(b, rank), View::new(&scaled, n_in));
    matmul(weight, true, left, right, Precision::F32);
}
