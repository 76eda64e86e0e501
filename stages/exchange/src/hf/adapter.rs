//! An adapter as Hugging Face's PEFT stores it: two thin matrices beside each that they change, under
//! the names of the class that the model is exported as.
//!
//! What an export does to a matrix it does to rows or to columns: rows are those of `B`, columns
//! those of `A`. So an adapter goes wherever its model goes, lowered ones included, and what is cut
//! into queries, keys and values shares its `A`.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value, json};
use tinylm_model::{
    adapter::{A, B, factor_name},
    config::ModelConfig,
    folder::TrainedAdapter,
    weights::{Source, WeightsError},
};

use super::{choice, choice::Class, names};
use crate::{change::Form, claim::Claim, layout::Tensor};

/// An adapter under a class's names.
pub struct AdapterExport<'a> {
    pub class: Class,
    pub claim: Claim,
    form: Form<'a>,
    /// By PEFT's names.
    tensors: BTreeMap<String, Tensor>,
    settings: Map<String, Value>,
}

impl<'a> AdapterExport<'a> {
    /// Lays out an adapter that a model has been trained with. `source` has its factors and the
    /// model's own tensors. Returns the tensor that cannot be given along, if there is one.
    pub fn of(
        config: ModelConfig,
        about: &TrainedAdapter,
        source: impl Source + 'a,
    ) -> Result<AdapterExport<'a>, String> {
        let (class, changes) = choice::choose(&config);
        let claim = choice::claim(class, &config);
        // Rows of a table of positions are a setting of the base, which nobody there enlarges.
        let stays = |name: &&String| class == Class::Tinylm || *name == "positions.weight";
        if let Some(name) = about.whole.iter().find(stays) {
            return Err(name.clone());
        }
        let form = changes
            .into_iter()
            .fold(Form::new(config, source), Form::changed);
        let mut list = List::default();
        let all = names::tensors(class, &form.config);
        for (name, tensor) in &all {
            let Some(module) = name.strip_suffix(".weight") else {
                continue;
            };
            match &tensor.from {
                from if about.on.contains(from) => list.factors(module, tensor, about.rank),
                from if is_saved(from, &about.whole) => list.save(module, tensor),
                _ => list.others.push(module),
            }
        }
        if let Some(embed) = all.values().find(|tensor| tensor.from == "embed.weight")
            && form.config.tied
            && is_saved("head.weight", &about.whole)
        {
            list.save(class.head(), embed);
        }
        let settings = list.settings(class, about);
        Ok(AdapterExport {
            class,
            claim,
            form,
            tensors: list.tensors,
            settings,
        })
    }

    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let tensors = self.tensors.iter();
        tensors
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
            .collect()
    }

    /// Returns what stands in `adapter_config.json`.
    pub fn settings(&self, base: Option<&str>) -> Map<String, Value> {
        let mut settings = self.settings.clone();
        settings.insert("base_model_name_or_path".to_owned(), json!(base));
        settings
    }
}

impl Source for AdapterExport<'_> {
    fn numbers(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightsError> {
        let tensor = self.tensors.get(name);
        let tensor = tensor.ok_or_else(|| WeightsError::Missing {
            name: name.to_owned(),
        })?;
        Ok(tensor.laid(self.form.numbers(&tensor.from)?))
    }
}

/// New tokens have rows in the embedding and in the head, which may be one.
fn is_saved(from: &str, whole: &[String]) -> bool {
    let is_whole = |name: &str| whole.iter().any(|known| known == name);
    match from {
        "head.weight" => is_whole("head.weight") || is_whole("embed.weight"),
        _ => is_whole(from),
    }
}

#[derive(Default)]
struct List<'a> {
    tensors: BTreeMap<String, Tensor>,
    adapted: Vec<&'a str>,
    saved: Vec<&'a str>,
    /// Modules that stay as they are.
    others: Vec<&'a str>,
}

impl<'a> List<'a> {
    fn factors(&mut self, module: &'a str, matrix: &Tensor, rank: usize) {
        let [a, b] = matrix.factors(rank);
        for (end, mut factor) in [(A, a), (B, b)] {
            factor.from = factor_name(&matrix.from, end);
            let name = format!("base_model.model.{module}.{end}.weight");
            self.tensors.insert(name, factor);
        }
        self.adapted.push(module);
    }

    fn save(&mut self, module: &'a str, tensor: &Tensor) {
        let name = format!("base_model.model.{module}.weight");
        self.tensors.insert(name, tensor.clone());
        self.saved.push(module);
    }

    fn settings(&self, class: Class, about: &TrainedAdapter) -> Map<String, Value> {
        let saved: Vec<&str> = self.saved.iter().map(|module| last(module, 1)).collect();
        let settings = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "inference_mode": true,
            "r": about.rank,
            "lora_alpha": whole_or_not(about.alpha),
            "lora_dropout": 0.0,
            "use_rslora": false,
            "use_dora": false,
            "bias": "none",
            "fan_in_fan_out": class.is_turned(),
            "target_modules": self.targets(),
            "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
        });
        settings.as_object().cloned().unwrap_or_default()
    }

    /// The shortest names that mean these modules and no others: PEFT compares the ends of names.
    fn targets(&self) -> Vec<&str> {
        for n_parts in 1..=2 {
            let mut ends: Vec<&str> = self
                .adapted
                .iter()
                .map(|name| last(name, n_parts))
                .collect();
            ends.sort_unstable();
            ends.dedup();
            let is_meant = |name: &&str| ends.contains(&last(name, n_parts));
            if !self.others.iter().any(is_meant) {
                return ends;
            }
        }
        self.adapted.clone()
    }
}

/// A whole number without a point, as everybody writes it.
fn whole_or_not(number: f32) -> Value {
    match number.fract() == 0.0 {
        true => json!(number as u64),
        false => json!(number),
    }
}

/// The last parts of a module's name.
fn last(name: &str, n_parts: usize) -> &str {
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at + 1);
    dots.nth(n_parts - 1).map_or(name, |at| &name[at..])
}
