//! Hugging Face's `transformers`: which of its classes computes what a model computes, and the
//! model under that class's names.
//!
//! A class that has every setting is taken first, then GPT-2 after changes of form, and where
//! neither is possible the file `modeling_tinylm.py` goes with the model.

mod adapter;
mod choice;
mod names;
pub(crate) mod settings;

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value};
use tinylm_model::{
    config::ModelConfig,
    weights::{Source, WeightsError},
};

use crate::{change::Form, claim::Claim, layout::Tensor};

pub use adapter::AdapterExport;
pub use choice::Class;
pub use settings::Ids;

/// The name of the file that a model of no known class needs, and what is in it.
pub const CODE_NAME: &str = "modeling_tinylm.py";
pub const CODE: &str = include_str!("hf/modeling_tinylm.py");

/// A model as one of the classes of `transformers` has it.
pub struct Export<'a> {
    pub class: Class,
    pub claim: Claim,
    form: Form<'a>,
    /// By the class's names.
    tensors: BTreeMap<String, Tensor>,
}

impl<'a> Export<'a> {
    /// Finds the class of a model whose config has been checked.
    pub fn of(config: ModelConfig, source: impl Source + 'a) -> Export<'a> {
        let (class, changes) = choice::choose(&config);
        let claim = choice::claim(class, &config);
        let form = changes
            .into_iter()
            .fold(Form::new(config, source), Form::changed);
        let tensors = names::tensors(class, &form.config);
        Export {
            class,
            claim,
            form,
            tensors,
        }
    }

    /// The shape of the model that the class is given.
    pub fn config(&self) -> &ModelConfig {
        &self.form.config
    }

    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let tensors = self.tensors.iter();
        tensors
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
            .collect()
    }

    /// Returns what stands in `config.json`.
    pub fn settings(&self, ids: Ids) -> Map<String, Value> {
        settings::of(self.class, &self.form.config, ids)
    }
}

impl Source for Export<'_> {
    fn numbers(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightsError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| WeightsError::Missing {
                name: name.to_owned(),
            })?;
        Ok(tensor.laid(self.form.numbers(&tensor.from)?))
    }
}

#[cfg(test)]
mod tests;
