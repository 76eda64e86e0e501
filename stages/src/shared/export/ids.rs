//! Whether others' tools read a document as training did: rendered and encoded whole, by the files
//! of the export, against the ids of its pieces.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tinylm_pipeline::{At, StageError};

use crate::shared::{
    documents::{Contents, Documents},
    form::probe::{Names, written_by},
    template::{Spacing, What, written},
    tokens::{CHAT_TEMPLATE_NAME, Tokenizer, TokensError},
};

/// Documents that are compared at most, from row groups all over the corpus.
const DOCUMENTS_MAX: usize = 2000;
const GROUPS_MAX: usize = 16;
/// Of a document that has other ids.
const CHARS_SHOWN: usize = 200;

/// How many documents have the same ids.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    pub n_same: usize,
    pub n: usize,
    /// How the first begins that has not.
    pub first_other: Option<String>,
}

impl Share {
    pub fn share(&self) -> f64 {
        self.n_same as f64 / self.n.max(1) as f64
    }
}

/// How a program reads a string, where that is not as Hugging Face's library does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    HuggingFace,
    /// Puts a space before each stretch of text, one that begins with a space too.
    LlamaCpp,
}

/// Compares documents of some folders; nothing where there are none.
pub(super) fn check(
    export: &Path,
    tokenizer: &Tokenizer,
    documents: &[PathBuf],
    reader: Reader,
) -> Result<Option<Share>, StageError> {
    if documents.is_empty() {
        return Ok(None);
    }
    let folders: Vec<&Path> = documents.iter().map(PathBuf::as_path).collect();
    let documents = Documents::open(&folders)?;
    let path = export.join(CHAT_TEMPLATE_NAME);
    // A model of texts has none.
    let template = match path.exists() {
        true => fs::read_to_string(&path).at(&path)?,
        false => String::new(),
    };
    let mut share = Share {
        n_same: 0,
        n: 0,
        first_other: None,
    };
    let groups = spread(documents.row_groups(), GROUPS_MAX);
    for group in &groups {
        let rows = group.read()?;
        let rows: Vec<_> = rows.iter().map(|row| row.contents.chosen()).collect();
        let rows = spread(&rows, DOCUMENTS_MAX.div_ceil(groups.len()));
        for (contents, text) in rows.iter().zip(rendered(tokenizer, &template, &rows)?) {
            share.add(tokenizer, **contents, &text, reader)?;
        }
    }
    Ok(Some(share))
}

/// Returns so many items at equal distances.
fn spread<T>(items: &[T], n_max: usize) -> Vec<&T> {
    let n = items.len().min(n_max);
    (0..n).map(|idx| &items[idx * items.len() / n]).collect()
}

impl Share {
    fn add(
        &mut self,
        tokenizer: &Tokenizer,
        contents: Contents<'_>,
        text: &str,
        reader: Reader,
    ) -> Result<(), StageError> {
        let failed = |error: TokensError| StageError::new(error.to_string());
        let whole = tokenizer.encode_marked(text).map_err(failed)?;
        let trained = trained(tokenizer, contents).map_err(failed)?;
        let is_spaced = reader == Reader::LlamaCpp
            && tokenizer.spacing() == Spacing::BehindText
            && begins_with_space(tokenizer, text);
        self.n += 1;
        match whole == trained && !is_spaced {
            true => self.n_same += 1,
            false if self.first_other.is_none() => {
                self.first_other = Some(text.chars().take(CHARS_SHOWN).collect());
            }
            false => {}
        }
        Ok(())
    }
}

/// Whether a stretch of text between special tokens begins with a space.
fn begins_with_space(tokenizer: &Tokenizer, text: &str) -> bool {
    let behind = |special: &String| text.contains(&format!("{special} "));
    text.starts_with(' ') || tokenizer.specials().keys().any(behind)
}

/// The ids that training reads, but for the marks that only separate documents.
fn trained(tokenizer: &Tokenizer, contents: Contents<'_>) -> Result<Vec<u32>, TokensError> {
    let mut pieces = tokenizer.pieces_of(contents);
    pieces
        .retain(|piece| !matches!(piece.what, What::Special(_)) || !written(&[*piece]).is_empty());
    let mut ids = Vec::new();
    let take = |_: &_, some: &[u32]| ids.extend_from_slice(some);
    tokenizer.encoder().pieces(&pieces, take)?;
    Ok(ids)
}

/// Documents as `transformers` renders them: texts as they are, dialogues by the template.
fn rendered(
    tokenizer: &Tokenizer,
    template: &str,
    documents: &[&Contents<'_>],
) -> Result<Vec<String>, StageError> {
    let dialogues: Vec<Vec<(&str, &str)>> = documents
        .iter()
        .filter_map(|document| turns(document))
        .collect();
    let mut written = match dialogues.is_empty() {
        true => Vec::new(),
        false => by_template(tokenizer, template, &dialogues)?,
    }
    .into_iter();
    let texts = documents.iter().map(|document| match document {
        Contents::Text(text) => (*text).to_owned(),
        Contents::Dialogue(_) => written.next().unwrap_or_default(),
    });
    Ok(texts.collect())
}

fn turns<'a>(document: &Contents<'a>) -> Option<Vec<(&'static str, &'a str)>> {
    let Contents::Dialogue(turns) = document else {
        return None;
    };
    Some(
        turns
            .iter()
            .map(|(role, text)| (role.name(), text))
            .collect(),
    )
}

fn by_template(
    tokenizer: &Tokenizer,
    template: &str,
    dialogues: &[Vec<(&str, &str)>],
) -> Result<Vec<String>, StageError> {
    let generation = tokenizer.generation();
    let names = Names {
        bos: generation.bos.as_deref(),
        eos: generation.eos.as_deref().unwrap_or_default(),
        specials: &[],
    };
    let written = written_by(template, &names, dialogues);
    written.map_err(|error| StageError::new("the chat template cannot be rendered").cause(error))
}
