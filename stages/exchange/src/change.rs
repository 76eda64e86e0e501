//! Changes of a model's form that keep what it computes: the same logits from other tensors.
//!
//! Each change takes one setting to what more architectures have, and is exact in real arithmetic;
//! in f32 the logits differ by roundings. The widest of them, [`Change::Widen`], makes of any norm
//! and of a head with a bias a plain layer norm and a head without:
//!
//! - The stream gets coordinates that carry nothing. Behind a layer norm's they always are the mean
//!   of the others, so the mean stays and the variance shrinks by a known factor, which goes into
//!   gains and `eps`; normalised, such a coordinate is 0.
//! - An RMS norm's stream is doubled by its mirror image: the mean is 0, so the variance is the
//!   mean of the squares.
//! - A coordinate that is 0 behind the last norm becomes 1 by the norm's bias, and the head's
//!   column for it is the head's bias.
//!
//! What was changed so is for use, not for training on: updates would break what ties the
//! coordinates to each other.

use std::borrow::Cow;

use tinylm_model::{
    adapter::{A, B},
    config::{Bias, ModelConfig, Norm, Positions},
    kernels::sinusoids,
    weights::{Source, WeightsError},
};

/// A change of form. One that has nothing to do leaves the model as it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// Computed positions become a table.
    TabulatePositions,
    /// The embedding is multiplied by `embed_scale` over this; a head that shared it gets its own.
    ScaleEmbedding { to: f32 },
    /// Each query head gets keys and values of its own.
    RepeatHeads,
    /// Parts without a bias get one of zeros.
    AddBiases(Bias),
    /// Any norm becomes a layer norm, and the head's bias a column of the head.
    Widen,
}

/// A model in some form, whose tensors are made when they are asked for.
pub struct Form<'a> {
    pub config: ModelConfig,
    source: Box<dyn Source + 'a>,
}

impl<'a> Form<'a> {
    pub fn new(config: ModelConfig, source: impl Source + 'a) -> Form<'a> {
        let source = Box::new(source);
        Form { config, source }
    }

    #[must_use]
    pub fn changed(self, change: Change) -> Form<'a> {
        let to = change.config(&self.config);
        if to == self.config {
            return self;
        }
        let config = to.clone();
        let changed = Changed {
            inner: self,
            to,
            change,
        };
        Form::new(config, changed)
    }
}

impl Source for Form<'_> {
    fn numbers(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightsError> {
        self.source.numbers(name)
    }
}

impl Change {
    /// Returns the shape of a model of shape `from` after the change.
    pub fn config(self, from: &ModelConfig) -> ModelConfig {
        let mut to = from.clone();
        match self {
            Change::TabulatePositions if from.positions == Positions::Sinusoidal => {
                to.positions = Positions::Learned;
            }
            Change::TabulatePositions => {}
            Change::ScaleEmbedding { to: scale } => {
                to.tied &= from.embed_scale == scale;
                to.embed_scale = scale;
            }
            Change::RepeatHeads => to.n_kv_heads = from.n_heads,
            Change::AddBiases(bias) => to.bias = union(from.bias, bias),
            Change::Widen if from.bias.head || from.norm == Norm::Rms => {
                let wide = Width::of(from);
                to.d_model = wide.all;
                to.norm_eps = (f64::from(from.norm_eps) * wide.share()) as f32;
                to.norm = Norm::Layer;
                to.bias.norm = true;
                to.bias.head = false;
                to.tied = false;
            }
            Change::Widen => {}
        }
        to
    }

    /// The settings that a change takes away.
    fn reasons(self, config: &ModelConfig) -> Vec<String> {
        match self {
            Change::TabulatePositions => vec!["positions: sinusoidal".to_owned()],
            Change::ScaleEmbedding { .. } => vec![format!("embed_scale: {}", config.embed_scale)],
            Change::RepeatHeads => vec![format!("n_kv_heads: {}", config.n_kv_heads)],
            Change::AddBiases(_) => Vec::new(),
            Change::Widen => {
                let norm = (config.norm == Norm::Rms).then(|| "norm: rms".to_owned());
                let head = config.bias.head.then(|| "bias.head: true".to_owned());
                norm.into_iter().chain(head).collect()
            }
        }
    }
}

/// Returns the settings that these changes take away from a model.
pub(crate) fn reasons(config: &ModelConfig, changes: &[Change]) -> Vec<String> {
    let mut settings = Vec::new();
    let mut form = config.clone();
    for change in changes {
        let changed = change.config(&form);
        if changed != form {
            settings.extend(change.reasons(&form));
        }
        form = changed;
    }
    settings
}

fn union(a: Bias, b: Bias) -> Bias {
    Bias {
        norm: a.norm || b.norm,
        qkv: a.qkv || b.qkv,
        proj: a.proj || b.proj,
        mlp: a.mlp || b.mlp,
        head: a.head || b.head,
    }
}

struct Changed<'a> {
    inner: Form<'a>,
    to: ModelConfig,
    change: Change,
}

impl Source for Changed<'_> {
    fn numbers(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightsError> {
        let from = &self.inner.config;
        match self.change {
            Change::TabulatePositions if name == "positions.weight" => {
                Ok(Cow::Owned(sinusoids(from.context, from.d_model)))
            }
            Change::ScaleEmbedding { to } if name == "embed.weight" => {
                let factor = from.embed_scale / to;
                let embed = self.inner.numbers(name)?;
                Ok(Cow::Owned(embed.iter().map(|x| x * factor).collect()))
            }
            Change::RepeatHeads if name.contains(".qkv.") && !name.ends_with(A) => {
                Ok(Cow::Owned(self.repeated(&self.inner.numbers(name)?)))
            }
            Change::Widen => Ok(Cow::Owned(self.widened(name)?)),
            _ => self.old(name),
        }
    }
}

impl Changed<'_> {
    /// Returns a tensor of the model before the change: its head's is the embedding where they are
    /// one, and a bias that it has not is zero.
    fn old(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightsError> {
        let from = &self.inner.config;
        if name == "head.weight" && from.tied {
            return self.inner.numbers("embed.weight");
        }
        let knows = |config: &ModelConfig| config.parameters().iter().any(|p| p.name == name);
        match !knows(from) && knows(&self.to) {
            true => Ok(Cow::Owned(vec![0.0; n_outputs(from, name)])),
            false => self.inner.numbers(name),
        }
    }

    /// Each key and value head as often as query heads read it.
    fn repeated(&self, qkv: &[f32]) -> Vec<f32> {
        let from = &self.inner.config;
        let width = qkv.len() / (from.d_model + 2 * from.d_kv());
        let (q, kv) = qkv.split_at(from.d_model * width);
        let mut out = q.to_vec();
        for head in kv.chunks_exact(from.d_head() * width) {
            for _ in 0..from.n_heads / from.n_kv_heads {
                out.extend_from_slice(head);
            }
        }
        out
    }

    fn widened(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let wide = Width::of(&self.inner.config);
        let old = self.old(name)?;
        let part = name.split('.').rev().nth(1).unwrap_or_default();
        if name.ends_with(A) || name.ends_with(B) {
            return Ok(self.widened_factor(&wide, part, name.ends_with(A), &old));
        }
        let is_bias = name.ends_with(".bias");
        Ok(match part {
            "embed" | "positions" => wide.written_rows(&old),
            "norm1" | "norm2" | "norm" => self.norm(&wide, name, &old),
            "qkv" if is_bias => wide.heads(&old, 1),
            "qkv" => wide.heads(&wide.read(&old), wide.all),
            "proj" if !is_bias => wide.written(&wide.head_columns(&old), wide.all),
            "down" if !is_bias => {
                let width = self.inner.config.d_ff;
                wide.written(&old, width)
            }
            "proj" | "down" => wide.written(&old, 1),
            "head" => self.head(&wide, &old)?,
            _ if is_bias => old.into_owned(),
            _ => wide.read(&old),
        })
    }

    /// Columns of a matrix are those of an adapter's `A`, rows are those of its `B`.
    fn widened_factor(&self, wide: &Width, part: &str, is_a: bool, old: &[f32]) -> Vec<f32> {
        let d_model = self.inner.config.d_model;
        match (part, is_a) {
            ("proj", true) => wide.head_columns(old),
            ("qkv", false) => wide.heads(old, old.len() / (3 * d_model)),
            ("proj" | "down", false) => wide.written(old, old.len() / d_model),
            ("down", true) | (_, false) => old.to_vec(),
            (_, true) => wide.read(old),
        }
    }

    fn norm(&self, wide: &Width, name: &str, old: &[f32]) -> Vec<f32> {
        let mut new = old.to_vec();
        if name.ends_with(".weight") {
            let factor = wide.share().sqrt();
            new.iter_mut()
                .for_each(|gain| *gain = (f64::from(*gain) * factor) as f32);
        }
        new.resize(wide.all, 0.0);
        if name == "norm.bias" && self.inner.config.bias.head {
            new[wide.all - 1] = 1.0;
        }
        new
    }

    fn head(&self, wide: &Width, old: &[f32]) -> Result<Vec<f32>, WeightsError> {
        let mut new = wide.read(old);
        if self.inner.config.bias.head {
            let bias = self.inner.numbers("head.bias")?;
            for (row, bias) in new.chunks_exact_mut(wide.all).zip(bias.iter()) {
                row[wide.all - 1] = *bias;
            }
        }
        Ok(new)
    }
}

/// Elements of a bias, which are the outputs of its part.
fn n_outputs(config: &ModelConfig, name: &str) -> usize {
    match name.split('.').rev().nth(1) {
        Some("qkv") => config.d_model + 2 * config.d_kv(),
        Some("gate" | "up") => config.d_ff,
        Some("head") => config.vocab_size,
        _ => config.d_model,
    }
}

/// The widths of a stream before and after it is widened. Key and value heads are as many as
/// query heads.
struct Width {
    old: usize,
    /// With the mirror image of an RMS norm's stream.
    carried: usize,
    all: usize,
    n_heads: usize,
    is_mirrored: bool,
}

impl Width {
    fn of(config: &ModelConfig) -> Width {
        let old = config.d_model;
        let is_mirrored = config.norm == Norm::Rms;
        let carried = if is_mirrored { 2 * old } else { old };
        let needed = carried + usize::from(config.bias.head);
        Width {
            old,
            carried,
            all: needed.next_multiple_of(config.n_heads),
            n_heads: config.n_heads,
            is_mirrored,
        }
    }

    /// How much of the variance is left when coordinates that carry nothing are counted.
    fn share(&self) -> f64 {
        self.carried as f64 / self.all as f64
    }

    /// Rows that are put into the stream.
    fn written_rows(&self, rows: &[f32]) -> Vec<f32> {
        let rows = rows.chunks_exact(self.old);
        rows.flat_map(|row| self.written(row, 1)).collect()
    }

    /// A matrix `(old, width)` whose outputs are added to the stream.
    fn written(&self, matrix: &[f32], width: usize) -> Vec<f32> {
        let mut out = matrix.to_vec();
        if self.is_mirrored {
            out.extend(matrix.iter().map(|x| -x));
        }
        let n_missing = self.all - self.carried;
        let filling = match self.is_mirrored {
            true => vec![0.0; width],
            false => mean_row(matrix, width),
        };
        (0..n_missing).for_each(|_| out.extend_from_slice(&filling));
        out
    }

    /// A matrix whose inputs are read from the normalised stream.
    fn read(&self, matrix: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(matrix.len() / self.old * self.all);
        for row in matrix.chunks_exact(self.old) {
            out.extend_from_slice(row);
            out.resize(out.len() + self.all - self.old, 0.0);
        }
        out
    }

    /// Outputs of `qkv` in wider heads; scores are divided by the root of the wider width, so the
    /// queries grow by as much.
    fn heads(&self, outputs: &[f32], width: usize) -> Vec<f32> {
        let (old, new) = (self.old / self.n_heads, self.all / self.n_heads);
        let factor = (new as f64 / old as f64).sqrt();
        let mut out = Vec::with_capacity(3 * self.all * width);
        for (idx, head) in outputs.chunks_exact(old * width).enumerate() {
            let is_query = idx < self.n_heads;
            let grown = |x: &f32| (f64::from(*x) * factor) as f32;
            out.extend(head.iter().map(|x| if is_query { grown(x) } else { *x }));
            out.resize(out.len() + (new - old) * width, 0.0);
        }
        out
    }

    /// Inputs of `proj` from wider heads.
    fn head_columns(&self, matrix: &[f32]) -> Vec<f32> {
        let (old, new) = (self.old / self.n_heads, self.all / self.n_heads);
        let mut out = Vec::with_capacity(self.old * self.all);
        for head in matrix.chunks_exact(old) {
            out.extend_from_slice(head);
            out.resize(out.len() + new - old, 0.0);
        }
        out
    }
}

fn mean_row(matrix: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; width];
    for row in matrix.chunks_exact(width) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += f64::from(*x);
        }
    }
    let n_rows = (matrix.len() / width) as f64;
    sums.into_iter().map(|sum| (sum / n_rows) as f32).collect()
}

#[cfg(test)]
mod tests;
