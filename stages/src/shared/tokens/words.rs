//! Texts cut into the words that a tokenizer's model sees, for learning from.
//!
//! The cutting is read from the same JSON that is written into `tokenizer.json` and done
//! by the crate itself, so training and encoding cannot disagree about what a word is.

use serde_json::{Map, Value, json};
use tokenizers::pipeline::{
    PipelineTokenizer, PreTokenizer, PreTokenizerScratch, Span, normalize_all,
};

use super::byte_level_char;

/// Cuts texts as a `normalizer` and a `pre_tokenizer` say.
pub(crate) struct Splitter {
    pipeline: PipelineTokenizer,
}

/// The buffers of one thread.
#[derive(Default)]
pub(crate) struct SplitBuffers {
    scratch: PreTokenizerScratch,
    spans: Vec<Span>,
}

impl Splitter {
    pub(crate) fn new(normalizer: &Value, pre_tokenizer: &Value) -> Result<Self, String> {
        // The model is never asked; the crate only wants to have one, with every byte in it.
        let vocab: Map<String, Value> = (0..=255_u8)
            .map(|byte| (byte_level_char(byte).to_string(), Value::from(byte)))
            .collect();
        let mut json = json!({
            "version": "1.0",
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        });
        tokenizers::canonicalize_value(&mut json).map_err(|error| error.to_string())?;
        let pipeline = tokenizers::from_json(&json.to_string()).map_err(|e| e.to_string())?;
        Ok(Self { pipeline })
    }

    /// Calls `each` with every word of `text` in order.
    pub(crate) fn words(
        &self,
        text: &str,
        buffers: &mut SplitBuffers,
        mut each: impl FnMut(&str),
    ) -> Result<(), String> {
        let normalized = normalize_all(self.pipeline.get_normalizers(), text, 0)
            .map_err(|error| error.to_string())?;
        buffers.spans.clear();
        self.pipeline
            .get_pre_tokenizer()
            .pre_tokenize(&normalized, &mut buffers.scratch, &mut buffers.spans)
            .map_err(|error| error.to_string())?;
        for span in &buffers.spans {
            each(&normalized[span.range()]);
        }
        Ok(())
    }
}
