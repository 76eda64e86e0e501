//! GGUF files: llama.cpp's format, one file for a model, its settings and its tokenizer.
//!
//! A file is read from the front once: the settings into JSON, the tensors' places into a map.
//! Counts and lengths are held against what is left of the file before anything is taken for
//! them, so a file of a hundred bytes cannot ask for a gigabyte.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{
    error::{ForeignError, read_error},
    family::{GGUF, GGUF_GPT2, GGUF_LLAMA},
    fields::Fields,
    huggingface::base,
    model::ForeignModel,
    named::Named,
    quants::{self, Sort},
};
use tinylm_model::{
    config::{Activation, ModelConfig, Norm, Positions},
    engine::Tensor,
};

/// A GGUF file, whose tensors are read when they are asked for.
pub struct Gguf {
    path: PathBuf,
    settings: Value,
    places: BTreeMap<String, Place>,
}

struct Place {
    shape: Vec<usize>,
    sort: u32,
    start: u64,
}

const MAGIC: [u8; 4] = *b"GGUF";
/// Longest list in a list; the format allows any depth, and nobody uses two.
const DEPTH_MAX: usize = 2;
/// Entries of all lists. A byte of a file becomes a value of thirty bytes here, and the largest
/// vocabularies that there are have a million and a half.
const ENTRIES_MAX: u64 = 1 << 22;
const ALIGNMENT_MAX: u64 = 1 << 20;

impl Gguf {
    pub fn open(path: &Path) -> Result<Self, ForeignError> {
        let file = File::open(path).map_err(|source| read_error(path, source))?;
        let metadata = file.metadata().map_err(|source| read_error(path, source))?;
        let mut head = Head {
            left: metadata.len(),
            n_entries: 0,
            reader: BufReader::new(file),
        };
        let (settings, places) =
            head.read(metadata.len())
                .map_err(|reason| ForeignError::Damaged {
                    path: path.to_owned(),
                    reason,
                })?;
        let path = path.to_owned();
        Ok(Self {
            path,
            settings,
            places,
        })
    }

    /// Returns the file's settings, the tokenizer's among them.
    pub fn settings(&self) -> &Value {
        &self.settings
    }

    pub fn model(&self) -> Result<ForeignModel<'_>, ForeignError> {
        let general = Fields::new(&self.settings, "general.");
        let family = general.get("architecture").and_then(Value::as_str);
        let (family, layout) = match family {
            Some("llama") => ("llama", GGUF_LLAMA),
            Some("qwen2") => ("qwen2", GGUF),
            Some("starcoder2") => ("starcoder2", GGUF),
            Some("stablelm") => ("stablelm", GGUF),
            Some("gptneox") => ("gptneox", GGUF_GPT2),
            Some("gpt2") => ("gpt2", GGUF_GPT2),
            _ => {
                let reason =
                    "these can be imported: gpt2, llama, qwen2, starcoder2, stablelm, gptneox";
                return Err(general.refuse("architecture", reason));
            }
        };
        let split = Fields::new(&self.settings, "split.");
        if split.count_or("count", 1)? > 1 {
            let reason = "one file is read: put the parts together with `llama-gguf-split --merge`";
            return Err(split.refuse("count", reason));
        }
        let config = self.config(family)?;
        ForeignModel::new(family, config, layout, self)
    }

    fn config(&self, family: &str) -> Result<ModelConfig, ForeignError> {
        let fields = Fields::new(&self.settings, &format!("{family}."));
        not_scaled(&fields)?;
        fields.only(&[("expert_count", json!(0))])?;
        if family != "gptneox" {
            fields.only(&[("use_parallel_residual", json!(false))])?;
        }
        let embed = self.shape("token_embd.weight").unwrap_or_default();
        let d_model = fields.count("embedding_length")?;
        let n_heads = fields.count("attention.head_count")?;
        let is_rms = matches!(family, "llama" | "qwen2");
        let config = ModelConfig {
            vocab_size: embed.first().copied().unwrap_or(0),
            context: fields.count("context_length")?,
            d_model,
            n_layers: fields.count("block_count")?,
            n_heads,
            n_kv_heads: fields.count_or("attention.head_count_kv", n_heads)?,
            d_ff: fields.count("feed_forward_length")?,
            rope_theta: fields.number_or("rope.freq_base", 10_000.0)?,
            tied: !self.places.contains_key("output.weight"),
            activation: match family {
                "llama" | "qwen2" | "stablelm" => Activation::Swiglu,
                _ => Activation::GeluTanh,
            },
            ..base()
        };
        let config = match is_rms {
            true => ModelConfig {
                norm: Norm::Rms,
                norm_eps: fields.number("attention.layer_norm_rms_epsilon")?,
                ..config
            },
            false => ModelConfig {
                norm_eps: fields.number("attention.layer_norm_epsilon")?,
                ..config
            },
        };
        if family == "gpt2" {
            return Ok(config);
        }
        let d_head = d_model.checked_div(n_heads).unwrap_or(0);
        fields.only(&[
            ("attention.key_length", json!(d_head)),
            ("attention.value_length", json!(d_head)),
        ])?;
        let is_divided = matches!(family, "gptneox" | "stablelm");
        if !is_divided {
            fields.only(&[("rope.dimension_count", json!(d_head))])?;
        }
        let d_turned = fields.count_or("rope.dimension_count", d_head)?;
        Ok(ModelConfig {
            positions: Positions::Rope,
            rope_share: d_turned as f32 / d_head.max(1) as f32,
            parallel: family == "gptneox" && fields.flag_or("use_parallel_residual", true)?,
            ..config
        })
    }

    fn damaged(&self, reason: String) -> ForeignError {
        let path = self.path.clone();
        ForeignError::Damaged { path, reason }
    }
}

impl Named for Gguf {
    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.places.get(name)?.shape.clone())
    }

    fn get(&self, name: &str) -> Result<Tensor, ForeignError> {
        let place = self.places.get(name);
        let place = place.ok_or_else(|| ForeignError::MissingTensor {
            name: name.to_owned(),
        })?;
        let sort = quants::sort(place.sort).map_err(|kind| ForeignError::Kind {
            name: name.to_owned(),
            kind,
        })?;
        let n_bytes = n_bytes(&place.shape, sort);
        let n_bytes = n_bytes
            .ok_or_else(|| self.damaged(format!("`{name}` is no whole number of blocks")))?;
        let mut file = File::open(&self.path).map_err(|source| read_error(&self.path, source))?;
        let mut bytes = vec![0; n_bytes];
        file.seek(SeekFrom::Start(place.start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| read_error(&self.path, source))?;
        let shape = place.shape.clone();
        let data = sort.read(&bytes);
        Ok(Tensor { shape, data })
    }
}

/// llama.cpp scales by a factor that stands there even where no sort of scaling does.
fn not_scaled(fields: &Fields) -> Result<(), ForeignError> {
    let is_none = |value: &Value| value == "none" || matches!(value.as_f64(), Some(0.0 | 1.0));
    let names = [
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scale_linear",
    ];
    let is_scaled = |name: &&str| fields.get(name).is_some_and(|value| !is_none(value));
    match names.into_iter().find(is_scaled) {
        Some(name) => Err(fields.refuse(name, "rope's frequencies are not scaled here")),
        None => Ok(()),
    }
}

fn n_bytes(shape: &[usize], sort: Sort) -> Option<usize> {
    let mut n: usize = 1;
    for dimension in shape {
        n = n.checked_mul(*dimension)?;
    }
    sort.n_bytes_of(n, *shape.last().unwrap_or(&1))
}

/// The part of a file before the tensors' numbers.
struct Head<R> {
    reader: R,
    left: u64,
    /// Of lists, read so far.
    n_entries: u64,
}

type Reading<T> = Result<T, String>;

impl<R: Read> Head<R> {
    fn read(&mut self, len: u64) -> Reading<(Value, BTreeMap<String, Place>)> {
        if self.bytes::<4>()? != MAGIC {
            return Err("it is no GGUF file".to_owned());
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("its version is {version}, and 2 and 3 are known"));
        }
        let (n_tensors, n_settings) = (self.u64()?, self.u64()?);
        let mut settings = Map::new();
        for _ in 0..self.count(n_settings, 13)? {
            let name = self.text()?;
            let sort = self.u32()?;
            let value = self.value(sort, 0)?;
            // JSON has no word for it, and a setting that is none would not be looked at.
            if value.is_null() {
                return Err(format!("the setting `{name}` is not a number"));
            }
            if settings.insert(name.clone(), value).is_some() {
                return Err(format!("the setting `{name}` is there twice"));
            }
        }
        let settings = Value::Object(settings);
        let alignment = match &settings["general.alignment"] {
            Value::Null => 32,
            given => given
                .as_u64()
                .filter(|given| given.is_power_of_two() && *given <= ALIGNMENT_MAX)
                .ok_or_else(|| format!("its alignment is {given}"))?,
        };
        let mut places = BTreeMap::new();
        for _ in 0..self.count(n_tensors, 24)? {
            let name = self.text()?;
            let place = self.place()?;
            if places.insert(name.clone(), place).is_some() {
                return Err(format!("the tensor `{name}` is there twice"));
            }
        }
        let start = (len - self.left).next_multiple_of(alignment);
        check_places(&mut places, start, len)?;
        Ok((settings, places))
    }

    /// Refuses more things of at least so many bytes than the rest of the file can hold.
    fn count(&self, n: u64, n_bytes: u64) -> Reading<u64> {
        match n <= self.left / n_bytes {
            true => Ok(n),
            false => Err(format!("it claims {n} entries, and is too short for them")),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Reading<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Reading<()> {
        let n = bytes.len() as u64;
        self.left = self.left.checked_sub(n).ok_or("it is cut short")?;
        self.reader
            .read_exact(bytes)
            .map_err(|error| error.to_string())
    }

    fn u32(&mut self) -> Reading<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Reading<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn text(&mut self) -> Reading<String> {
        let n = self.u64()?;
        let n = self.count(n, 1)?;
        let mut bytes = vec![0; usize::try_from(n).map_err(|error| error.to_string())?];
        self.fill(&mut bytes)?;
        // A token may be half a character in files of some writers; none of them is ours.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn value(&mut self, sort: u32, depth: usize) -> Reading<Value> {
        Ok(match sort {
            0 => json!(self.bytes::<1>()?[0]),
            1 => json!(i8::from_le_bytes(self.bytes()?)),
            2 => json!(u16::from_le_bytes(self.bytes()?)),
            3 => json!(i16::from_le_bytes(self.bytes()?)),
            4 => json!(self.u32()?),
            5 => json!(i32::from_le_bytes(self.bytes()?)),
            6 => json!(f32::from_le_bytes(self.bytes()?)),
            7 => json!(self.bytes::<1>()?[0] != 0),
            8 => json!(self.text()?),
            9 if depth < DEPTH_MAX => self.list(depth + 1)?,
            10 => json!(self.u64()?),
            11 => json!(i64::from_le_bytes(self.bytes()?)),
            12 => json!(f64::from_le_bytes(self.bytes()?)),
            other => return Err(format!("a setting is of sort {other}")),
        })
    }

    fn list(&mut self, depth: usize) -> Reading<Value> {
        let sort = self.u32()?;
        let n = self.u64()?;
        let least = match sort {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            8 | 10 | 11 | 12 => 8,
            9 => 12,
            _ => 4,
        };
        let n = self.count(n, least)?;
        self.n_entries += n;
        if self.n_entries > ENTRIES_MAX {
            return Err(format!("its settings hold more than {ENTRIES_MAX} entries"));
        }
        let mut values = Vec::new();
        for _ in 0..n {
            values.push(self.value(sort, depth)?);
        }
        Ok(Value::Array(values))
    }

    /// A tensor's place; `start` counts from where the numbers begin.
    fn place(&mut self) -> Reading<Place> {
        let n_dimensions = self.u32()?;
        if n_dimensions > 4 {
            return Err(format!("a tensor has {n_dimensions} dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dimensions {
            let n = usize::try_from(self.u64()?).map_err(|error| error.to_string())?;
            shape.insert(0, n);
        }
        Ok(Place {
            shape,
            sort: self.u32()?,
            start: self.u64()?,
        })
    }
}

/// Refuses tensors that the file is too short for, or that share bytes.
fn check_places(places: &mut BTreeMap<String, Place>, start: u64, len: u64) -> Reading<()> {
    let mut ranges = Vec::new();
    for (name, place) in places.iter_mut() {
        let end = |place: &Place| {
            let n_bytes = match quants::sort(place.sort) {
                Ok(sort) => n_bytes(&place.shape, sort)? as u64,
                // Refused when it is read, by its name.
                Err(_) => 0,
            };
            start.checked_add(place.start)?.checked_add(n_bytes)
        };
        match end(place) {
            Some(end) if end <= len => {
                place.start += start;
                ranges.push((place.start, end, name));
            }
            _ => return Err(format!("`{name}` ends behind the file's end")),
        }
    }
    ranges.sort();
    match ranges.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(format!("`{}` and `{}` share bytes", pair[0].2, pair[1].2)),
        None => Ok(()),
    }
}
