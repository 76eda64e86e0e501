//! Where each of our tensors stands in the file of another program.
//!
//! A family is a table: one line a module of ours (`qkv`, `down`), with the name that it has
//! there, `{}` for the number of the block, and how its numbers lie there.

use std::collections::BTreeSet;

use super::{error::ForeignError, named::Named};
use crate::layout::turned_first;
use tinylm_model::{
    config::{ModelConfig, Norm, Parameter},
    engine::Tensor,
};

/// How a module's numbers lie in the other's file.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// As here.
    Same(&'static str),
    /// `(in, out)`, as GPT-2 has it.
    Turned(&'static str),
    /// Queries, keys and values apart, to be put one under the other.
    Stacked([&'static str; 3]),
    /// The same, and what rope turns together are neighbours, where ours are half a head apart.
    Neighbours([&'static str; 3]),
    /// The same, and scores are not divided by the root of a head's width.
    Undivided([&'static str; 3]),
    /// Queries, keys and values of each head together.
    ByHead(&'static str),
    /// Behind so many rows that nothing reads.
    Behind(usize, &'static str),
}

/// A module of ours and its place.
pub(super) type Line = (&'static str, Place);

/// The names of a family's tensors.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Stand before every name but the head's, the first that is found.
    pub(super) prefixes: &'static [&'static str],
    pub(super) lines: &'static [Line],
    pub(super) head: &'static str,
    /// Ends of names of what is no weight: masks, tables that follow from the shape.
    pub(super) ignored: &'static [&'static str],
}

impl Layout {
    fn place(&self, module: &str) -> Option<Place> {
        if module == "head" {
            return Some(Place::Same(self.head));
        }
        let line = self.lines.iter().find(|(name, _)| *name == module);
        line.map(|(_, place)| *place)
    }

    /// Returns the full names of a module's tensors there.
    pub(super) fn names(
        &self,
        module: &str,
        block: &str,
        end: &str,
        source: &dyn Named,
    ) -> (Option<Place>, Vec<String>) {
        let Some(place) = self.place(module) else {
            return (None, Vec::new());
        };
        let prefix = match module {
            "head" => "",
            _ => self.prefix(source),
        };
        let full = |name: &&str| format!("{prefix}{}.{end}", name.replace("{}", block));
        let names = match &place {
            Place::Same(name)
            | Place::Turned(name)
            | Place::ByHead(name)
            | Place::Behind(_, name) => vec![full(name)],
            Place::Stacked(names) | Place::Neighbours(names) | Place::Undivided(names) => {
                names.iter().map(full).collect()
            }
        };
        (Some(place), names)
    }

    fn prefix(&self, source: &dyn Named) -> &'static str {
        let Some(Place::Same(embed)) = self.place("embed") else {
            return "";
        };
        let is_there = |prefix: &&&str| source.shape(&format!("{prefix}{embed}.weight")).is_some();
        self.prefixes.iter().find(is_there).copied().unwrap_or("")
    }

    /// Sets which parts have a bias by what the file holds: one that is zero everywhere is none.
    pub(super) fn find_biases(
        &self,
        config: &mut ModelConfig,
        source: &dyn Named,
    ) -> Result<(), ForeignError> {
        let in_blocks = |modules: &[&str]| -> Result<bool, ForeignError> {
            for block in 0..config.n_layers {
                for module in modules {
                    let (_, names) = self.names(module, &block.to_string(), "bias", source);
                    if any_set(&names, source)? {
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        };
        let (qkv, proj) = (in_blocks(&["qkv"])?, in_blocks(&["proj"])?);
        let mlp = in_blocks(&["gate", "up", "down"])?;
        let norm = in_blocks(&["norm1", "norm2"])?
            || any_set(&self.names("norm", "", "bias", source).1, source)?;
        let head = any_set(&self.names("head", "", "bias", source).1, source)?;
        config.bias.qkv = qkv;
        config.bias.proj = proj;
        config.bias.mlp = mlp;
        config.bias.norm = norm && config.norm == Norm::Layer;
        config.bias.head = head;
        Ok(())
    }

    /// Refuses a file in which a tensor is missing, or one that a model of ours has no place for.
    pub(super) fn check_names(
        &self,
        config: &ModelConfig,
        source: &dyn Named,
    ) -> Result<(), ForeignError> {
        let mut known = BTreeSet::new();
        for parameter in config.parameters() {
            let (module, block, end) = parts(&parameter.name);
            let (_, names) = self.names(module, block, end, source);
            let is_needed = end == "weight";
            if let Some(name) = names.iter().find(|name| source.shape(name).is_none())
                && is_needed
            {
                let name = name.clone();
                return Err(ForeignError::MissingTensor { name });
            }
            known.extend(names);
        }
        let is_known = |name: &String| {
            known.contains(name)
                || self.ignored.iter().any(|end| name.ends_with(end))
                || (config.tied && name.strip_suffix(".weight") == Some(self.head))
        };
        // Biases that are zero are known too.
        let is_bias = |name: &String| {
            let weight = name
                .strip_suffix(".bias")
                .map(|start| format!("{start}.weight"));
            weight.is_some_and(|weight| known.contains(&weight))
        };
        let mut names = source.names().into_iter();
        match names.find(|name| !is_known(name) && !is_bias(name)) {
            Some(name) => Err(ForeignError::UnknownTensor { name }),
            None => Ok(()),
        }
    }

    /// Reads one of our tensors.
    pub(super) fn read(
        &self,
        parameter: &Parameter,
        config: &ModelConfig,
        source: &dyn Named,
    ) -> Result<Tensor, ForeignError> {
        let (module, block, end) = parts(&parameter.name);
        let (place, names) = self.names(module, block, end, source);
        let Some(place) = place else {
            let name = parameter.name.clone();
            return Err(ForeignError::MissingTensor { name });
        };
        let mut read = Vec::new();
        for name in &names {
            read.push(self.one(name, end, place, source)?);
        }
        let tensor = match place {
            Place::Same(_) => read.remove(0),
            Place::Turned(_) => turned(read.remove(0)),
            Place::Stacked(_) => stacked(read),
            Place::Neighbours(_) => {
                for part in &mut read[..2] {
                    part_neighbours(part, config.d_head());
                }
                stacked(read)
            }
            Place::Undivided(_) => {
                let root = (config.d_head() as f32).sqrt();
                read[0].data.iter_mut().for_each(|value| *value *= root);
                stacked(read)
            }
            Place::ByHead(_) => by_part(read.remove(0), config.n_heads, config.d_head()),
            Place::Behind(n_rows, _) => behind(read.remove(0), n_rows),
        };
        Ok(match module {
            "qkv" if config.rope_share != 1.0 => turned_apart(tensor, config),
            _ => tensor,
        })
    }

    /// Reads a tensor as it stands there; a bias that is missing where its kin have one is zero.
    fn one(
        &self,
        name: &str,
        end: &str,
        place: Place,
        source: &dyn Named,
    ) -> Result<Tensor, ForeignError> {
        if end != "bias" || source.shape(name).is_some() {
            return source.get(name);
        }
        let weight = format!("{}weight", name.strip_suffix("bias").unwrap_or(name));
        let shape = source.shape(&weight).unwrap_or_default();
        let n = match place {
            Place::Turned(_) => shape.last(),
            _ => shape.first(),
        };
        let n = n.copied().unwrap_or(0);
        let (shape, data) = (vec![n], vec![0.0; n]);
        Ok(Tensor { shape, data })
    }
}

/// Cuts a name of ours into module, number of the block, and `weight` or `bias`.
fn parts(name: &str) -> (&str, &str, &str) {
    let (path, end) = name.rsplit_once('.').unwrap_or((name, "weight"));
    match path
        .strip_prefix("blocks.")
        .and_then(|rest| rest.split_once('.'))
    {
        Some((block, module)) => (module, block, end),
        None => (path, "", end),
    }
}

fn any_set(names: &[String], source: &dyn Named) -> Result<bool, ForeignError> {
    for name in names.iter().filter(|name| source.shape(name).is_some()) {
        if source.get(name)?.data.iter().any(|value| *value != 0.0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Rows and columns of a matrix changed for each other; anything else as it is.
pub(super) fn turned(tensor: Tensor) -> Tensor {
    let &[n_rows, n_columns] = tensor.shape.as_slice() else {
        return tensor;
    };
    let mut data = vec![0.0; tensor.data.len()];
    for (row, values) in tensor.data.chunks_exact(n_columns.max(1)).enumerate() {
        for (column, value) in values.iter().enumerate() {
            data[column * n_rows + row] = *value;
        }
    }
    let shape = vec![n_columns, n_rows];
    Tensor { shape, data }
}

/// Tensors one under the other.
fn stacked(parts: Vec<Tensor>) -> Tensor {
    let n_rows = parts
        .iter()
        .map(|part| part.shape.first().unwrap_or(&0))
        .sum();
    let mut shape = parts[0].shape.clone();
    if let Some(first) = shape.first_mut() {
        *first = n_rows;
    }
    let data = parts.into_iter().flat_map(|part| part.data).collect();
    Tensor { shape, data }
}

/// Brings rows `2i` and `2i + 1` of each head to `i` and `i + d_head / 2`.
pub(super) fn part_neighbours(tensor: &mut Tensor, d_head: usize) {
    let n_rows = *tensor.shape.first().unwrap_or(&1);
    let width = tensor.data.len() / n_rows.max(1);
    let mut data = Vec::with_capacity(tensor.data.len());
    for head in tensor.data.chunks(d_head * width.max(1)) {
        let rows: Vec<&[f32]> = head.chunks(width.max(1)).collect();
        for first in [0, 1] {
            for row in rows.iter().skip(first).step_by(2) {
                data.extend_from_slice(row);
            }
        }
    }
    tensor.data = data;
}

/// Rows by head, then query, key, value: to rows by query, key, value, then head.
fn by_part(tensor: Tensor, n_heads: usize, d_head: usize) -> Tensor {
    let n_rows = *tensor.shape.first().unwrap_or(&0);
    if n_rows != 3 * n_heads * d_head {
        return tensor;
    }
    let width = tensor.data.len() / n_rows;
    let mut data = Vec::with_capacity(tensor.data.len());
    for part in 0..3 {
        for head in 0..n_heads {
            let row = (head * 3 + part) * d_head;
            data.extend_from_slice(&tensor.data[row * width..][..d_head * width]);
        }
    }
    Tensor { data, ..tensor }
}

/// What rope turns stands in front of each head of queries and keys there, and half a head apart here.
fn turned_apart(mut tensor: Tensor, config: &ModelConfig) -> Tensor {
    let (order, n_heads) = (turned_first(config), config.n_heads + config.n_kv_heads);
    let n_rows = *tensor.shape.first().unwrap_or(&0);
    if n_rows != config.d_model + 2 * config.d_kv() {
        return tensor;
    }
    let width = tensor.data.len() / n_rows;
    let there = tensor.data.clone();
    for head in 0..n_heads {
        for (from, to) in order.iter().enumerate() {
            let row = |at: usize| {
                (head * order.len() + at) * width..(head * order.len() + at + 1) * width
            };
            tensor.data[row(*to)].copy_from_slice(&there[row(from)]);
        }
    }
    tensor
}

fn behind(mut tensor: Tensor, n_rows: usize) -> Tensor {
    if let [rows, width] = tensor.shape.as_mut_slice()
        && *rows >= n_rows
    {
        tensor.data.drain(..n_rows * *width);
        *rows -= n_rows;
    }
    tensor
}

use Place::{Behind, ByHead, Neighbours, Same, Stacked, Turned, Undivided};

pub(super) static GPT2: Layout = Layout {
    prefixes: &["transformer.", ""],
    lines: &[
        ("embed", Same("wte")),
        ("positions", Same("wpe")),
        ("norm1", Same("h.{}.ln_1")),
        ("qkv", Turned("h.{}.attn.c_attn")),
        ("proj", Turned("h.{}.attn.c_proj")),
        ("norm2", Same("h.{}.ln_2")),
        ("up", Turned("h.{}.mlp.c_fc")),
        ("down", Turned("h.{}.mlp.c_proj")),
        ("norm", Same("ln_f")),
    ],
    head: "lm_head",
    ignored: &[".attn.bias", ".attn.masked_bias"],
};

pub(super) static GPT_NEO: Layout = Layout {
    prefixes: &["transformer.", ""],
    lines: &[
        ("embed", Same("wte")),
        ("positions", Same("wpe")),
        ("norm1", Same("h.{}.ln_1")),
        (
            "qkv",
            Undivided([
                "h.{}.attn.attention.q_proj",
                "h.{}.attn.attention.k_proj",
                "h.{}.attn.attention.v_proj",
            ]),
        ),
        ("proj", Same("h.{}.attn.attention.out_proj")),
        ("norm2", Same("h.{}.ln_2")),
        ("up", Same("h.{}.mlp.c_fc")),
        ("down", Same("h.{}.mlp.c_proj")),
        ("norm", Same("ln_f")),
    ],
    head: "lm_head",
    ignored: &[".attention.bias", ".attention.masked_bias"],
};

pub(super) static OPT: Layout = Layout {
    prefixes: &["model.decoder.", "decoder."],
    lines: &[
        ("embed", Same("embed_tokens")),
        ("positions", Behind(2, "embed_positions")),
        ("norm1", Same("layers.{}.self_attn_layer_norm")),
        (
            "qkv",
            Stacked([
                "layers.{}.self_attn.q_proj",
                "layers.{}.self_attn.k_proj",
                "layers.{}.self_attn.v_proj",
            ]),
        ),
        ("proj", Same("layers.{}.self_attn.out_proj")),
        ("norm2", Same("layers.{}.final_layer_norm")),
        ("up", Same("layers.{}.fc1")),
        ("down", Same("layers.{}.fc2")),
        ("norm", Same("final_layer_norm")),
    ],
    head: "lm_head",
    ignored: &[],
};

const SELF_ATTENTION: [&str; 3] = [
    "layers.{}.self_attn.q_proj",
    "layers.{}.self_attn.k_proj",
    "layers.{}.self_attn.v_proj",
];

/// Llama and its kin; the MLP with a gate and without.
pub(super) static LLAMA: Layout = Layout {
    prefixes: &["model.", ""],
    lines: &[
        ("embed", Same("embed_tokens")),
        ("norm1", Same("layers.{}.input_layernorm")),
        ("qkv", Stacked(SELF_ATTENTION)),
        ("proj", Same("layers.{}.self_attn.o_proj")),
        ("norm2", Same("layers.{}.post_attention_layernorm")),
        ("gate", Same("layers.{}.mlp.gate_proj")),
        ("up", Same("layers.{}.mlp.up_proj")),
        ("down", Same("layers.{}.mlp.down_proj")),
        ("norm", Same("norm")),
    ],
    head: "lm_head",
    ignored: &[".rotary_emb.inv_freq"],
};

pub(super) static STARCODER2: Layout = Layout {
    lines: &[
        ("embed", Same("embed_tokens")),
        ("norm1", Same("layers.{}.input_layernorm")),
        ("qkv", Stacked(SELF_ATTENTION)),
        ("proj", Same("layers.{}.self_attn.o_proj")),
        ("norm2", Same("layers.{}.post_attention_layernorm")),
        ("up", Same("layers.{}.mlp.c_fc")),
        ("down", Same("layers.{}.mlp.c_proj")),
        ("norm", Same("norm")),
    ],
    ..LLAMA
};

pub(super) static GPT_NEOX: Layout = Layout {
    prefixes: &["gpt_neox.", ""],
    lines: &[
        ("embed", Same("embed_in")),
        ("norm1", Same("layers.{}.input_layernorm")),
        ("qkv", ByHead("layers.{}.attention.query_key_value")),
        ("proj", Same("layers.{}.attention.dense")),
        ("norm2", Same("layers.{}.post_attention_layernorm")),
        ("up", Same("layers.{}.mlp.dense_h_to_4h")),
        ("down", Same("layers.{}.mlp.dense_4h_to_h")),
        ("norm", Same("final_layer_norm")),
    ],
    head: "embed_out",
    ignored: &[
        ".attention.bias",
        ".attention.masked_bias",
        ".rotary_emb.inv_freq",
    ],
};

const GGUF_ATTENTION: [&str; 3] = ["blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v"];

/// A GGUF file that has queries, keys and values apart, as ours are turned by rope.
pub(super) static GGUF: Layout = Layout {
    prefixes: &[""],
    lines: &[
        ("embed", Same("token_embd")),
        ("positions", Same("position_embd")),
        ("norm1", Same("blk.{}.attn_norm")),
        ("qkv", Stacked(GGUF_ATTENTION)),
        ("proj", Same("blk.{}.attn_output")),
        ("norm2", Same("blk.{}.ffn_norm")),
        ("gate", Same("blk.{}.ffn_gate")),
        ("up", Same("blk.{}.ffn_up")),
        ("down", Same("blk.{}.ffn_down")),
        ("norm", Same("output_norm")),
    ],
    head: "output",
    ignored: &[],
};

pub(super) static GGUF_LLAMA: Layout = Layout {
    lines: &[
        ("embed", Same("token_embd")),
        ("norm1", Same("blk.{}.attn_norm")),
        ("qkv", Neighbours(GGUF_ATTENTION)),
        ("proj", Same("blk.{}.attn_output")),
        ("norm2", Same("blk.{}.ffn_norm")),
        ("gate", Same("blk.{}.ffn_gate")),
        ("up", Same("blk.{}.ffn_up")),
        ("down", Same("blk.{}.ffn_down")),
        ("norm", Same("output_norm")),
    ],
    ..GGUF
};

pub(super) static GGUF_GPT2: Layout = Layout {
    lines: &[
        ("embed", Same("token_embd")),
        ("positions", Same("position_embd")),
        ("norm1", Same("blk.{}.attn_norm")),
        ("qkv", Same("blk.{}.attn_qkv")),
        ("proj", Same("blk.{}.attn_output")),
        ("norm2", Same("blk.{}.ffn_norm")),
        ("up", Same("blk.{}.ffn_up")),
        ("down", Same("blk.{}.ffn_down")),
        ("norm", Same("output_norm")),
    ],
    ..GGUF
};
