//! A model's weights, ready to be read by any number of sessions at once. Nothing in it changes.

use std::path::Path;

use super::{
    scratch::Sizes,
    weights::{OpenError, Weights},
};
use crate::{
    config::{ModelConfig, ReadPrecision},
    engine::Tensors,
    folder::{ModelFolder, Which},
    kernels::tiles::Tiles,
};

/// A model that continues text, for as many sessions as talk to it.
pub struct Model {
    pub(crate) weights: Weights,
    pub(crate) tiles: Tiles,
    pub(crate) sizes: Sizes,
}

impl Model {
    /// Opens a model folder.
    pub fn open(folder: &Path, which: Which, precision: ReadPrecision) -> Result<Model, OpenError> {
        let folder = ModelFolder::open(folder)?;
        Ok(Model::new(Weights::read(&folder, which, precision)?))
    }

    /// Takes weights that are in memory, as a training engine returns them.
    pub fn from_tensors(
        config: ModelConfig,
        tensors: &Tensors,
        precision: ReadPrecision,
    ) -> Result<Model, OpenError> {
        let weights = Weights::from_tensors(config, tensors, precision)?;
        Ok(Model::new(weights))
    }

    fn new(weights: Weights) -> Model {
        Model {
            sizes: Sizes::new(&weights.config),
            tiles: Tiles::best(),
            weights,
        }
    }

    pub fn config(&self) -> &ModelConfig {
        &self.weights.config
    }

    /// The kernel set of its products: `avx512-bf16`, `avx512`, `avx2` or `plain`.
    pub fn kernels(&self) -> &'static str {
        self.tiles.level.name()
    }

    /// Bytes of weights that decoding one token reads.
    pub fn bytes_per_token(&self) -> usize {
        self.weights.bytes_per_token()
    }
}
