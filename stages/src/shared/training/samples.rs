//! Answers of the model while it is being trained, to the same prompts every time.
//!
//! The same numbers are drawn at every step, so what differs between two answers is what
//! the model learned. A model that cannot speak yet (its tokenizer cannot be read, its
//! numbers have diverged) is told of once and does not end the training.

use std::{path::Path, sync::Arc};

use tinylm_model::{
    config::ReadPrecision,
    engine::{Engine, EngineError},
    generate::Model,
};
use tinylm_pipeline::StageIo;

use super::TrainWatch;
use crate::shared::{
    speak::{Manner, SpeakError, Speaker},
    template::Role,
    tokens::Tokenizer,
};

pub(super) struct Samples<'a> {
    watch: &'a TrainWatch,
    /// Holds the tokenizer.
    folder: &'a Path,
    seed: u64,
    gave_up: bool,
}

impl<'a> Samples<'a> {
    pub(super) fn new(watch: &'a TrainWatch, folder: &'a Path, seed: u64) -> Self {
        Self {
            watch,
            folder,
            seed,
            gave_up: watch.samples.is_empty(),
        }
    }

    /// Answers every prompt with the weights that `engine` has now.
    pub(super) fn tell(
        &mut self,
        step: u64,
        engine: &dyn Engine,
        io: &StageIo,
    ) -> Result<(), EngineError> {
        if self.gave_up {
            return Ok(());
        }
        let weights = engine.weights()?;
        let config = engine.config().clone();
        let model = Model::from_tensors(config, &weights, ReadPrecision::F32);
        let told = model
            .map_err(SpeakError::from)
            .and_then(|model| self.answer_all(step, model, io));
        if let Err(error) = told {
            io.warn(format!("no samples will be shown: {error}"));
            self.gave_up = true;
        }
        Ok(())
    }

    fn answer_all(&self, step: u64, model: Model, io: &StageIo) -> Result<(), SpeakError> {
        let tokenizer = Arc::new(Tokenizer::load(self.folder)?);
        let mut speaker = Speaker::new(Arc::new(model), tokenizer, io.threads())?;
        let manner = Manner {
            seed: self.seed,
            max_tokens: self.watch.sample_tokens,
            ..Manner::default()
        };
        for (idx, text) in self.watch.samples.iter().enumerate() {
            let prompt = match speaker.is_chat() {
                true => {
                    speaker.chat_prompt(None, &[(Role::User, text.clone())], manner.max_tokens)?
                }
                false => speaker.text_prompt(text)?,
            };
            let answer =
                speaker.answer(&prompt, idx as u64, &manner, &mut |_| !io.is_cancelled())?;
            io.sample(Some(step), text, &answer.text);
        }
        Ok(())
    }
}
