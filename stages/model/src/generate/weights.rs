//! A model's weights as generation reads them: matrices in panels, everything else plain.
//!
//! All panels of a model stand in one anonymous mapping, in the order in which a token
//! passes through them, on huge pages where the system has them: decoding reads the
//! whole of it once per token, and this is what bounds its speed.

use std::{collections::BTreeMap, io};

use memmap2::MmapMut;
use rayon::prelude::*;

use crate::{
    config::{ModelConfig, Parameter, Positions, ReadPrecision},
    engine::Tensors,
    folder::{FolderError, ModelFolder, Which},
    kernels::{
        int8,
        math::{bf16_pair, rotations, sinusoids},
        tile::LANES,
    },
    model,
    weights::{Source, WeightsError, check_tensors},
};

/// Why a model could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("the model cannot be: {0}")]
    Impossible(String),
    #[error("no memory for the model: {0}")]
    Memory(io::Error),
    #[error("the model cannot be read on the GPU: {0}")]
    Device(String),
}

/// Everything a forward pass reads.
pub(crate) struct Weights {
    pub(crate) config: ModelConfig,
    pub(crate) precision: ReadPrecision,
    panels: MmapMut,
    /// `(V, D)`, f32 in every precision: looking up is no product. Empty where the head's panels have
    /// the same numbers.
    embed: Vec<f32>,
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
    pub(crate) gain: Vec<f32>,
    /// Empty where the norm has none.
    pub(crate) bias: Vec<f32>,
}

/// A matrix `(out, in)` in panels of 32 outputs, and its bias padded to whole panels.
pub(crate) struct Linear {
    start: usize,
    pub(crate) n_panels: usize,
    panel_len: usize,
    /// Steps of a product: `in`, or half of it rounded up in bf16.
    pub(crate) depth: usize,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Weights {
    /// Reads the shape and one set of weights of a model folder.
    pub(crate) fn read(
        folder: &ModelFolder,
        which: Which,
        precision: ReadPrecision,
    ) -> Result<Weights, OpenError> {
        let config = folder.config()?;
        let file = folder.tensor_file(which)?;
        file.check(&config.parameters())?;
        Weights::build(config, precision, &file)
    }

    pub(crate) fn from_tensors(
        config: ModelConfig,
        tensors: &Tensors,
        precision: ReadPrecision,
    ) -> Result<Weights, OpenError> {
        config
            .check()
            .map_err(|error| OpenError::Impossible(error.to_string()))?;
        let shapes = tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()));
        check_tensors(&config.parameters(), &shapes.collect())?;
        Weights::build(config, precision, tensors)
    }

    /// Packs tensors that are known to be the model's.
    fn build(
        config: ModelConfig,
        precision: ReadPrecision,
        source: &impl Source,
    ) -> Result<Weights, OpenError> {
        let parameters = config.parameters();
        let by_name: BTreeMap<&str, &Parameter> =
            parameters.iter().map(|p| (p.name.as_str(), p)).collect();
        let model = model::Weights::find(&config, |name| by_name.get(name).copied());
        let model = model
            .ok_or_else(|| OpenError::Impossible("its list of tensors has a gap".to_owned()))?;
        let n_elements = n_elements(&parameters, &config, precision);
        let mut builder = Builder {
            arena: Arena::new(n_elements).map_err(OpenError::Memory)?,
            precision,
            source,
        };
        let blocks = model.blocks.iter().map(|block| builder.block(block));
        let blocks = blocks.collect::<Result<_, _>>()?;
        let norm = model.norm.as_ref().map(|norm| builder.norm(norm));
        let (d, context) = (config.d_model, config.context);
        Ok(Weights {
            blocks,
            norm: norm.transpose()?,
            head: builder.linear(&model.head)?,
            embed: match config.tied && precision == ReadPrecision::F32 {
                true => Vec::new(),
                false => builder.plain(model.embed)?,
            },
            positions: match (config.positions, model.positions) {
                (Positions::Sinusoidal, _) => sinusoids(context, d),
                (Positions::Rope, _) => {
                    let d_turned = config.d_turned();
                    rotations(context, config.d_head(), d_turned, config.rope_theta)
                }
                (Positions::Learned, learned) => match learned {
                    Some(learned) => builder.plain(learned)?,
                    None => Vec::new(),
                },
            },
            panels: builder.arena.map,
            precision,
            config,
        })
    }

    /// The first element of one panel.
    pub(crate) fn panel(&self, linear: &Linear, panel_idx: usize) -> *const u32 {
        assert!(panel_idx < linear.n_panels);
        let offset = linear.start + panel_idx * linear.panel_len;
        self.panels.as_ptr().cast::<u32>().wrapping_add(offset)
    }

    /// Writes the embedding of a token, scaled.
    pub(crate) fn look_up(&self, token: usize, out: &mut [f32]) {
        let (d, scale) = (self.config.d_model, self.config.embed_scale);
        if !self.embed.is_empty() {
            let row = &self.embed[token * d..][..d];
            return out.iter_mut().zip(row).for_each(|(x, e)| *x = e * scale);
        }
        let panel = self.panel(&self.head, token / LANES).cast::<f32>();
        // SAFETY: a panel of f32 has `d * LANES` elements.
        let panel = unsafe { std::slice::from_raw_parts(panel, d * LANES) };
        let column = panel.iter().skip(token % LANES).step_by(LANES);
        out.iter_mut().zip(column).for_each(|(x, e)| *x = e * scale);
    }

    /// Returns how many bytes decoding one token reads.
    pub(crate) fn bytes_per_token(&self) -> usize {
        self.panels.len()
    }
}

fn depth(n_in: usize, precision: ReadPrecision) -> usize {
    match precision {
        ReadPrecision::F32 | ReadPrecision::Int8 => n_in,
        ReadPrecision::Bf16 => n_in.div_ceil(2),
    }
}

/// Elements of a panel.
fn panel_len(n_in: usize, precision: ReadPrecision) -> usize {
    match precision {
        ReadPrecision::Int8 => int8::panel_len(n_in),
        _ => depth(n_in, precision) * LANES,
    }
}

/// Elements of all panels of a model: of its matrices in blocks and of its head.
fn n_elements(parameters: &[Parameter], c: &ModelConfig, precision: ReadPrecision) -> usize {
    let matrix = |n_out: usize, n_in: usize| n_out.div_ceil(LANES) * panel_len(n_in, precision);
    let hidden = parameters.iter().filter(|p| p.role.is_hidden());
    let blocks: usize = hidden.map(|p| matrix(p.shape[0], p.shape[1])).sum();
    blocks + matrix(c.vocab_size, c.d_model)
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
    precision: ReadPrecision,
    source: &'a S,
}

impl<S: Source> Builder<'_, S> {
    fn block(&mut self, block: &model::Block<&Parameter>) -> Result<Block, OpenError> {
        Ok(Block {
            norm1: self.norm(&block.norm1)?,
            qkv: self.linear(&block.qkv)?,
            proj: self.linear(&block.proj)?,
            norm2: self.norm(&block.norm2)?,
            gate: match &block.gate {
                Some(gate) => Some(self.linear(gate)?),
                None => None,
            },
            up: self.linear(&block.up)?,
            down: self.linear(&block.down)?,
        })
    }

    fn norm(&self, norm: &model::Norm<&Parameter>) -> Result<NormWeights, OpenError> {
        Ok(NormWeights {
            gain: self.plain(norm.gain)?,
            bias: match norm.bias {
                Some(bias) => self.plain(bias)?,
                None => Vec::new(),
            },
        })
    }

    fn linear(&mut self, linear: &model::Linear<&Parameter>) -> Result<Linear, OpenError> {
        let bias = match linear.bias {
            Some(bias) => {
                let mut bias = self.plain(bias)?;
                bias.resize(bias.len().next_multiple_of(LANES), 0.0);
                Some(bias)
            }
            None => None,
        };
        let weight = self.source.numbers(&linear.weight.name)?;
        let (n_out, n_in) = (linear.weight.shape[0], linear.weight.shape[1]);
        let (n_panels, depth) = (n_out.div_ceil(LANES), depth(n_in, self.precision));
        let precision = self.precision;
        let panel_len = panel_len(n_in, precision);
        let (start, panels) = self.arena.take(n_panels * panel_len);
        panels
            .par_chunks_exact_mut(panel_len)
            .zip(weight.par_chunks(n_in * LANES))
            .for_each(|(panel, rows)| fill_panel(panel, rows, n_in, precision));
        Ok(Linear {
            start,
            n_panels,
            panel_len,
            depth,
            bias,
        })
    }

    fn plain(&self, parameter: &Parameter) -> Result<Vec<f32>, OpenError> {
        Ok(self.source.numbers(&parameter.name)?.into_owned())
    }
}

/// Lanes without a row stay zero.
fn fill_panel(panel: &mut [u32], rows: &[f32], n_in: usize, precision: ReadPrecision) {
    if precision == ReadPrecision::Int8 {
        return int8::fill(panel, rows, n_in);
    }
    for (lane, row) in rows.chunks_exact(n_in).enumerate() {
        let places = panel[lane..].iter_mut().step_by(LANES);
        match precision {
            ReadPrecision::Bf16 => places
                .zip(row.chunks(2))
                .for_each(|(place, x)| *place = bf16_pair(x[0], x.get(1).copied().unwrap_or(0.0))),
            _ => places.zip(row).for_each(|(place, x)| *place = x.to_bits()),
        }
    }
}
