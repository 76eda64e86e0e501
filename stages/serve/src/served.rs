//! A model under the name that requests call it by.

use std::{path::Path, sync::Arc};

use tinylm_model::{config::ReadPrecision, folder::Which, generate::Model, machine::Device};
use tinylm_stages::shared::{
    speak::{SpeakError, check_pair},
    tokens::Tokenizer,
};

#[derive(Clone)]
pub struct Served {
    pub name: String,
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// How its dialogues look in Jinja, where it knows turns.
    pub(crate) template: Option<String>,
}

impl Served {
    /// Opens a model folder with its tokenizer, to be read by this device.
    pub fn open(
        name: String,
        folder: &Path,
        (which, precision): (Which, ReadPrecision),
        device: Device,
    ) -> Result<Served, SpeakError> {
        let model = Model::open_on(device, folder, which, precision)?;
        let tokenizer = Tokenizer::load(folder)?;
        check_pair(&model, &tokenizer)?;
        let template = tokenizer
            .template()
            .map(|template| template.jinja(tokenizer.spacing()));
        Ok(Served {
            name,
            model: Arc::new(model),
            tokenizer: Arc::new(tokenizer),
            template,
        })
    }

    pub(crate) fn context(&self) -> usize {
        self.model.config().context
    }
}
