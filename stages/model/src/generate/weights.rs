//! A model's weights as generation reads them: matrices in panels, everything else plain.
//!
//! All panels of a model stand in one anonymous mapping, in the order in which a token
//! passes through them, on huge pages where the system has them: decoding reads the
//! whole of it once per token, and this is what bounds its speed.

use std::{borrow::Cow, collections::BTreeSet, fs, io, path::Path, path::PathBuf};

use memmap2::MmapMut;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};

use super::kernels::{LANES, bf16_pair};
use crate::{
    config::{Activation, ModelConfig, Norm, Positions, Precision},
    engine::Tensors,
};

/// Why a model could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` is no model: it has no `{missing}`", path.display())]
    NoModel {
        path: PathBuf,
        missing: &'static str,
    },
    #[error("`{}` does not describe a model of this program: {reason}", path.display())]
    Config { path: PathBuf, reason: String },
    #[error("`{}` is damaged or cut short: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("the model cannot be: {0}")]
    Impossible(String),
    #[error("`{name}` is missing from the weights")]
    MissingTensor { name: String },
    #[error("`{name}` among the weights is not part of this model")]
    UnknownTensor { name: String },
    #[error("`{name}` has shape {found:?}, the configuration needs {expected:?}")]
    Shape {
        name: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("`{name}` holds numbers of type {found}, not f32")]
    Type { name: String, found: String },
    #[error("no memory for the model: {0}")]
    Memory(io::Error),
}

/// Everything a forward pass reads.
pub(crate) struct Weights {
    pub(crate) config: ModelConfig,
    pub(crate) precision: Precision,
    panels: MmapMut,
    /// `(V, D)`, f32 in every precision: looking up is no product.
    pub(crate) embed: Vec<f32>,
    /// `(T, D)`: learned, or computed for `sinusoidal`. For `rope` `(T, width of a head)`:
    /// the cosines of a position, then the sines.
    pub(crate) positions: Vec<f32>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm: Option<NormWeights>,
    pub(crate) head: Linear,
}

pub(crate) struct Block {
    pub(crate) norm1: NormWeights,
    pub(crate) qkv: Linear,
    pub(crate) proj: Linear,
    pub(crate) norm2: NormWeights,
    pub(crate) gate: Option<Linear>,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

pub(crate) struct NormWeights {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Option<Vec<f32>>,
}

/// A matrix `(out, in)` in panels of 32 outputs, and its bias padded to whole panels.
pub(crate) struct Linear {
    start: usize,
    pub(crate) n_panels: usize,
    /// Elements per lane: `in` in f32, half of it rounded up in bf16.
    pub(crate) depth: usize,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Weights {
    /// Reads `config.json` and `model.safetensors` of a model folder.
    pub(crate) fn read(folder: &Path, precision: Precision) -> Result<Weights, OpenError> {
        let config = read_config(folder)?;
        let path = folder.join("model.safetensors");
        let bytes = read(&path, folder, "model.safetensors")?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| OpenError::Damaged {
            path,
            reason: error.to_string(),
        })?;
        Weights::build(config, precision, &mut InFile { tensors })
    }

    pub(crate) fn from_tensors(
        config: ModelConfig,
        tensors: &Tensors,
        precision: Precision,
    ) -> Result<Weights, OpenError> {
        Weights::build(config, precision, &mut InMemory { tensors })
    }

    fn build(
        config: ModelConfig,
        precision: Precision,
        source: &mut impl Source,
    ) -> Result<Weights, OpenError> {
        check(&config)?;
        let mut builder = Builder {
            arena: Arena::new(n_elements(&config, precision)).map_err(OpenError::Memory)?,
            precision,
            source,
            used: BTreeSet::new(),
        };
        let c = &config;
        let (v, d, f) = (c.vocab_size, c.d_model, c.d_ff);
        let embed = builder.tensor("embed.weight", &[v, d])?;
        let positions = match c.positions {
            Positions::Learned => builder.tensor("positions.weight", &[c.context, d])?,
            Positions::Sinusoidal => sinusoids(c.context, d),
            Positions::Rope => rotations(c.context, c.d_head(), c.rope_theta),
        };
        let mut blocks = Vec::new();
        for i in 0..c.n_layers {
            let name = |part: &str| format!("blocks.{i}.{part}");
            let gated = c.activation == Activation::Swiglu;
            blocks.push(Block {
                norm1: builder.norm(&name("norm1"), c)?,
                qkv: builder.linear(&name("qkv"), d + 2 * c.d_kv(), d, c.bias.qkv)?,
                proj: builder.linear(&name("proj"), d, d, c.bias.proj)?,
                norm2: builder.norm(&name("norm2"), c)?,
                gate: gated
                    .then(|| builder.linear(&name("gate"), f, d, c.bias.mlp))
                    .transpose()?,
                up: builder.linear(&name("up"), f, d, c.bias.mlp)?,
                down: builder.linear(&name("down"), d, f, c.bias.mlp)?,
            });
        }
        let norm = c.final_norm.then(|| builder.norm("norm", c)).transpose()?;
        let bias = builder.bias("head", v, c.bias.head)?;
        let head = if c.tied {
            builder.pack(&embed, v, d, bias)
        } else {
            let weight = builder.tensor("head.weight", &[v, d])?;
            builder.pack(&weight, v, d, bias)
        };
        builder.refuse_leftovers()?;
        Ok(Weights {
            panels: builder.arena.map,
            precision,
            embed,
            positions,
            blocks,
            norm,
            head,
            config,
        })
    }

    /// The first element of one panel; `linear.depth * LANES` of them follow.
    pub(crate) fn panel(&self, linear: &Linear, panel_idx: usize) -> *const u32 {
        assert!(panel_idx < linear.n_panels);
        let offset = linear.start + panel_idx * linear.depth * LANES;
        self.panels.as_ptr().cast::<u32>().wrapping_add(offset)
    }

    /// Returns how many bytes decoding one token reads.
    pub(crate) fn bytes_per_token(&self) -> usize {
        self.panels.len()
    }
}

/// Returns the configuration of a model folder, checked.
pub fn read_config(folder: &Path) -> Result<ModelConfig, OpenError> {
    let path = folder.join("config.json");
    let bytes = read(&path, folder, "config.json")?;
    let config = serde_json::from_slice(&bytes).map_err(|error| OpenError::Config {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    check(&config).map_err(|error| OpenError::Config {
        path,
        reason: error.to_string(),
    })?;
    Ok(config)
}

fn read(path: &Path, folder: &Path, name: &'static str) -> Result<Vec<u8>, OpenError> {
    fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => OpenError::NoModel {
            path: folder.to_owned(),
            missing: name,
        },
        _ => OpenError::Read {
            path: path.to_owned(),
            source,
        },
    })
}

/// Refuses what cannot be built, and sizes that only a damaged file has: they would be
/// allocated before the weights are found to be others.
fn check(c: &ModelConfig) -> Result<(), OpenError> {
    c.check()
        .map_err(|error| OpenError::Impossible(error.to_string()))
}

/// Angle `pos / 10000^(2 i / D)`: its sine at `2 i`, its cosine at `2 i + 1`.
fn sinusoids(context: usize, d: usize) -> Vec<f32> {
    let mut table = vec![0.0; context * d];
    for (pos, row) in table.chunks_exact_mut(d).enumerate() {
        for (i, x) in row.iter_mut().enumerate() {
            let exponent = (i - i % 2) as f64 / d as f64;
            let angle = pos as f64 / 10_000f64.powf(exponent);
            *x = if i % 2 == 0 { angle.sin() } else { angle.cos() } as f32;
        }
    }
    table
}

/// Angle `pos / theta^(2 i / d)` for the pair `(i, i + d / 2)` of a head of width `d`.
fn rotations(context: usize, d: usize, theta: f32) -> Vec<f32> {
    let mut table = vec![0.0; context * d];
    for (pos, row) in table.chunks_exact_mut(d).enumerate() {
        let (cos, sin) = row.split_at_mut(d / 2);
        for (i, (cos, sin)) in cos.iter_mut().zip(sin).enumerate() {
            let angle = pos as f64 / f64::from(theta).powf(2.0 * i as f64 / d as f64);
            (*cos, *sin) = (angle.cos() as f32, angle.sin() as f32);
        }
    }
    table
}

fn depth(n_in: usize, precision: Precision) -> usize {
    match precision {
        Precision::F32 => n_in,
        Precision::Bf16 => n_in.div_ceil(2),
    }
}

/// Elements of all panels of a model.
fn n_elements(c: &ModelConfig, precision: Precision) -> usize {
    let matrix = |n_out: usize, n_in: usize| n_out.div_ceil(LANES) * LANES * depth(n_in, precision);
    let (d, f) = (c.d_model, c.d_ff);
    let n_up = if c.activation == Activation::Swiglu {
        2
    } else {
        1
    };
    let block = matrix(d + 2 * c.d_kv(), d) + matrix(d, d) + n_up * matrix(f, d) + matrix(d, f);
    c.n_layers * block + matrix(c.vocab_size, d)
}

/// A tensor's shape and numbers.
type Found<'a> = (Vec<usize>, Cow<'a, [f32]>);

/// Where tensors come from.
trait Source {
    fn get(&self, name: &str) -> Result<Option<Found<'_>>, OpenError>;
    fn names(&self) -> Vec<String>;
}

struct InFile<'a> {
    tensors: SafeTensors<'a>,
}

impl Source for InFile<'_> {
    fn get(&self, name: &str) -> Result<Option<Found<'_>>, OpenError> {
        let Ok(view) = self.tensors.tensor(name) else {
            return Ok(None);
        };
        if view.dtype() != Dtype::F32 {
            return Err(OpenError::Type {
                name: name.to_owned(),
                found: format!("{:?}", view.dtype()).to_lowercase(),
            });
        }
        let (quads, _) = view.data().as_chunks::<4>();
        let data = quads
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        Ok(Some((view.shape().to_vec(), Cow::Owned(data))))
    }

    fn names(&self) -> Vec<String> {
        self.tensors
            .names()
            .into_iter()
            .map(ToString::to_string)
            .collect()
    }
}

struct InMemory<'a> {
    tensors: &'a Tensors,
}

impl Source for InMemory<'_> {
    fn get(&self, name: &str) -> Result<Option<Found<'_>>, OpenError> {
        let tensor = self.tensors.get(name);
        Ok(tensor.map(|tensor| (tensor.shape.clone(), Cow::Borrowed(&tensor.data[..]))))
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }
}

/// The mapping while it is being filled.
struct Arena {
    map: MmapMut,
    used: usize,
}

impl Arena {
    fn new(n_elements: usize) -> io::Result<Arena> {
        // A size that does not fit an address fits no memory either.
        let map = MmapMut::map_anon(n_elements.saturating_mul(4))?;
        // Advice only: a system without huge pages is slower, not wrong.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Arena { map, used: 0 })
    }

    fn take(&mut self, n: usize) -> (usize, &mut [u32]) {
        let start = self.used;
        self.used += n;
        // SAFETY: a mapping is page-aligned, every bit pattern is a u32, and the tail
        // that does not fill one is left out.
        let (_, elements, _) = unsafe { self.map.align_to_mut::<u32>() };
        (start, &mut elements[start..start + n])
    }
}

struct Builder<'a, S> {
    arena: Arena,
    precision: Precision,
    source: &'a mut S,
    used: BTreeSet<String>,
}

impl<S: Source> Builder<'_, S> {
    fn tensor(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>, OpenError> {
        self.used.insert(name.to_owned());
        let Some((found, data)) = self.source.get(name)? else {
            return Err(OpenError::MissingTensor {
                name: name.to_owned(),
            });
        };
        if found != expected || data.len() != expected.iter().product::<usize>() {
            return Err(OpenError::Shape {
                name: name.to_owned(),
                found,
                expected: expected.to_vec(),
            });
        }
        Ok(data.into_owned())
    }

    fn norm(&mut self, name: &str, c: &ModelConfig) -> Result<NormWeights, OpenError> {
        let biased = c.norm == Norm::Layer && c.bias.norm;
        Ok(NormWeights {
            weight: self.tensor(&format!("{name}.weight"), &[c.d_model])?,
            bias: biased
                .then(|| self.tensor(&format!("{name}.bias"), &[c.d_model]))
                .transpose()?,
        })
    }

    fn bias(&mut self, name: &str, n: usize, has: bool) -> Result<Option<Vec<f32>>, OpenError> {
        if !has {
            return Ok(None);
        }
        let mut bias = self.tensor(&format!("{name}.bias"), &[n])?;
        bias.resize(n.next_multiple_of(LANES), 0.0);
        Ok(Some(bias))
    }

    fn linear(
        &mut self,
        name: &str,
        n_out: usize,
        n_in: usize,
        has_bias: bool,
    ) -> Result<Linear, OpenError> {
        let weight = self.tensor(&format!("{name}.weight"), &[n_out, n_in])?;
        let bias = self.bias(name, n_out, has_bias)?;
        Ok(self.pack(&weight, n_out, n_in, bias))
    }

    fn pack(
        &mut self,
        weight: &[f32],
        n_out: usize,
        n_in: usize,
        bias: Option<Vec<f32>>,
    ) -> Linear {
        let n_panels = n_out.div_ceil(LANES);
        let depth = depth(n_in, self.precision);
        let precision = self.precision;
        let (start, panels) = self.arena.take(n_panels * depth * LANES);
        panels
            .par_chunks_exact_mut(depth * LANES)
            .zip(weight.par_chunks(n_in * LANES))
            .for_each(|(panel, rows)| fill_panel(panel, rows, n_in, precision));
        Linear {
            start,
            n_panels,
            depth,
            bias,
        }
    }

    fn refuse_leftovers(&self) -> Result<(), OpenError> {
        match self
            .source
            .names()
            .into_iter()
            .find(|name| !self.used.contains(name))
        {
            Some(name) => Err(OpenError::UnknownTensor { name }),
            None => Ok(()),
        }
    }
}

/// Lanes without a row stay zero.
fn fill_panel(panel: &mut [u32], rows: &[f32], n_in: usize, precision: Precision) {
    for (lane, row) in rows.chunks_exact(n_in).enumerate() {
        let places = panel[lane..].iter_mut().step_by(LANES);
        match precision {
            Precision::F32 => places.zip(row).for_each(|(place, x)| *place = x.to_bits()),
            Precision::Bf16 => places
                .zip(row.chunks(2))
                .for_each(|(place, x)| *place = bf16_pair(x[0], x.get(1).copied().unwrap_or(0.0))),
        }
    }
}
