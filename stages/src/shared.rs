//! Shared by several kinds: documents, templates, tokens, training, talking, the network, and the
//! threads under them.

pub mod export;
pub mod form;
pub mod speak;
pub mod template;
pub mod tokens;

pub(crate) mod base64;
pub(crate) mod body;
pub(crate) mod computer;
pub(crate) mod cut;
pub(crate) mod decimal;
pub(crate) mod documents;
pub(crate) mod encode;
pub(crate) mod expected;
pub(crate) mod files;
pub(crate) mod hex;
pub(crate) mod hub;
pub(crate) mod json;
pub(crate) mod net;
pub(crate) mod ngrams;
pub(crate) mod parallel;
pub(crate) mod partition;
pub(crate) mod shown;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod threads;
pub(crate) mod training;
