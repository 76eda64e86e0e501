//! The parts of a `tokenizer.json`, as Hugging Face's released libraries write them.

use serde_json::{Map, Value, json};

/// The mark of a space in a piece.
pub(crate) const SPACE: char = '▁';

/// An entry of `added_tokens`.
pub(crate) fn added_token(id: u32, content: &str, special: bool) -> Value {
    json!({
        "id": id,
        "content": content,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": special,
    })
}

/// The `model` part of a BPE tokenizer; one with an unknown token falls back to bytes.
pub(crate) fn bpe_json(vocab: Map<String, Value>, merges: Value, unknown: Option<&str>) -> Value {
    json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": unknown,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": unknown.is_some(),
        "byte_fallback": unknown.is_some(),
        "ignore_merges": false,
        "vocab": vocab,
        "merges": merges,
    })
}

pub(crate) fn byte_level_pre_tokenizer() -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": true,
    })
}

pub(crate) fn byte_level_decoder() -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": true,
        "trim_offsets": true,
        "use_regex": true,
    })
}

/// Bytes first, so that the mark of a space is looked for in characters.
pub(crate) fn pieces_decoder() -> Value {
    json!({
        "type": "Sequence",
        "decoders": [
            {"type": "ByteFallback"},
            {
                "type": "Metaspace",
                "replacement": SPACE,
                "prepend_scheme": "always",
                "split": true,
            },
        ],
    })
}
