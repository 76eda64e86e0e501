//! What several kinds need: documents, templates, tokens, training, talking, and the threads under them.

pub mod speak;
pub mod template;
pub mod tokens;

pub(crate) mod decimal;
pub(crate) mod documents;
pub(crate) mod encode;
pub(crate) mod files;
pub(crate) mod hex;
pub(crate) mod json;
pub(crate) mod parallel;
pub(crate) mod shown;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod threads;
pub(crate) mod training;
