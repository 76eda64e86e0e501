//! An adapter of Hugging Face's PEFT, merged into the model that it belongs to while that is read.
//!
//! Every key of the file must change a tensor of the model, or stand in its place. What PEFT can do
//! besides (DoRA, biases, patterns of ranks) changes what a matrix is, and is refused by its name.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};
use tinylm_model::{
    adapter::add_product,
    config::ModelConfig,
    engine::Tensor,
    weights::{TensorFile, read_file},
};

use super::{
    error::{ForeignError, read_error},
    family::{Layout, turned},
    fields::Fields,
    named::Named,
};

/// An adapter that has been looked at, and of which no tensor has been read.
pub struct Peft {
    file: TensorFile,
    rank: usize,
    scale: f32,
    /// By the modules' names.
    changes: BTreeMap<String, Change>,
}

/// What becomes of a module's weight or bias.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    /// A product is added, of the tensors that this is the beginning of.
    Product(String),
    /// This stands in its place.
    Whole(String),
}

impl Peft {
    /// Opens `adapter_config.json` and `adapter_model.safetensors`.
    pub fn open(settings: &Path, weights: &Path) -> Result<Self, ForeignError> {
        let bytes = read_file(settings).map_err(|source| read_error(settings, source))?;
        let json: Value =
            serde_json::from_slice(&bytes).map_err(|error| ForeignError::Damaged {
                path: settings.to_owned(),
                reason: error.to_string(),
            })?;
        let fields = Fields::new(&json, "");
        check(&fields)?;
        let rank = fields.count("r")?;
        if rank == 0 {
            return Err(fields.refuse("r", "nothing could be learnt so"));
        }
        let alpha = fields.number_or("lora_alpha", 8.0)?;
        let by = match fields.flag_or("use_rslora", false)? {
            true => (rank as f32).sqrt(),
            false => rank as f32,
        };
        let file = TensorFile::open(weights)?;
        let mut changes = BTreeMap::new();
        for key in file.names() {
            let (name, change) = change_of(&key)?;
            let other = changes.insert(name, change.clone());
            if other.is_some_and(|other| other != change) {
                return Err(ForeignError::UnknownTensor { name: key });
            }
        }
        Ok(Self {
            file,
            rank,
            scale: alpha / by,
            changes,
        })
    }

    /// Checks that all of it has a place in a model, and gives it the names of that model's file,
    /// which may leave out what they begin with.
    pub(super) fn fitted(
        mut self,
        model: &dyn Named,
        is_turned: bool,
    ) -> Result<Self, ForeignError> {
        let mut fitted = BTreeMap::new();
        for (name, change) in std::mem::take(&mut self.changes) {
            let short = name.split_once('.').map_or("", |(_, rest)| rest);
            let place = [&*name, short]
                .into_iter()
                .find(|name| model.shape(name).is_some());
            match (place, &change) {
                (Some(place), Change::Product(begin)) => {
                    self.check_product(begin, model.shape(place), is_turned)?;
                    fitted.insert(place.to_owned(), change);
                }
                (Some(place), Change::Whole(_)) => {
                    fitted.insert(place.to_owned(), change);
                }
                // A head of its own, of a model that had none.
                (None, Change::Whole(_)) if name.matches('.').count() == 1 => {
                    fitted.insert(name, change);
                }
                (None, Change::Product(begin)) => {
                    let name = format!("{begin}lora_A.weight");
                    return Err(ForeignError::UnknownTensor { name });
                }
                (None, Change::Whole(key)) => {
                    let name = key.clone();
                    return Err(ForeignError::UnknownTensor { name });
                }
            }
        }
        self.changes = fitted;
        Ok(self)
    }

    fn check_product(
        &self,
        begin: &str,
        matrix: Option<Vec<usize>>,
        is_turned: bool,
    ) -> Result<(), ForeignError> {
        let mut matrix = matrix.unwrap_or_default();
        if is_turned {
            matrix.reverse();
        }
        let (n_out, n_in) = match matrix[..] {
            [n_out, n_in] if n_out.min(n_in) > 0 => (n_out, n_in),
            _ => {
                let name = format!("{begin}lora_A.weight");
                return Err(ForeignError::UnknownTensor { name });
            }
        };
        for (end, expected) in [("A", vec![self.rank, n_in]), ("B", vec![n_out, self.rank])] {
            let name = format!("{begin}lora_{end}.weight");
            match self.file.shape(&name) {
                Some(found) if found == expected => (),
                Some(found) => {
                    let found = found.to_vec();
                    return Err(ForeignError::Shape {
                        name,
                        found,
                        expected,
                    });
                }
                None => return Err(ForeignError::MissingTensor { name }),
            }
        }
        Ok(())
    }

    /// Names of tensors that stand in the place of the model's, or beside them.
    pub(super) fn whole(&self) -> impl Iterator<Item = &String> {
        let changes = self.changes.iter();
        changes.filter_map(|(name, change)| matches!(change, Change::Whole(_)).then_some(name))
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self.changes.get(name)? {
            Change::Whole(key) => self.file.shape(key).map(<[usize]>::to_vec),
            Change::Product(_) => None,
        }
    }

    /// Returns a tensor that stands for itself.
    pub(super) fn get(&self, name: &str) -> Option<Result<Tensor, ForeignError>> {
        match self.changes.get(name)? {
            Change::Whole(key) => Some(self.file.get(key).map_err(ForeignError::from)),
            Change::Product(_) => None,
        }
    }

    /// Adds to a tensor of the model what the adapter adds to it.
    pub(super) fn add(
        &self,
        name: &str,
        tensor: Tensor,
        is_turned: bool,
    ) -> Result<Tensor, ForeignError> {
        let Some(Change::Product(begin)) = self.changes.get(name) else {
            return Ok(tensor);
        };
        let factor = |end: &str| self.file.get(&format!("{begin}lora_{end}.weight"));
        let (a, b) = (factor("A")?, factor("B")?);
        let turn = |tensor| if is_turned { turned(tensor) } else { tensor };
        let mut tensor = turn(tensor);
        let n_in = a.shape[1];
        add_product(&mut tensor.data, &a.data, &b.data, self.scale, n_in);
        Ok(turn(tensor))
    }

    /// Fits a shape to what stands in the place of the embedding, and to a head that is another.
    pub(super) fn enlarge(
        &self,
        config: &mut ModelConfig,
        layout: &Layout,
        model: &dyn Named,
    ) -> Result<(), ForeignError> {
        let (_, embed) = layout.names("embed", "", "weight", model);
        let embed = embed.into_iter().next().unwrap_or_default();
        if let Some(&rows) = self.shape(&embed).as_ref().and_then(|shape| shape.first()) {
            config.vocab_size = rows;
        }
        if let Some(head) = self.get(&format!("{}.weight", layout.head)) {
            config.tied &= head?.data == model.get(&embed)?.data;
        }
        Ok(())
    }
}

/// Refuses what changes a model in another way than by a product.
fn check(fields: &Fields) -> Result<(), ForeignError> {
    fields.only(&[
        ("peft_type", json!("LORA")),
        ("bias", json!("none")),
        ("lora_bias", json!(false)),
        ("use_dora", json!(false)),
        ("use_qalora", json!(false)),
        ("rank_pattern", json!({})),
        ("alpha_pattern", json!({})),
    ])?;
    for name in [
        "layer_replication",
        "trainable_token_indices",
        "alora_invocation_tokens",
        "use_bdlora",
        "kasa_config",
    ] {
        if fields.get(name).is_some() {
            return Err(fields.refuse(name, "it is not known here"));
        }
    }
    // These start from another base than the one that the adapter is put on.
    let start = fields.get("init_lora_weights").and_then(Value::as_str);
    let moves = ["pissa", "olora", "corda", "loftq", "lora_ga"];
    match start {
        Some(start) if moves.iter().any(|name| start.starts_with(name)) => Err(fields.refuse(
            "init_lora_weights",
            "such an adapter is for a base of its own: convert it with PEFT first",
        )),
        _ => Ok(()),
    }
}

/// Takes a key of the file apart: the tensor that it is about, and what becomes of that.
fn change_of(key: &str) -> Result<(String, Change), ForeignError> {
    let unknown = || ForeignError::UnknownTensor {
        name: key.to_owned(),
    };
    let name = key.strip_prefix("base_model.model.").ok_or_else(unknown)?;
    for end in ["lora_A.weight", "lora_B.weight"] {
        if let (Some(module), Some(begin)) = (name.strip_suffix(end), key.strip_suffix(end)) {
            return Ok((format!("{module}weight"), Change::Product(begin.to_owned())));
        }
    }
    let is_weight = name.ends_with(".weight") || name.ends_with(".bias");
    match is_weight && !name.contains("lora_") {
        true => Ok((name.to_owned(), Change::Whole(key.to_owned()))),
        false => Err(unknown()),
    }
}
