//! A model's weights, ready to be read by any number of sessions at once. Nothing in it changes.

use std::path::Path;

use tinylm_settings::Device;

use super::{
    scratch::Sizes,
    weights::{OpenError, Weights},
};
use crate::{
    config::{ModelConfig, Precision, ReadPrecision},
    engine::Tensors,
    folder::{ModelFolder, Which},
    kernels::tiles::Tiles,
    machine::Machine,
    weights::Source,
};

/// A model that continues text, for as many sessions as talk to it.
pub struct Model {
    pub(super) held: Held,
}

/// Where the weights are, and with that how they are read.
pub(super) enum Held {
    Here(Box<Packed>),
    OnGpu(Box<Stored>),
}

/// Weights in panels, for this machine's own kernels.
pub(crate) struct Packed {
    pub(crate) weights: Weights,
    pub(crate) tiles: Tiles,
    pub(crate) sizes: Sizes,
}

/// Weights as they lie in a file, for readers that each take them to a GPU.
pub(crate) struct Stored {
    pub(crate) device: Device,
    pub(crate) config: ModelConfig,
    pub(crate) precision: Precision,
    /// In the order of the config's parameters.
    pub(crate) tensors: Vec<Vec<f32>>,
    /// What computes on it.
    kernels: String,
}

impl Model {
    /// Opens a model folder, to be read by this machine's processor.
    pub fn open(folder: &Path, which: Which, precision: ReadPrecision) -> Result<Model, OpenError> {
        Model::open_on(Device::Cpu, folder, which, precision)
    }

    /// The same, to be read by this device.
    pub fn open_on(
        device: Device,
        folder: &Path,
        which: Which,
        precision: ReadPrecision,
    ) -> Result<Model, OpenError> {
        let folder = ModelFolder::open(folder)?;
        let held = match device {
            Device::Cpu => Held::Here(Packed::new(Weights::read(&folder, which, precision)?)),
            device => {
                let machine = Machine::to_read(device).map_err(OpenError::Device)?;
                let (config, file) = (folder.config()?, folder.tensor_file(which)?);
                file.check(&config.parameters())?;
                let what = (config, precision);
                let stored = Stored::new(device, machine.kernels, what, &file)?;
                Held::OnGpu(stored)
            }
        };
        Ok(Model { held })
    }

    /// Takes weights that are in memory, as a training engine returns them.
    pub fn from_tensors(
        config: ModelConfig,
        tensors: &Tensors,
        precision: ReadPrecision,
    ) -> Result<Model, OpenError> {
        let weights = Weights::from_tensors(config, tensors, precision)?;
        let held = Held::Here(Packed::new(weights));
        Ok(Model { held })
    }

    /// The same to be read in the emulator.
    #[cfg(test)]
    pub(crate) fn emulated(
        config: ModelConfig,
        tensors: &Tensors,
        precision: ReadPrecision,
    ) -> Result<Model, OpenError> {
        let shapes = tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()));
        crate::weights::check_tensors(&config.parameters(), &shapes.collect())?;
        let kernels = "emulated".to_owned();
        let held = Held::OnGpu(Stored::new(
            Device::CUDA,
            kernels,
            (config, precision),
            tensors,
        )?);
        Ok(Model { held })
    }

    #[cfg(test)]
    pub(crate) fn stored(&self) -> Option<&Stored> {
        match &self.held {
            Held::Here(_) => None,
            Held::OnGpu(stored) => Some(stored),
        }
    }

    /// With the kernels of another level.
    #[cfg(test)]
    pub(super) fn with(self, tiles: Tiles) -> Model {
        match self.held {
            Held::Here(packed) => Model {
                held: Held::Here(Box::new(Packed { tiles, ..*packed })),
            },
            Held::OnGpu(_) => self,
        }
    }

    pub fn config(&self) -> &ModelConfig {
        match &self.held {
            Held::Here(packed) => &packed.weights.config,
            Held::OnGpu(stored) => &stored.config,
        }
    }

    /// Whether a token's numbers are the same to the bit whatever is read beside it: a processor's kernel for
    /// bf16 is chosen by the number of rows.
    pub fn is_alike_in_company(&self) -> bool {
        match &self.held {
            Held::Here(packed) => packed.weights.precision != ReadPrecision::Bf16,
            Held::OnGpu(_) => true,
        }
    }

    /// What computes its products: `avx512-bf16`, `avx512`, `avx2` or `plain`, or a GPU by its name.
    pub fn kernels(&self) -> &str {
        match &self.held {
            Held::Here(packed) => packed.tiles.level.name(),
            Held::OnGpu(stored) => &stored.kernels,
        }
    }

    /// Bytes of weights that decoding one token reads.
    pub fn bytes_per_token(&self) -> usize {
        match &self.held {
            Held::Here(packed) => packed.weights.bytes_per_token(),
            Held::OnGpu(stored) => stored
                .tensors
                .iter()
                .map(|data| size_of_val(&data[..]))
                .sum(),
        }
    }
}

impl Packed {
    fn new(weights: Weights) -> Box<Packed> {
        Box::new(Packed {
            sizes: Sizes::new(&weights.config),
            tiles: Tiles::best(),
            weights,
        })
    }
}

impl Stored {
    fn new(
        device: Device,
        kernels: String,
        (config, precision): (ModelConfig, ReadPrecision),
        source: &impl Source,
    ) -> Result<Box<Stored>, OpenError> {
        let numbers = |name: &str| Ok(source.numbers(name)?.into_owned());
        let parameters = config.parameters();
        Ok(Box::new(Stored {
            device: device.alone(),
            precision: match precision {
                ReadPrecision::F32 => Precision::F32,
                ReadPrecision::Bf16 => Precision::Bf16,
                ReadPrecision::Int8 => {
                    let why = "a GPU reads no weights of eight bits; give `f32` or `bf16`, or `--device cpu`";
                    return Err(OpenError::Device(why.to_owned()));
                }
            },
            tensors: parameters
                .iter()
                .map(|p| numbers(&p.name))
                .collect::<Result<_, OpenError>>()?,
            config,
            kernels,
        }))
    }
}
