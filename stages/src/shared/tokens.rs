//! A tokenizer artifact in use: text to ids, ids to text, dialogues to ids.
//!
//! The one module that touches the `tokenizers` crate for encoding, so that its next
//! release needs one file changed. What it adds, and promises:
//!
//! - **No text can forge a turn.** Contents are encoded with special tokens switched
//!   off, and an id that only a tag may have but that comes out all the same (`</s>`
//!   is an ordinary piece of T5's model) is spelt out, character by character.
//! - A dialogue is encoded piece by piece, and its ids are those of its text encoded whole
//!   with tags as special tokens, which is how others' tools do it: pieces meet at tags or
//!   where the tokenizer cuts anyway. White space is the exception: where a tag ends in it
//!   and a content begins with it, both are encoded as one text.
//! - A stream of ids never prints half a character.
//!
//! Its ids are those of the released library (`benches/tokenizer_peer.py` holds every character
//! up to Unicode 14 to it), but that WordPiece cuts at what is punctuation in today's Unicode, and
//! the released one at what was in Unicode 8: they differ in a hundred signs of rare scripts.
//!
//! Release candidate 3 has gaps that are filled here: it cannot build or write
//! a tokenizer (the `tokenizer` stage writes the JSON itself), its BPE trainer is not
//! reproducible (`tokenizer::bpe` is), its reader runs no `Split` on a pattern of one's own
//! (`steps` does), and it keeps no offsets (roles come from pieces). The released crate is
//! not needed beside it.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tinylm_model::folder::shared_by_checkpoints;
pub use tinylm_model::folder::{
    CHAT_TEMPLATE_NAME, GENERATION_NAME, TOKENIZER_NAME, TOKENIZER_NAMES,
};
use tokenizers::pipeline::PipelineTokenizer;

use crate::shared::{
    form::OwnForm,
    template::{Form, Piece, Role, Spacing, Template, What},
};

pub(crate) mod artifact;
pub(crate) mod assemble;
mod contained;
mod encoder;
mod error;
mod file;
pub(crate) mod gguf;
pub(crate) mod json;
pub(crate) mod sentencepiece;
mod spelling;
mod steps;
mod stream;
pub(crate) mod unigram;
pub(crate) mod words;

pub use encoder::Encoder;
pub use error::TokensError;
pub use spelling::byte_level_char;
pub use stream::DecodeStream;

use contained::contained;
use spelling::{IdSet, Speller, Spelling};
use steps::Steps;

/// Ids are stored in 16 bits.
pub const ID_MAX: u32 = u16::MAX as u32;

/// The longest token that the library takes.
const TOKEN_MAX: usize = u16::MAX as usize;

/// The contents of `generation.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// One of our templates; an imported model has a form of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// How an imported model writes a dialogue, where that is none of our templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<OwnForm>,
    pub stop: Vec<String>,
    pub stop_ids: Vec<u32>,
    pub bos: Option<String>,
    pub bos_id: Option<u32>,
    pub eos: Option<String>,
    pub eos_id: Option<u32>,
    pub pad_id: Option<u32>,
    /// Every token that no text can produce, by name.
    pub specials: BTreeMap<String, u32>,
}

impl Generation {
    /// Every id that it names, but those of special tokens.
    fn ids(&self) -> impl Iterator<Item = u32> {
        let some = [self.bos_id, self.eos_id, self.pad_id];
        self.stop_ids
            .iter()
            .copied()
            .chain(some.into_iter().flatten())
    }
}

pub struct Tokenizer {
    steps: Steps,
    form: &'static Form,
    generation: Generation,
    vocabulary: Vec<(String, u32)>,
    vocab_size: usize,
    specials: BTreeMap<String, u32>,
    unknown_id: Option<u32>,
    /// Ids that only tags may have.
    reserved: Box<IdSet>,
    /// How each of them is written in ordinary ids, where the vocabulary can.
    spellings: BTreeMap<u32, Spelling>,
    /// Byte-level vocabularies of RoBERTa's kind put a space before every text.
    space_before: bool,
    /// Some vocabularies put the mark of a space before every text, one that begins with a
    /// space included.
    mark_before: bool,
    spacing: Spacing,
    /// The ids of the template's own words, with and without a space before them: a handful,
    /// so that a list is the fastest map.
    tags: Vec<(&'static str, bool, Vec<u32>)>,
}

impl Tokenizer {
    /// Reads the files of a tokenizer artifact, or of any artifact that carries them on.
    pub fn load(folder: &Path) -> Result<Self, TokensError> {
        let folder = shared_by_checkpoints(folder).unwrap_or(folder);
        let path = folder.join(GENERATION_NAME);
        let bytes = read(&path)?;
        let generation = serde_json::from_slice(&bytes).map_err(|source| TokensError::Parse {
            path: path.clone(),
            source,
        })?;
        let path = folder.join(TOKENIZER_NAME);
        let text = String::from_utf8(read(&path)?).map_err(|_| TokensError::Unusable {
            path: path.clone(),
            reason: "it is not UTF-8".to_owned(),
        })?;
        Self::parse(&path, &text, generation)
    }

    /// `load` from values; `path` is only named in errors.
    pub fn parse(path: &Path, json: &str, generation: Generation) -> Result<Self, TokensError> {
        let mut this = Self::without_tags(path, json, generation)?;
        this.check_template()?;
        Ok(this)
    }

    fn without_tags(path: &Path, json: &str, generation: Generation) -> Result<Self, TokensError> {
        let unusable = |reason: String| TokensError::Unusable {
            path: path.to_owned(),
            reason,
        };
        let mut value: Value = serde_json::from_str(json).map_err(|source| TokensError::Parse {
            path: path.to_owned(),
            source,
        })?;
        let form = match (&generation.form, generation.template) {
            (Some(own), _) => own.leaked(),
            (None, Some(template)) => template.form(),
            (None, None) => {
                return Err(unusable(
                    "nothing says how a dialogue is written".to_owned(),
                ));
            }
        };
        let vocabulary = file::vocabulary(&value).map_err(unusable)?;
        let largest = vocabulary.iter().map(|(_, id)| *id).max();
        let largest = largest.ok_or_else(|| unusable("its vocabulary is empty".to_owned()))?;
        if largest > ID_MAX {
            return Err(TokensError::TooLarge { id: largest });
        }
        if let Some((_, id)) = vocabulary.iter().find(|(token, _)| token.len() > TOKEN_MAX) {
            return Err(unusable(format!(
                "its token {id} has more than {TOKEN_MAX} bytes"
            )));
        }
        let mut specials = file::specials(&value);
        specials.extend(generation.specials.clone());
        let unknown_id = file::unknown_id(&value, &vocabulary);
        let byte_level = file::is_byte_level(&value);
        let space_before = file::take_prefix_space(&mut value);
        let mark_before = file::puts_mark_before(&value);
        let spacing = match space_before || mark_before {
            true => Spacing::BehindText,
            false => file::take_spacing(&mut value),
        };
        file::check_growth(&value).map_err(unusable)?;
        file::keep_scores(json, &mut value);
        let left_out = file::fill_bytes(&mut value, largest + 1..=ID_MAX);
        tokenizers::canonicalize_value(&mut value).map_err(|e| unusable(e.to_string()))?;
        // The library panics at some vocabularies that contradict themselves.
        let pipeline = contained(|| tokenizers::from_json(&value.to_string()))
            .ok_or_else(|| unusable("the library that encodes gives up on it".to_owned()))?
            .map_err(|error| unusable(error.to_string()))?;

        check_added(&pipeline, &specials).map_err(unusable)?;
        if let Some(id) = generation.ids().find(|id| *id > largest) {
            let reason =
                format!("`{GENERATION_NAME}` names the id {id}, and the largest is {largest}");
            return Err(unusable(reason));
        }

        let mut reserved = Box::new(IdSet([0; 1024]));
        let ids: BTreeMap<&str, u32> = vocabulary.iter().map(|(t, id)| (t.as_str(), *id)).collect();
        let mut spellings = BTreeMap::new();
        for &id in specials.values().filter(|&&id| Some(id) != unknown_id) {
            reserved.insert(id);
        }
        for id in left_out {
            reserved.insert(id);
            spellings.insert(id, Spelling::nothing());
        }
        let speller = Speller {
            ids: &ids,
            reserved: &reserved,
            unknown_id,
            byte_level,
        };
        for (name, &id) in &specials {
            let name = name.clone();
            let ids = speller.spell(&name);
            spellings.insert(id, Spelling { name, ids });
        }
        let steps = Steps::new(pipeline, &value).map_err(unusable)?;
        // Some of what can be read cannot be run, which only encoding finds out.
        let mut buffers = steps.take_buffers();
        steps
            .encode("a b", &mut buffers, &mut Vec::new())
            .map_err(unusable)?;
        Ok(Self {
            steps,
            form,
            generation,
            vocab_size: largest as usize + 1,
            vocabulary,
            specials,
            unknown_id,
            reserved,
            spellings,
            space_before,
            mark_before,
            spacing,
            tags: Vec::new(),
        })
    }

    /// Encodes the template's own words once, and finds missing tags before any document does.
    fn check_template(&mut self) -> Result<(), TokensError> {
        let mut specials = self.form.specials.iter();
        if let Some(name) = specials.find(|name| self.special(name).is_none()) {
            return Err(self.missing(name));
        }
        let every_role = Role::ALL.map(|role| (role, ""));
        for piece in self.form.pieces(every_role, self.spacing) {
            if piece.what == What::Tag && self.tag(&piece).is_none() {
                let mut ids = Vec::new();
                let take = |_: &Piece, some: &[u32]| ids.extend_from_slice(some);
                self.encoder().pieces(&[piece], take)?;
                self.tags.push((piece.text, piece.space, ids));
            }
        }
        Ok(())
    }

    fn missing(&self, name: &str) -> TokensError {
        TokensError::MissingSpecial {
            name: name.to_owned(),
            template: self.template_name().to_owned(),
        }
    }

    fn tag(&self, piece: &Piece) -> Option<&[u32]> {
        let mut tags = self.tags.iter();
        let known = tags.find(|(text, space, _)| (*text, *space) == (piece.text, piece.space));
        known.map(|(_, _, ids)| ids.as_slice())
    }

    /// Whether a text is encoded with a space before it.
    fn puts_space_before(&self, text: &str, space: bool) -> bool {
        (space && !self.mark_before)
            || (self.space_before && !text.is_empty() && !text.starts_with(' '))
    }

    /// Returns one more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Returns every token as it is written in `tokenizer.json`, by id.
    pub fn vocabulary(&self) -> &[(String, u32)] {
        &self.vocabulary
    }

    /// Returns the id of a token that no text can produce.
    pub fn special(&self, name: &str) -> Option<u32> {
        self.specials.get(name).copied()
    }

    pub fn specials(&self) -> &BTreeMap<String, u32> {
        &self.specials
    }

    /// Returns the id that stands for what the vocabulary cannot write.
    pub fn unknown_id(&self) -> Option<u32> {
        self.unknown_id
    }

    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Returns which of our templates it has; an imported one has none.
    pub fn template(&self) -> Option<Template> {
        self.generation.template
    }

    pub fn template_name(&self) -> &'static str {
        self.generation.template.map_or("own", Template::name)
    }

    /// Returns how a dialogue is written.
    pub(crate) fn form(&self) -> &'static Form {
        self.form
    }

    /// Whether its models are trained on turns, rather than on texts alone.
    pub fn knows_turns(&self) -> bool {
        match &self.generation.form {
            Some(form) => form.knows_turns,
            None => self.generation.template != Some(Template::Plain),
        }
    }

    /// Returns where a chat template must put spaces for it.
    pub fn spacing(&self) -> Spacing {
        self.spacing
    }

    /// Returns the ids at which a reply ends.
    pub fn stop_ids(&self) -> &[u32] {
        &self.generation.stop_ids
    }

    /// Returns the text of ids, tags left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokensError> {
        self.decode_with(ids, true)
    }

    /// Returns the text of ids, tags spelt out: for looking at what a model really sees.
    pub fn decode_all(&self, ids: &[u32]) -> Result<String, TokensError> {
        self.decode_with(ids, false)
    }

    fn decode_with(&self, ids: &[u32], skip_specials: bool) -> Result<String, TokensError> {
        let decoded = self.steps.pipeline().decode(ids, skip_specials);
        decoded.map_err(|error| TokensError::Decode {
            reason: error.to_string(),
        })
    }
}

/// The crate gives ids to added tokens in order, and ours must be the ids in the file.
fn check_added(
    pipeline: &PipelineTokenizer,
    specials: &BTreeMap<String, u32>,
) -> Result<(), String> {
    let added = pipeline.get_added_vocabulary();
    for (name, id) in specials {
        let found = added.token_to_id(name);
        if found != Some(*id) {
            let found = found.map_or_else(|| "none".to_owned(), |id| id.to_string());
            return Err(format!(
                "`{name}` has the id {id} in the file and would get {found}"
            ));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, TokensError> {
    fs::read(path).map_err(|source| TokensError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
