//! llama.cpp's GGUF: which of its architectures computes what a model computes, and the file.
//!
//! Architectures that have every setting are taken first, then `gpt2` after changes of form, as for
//! `transformers`. There is no code to go with a file, so a model that no architecture expresses is
//! refused by its settings.
//!
//! The converters that come with llama.cpp are not used: they know tokenizers by hashes of the
//! famous ones and stop at one of somebody's own, and give a BPE of pieces without scores the same
//! score for every token, so that its merges happen in another order.

mod choice;
mod names;
mod numbers;
mod settings;
mod superblocks;
mod write;

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use tinylm_model::{
    config::ModelConfig,
    weights::{Source, WeightsError},
};

use crate::{change::Form, claim::Claim, layout::Tensor};

pub use choice::Architecture;
pub use numbers::Numbers;
pub use write::Field;

/// A model as one of llama.cpp's architectures has it.
pub struct Export<'a> {
    pub architecture: Architecture,
    pub claim: Claim,
    form: Form<'a>,
    /// By llama.cpp's names, in the order of the file.
    tensors: BTreeMap<String, Tensor>,
}

impl<'a> Export<'a> {
    /// Finds the architecture of a model whose config has been checked, or the settings for which
    /// there is none.
    pub fn of(config: ModelConfig, source: impl Source + 'a) -> Result<Export<'a>, Vec<String>> {
        let (architecture, changes) = choice::choose(&config)?;
        let claim = choice::claim(&config, &changes);
        let form = changes
            .into_iter()
            .fold(Form::new(config, source), Form::changed);
        let tensors = names::tensors(architecture, &form.config);
        Ok(Export {
            architecture,
            claim,
            form,
            tensors,
        })
    }

    /// The shape of the model that the architecture is given.
    pub fn config(&self) -> &ModelConfig {
        &self.form.config
    }

    /// Returns the settings of the file that are about the model and its numbers.
    pub fn settings(&self, numbers: Numbers) -> Vec<(String, Field)> {
        settings::of(self.architecture, &self.form.config, numbers)
    }

    /// Returns the tensors whose rows are no whole blocks of these numbers, and what they are
    /// written as.
    pub fn fallen_back(&self, numbers: Numbers) -> Vec<(&str, Numbers)> {
        let tensors = self.tensors.iter().filter_map(|(name, tensor)| {
            let (wanted, found) = (
                numbers.wanted(name, &tensor.shape),
                numbers.of(name, &tensor.shape),
            );
            (wanted != found).then_some((name.as_str(), found))
        });
        tensors.collect()
    }

    /// Writes the file: these settings, then the tensors, one after the other.
    pub fn write(
        &self,
        path: &Path,
        fields: &[(String, Field)],
        numbers: Numbers,
    ) -> Result<(), WeightsError> {
        let tensors: Vec<write::Planned<'_>> = self
            .tensors
            .iter()
            .map(|(name, tensor)| write::Planned {
                name,
                shape: &tensor.shape,
                numbers: numbers.of(name, &tensor.shape),
            })
            .collect();
        write::file(path, fields, &tensors, self)
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
