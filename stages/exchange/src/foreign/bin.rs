//! The `.bin` files of llama2.c: seven numbers, then all weights as f32 in a fixed order.
//!
//! Nothing in such a file says what it is. It is believed to be one if its length is exactly
//! the length that its seven numbers ask for.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    error::{ForeignError, read_error},
    family::GGUF_LLAMA,
    huggingface::base,
    model::ForeignModel,
    named::Named,
};
use tinylm_model::{
    config::{Activation, ModelConfig, Norm, Positions},
    engine::Tensor,
};

/// A model of llama2.c.
pub struct Llama2c {
    path: PathBuf,
    config: ModelConfig,
    /// Each tensor's shape, and its first number's place in the file.
    places: Places,
}

/// The pieces of llama2.c's `tokenizer.bin`, with their scores.
pub type Vocabulary = Vec<(Vec<u8>, f32)>;

/// Shapes and first bytes by name.
type Places = BTreeMap<String, (Vec<usize>, u64)>;

const HEADER: u64 = 28;

impl Llama2c {
    pub fn open(path: &Path) -> Result<Self, ForeignError> {
        let read = |source| read_error(path, source);
        let damaged = |reason: &str| ForeignError::Damaged {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let mut file = File::open(path).map_err(read)?;
        let len = file.metadata().map_err(read)?.len();
        let mut header = [0; HEADER as usize];
        file.read_exact(&mut header).map_err(read)?;
        let (numbers, _) = header.as_chunks();
        let numbers: Vec<i32> = numbers.iter().map(|n| i32::from_le_bytes(*n)).collect();
        let foreign = "it is no model of llama2.c: its first numbers are no model's shape";
        let config = config(&numbers).ok_or_else(|| damaged(foreign))?;
        config.check().map_err(|_| damaged(foreign))?;
        let (places, wanted) = places(&config).ok_or_else(|| damaged(foreign))?;
        if wanted != len {
            let reason = format!(
                "it has {len} bytes, and a model of llama2.c with its first numbers has {wanted}"
            );
            return Err(damaged(&reason));
        }
        let path = path.to_owned();
        Ok(Self {
            path,
            config,
            places,
        })
    }

    pub fn model(&self) -> Result<ForeignModel<'_>, ForeignError> {
        ForeignModel::new("llama2.c", self.config.clone(), GGUF_LLAMA, self)
    }

    /// Reads the tokenizer beside it: a length, then for each piece a score, a length and bytes.
    pub fn vocabulary(path: &Path, n: usize) -> Result<Vocabulary, ForeignError> {
        let bytes = fs::read(path).map_err(|source| read_error(path, source))?;
        let vocabulary = pieces(&bytes, n).ok_or_else(|| ForeignError::Damaged {
            path: path.to_owned(),
            reason: format!("it does not hold {n} pieces of llama2.c"),
        })?;
        Ok(vocabulary)
    }
}

fn pieces(bytes: &[u8], n: usize) -> Option<Vocabulary> {
    let (_, mut rest) = bytes.split_first_chunk::<4>()?;
    let mut pieces = Vec::new();
    for _ in 0..n {
        let (score, behind) = rest.split_first_chunk::<4>()?;
        let (len, behind) = behind.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (piece, behind) = behind.split_at_checked(len)?;
        pieces.push((piece.to_vec(), f32::from_le_bytes(*score)));
        rest = behind;
    }
    rest.is_empty().then_some(pieces)
}

/// dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (below zero: its own head), seq_len.
fn config(numbers: &[i32]) -> Option<ModelConfig> {
    let &[d_model, d_ff, n_layers, n_heads, n_kv_heads, vocab, context] = numbers else {
        return None;
    };
    let count = |number: i32| usize::try_from(number).ok();
    Some(ModelConfig {
        vocab_size: vocab.unsigned_abs() as usize,
        context: count(context)?,
        d_model: count(d_model)?,
        n_layers: count(n_layers)?,
        n_heads: count(n_heads)?,
        n_kv_heads: count(n_kv_heads)?,
        d_ff: count(d_ff)?,
        positions: Positions::Rope,
        norm: Norm::Rms,
        activation: Activation::Swiglu,
        tied: vocab > 0,
        ..base()
    })
}

/// Returns each tensor's place by the names that a GGUF file has, and the file's length.
fn places(c: &ModelConfig) -> Option<(Places, u64)> {
    let mut places = BTreeMap::new();
    let mut at = HEADER;
    let mut add = |name: String, shape: Vec<usize>| -> Option<()> {
        let n = shape
            .iter()
            .try_fold(1_u64, |n, size| n.checked_mul(*size as u64))?;
        let start = at;
        at = at.checked_add(n.checked_mul(4)?)?;
        places.insert(name, (shape, start));
        Some(())
    };
    let (d, kv) = (c.d_model, c.d_kv());
    add("token_embd.weight".to_owned(), vec![c.vocab_size, d])?;
    let in_blocks = [
        ("attn_norm", vec![d]),
        ("attn_q", vec![d, d]),
        ("attn_k", vec![kv, d]),
        ("attn_v", vec![kv, d]),
        ("attn_output", vec![d, d]),
        ("ffn_norm", vec![d]),
        ("ffn_gate", vec![c.d_ff, d]),
        ("ffn_down", vec![d, c.d_ff]),
        ("ffn_up", vec![c.d_ff, d]),
    ];
    for (name, shape) in in_blocks {
        for block in 0..c.n_layers {
            add(format!("blk.{block}.{name}.weight"), shape.clone())?;
        }
    }
    add("output_norm.weight".to_owned(), vec![d])?;
    // Sines and cosines, which follow from the shape.
    add(TABLES.to_owned(), vec![c.context, c.d_head()])?;
    if !c.tied {
        add("output.weight".to_owned(), vec![c.vocab_size, d])?;
    }
    places.remove(TABLES);
    Some((places, at))
}

const TABLES: &str = "rope tables";

impl Named for Llama2c {
    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.places.get(name)?.0.clone())
    }

    fn get(&self, name: &str) -> Result<Tensor, ForeignError> {
        let (shape, start) =
            self.places
                .get(name)
                .cloned()
                .ok_or_else(|| ForeignError::MissingTensor {
                    name: name.to_owned(),
                })?;
        let mut bytes = vec![0; shape.iter().product::<usize>() * 4];
        let mut file = File::open(&self.path).map_err(|source| read_error(&self.path, source))?;
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| read_error(&self.path, source))?;
        let (words, _) = bytes.as_chunks();
        let data = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        Ok(Tensor { shape, data })
    }
}
