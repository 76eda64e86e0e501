//! The files beside the weights: settings, tokenizer, template.
//!
//! Where versions of `transformers` look in different places (`chat_template.jinja` and the string
//! in `tokenizer_config.json`, `special_tokens_map.json`), all of them are served.

use std::{fs, path::Path};

use serde_json::{Map, Value, json};
use tinylm_exchange::{
    Claim,
    hf::{CODE_NAME, Ids},
};
use tinylm_model::{config::ModelConfig, folder::WEIGHTS_NAME, sampler::Sampling};
use tinylm_pipeline::{At, StageError};

use crate::shared::{
    decimal::decimal,
    json::write_json,
    tokens::{CHAT_TEMPLATE_NAME, TOKENIZER_NAME, Tokenizer},
};

/// Every file that an export may have.
pub(super) const NAMES: [&str; 15] = [
    ADAPTER_SETTINGS_NAME,
    ADAPTER_WEIGHTS_NAME,
    MODEL_NAME,
    MODELFILE_NAME,
    GRAPH_NAME,
    GENAI_NAME,
    SETTINGS_NAME,
    GENERATION_NAME,
    WEIGHTS_NAME,
    CODE_NAME,
    TOKENIZER_NAME,
    CHAT_TEMPLATE_NAME,
    TOKENIZER_SETTINGS_NAME,
    SPECIALS_NAME,
    CARD_NAME,
];
pub(super) const ADAPTER_SETTINGS_NAME: &str = "adapter_config.json";
pub(super) const ADAPTER_WEIGHTS_NAME: &str = "adapter_model.safetensors";
const GENERATION_NAME: &str = "generation_config.json";
const TOKENIZER_SETTINGS_NAME: &str = "tokenizer_config.json";
const SPECIALS_NAME: &str = "special_tokens_map.json";
pub(super) const CARD_NAME: &str = "README.md";
pub(super) const SETTINGS_NAME: &str = "config.json";
/// What `config.json` says of an export besides the other program's own settings.
pub(super) const OURS: &str = "tinylm";

/// Where transformers.js looks for it; optimum looks everywhere.
pub(super) const GRAPH_NAME: &str = "onnx/model.onnx";
pub(super) const GENAI_NAME: &str = "genai_config.json";

pub(super) const MODEL_NAME: &str = "model.gguf";
pub(super) const MODELFILE_NAME: &str = "Modelfile";
/// How the tags of a card of ours begin.
pub(super) const TAG: &str = "\ntags: [\"tinylm\"";
/// The first line of a `Modelfile` of ours.
pub(super) const MARK: &str = "# Written by tinylm.";

/// A model whose files are written.
pub(super) struct Described<'a> {
    /// Its folder.
    pub(super) from: &'a Path,
    pub(super) ours: &'a ModelConfig,
    pub(super) claim: &'a Claim,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) has_cache: bool,
}

impl Described<'_> {
    /// Writes all files but the weights and the card, given what the other program wants to know of the
    /// model itself.
    pub(super) fn write(
        &self,
        out: &Path,
        settings: impl FnOnce(Ids) -> Map<String, Value>,
    ) -> Result<Ids, StageError> {
        let names = Names::of(self.tokenizer);
        let mut settings = settings(names.ids);
        let own = json!({
            "claim": self.claim.word(),
            "because_of": self.claim.because_of(),
            "model": self.ours,
        });
        settings.insert(OURS.to_owned(), own);
        write_json(&out.join(SETTINGS_NAME), &Value::Object(settings))?;
        write_json(&out.join(GENERATION_NAME), &self.generation(names.ids))?;
        write_tokenizer(out, self.from, self.tokenizer, self.ours.context)?;
        Ok(names.ids)
    }

    /// How answers are made unless somebody says otherwise: as `tinylm chat` makes them.
    fn generation(&self, ids: Ids) -> Value {
        let sampling = Sampling::default();
        json!({
            "bos_token_id": ids.bos,
            "eos_token_id": self.tokenizer.stop_ids(),
            "pad_token_id": ids.pad,
            "do_sample": true,
            "temperature": decimal(sampling.temperature),
            "top_k": sampling.top_k,
            "top_p": decimal(sampling.top_p),
            "min_p": decimal(sampling.min_p),
            // Beyond its context a model has no positions.
            "max_length": self.ours.context,
            "use_cache": self.has_cache,
        })
    }
}

/// The special tokens that other programs have names for.
struct Names {
    bos: Option<String>,
    eos: Option<String>,
    pad: Option<String>,
    unknown: Option<String>,
    others: Vec<String>,
    ids: Ids,
}

impl Names {
    fn of(tokenizer: &Tokenizer) -> Names {
        let generation = tokenizer.generation();
        let mut by_id: Vec<(&u32, &String)> = tokenizer
            .specials()
            .iter()
            .map(|(name, id)| (id, name))
            .collect();
        by_id.sort_unstable();
        let name = |id: Option<u32>| {
            let found = by_id.iter().find(|(known, _)| Some(**known) == id);
            found.map(|(_, name)| (*name).clone())
        };
        // Batches are filled with something, and what ends a text is never mistaken for a word.
        let pad = generation.pad_id.or(generation.eos_id);
        let unknown = tokenizer.unknown_id().and_then(|id| {
            let mut vocabulary = tokenizer.vocabulary().iter();
            let found = vocabulary.find(|(_, known)| *known == id);
            found.map(|(name, _)| name.clone())
        });
        let named = [
            generation.bos_id,
            generation.eos_id,
            pad,
            tokenizer.unknown_id(),
        ];
        let others = by_id.iter().filter(|(id, _)| !named.contains(&Some(**id)));
        Names {
            bos: generation.bos.clone(),
            eos: generation.eos.clone(),
            pad: name(pad),
            unknown,
            others: others.map(|(_, name)| (*name).clone()).collect(),
            ids: Ids {
                bos: generation.bos_id,
                eos: generation.eos_id,
                pad,
            },
        }
    }

    fn map(&self) -> Map<String, Value> {
        let named = [
            ("bos_token", &self.bos),
            ("eos_token", &self.eos),
            ("pad_token", &self.pad),
            ("unk_token", &self.unknown),
        ];
        let named = named.into_iter().filter_map(|(name, token)| {
            let token = token.as_ref()?;
            Some((name.to_owned(), Value::from(token.clone())))
        });
        let others = (!self.others.is_empty())
            .then(|| ("additional_special_tokens".to_owned(), json!(self.others)));
        named.chain(others).collect()
    }
}

/// Writes the tokenizer, its template, and what its special tokens are called elsewhere.
pub(super) fn write_tokenizer(
    out: &Path,
    from: &Path,
    tokenizer: &Tokenizer,
    context: usize,
) -> Result<(), StageError> {
    let (path, to) = (from.join(TOKENIZER_NAME), out.join(TOKENIZER_NAME));
    let bytes = fs::read(&path).at(&path)?;
    fs::write(&to, bytes).at(&to)?;
    let template = template(from, tokenizer)?;
    if let Some(template) = &template {
        let path = out.join(CHAT_TEMPLATE_NAME);
        fs::write(&path, template).at(&path)?;
    }
    let special = Names::of(tokenizer).map();
    write_json(&out.join(SPECIALS_NAME), &json!(special))?;
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        // The template writes what a dialogue begins with.
        "add_bos_token": false,
        "add_eos_token": false,
        "clean_up_tokenization_spaces": false,
        "model_input_names": ["input_ids", "attention_mask"],
    });
    if let Some(template) = template {
        config["chat_template"] = template.into();
    }
    for (name, token) in special {
        config[name] = token;
    }
    write_json(&out.join(TOKENIZER_SETTINGS_NAME), &config)
}

/// The chat template: ours, or an imported model's own.
fn template(from: &Path, tokenizer: &Tokenizer) -> Result<Option<String>, StageError> {
    if let Some(ours) = tokenizer.template() {
        return Ok(Some(ours.jinja_with_generation(tokenizer.spacing())));
    }
    own_template(from)
}

/// The text that an imported model brought along, if it knows turns.
pub(super) fn own_template(from: &Path) -> Result<Option<String>, StageError> {
    let path = from.join(CHAT_TEMPLATE_NAME);
    let theirs = fs::read_to_string(&path).at(&path)?;
    Ok((!theirs.trim().is_empty()).then_some(theirs))
}
