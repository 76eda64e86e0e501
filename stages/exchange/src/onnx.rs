//! ONNX: a model as a graph of plain operations, with the names that optimum, onnxruntime-genai and
//! transformers.js share.
//!
//! Every model of ours has a graph, since none of those programs knows what a layer is: they feed
//! tokens and a cache and read logits. The graph is translated from the model's own
//! [`trace`](tinylm_model::trace), an operation of it at a time.

mod attention;
mod graph;
mod nodes;
mod ports;
mod proto;
mod write;

use std::{borrow::Cow, path::Path};

use serde_json::{Map, Value, json};
use tinylm_model::{
    config::ModelConfig,
    kernels::rotations,
    weights::{Source, WeightsError},
};

use crate::{
    change::{Change, Form},
    hf::{Class, Ids, settings},
};
use attention::ROTATIONS;
use graph::Graph;

/// What no message of the format is longer than.
pub const BYTES_MAX: usize = i32::MAX as usize;

/// A model as a graph.
pub struct Export<'a> {
    form: Form<'a>,
    graph: Graph,
}

impl<'a> Export<'a> {
    /// Makes the graph of a model whose config has been checked.
    pub fn of(config: ModelConfig, source: impl Source + 'a) -> Export<'a> {
        let form = Form::new(config, source).changed(Change::TabulatePositions);
        let graph = nodes::graph(&form.config);
        Export { form, graph }
    }

    /// Returns what stands in `config.json`. Programs that run graphs read nothing from it but ids
    /// and the sizes of caches, and Llama is the class with a word for each of ours.
    pub fn settings(&self, ids: Ids) -> Map<String, Value> {
        let mut settings = settings::of(Class::Llama, &self.form.config, ids);
        // In a browser it looks for a file of quantised numbers unless it is told.
        let numbers = json!({"dtype": "fp32"});
        settings.insert("transformers.js_config".to_owned(), numbers);
        settings
    }

    /// The bytes of all tensors.
    pub fn n_bytes(&self) -> usize {
        let tensors = self.graph.tensors.iter();
        tensors.map(|(_, tensor)| 4 * tensor.n()).sum()
    }

    pub fn write(&self, path: &Path) -> Result<(), WeightsError> {
        write::file(path, &self.graph, self)
    }
}

impl Source for Export<'_> {
    fn numbers(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightsError> {
        let c = &self.form.config;
        match self.graph.tensors.get(name) {
            _ if name == ROTATIONS => {
                let table = rotations(c.context, c.d_head(), c.d_turned(), c.rope_theta);
                Ok(Cow::Owned(table))
            }
            Some(tensor) => Ok(tensor.laid(self.form.numbers(&tensor.from)?)),
            None => Err(WeightsError::Missing {
                name: name.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
