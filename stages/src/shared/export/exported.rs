//! What became of an export, for whoever asked for it and for its card.

use tinylm_exchange::{Claim, gguf::Numbers};
use tinylm_pipeline::settings::Choice as _;

use super::{ask::Target, ids::Share};

/// What was written.
pub struct Exported {
    pub to: Target,
    /// The class of `transformers`, the architecture of llama.cpp, or a graph.
    pub form: &'static str,
    /// A file of code goes with it.
    pub has_code: bool,
    pub claim: Claim,
    pub numbers: Numbers,
    /// Tensors that could not be written in these numbers.
    pub n_fallen_back: usize,
    /// How many documents have the same ids in the folder as in training; none where none were given.
    pub share: Option<Share>,
    /// The width of the model, and what it became.
    pub widths: (usize, usize),
    pub n_params: usize,
    /// The size of the vocabulary, where an adapter brings another than its base has.
    pub n_tokens: Option<usize>,
}

impl Exported {
    /// Returns the form and how faithful it is, in a line.
    pub fn told(&self) -> String {
        let (before, after) = self.widths;
        let widened = match before == after {
            true => String::new(),
            false => format!(", {after} wide instead of {before}"),
        };
        let numbers = self
            .told_numbers()
            .map_or_else(String::new, |told| format!("; {told}"));
        let what = match self.to {
            Target::Peft => "an adapter of ",
            Target::Hf | Target::Gguf | Target::Onnx => "",
        };
        format!("{what}{}{widened}: {}{numbers}", self.form, self.claim)
    }

    /// Returns what is said of the numbers: nothing of plain ones.
    pub(super) fn told_numbers(&self) -> Option<String> {
        let word = self.numbers.word();
        match (self.numbers, self.n_fallen_back) {
            (Numbers::F32, _) => None,
            (_, 0) => Some(format!("numbers {word}")),
            (Numbers::Q8_0 | Numbers::Q4_0, n) => Some(format!(
                "numbers {word}, but f16 in {n} tensors whose rows are no whole blocks"
            )),
            (_, n) => Some(format!(
                "numbers {word}, but q8_0 or f16 in {n} tensors whose rows are no whole blocks of 256"
            )),
        }
    }
}
