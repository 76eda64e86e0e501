//! Settings: the keys an author may write under `with:`, each declared once, where it is used.
//!
//! [`settings!`] and [`choices!`] make from one declaration the type that code reads, the defaults
//! that are filled in, the list that unknown keys are checked against, and the text of
//! `tinylm stages`. Defaults are values in that list rather than serde attributes, because they take
//! part in a stage's key: an experiment that spells a default out and one that leaves it out must be
//! the same recipe.
//!
//! A crate of its own without any other of ours below it, so that the model can declare what it
//! offers (`optimizer: muon`) and nobody has to repeat it.
//!
//! ```
//! tinylm_settings::choices! {
//!     /// How documents are compared.
//!     pub enum Method {
//!         Exact = "exact",
//!         MinHash = "minhash",
//!     }
//! }
//!
//! tinylm_settings::settings! {
//!     /// Drops documents that repeat an earlier one.
//!     #[exclusive("words", "characters")]
//!     pub struct DedupeSettings {
//!         /// How documents are compared.
//!         pub method: Method = Method::Exact,
//!         /// Shorter documents are kept even when repeated.
//!         #[range(1, 100)]
//!         pub words: Option<usize> = None,
//!         /// The same bound in characters.
//!         pub characters: Option<usize> = None,
//!         /// Added in a later version: left out of the key while it is 0.
//!         pub margin: usize = 0 => neutral 0,
//!         /// A setting without a default must be given.
//!         pub language: String,
//!     }
//! }
//! ```

mod declare;
mod device;
mod error;
mod fill;
mod shape;

pub use declare::{Choice, NoSettings, Settings, doc_text, plain};
pub use device::{Device, Gpus, NotADevice};
pub use error::SettingError;
pub use fill::{defaults, with_defaults};
pub use shape::{LocalPath, Numbers, Range, Setting, Shape, Shaped};

#[cfg(test)]
mod tests;
