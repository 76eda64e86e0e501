//! Which parameters there are. Any other is refused by its name, unless it asks for nothing.
//!
//! A server that passes over what it does not know gives another answer than was asked for, and nobody learns of
//! it: a `grammar` that holds nothing back, a slip of the hand that leaves an answer as long as it can be. Clients
//! do send more than they want, though, `best_of: 1` and `tools: []`; that is what the second list is for.

use serde_json::Value;
use tinylm_stages::nearest;

use crate::{error::ApiError, params::Params};

/// What is read of a request to one address.
pub(super) struct Known(&'static [&'static [&'static str]]);

pub(super) const CHAT: Known = Known(&[ANSWER, &["messages", "on_overflow"], NOTES]);
pub(super) const TEXT: Known = Known(&[ANSWER, &["prompt", "echo"], NOTES]);
pub(super) const TOKENIZE: Known = Known(&[&[
    "model",
    "content",
    "prompt",
    "add_special",
    "add_special_tokens",
]]);
pub(super) const DETOKENIZE: Known = Known(&[&["model", "tokens"]]);

/// How an answer is to be.
const ANSWER: &[&str] = &[
    "model",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "ignore_eos",
];

/// What tells of a request and its sender, and nothing of the answer.
const NOTES: &[&str] = &[
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "request_id",
];

/// What other servers read, and as JSON what of it asks for nothing beside `false`, `[]`, `""` and `"none"`.
const ELSEWHERE: &[(&str, &str)] = &[
    // OpenAI's.
    ("audio", "[]"),
    ("best_of", "[1]"),
    ("function_call", r#"["auto"]"#),
    ("functions", "[]"),
    ("modalities", r#"[["text"]]"#),
    ("parallel_tool_calls", "[true]"),
    ("prediction", "[]"),
    ("prompt_cache_retention", r#"["in_memory"]"#),
    ("reasoning_effort", "[]"),
    ("response_format", r#"[{"type":"text"}]"#),
    ("service_tier", r#"["auto", "default"]"#),
    ("store", "[]"),
    ("suffix", "[]"),
    ("tool_choice", r#"["auto"]"#),
    ("tools", "[]"),
    ("verbosity", r#"["medium"]"#),
    // llama.cpp's.
    ("cache_prompt", "[true]"),
    ("dry_multiplier", "[0]"),
    ("dynatemp_range", "[0]"),
    ("grammar", "[]"),
    ("id_slot", "[-1]"),
    ("json_schema", "[]"),
    ("min_keep", "[0]"),
    ("mirostat", "[0]"),
    ("n_keep", "[0]"),
    ("n_probs", "[0]"),
    ("parse_special", "[]"),
    ("return_progress", "[]"),
    ("return_tokens", "[]"),
    ("tfs_z", "[1]"),
    ("timings_per_token", "[]"),
    ("typical_p", "[1]"),
    ("with_pieces", "[]"),
    ("xtc_probability", "[0]"),
    // vLLM's.
    ("add_generation_prompt", "[true]"),
    ("allowed_token_ids", "[]"),
    ("bad_words", "[]"),
    ("chat_template", "[]"),
    ("chat_template_kwargs", "[{}]"),
    ("continue_final_message", "[]"),
    ("early_stopping", "[]"),
    ("guided_choice", "[]"),
    ("guided_grammar", "[]"),
    ("guided_json", "[]"),
    ("guided_regex", "[]"),
    ("include_stop_str_in_output", "[]"),
    ("length_penalty", "[1]"),
    ("min_tokens", "[0]"),
    ("priority", "[0]"),
    ("prompt_logprobs", "[]"),
    ("return_token_ids", "[]"),
    ("return_token_strs", "[]"),
    ("return_tokens_as_token_ids", "[]"),
    ("skip_special_tokens", "[true]"),
    ("spaces_between_special_tokens", "[true]"),
    ("stop_token_ids", "[]"),
    ("structured_outputs", "[]"),
    ("truncate_prompt_tokens", "[]"),
    ("use_beam_search", "[]"),
];

/// Most bytes of a name that an answer says again.
const SHOWN: usize = 64;

impl Known {
    /// Refuses the first parameter that asks for something that is not here.
    pub(super) fn check(&self, params: &Params) -> Result<(), ApiError> {
        let refused = params
            .all()
            .find(|(name, value)| !self.has(name) && !is_nothing(name, value));
        match refused {
            Some((name, _)) => Err(self.refusal(name)),
            None => Ok(()),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().flat_map(|names| names.iter().copied())
    }

    fn refusal(&self, name: &str) -> ApiError {
        if is_elsewhere(name) {
            return ApiError::missing(name);
        }
        let names: Vec<&str> = self.names().collect();
        let hint = match nearest(name, &names) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => String::new(),
        };
        let name = shown(name);
        ApiError::wrong(name, format!("`{name}` is no parameter here{hint}"))
            .code("unknown_parameter")
    }
}

/// A name as an answer says it again: however long it is, no longer than this.
pub(super) fn shown(name: &str) -> &str {
    &name[..name.floor_char_boundary(SHOWN)]
}

fn is_elsewhere(name: &str) -> bool {
    let of_others = ELSEWHERE.iter().any(|(other, _)| *other == name);
    of_others || CHAT.has(name) || TEXT.has(name)
}

/// Whether a value of a parameter that is not read here makes no difference.
fn is_nothing(name: &str, value: &Value) -> bool {
    is_empty(value) && is_elsewhere(name) || is_default(name, value)
}

/// Asks for nothing, whatever the name.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(word) => word.is_empty() || word == "none",
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn is_default(name: &str, value: &Value) -> bool {
    let Some((_, defaults)) = ELSEWHERE.iter().find(|(other, _)| *other == name) else {
        return false;
    };
    let defaults: Vec<Value> = serde_json::from_str(defaults).unwrap_or_default();
    // 1 and 1.0 are one number to whoever writes them.
    let is_same = |default: &Value| match (default.as_f64(), value.as_f64()) {
        (Some(default), Some(value)) => default == value,
        _ => default == value,
    };
    defaults.iter().any(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_nothing_elsewhere_is_written_as_json_and_once() {
        let mut names: Vec<&str> = ELSEWHERE.iter().map(|(name, _)| *name).collect();
        for (name, defaults) in ELSEWHERE {
            let defaults = serde_json::from_str::<Vec<Value>>(defaults);
            assert!(defaults.is_ok(), "{name}: {defaults:?}");
            assert!(!CHAT.has(name) && !TEXT.has(name), "{name} is read");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ELSEWHERE.len());
    }
}
