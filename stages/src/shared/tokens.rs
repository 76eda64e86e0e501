//! A tokenizer artifact in use: text to ids, ids to text, dialogues to ids.
//!
//! The one module that touches the `tokenizers` crate for encoding, so that its next
//! release needs one file changed. What it adds, and promises:
//!
//! - **No text can forge a turn.** Contents are encoded with special tokens switched
//!   off, and an id that only a tag may have but that comes out all the same (`</s>`
//!   is an ordinary piece of T5's model) is spelt out, character by character.
//! - A dialogue is encoded piece by piece: tags by id, contents one at a time. So a
//!   content has the same ids in training and behind a prompt, and no merge crosses
//!   from a tag into what somebody wrote.
//! - A stream of ids never prints half a character.
//!
//! Its ids are those of the released library (`benches/tokenizer_peer.py` holds every character
//! up to Unicode 14 to it), but that WordPiece cuts at what is punctuation in today's Unicode, and
//! the released one at what was in Unicode 8: they differ in a hundred signs of rare scripts.
//!
//! What release candidate 3 cannot do, and what is done about it: it cannot build or write
//! a tokenizer (the `tokenizer` stage writes the JSON itself), its BPE trainer is not
//! reproducible (`tokenizer::bpe` is), its reader runs no `Split` on a pattern of one's own
//! (`steps` does), and it keeps no offsets (roles come from pieces). The released crate is
//! not needed beside it.
//!
//! Files written by Hugging Face's released libraries are brought into the crate's
//! current form when they are read, never on disk.

use std::{
    collections::BTreeMap,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
pub use tinylm_model::folder::{
    CHAT_TEMPLATE_NAME, GENERATION_NAME, TOKENIZER_NAME, TOKENIZER_NAMES,
};
use tokenizers::{
    json::Json,
    pipeline::{PipelineToken, PipelineTokenizer},
};

use crate::shared::template::{Piece, Role, Template, What};

mod steps;
pub(crate) mod unigram;
pub(crate) mod words;

use steps::{Buffers, Steps};

/// Ids are stored in 16 bits.
pub const ID_MAX: u32 = u16::MAX as u32;

/// The longest token that the library takes.
const TOKEN_MAX: usize = u16::MAX as usize;

/// How many ids a stream waits for a character to become whole: the longest has four bytes.
const UNFINISHED_MAX: usize = 4;

/// The contents of `generation.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    pub template: Template,
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

#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("cannot read `{path}`: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot parse `{path}`: {source}")]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("`{path}` is not a tokenizer that can be used here: {reason}")]
    Unusable { path: PathBuf, reason: String },
    #[error("the tokenizer has no special token `{name}`, which the template `{template}` writes")]
    MissingSpecial { name: String, template: String },
    #[error("the largest id is {id}, and shards hold ids up to {ID_MAX}")]
    TooLarge { id: u32 },
    #[error("a text of {bytes} bytes cannot be encoded: {reason}")]
    Encode { bytes: usize, reason: String },
    #[error("the text holds `{name}`, and the vocabulary cannot spell it in ordinary tokens")]
    Unspellable { name: String },
    #[error("these ids cannot be decoded: {reason}")]
    Decode { reason: String },
}

pub struct Tokenizer {
    steps: Steps,
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
    /// The ids of the template's own words: a handful, so that a list is the fastest map.
    tags: Vec<(String, Vec<u32>)>,
}

struct Spelling {
    name: String,
    ids: Option<Vec<u32>>,
}

/// A set of 16-bit ids, one bit each.
struct IdSet([u64; 1024]);

impl IdSet {
    fn insert(&mut self, id: u32) {
        self.0[id as usize >> 6] |= 1 << (id & 63);
    }

    fn contains(&self, id: u32) -> bool {
        self.0[id as usize >> 6 & 1023] >> (id & 63) & 1 == 1
    }
}

impl Tokenizer {
    /// Reads the files of a tokenizer artifact, or of any artifact that carries them on.
    pub fn load(folder: &Path) -> Result<Self, TokensError> {
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
        let vocabulary = vocabulary(&value).map_err(unusable)?;
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
        let mut specials = specials(&value);
        specials.extend(generation.specials.clone());
        let unknown_id = unknown_id(&value, &vocabulary);
        let byte_level = is_byte_level(&value);
        let space_before = take_prefix_space(&mut value);
        keep_scores(json, &mut value);
        tokenizers::canonicalize_value(&mut value).map_err(|e| unusable(e.to_string()))?;
        // The library panics at some vocabularies that contradict themselves.
        let pipeline = catch_unwind(|| tokenizers::from_json(&value.to_string()))
            .map_err(|_| unusable("the library that encodes gives up on it".to_owned()))?
            .map_err(|error| unusable(error.to_string()))?;

        let mut reserved = Box::new(IdSet([0; 1024]));
        let ids: BTreeMap<&str, u32> = vocabulary.iter().map(|(t, id)| (t.as_str(), *id)).collect();
        let mut spellings = BTreeMap::new();
        for &id in specials.values().filter(|&&id| Some(id) != unknown_id) {
            reserved.insert(id);
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
        check_added(&pipeline, &specials).map_err(unusable)?;
        let steps = Steps::new(pipeline, &value).map_err(unusable)?;
        // Some of what can be read cannot be run, which only encoding finds out.
        let mut buffers = steps.take_buffers();
        steps
            .encode("a b", &mut buffers, &mut Vec::new())
            .map_err(unusable)?;
        Ok(Self {
            steps,
            generation,
            vocab_size: largest as usize + 1,
            vocabulary,
            specials,
            unknown_id,
            reserved,
            spellings,
            space_before,
            tags: Vec::new(),
        })
    }

    /// Encodes the template's own words once, and finds missing tags before any document does.
    fn check_template(&mut self) -> Result<(), TokensError> {
        let template = self.generation.template;
        for name in template.specials() {
            if self.special(name).is_none() {
                return Err(TokensError::MissingSpecial {
                    name: (*name).to_owned(),
                    template: template.name().to_owned(),
                });
            }
        }
        let every_role = [Role::System, Role::User, Role::Assistant].map(|role| (role, ""));
        for piece in template.pieces(&every_role) {
            let is_known = self.tags.iter().any(|(text, _)| text == piece.text);
            if piece.what == What::Tag && !is_known {
                let ids = self.encode(piece.text)?;
                self.tags.push((piece.text.to_owned(), ids));
            }
        }
        Ok(())
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

    pub fn template(&self) -> Template {
        self.generation.template
    }

    /// Returns the ids at which a reply ends.
    pub fn stop_ids(&self) -> &[u32] {
        &self.generation.stop_ids
    }

    /// Returns the ids of something that somebody wrote; none of them is a tag's.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokensError> {
        let mut ids = Vec::with_capacity(text.len() / 4);
        self.encoder().content(text, &mut ids)?;
        Ok(ids)
    }

    /// Returns an encoder, whose buffers serve call after call on one thread.
    pub fn encoder(&self) -> Encoder<'_> {
        Encoder {
            tokenizer: self,
            buffers: Some(self.steps.take_buffers()),
            output: Vec::new(),
            spaced: String::new(),
        }
    }

    /// Returns a dialogue's ids; with `add_generation_prompt` they end where a reply begins.
    pub fn render_chat(
        &self,
        turns: &[(Role, &str)],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, TokensError> {
        let mut ids = Vec::new();
        let mut encoder = self.encoder();
        let pieces = if add_generation_prompt {
            self.template().prompt(turns)
        } else {
            self.template().pieces(turns)
        };
        for piece in &pieces {
            encoder.piece(piece, &mut ids)?;
        }
        Ok(ids)
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

    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream {
            tokenizer: self,
            ids: Vec::new(),
            printed: 0,
        }
    }
}

/// Encodes texts one after the other without allocating for each.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Until they are given back.
    buffers: Option<Buffers>,
    output: Vec<PipelineToken>,
    spaced: String,
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        if let Some(buffers) = self.buffers.take() {
            self.tokenizer.steps.give_back(buffers);
        }
    }
}

impl Encoder<'_> {
    /// Appends the ids of one piece of a rendered document.
    pub fn piece(&mut self, piece: &Piece<'_>, ids: &mut Vec<u32>) -> Result<(), TokensError> {
        match piece.what {
            What::Content => self.content(piece.text, ids),
            What::Special(name) => match self.tokenizer.special(name) {
                Some(id) => {
                    ids.push(id);
                    Ok(())
                }
                None => Err(TokensError::MissingSpecial {
                    name: name.to_owned(),
                    template: self.tokenizer.template().name().to_owned(),
                }),
            },
            What::Tag => {
                let mut tags = self.tokenizer.tags.iter();
                match tags.find(|(text, _)| text == piece.text) {
                    Some((_, known)) => {
                        ids.extend_from_slice(known);
                        Ok(())
                    }
                    None => self.content(piece.text, ids),
                }
            }
        }
    }

    /// Appends the ids of something that somebody wrote.
    pub fn content(&mut self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokensError> {
        let Self {
            tokenizer,
            buffers,
            output,
            spaced,
        } = self;
        let steps = &tokenizer.steps;
        let buffers = buffers.get_or_insert_with(|| steps.take_buffers());
        let mut text = text;
        if tokenizer.space_before && !text.is_empty() && !text.starts_with(' ') {
            spaced.clear();
            spaced.push(' ');
            spaced.push_str(text);
            text = spaced;
        }
        output.clear();
        let encoded = steps.encode(text, buffers, output);
        encoded.map_err(|reason| TokensError::Encode {
            bytes: text.len(),
            reason,
        })?;
        let reserved = &tokenizer.reserved;
        if output.iter().any(|token| reserved.contains(token.id())) {
            return spell_out(tokenizer, output, ids);
        }
        ids.extend_from_slice(PipelineToken::cast_slice(output));
        Ok(())
    }
}

/// Copies ids, with those that only a tag may have written out in others.
fn spell_out(
    tokenizer: &Tokenizer,
    output: &[PipelineToken],
    ids: &mut Vec<u32>,
) -> Result<(), TokensError> {
    for token in output {
        let id = token.id();
        if !tokenizer.reserved.contains(id) {
            ids.push(id);
            continue;
        }
        let spelling = tokenizer.spellings.get(&id);
        match spelling.and_then(|spelling| spelling.ids.as_ref()) {
            Some(spelt) => ids.extend_from_slice(spelt),
            None => {
                let name = spelling.map_or_else(String::new, |spelling| spelling.name.clone());
                return Err(TokensError::Unspellable { name });
            }
        }
    }
    Ok(())
}

/// Turns ids into text as they come, whole characters only.
///
/// The text of an id can depend on the one before it (a first space is dropped), so the
/// last ids printed are decoded again together with the new ones.
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// How many of `ids` have been printed.
    printed: usize,
}

impl DecodeStream<'_> {
    /// Takes one id and returns the text that can be printed now: often a word, sometimes nothing.
    pub fn push(&mut self, id: u32) -> Result<String, TokensError> {
        self.ids.push(id);
        let waiting = self.ids.len() - self.printed;
        let (before, text) = self.texts()?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) && waiting < UNFINISHED_MAX {
            return Ok(String::new());
        }
        let new = new_part(&before, &text).to_owned();
        if new.is_empty() {
            // A tag shows nothing, and the next word still needs the one before it.
            return Ok(new);
        }
        self.ids.drain(..self.printed);
        self.printed = self.ids.len();
        Ok(new)
    }

    /// Returns what was still waiting for the rest of a character.
    pub fn finish(self) -> Result<String, TokensError> {
        let (before, text) = self.texts()?;
        Ok(new_part(&before, &text).to_owned())
    }

    fn texts(&self) -> Result<(String, String), TokensError> {
        let before = self.tokenizer.decode(&self.ids[..self.printed])?;
        let text = self.tokenizer.decode(&self.ids)?;
        Ok((before, text))
    }
}

/// Returns what `text` has beyond `before`; where a decoder changed what it had printed
/// (a space before a full stop), beyond what they share.
fn new_part<'a>(before: &str, text: &'a str) -> &'a str {
    let same = before.chars().zip(text.chars()).take_while(|(a, b)| a == b);
    let len: usize = same.map(|(c, _)| c.len_utf8()).sum();
    &text[len..]
}

/// Writes names that stand for themselves in ordinary ids.
struct Speller<'a> {
    ids: &'a BTreeMap<&'a str, u32>,
    reserved: &'a IdSet,
    unknown_id: Option<u32>,
    byte_level: bool,
}

impl Speller<'_> {
    fn spell(&self, name: &str) -> Option<Vec<u32>> {
        let mut spelt = Vec::new();
        for c in name.chars() {
            match self.character(c) {
                Some(ids) => spelt.extend(ids),
                None => spelt.push(self.unknown_id?),
            }
        }
        Some(spelt)
    }

    fn character(&self, c: char) -> Option<Vec<u32>> {
        let mut buffer = [0; 4];
        let text = c.encode_utf8(&mut buffer);
        if self.byte_level {
            let bytes = text.bytes().map(|byte| byte_level_char(byte).to_string());
            return bytes.map(|token| self.ordinary(&token)).collect();
        }
        if let Some(id) = self.ordinary(text) {
            return Some(vec![id]);
        }
        let bytes = text.bytes().map(|byte| format!("<0x{byte:02X}>"));
        bytes.map(|token| self.ordinary(&token)).collect()
    }

    fn ordinary(&self, token: &str) -> Option<u32> {
        let id = self.ids.get(token).copied();
        id.filter(|&id| !self.reserved.contains(id))
    }
}

/// Returns the character that stands for a byte in a byte-level vocabulary: itself where
/// it can be seen, else one from 256 upwards, in order.
pub fn byte_level_char(byte: u8) -> char {
    let hidden_before = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => return char::from(byte),
        0..=0x20 => u32::from(byte),
        0x7f..=0xa0 => u32::from(byte) - 0x7f + 0x21,
        0xad => 0x43,
    };
    char::from_u32(0x100 + hidden_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn vocabulary(json: &Value) -> Result<Vec<(String, u32)>, String> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let mut by_id: BTreeMap<u32, String> = BTreeMap::new();
    match &json["model"]["vocab"] {
        Value::Object(entries) => {
            for (token, value) in entries {
                let id = id(value).ok_or_else(|| format!("the id of `{token}` is {value}"))?;
                by_id.insert(id, token.clone());
            }
        }
        Value::Array(entries) => {
            for (idx, entry) in entries.iter().enumerate() {
                let token = entry[0].as_str();
                let token =
                    token.ok_or_else(|| format!("entry {idx} of its vocabulary is {entry}"))?;
                by_id.insert(idx as u32, token.to_owned());
            }
        }
        _ => return Err("it has no vocabulary".to_owned()),
    }
    for added in added_tokens(json) {
        if let (Some(id), Some(content)) = (id(&added["id"]), added["content"].as_str()) {
            by_id.insert(id, content.to_owned());
        }
    }
    Ok(by_id.into_iter().map(|(id, token)| (token, id)).collect())
}

fn added_tokens(json: &Value) -> impl Iterator<Item = &Value> {
    json["added_tokens"].as_array().into_iter().flatten()
}

fn specials(json: &Value) -> BTreeMap<String, u32> {
    let special = added_tokens(json).filter(|added| added["special"] == true);
    special
        .filter_map(|added| {
            let id = u32::try_from(added["id"].as_u64()?).ok()?;
            Some((added["content"].as_str()?.to_owned(), id))
        })
        .collect()
}

/// Makes the crate read the scores that it would read in the file itself.
///
/// Its reader, like the released library's, is off by a bit for some numbers, and here it
/// reads what was read and written once already. A bit decides which of two equally
/// likely cuts is taken, so each score is written as a number that is read as it should.
fn keep_scores(json: &str, value: &mut Value) {
    let Ok(read) = Json::parse(json) else {
        return;
    };
    let pieces = read
        .field("model")
        .and_then(|model| model.field("vocab")?.as_array());
    let written = value["model"]["vocab"].as_array_mut();
    for (piece, entry) in pieces
        .into_iter()
        .flatten()
        .zip(written.into_iter().flatten())
    {
        let score = piece.as_array().and_then(|pair| pair.get(1)?.as_f64());
        if let (Some(score), Some(number)) = (score, entry.get_mut(1)) {
            let candidates = [score, score.next_up(), score.next_down()];
            let kept = candidates
                .into_iter()
                .find(|candidate| reads_as(*candidate, score));
            *number = Value::from(kept.unwrap_or(score));
        }
    }
}

/// Whether the crate takes what is written for `written` as `wanted`.
fn reads_as(written: f64, wanted: f64) -> bool {
    let text = Value::from(written).to_string();
    Json::parse(&text).is_ok_and(|json| json.as_f64() == Some(wanted))
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

fn unknown_id(json: &Value, vocabulary: &[(String, u32)]) -> Option<u32> {
    let model = &json["model"];
    if let Some(id) = model["unk_id"].as_u64() {
        return u32::try_from(id).ok();
    }
    let name = model["unk_token"].as_str()?;
    let found = vocabulary.iter().find(|(token, _)| token == name);
    found.map(|(_, id)| *id)
}

/// Visits a `pre_tokenizer` and the members of a sequence.
fn pre_tokenizers(json: &mut Value) -> Vec<&mut Value> {
    let node = &mut json["pre_tokenizer"];
    if node["type"] == "Sequence" {
        let members = node["pretokenizers"].as_array_mut();
        return members.into_iter().flatten().collect();
    }
    vec![node]
}

fn is_byte_level(json: &Value) -> bool {
    let mut json = json.clone();
    let members = pre_tokenizers(&mut json);
    let found = members.iter().any(|member| member["type"] == "ByteLevel");
    found || json["model"]["byte_level"] == true
}

/// Takes `add_prefix_space` off a byte-level pre-tokenizer: the crate no longer knows it,
/// and for texts that are encoded whole it is a space put in front.
fn take_prefix_space(json: &mut Value) -> bool {
    let mut found = false;
    for member in pre_tokenizers(json) {
        if member["type"] == "ByteLevel" && member["add_prefix_space"] == true {
            member["add_prefix_space"] = Value::Bool(false);
            found = true;
        }
    }
    found
}

fn read(path: &Path) -> Result<Vec<u8>, TokensError> {
    fs::read(path).map_err(|source| TokensError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
