//! Likelihoods as the two APIs show them.

use serde_json::{Map, Value, json};
use tinylm_stages::shared::tokens::Tokenizer;

use crate::engine::Token;

/// A token as it is shown: its own text, whatever stands beside it.
fn text(tokenizer: &Tokenizer, id: u16) -> String {
    tokenizer.decode_all(&[u32::from(id)]).unwrap_or_default()
}

/// Of a dialogue's answer.
pub(super) fn of_chat(tokenizer: &Tokenizer, tokens: &[Token]) -> Value {
    let one = |id: u16, logprob: f32| {
        let text = text(tokenizer, id);
        json!({ "token": text, "logprob": logprob, "bytes": text.as_bytes() })
    };
    let content = tokens.iter().map(|token| {
        let mut shown = one(token.id, token.logprob);
        let top = token.top.iter().map(|(id, logprob)| one(*id, *logprob));
        shown["top_logprobs"] = top.collect();
        shown
    });
    json!({ "content": content.collect::<Vec<Value>>(), "refusal": null })
}

/// Of a text: first the prompt's tokens where they are told, of the first of which nobody knows how
/// likely it was. They stand in it from `offset` on, which moves on behind them.
pub(super) fn of_text(
    tokenizer: &Tokenizer,
    first: Option<u16>,
    tokens: &[Token],
    offset: &mut usize,
) -> Value {
    let (mut texts, mut logprobs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    let mut put = |id: u16, logprob: Value, top: Value| {
        let text = text(tokenizer, id);
        offsets.push(*offset);
        *offset += text.chars().count();
        texts.push(text);
        logprobs.push(logprob);
        tops.push(top);
    };
    if let Some(id) = first {
        put(id, Value::Null, Value::Null);
    }
    for token in tokens {
        let top: Map<String, Value> = token
            .top
            .iter()
            .map(|(id, logprob)| (text_of(tokenizer, *id), json!(logprob)))
            .collect();
        put(token.id, json!(token.logprob), Value::Object(top));
    }
    json!({ "tokens": texts, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets })
}

/// Two tokens may have one text, which a map has once: such a one is shown by its id.
fn text_of(tokenizer: &Tokenizer, id: u16) -> String {
    match text(tokenizer, id) {
        text if text.is_empty() || text.contains(char::REPLACEMENT_CHARACTER) => {
            format!("token_id:{id}")
        }
        text => text,
    }
}
