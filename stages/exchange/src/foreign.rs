//! Models of other programs, as ours.
//!
//! A file of another program is one of three sorts: Hugging Face's folder (`config.json` and
//! safetensors), one GGUF file, one `.bin` of llama2.c. Each gives tensors by name and says
//! which family the model is of; the family ([`family`]) says for each tensor that our shape
//! asks for where it stands in the other's file, and that is all that importing is.
//!
//! Promised:
//!
//! - What a field or a tensor of the file asks for and our shape has no word for is refused by
//!   its name. A model that answers nearly right would be worse than none.
//! - A file is believed in nothing: what it claims is held against its length before memory is
//!   taken for it.
//! - A bias that is zero everywhere is none. Other programs must write biases that a model does
//!   not have, so that a model which left and comes back has the shape it had.

mod bin;
mod error;
mod family;
mod fields;
mod gguf;
mod huggingface;
mod model;
mod named;
mod peft;
pub(crate) mod quants;

pub use bin::{Llama2c, Vocabulary};
pub use error::ForeignError;
pub use gguf::Gguf;
pub use huggingface::HuggingFace;
pub use model::ForeignModel;
pub use peft::Peft;

#[cfg(test)]
mod tests;
