//! How an imported model reads and speaks: its tokenizer, and how it writes a dialogue.

use std::fs;

use serde_json::Value;
use tinylm_pipeline::{At, StageError, StageIo};

use super::files::{Files, json_of};
use crate::shared::{
    form::{
        OwnForm,
        probe::{Names, form_of},
    },
    tokens::{
        artifact::{known_ids, write_foreign},
        assemble::{NamedFile, assemble, is_of_use},
        gguf,
    },
};

/// A tokenizer and the words of a dialogue, before they are written.
pub(super) struct Speech {
    tokenizer: Value,
    /// Written before every text, where the model was trained so.
    bos: Option<String>,
    /// The first is behind every text; answers end at each.
    ends: Vec<String>,
    chat_template: Option<String>,
}

impl Speech {
    pub(super) fn of_folder(files: &Files, config: &Value) -> Result<Self, StageError> {
        let mut named: Vec<NamedFile> = Vec::new();
        for (name, path) in files.iter().filter(|(name, _)| is_of_use(name)) {
            named.push((name.clone(), fs::read(path).at(path)?));
        }
        let tokenizer = assemble(&named)?;
        let settings = json_of(files, "tokenizer_config.json")?.unwrap_or_default();
        let generation = json_of(files, "generation_config.json")?.unwrap_or_default();
        let mut ends = ids(&generation["eos_token_id"]);
        ends.extend(ids(&config["eos_token_id"]));
        let mut ends = names(&tokenizer, &ends);
        ends.extend(token_name(&settings["eos_token"]));
        let bos = token_name(&settings["bos_token"]);
        let adds_bos = match settings["add_bos_token"].as_bool() {
            Some(adds) => adds,
            None => frames_with(&tokenizer, bos.as_deref()),
        };
        Ok(Self {
            bos: bos.filter(|_| adds_bos),
            ends,
            chat_template: chat_template(files, &settings)?,
            tokenizer,
        })
    }

    pub(super) fn of_gguf(settings: &Value) -> Result<Self, StageError> {
        let field = |name: &str| &settings[format!("tokenizer.ggml.{name}")];
        let tokenizer = gguf::to_json(settings).map_err(|reason| {
            StageError::new(format!("its tokenizer cannot be imported: {reason}")).is_final()
        })?;
        let is_pieces = field("model").as_str() == Some("llama");
        let adds_bos = field("add_bos_token").as_bool().unwrap_or(is_pieces);
        let token = |name: &str| names(&tokenizer, &ids(field(name)));
        let mut ends = token("eos_token_id");
        ends.extend(token("eot_token_id"));
        let bos = token("bos_token_id").into_iter().next();
        let template = settings["tokenizer.chat_template"].as_str();
        Ok(Self {
            bos: bos.filter(|_| adds_bos),
            ends,
            chat_template: template.map(str::to_owned),
            tokenizer,
        })
    }

    /// llama2.c puts `<s>` before every story and knows no other end.
    pub(super) fn of_llama2c(pieces: &[(Vec<u8>, f32)]) -> Result<Self, StageError> {
        let tokenizer = gguf::of_llama2c(pieces).map_err(|reason| {
            StageError::new(format!("its tokenizer cannot be imported: {reason}")).is_final()
        })?;
        let [bos, eos] = [1, 2].map(|id| names(&tokenizer, &[id]).into_iter().next());
        Ok(Self {
            ends: bos.iter().chain(&eos).cloned().collect(),
            bos,
            chat_template: None,
            tokenizer,
        })
    }

    /// Writes the tokenizer's files for a model that knows so many tokens.
    pub(super) fn write(self, io: &StageIo, vocab_size: usize) -> Result<(), StageError> {
        let Some(eos) = self.ends.first() else {
            let message = "nothing says with which token its texts end";
            let help = "`eos_token_id` stands in `config.json`, `generation_config.json` or the GGUF file's settings";
            return Err(StageError::new(message).help(help).is_final());
        };
        let mut form = self.form(eos, io);
        for end in &self.ends {
            if !form.stops.contains(end) {
                form.stops.push(end.clone());
            }
        }
        let jinja = self.chat_template.as_deref().unwrap_or_default();
        write_foreign(io.out(), self.tokenizer, form, jinja, vocab_size)?;
        Ok(())
    }

    fn form(&self, eos: &str, io: &StageIo) -> OwnForm {
        let specials = specials(&self.tokenizer);
        let names = Names {
            bos: self.bos.as_deref(),
            eos,
            specials: &specials,
        };
        let of_texts = || OwnForm::of_texts(self.bos.as_deref(), eos);
        match &self.chat_template {
            None => of_texts(),
            Some(template) => form_of(template, &names).unwrap_or_else(|reason| {
                io.warn(format!(
                    "its chat template cannot be followed here ({reason}), so it continues texts"
                ));
                of_texts()
            }),
        }
    }
}

fn chat_template(files: &Files, settings: &Value) -> Result<Option<String>, StageError> {
    if let Some(path) = files.get("chat_template.jinja") {
        return Ok(Some(fs::read_to_string(path).at(path)?));
    }
    let template = &settings["chat_template"];
    // Several by name: the default one is for talking.
    let named = template.as_array().into_iter().flatten();
    let default = named.filter(|entry| entry["name"] == "default");
    let default = default
        .filter_map(|entry| entry["template"].as_str())
        .next();
    Ok(template.as_str().or(default).map(str::to_owned))
}

/// One id, or a list of them.
fn ids(value: &Value) -> Vec<u64> {
    match value {
        Value::Array(list) => list.iter().filter_map(Value::as_u64).collect(),
        one => one.as_u64().into_iter().collect(),
    }
}

/// Returns the tokens of some ids.
fn names(tokenizer: &Value, wanted: &[u64]) -> Vec<String> {
    let known = known_ids(tokenizer);
    let named = |wanted: &u64| known.iter().find(|(_, id)| *id == wanted);
    wanted
        .iter()
        .filter_map(named)
        .map(|(name, _)| name.clone())
        .collect()
}

/// A token by its name, or as an entry that has one.
fn token_name(value: &Value) -> Option<String> {
    let name = value.as_str().or(value["content"].as_str());
    name.map(str::to_owned)
}

/// Whether a tokenizer puts a token before every text by itself.
fn frames_with(tokenizer: &Value, bos: Option<&str>) -> bool {
    let first = &tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"];
    bos.is_some() && first.as_str() == bos
}

fn specials(tokenizer: &Value) -> Vec<String> {
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let special = added.filter(|token| token["special"] == true);
    let names = special.filter_map(|token| token["content"].as_str());
    names.map(str::to_owned).collect()
}
