//! The text that a model is evaluated on: a split of shards, documents, or one file.

use std::path::Path;

use tinylm_model::shards::{Shards, ShardsError, Split, Stretch, TARGET};
use tinylm_pipeline::{StageError, StageIo, choices};

use super::text::Text;
use crate::shared::{
    documents::{Documents, RowGroup, Rows},
    encode::encode_documents,
    speak::SpeakError,
    tokens::Tokenizer,
};

choices! {
    /// Which documents are read.
    pub enum SplitName {
        Validation = "validation",
        Test = "test",
        Train = "train",
    }
}

pub(super) struct Corpus {
    what: What,
    name: String,
}

enum What {
    Shards { shards: Shards, split: Split },
    Documents(Documents),
    File(String),
}

impl Corpus {
    /// Opens the one text that is given: `split` of shards, documents, or a file. Beside `tasks` there
    /// may be none.
    pub(super) fn open(
        split: SplitName,
        has_file: bool,
        io: &StageIo,
    ) -> Result<Option<Corpus>, StageError> {
        let shards = io.optional_input("shards");
        let documents = io.inputs("documents");
        let n_given = usize::from(shards.is_some())
            + usize::from(!documents.is_empty())
            + usize::from(has_file);
        if n_given == 0 && !io.inputs("tasks").is_empty() {
            return Ok(None);
        }
        if n_given != 1 {
            let message = "a model is evaluated on one of `shards`, `documents` and `file`";
            let help = "inputs: { model: base, shards: shards }";
            return Err(StageError::new(message).help(help).is_final());
        }
        if let Some(input) = shards {
            let shards = Shards::open(&input.path).map_err(unreadable)?;
            let name = split_name(split);
            let split = shards.split(name).map_err(unreadable)?;
            let what = What::Shards { shards, split };
            return Ok(Some(Corpus {
                what,
                name: name.to_owned(),
            }));
        }
        if !documents.is_empty() {
            let folders: Vec<&Path> = documents.iter().map(|input| input.path.as_path()).collect();
            let what = What::Documents(Documents::open(&folders)?);
            return Ok(Some(Corpus {
                what,
                name: "documents".to_owned(),
            }));
        }
        let file = io.local_files("file").into_iter().next();
        let file = file.ok_or_else(|| StageError::new("`file` names no file").is_final())?;
        let text = String::from_utf8(file.read()?).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            StageError::new(format!("`{}` is not UTF-8 at byte {at}", file.name)).is_final()
        })?;
        Ok(Some(Corpus {
            what: What::File(text),
            name: file.name.clone(),
        }))
    }

    /// Its name in the report.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn n_documents(&self) -> u64 {
        match &self.what {
            What::Shards { split, .. } => split.documents().len() as u64,
            What::Documents(documents) => documents.n_documents(),
            What::File(_) => 1,
        }
    }

    /// How many tokens will be read, where that is known before.
    pub(super) fn n_tokens(&self, limit: u64) -> Option<u64> {
        match &self.what {
            What::Shards { split, .. } => Some(split.n_tokens().min(limit)),
            _ => None,
        }
    }

    /// The training split beside the one that is read.
    pub(super) fn train(&self) -> Result<Option<Split>, StageError> {
        match &self.what {
            What::Shards { shards, .. } => {
                let has_train = shards
                    .index()
                    .splits
                    .get("train")
                    .is_some_and(|split| split.targets > 0);
                let train = has_train.then(|| shards.split("train")).transpose();
                train.map_err(unreadable)
            }
            _ => Ok(None),
        }
    }

    pub(super) fn check_vocabulary(&self, tokenizer: &Tokenizer) -> Result<(), StageError> {
        let What::Shards { shards, .. } = &self.what else {
            return Ok(());
        };
        let (ids, known) = (shards.index().vocab_size, tokenizer.vocab_size());
        if ids == known {
            return Ok(());
        }
        let message =
            format!("the shards have a vocabulary of {ids}, the model's tokenizer one of {known}");
        let help = "evaluate a model on shards that were made with its own tokenizer";
        Err(StageError::new(message).help(help).is_final())
    }

    /// Hands over each document, one after the other, until `read` has had enough.
    pub(super) fn each(
        &self,
        model: &Path,
        io: &StageIo,
        read: &mut dyn FnMut(Text) -> Result<bool, StageError>,
    ) -> Result<(), StageError> {
        match &self.what {
            What::Shards { shards, split } => {
                for document in split.documents() {
                    let stretch = split.tokens(document);
                    let go_on = read(Text {
                        ids: stretch.ids().collect(),
                        roles: (0..stretch.len())
                            .map(|idx| role_byte(&stretch, idx))
                            .collect(),
                        n_bytes: u64::from(document.bytes),
                        source: shards.index().sources[document.source as usize].clone(),
                    })?;
                    if !go_on {
                        break;
                    }
                }
                Ok(())
            }
            What::Documents(documents) => {
                let tokenizer = Tokenizer::load(model).map_err(SpeakError::from)?;
                for group in documents.row_groups() {
                    let rows = RowGroup::read(group)?;
                    if !each_row(&rows, &tokenizer, io, read)? {
                        break;
                    }
                }
                Ok(())
            }
            What::File(text) => {
                let tokenizer = Tokenizer::load(model).map_err(SpeakError::from)?;
                let mut rows = Rows::default();
                rows.push_text([0; 32], [0; 32], &self.name, text);
                each_row(&rows, &tokenizer, io, read).map(drop)
            }
        }
    }
}

fn each_row(
    rows: &Rows,
    tokenizer: &Tokenizer,
    io: &StageIo,
    read: &mut dyn FnMut(Text) -> Result<bool, StageError>,
) -> Result<bool, StageError> {
    for document in encode_documents(rows, tokenizer, io)? {
        let go_on = read(Text {
            ids: document.ids,
            roles: document.roles,
            n_bytes: u64::from(document.bytes),
            source: document.source,
        })?;
        if !go_on {
            return Ok(false);
        }
    }
    Ok(true)
}

fn role_byte(stretch: &Stretch<'_>, idx: usize) -> u8 {
    stretch.role(idx) | if stretch.is_target(idx) { TARGET } else { 0 }
}

fn unreadable(error: ShardsError) -> StageError {
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    let failed = StageError::new(error.to_string())
        .help(error.help())
        .is_final();
    StageError { cause, ..failed }
}

fn split_name(split: SplitName) -> &'static str {
    match split {
        SplitName::Validation => "validation",
        SplitName::Test => "test",
        SplitName::Train => "train",
    }
}
