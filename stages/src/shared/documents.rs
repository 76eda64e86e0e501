//! `documents-*.parquet`: what normalize and dedupe write and the later stages read.
//!
//! A row is one document: a dialogue (`messages`, a list of roles and contents, the shape
//! that Hugging Face's tools read) or a raw text (`text`), the file it came from
//! (`source`), the digest of what was said (`id`) and the digest of the row it was cut
//! from (`group`). Tags stand in none of them: a template belongs to a tokenizer.
//!
//! A source has no stage's name in it, since no key has. Where documents of several
//! artifacts are read, the place of theirs in the list stands before it (`2/dialogs`),
//! so that two files of one name are told apart.
//!
//! Rows go in row groups of about eight megabytes of contents. A row group is what one
//! thread encodes, what one thread reads and all that is held in memory of a corpus;
//! their limits depend on the rows alone, so that any number of threads makes the same
//! bytes. Arrow's own writer would encode on one thread.
//!
//! Only documents are Parquet in their folder: tools that are given the folder read every
//! file of the ending that most have, and refuse two sorts of columns.

mod columns;
mod document;
mod folder;
mod rows;
mod writer;

pub(crate) use document::{Contents, Digest, Document};
pub(crate) use folder::{Documents, RowGroup, holds_documents};
pub(crate) use rows::Rows;
pub(crate) use writer::{DocumentsWriter, Encoded, Encoder, GROUP_BYTES, Written};

#[cfg(test)]
mod tests;
