//! A model folder small enough to be made in a test: bytes as tokens, random weights.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tinylm_model::{
    config::{ModelConfig, Preset, Role},
    engine::{Tensor, Tensors},
    shards::{DocumentRecord, TARGET},
    weights::write_tensors,
};

use crate::shared::tokens::byte_level_char;

pub(crate) const IM_START: u16 = 256;
pub(crate) const IM_END: u16 = 257;
pub(crate) const END_OF_TEXT: u16 = 258;
pub(crate) const VOCAB_SIZE: usize = 259;

/// A Llama-like model of two layers with a context of 64.
pub(crate) fn config() -> ModelConfig {
    ModelConfig {
        context: 64,
        d_model: 32,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        d_ff: 48,
        ..Preset::LlamaTiny.config(VOCAB_SIZE)
    }
}

pub(crate) fn tensors(config: &ModelConfig) -> Tensors {
    let mut state = 1u64;
    let mut noise = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let parameters = config.parameters().into_iter();
    parameters
        .map(|parameter| {
            let centre = if parameter.role == Role::Gain {
                1.0
            } else {
                0.0
            };
            let data = (0..parameter.n()).map(|_| centre + 0.4 * noise()).collect();
            let shape = parameter.shape;
            (parameter.name, Tensor { shape, data })
        })
        .collect()
}

/// Writes a model folder with its tokenizer.
pub(crate) fn write_model(folder: &Path, config: &ModelConfig) {
    fs::create_dir_all(folder).unwrap();
    fs::write(
        folder.join("tinylm.json"),
        serde_json::to_vec(config).unwrap(),
    )
    .unwrap();
    write_tensors(&folder.join("model.safetensors"), &tensors(config)).unwrap();
    write_tokenizer(folder, "chatml");
}

/// Writes a tokenizer of single bytes and the three marks of ChatML.
pub(crate) fn write_tokenizer(folder: &Path, template: &str) {
    let mut vocab: serde_json::Map<String, Value> = (0..=255u8)
        .map(|byte| (byte_level_char(byte).to_string(), json!(byte)))
        .collect();
    let specials = [
        ("<|im_start|>", IM_START),
        ("<|im_end|>", IM_END),
        ("<|endoftext|>", END_OF_TEXT),
    ];
    for (name, id) in specials {
        vocab.insert(name.to_owned(), json!(id));
    }
    let added = specials.map(|(content, id)| {
        json!({
            "id": id, "content": content, "special": true, "normalized": false,
            "lstrip": false, "rstrip": false, "single_word": false,
        })
    });
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocab, "merges": [],
        },
    });
    let generation = json!({
        "template": template,
        "stop": ["<|im_end|>", "<|endoftext|>"],
        "stop_ids": [IM_END, END_OF_TEXT],
        "bos": null, "bos_id": null,
        "eos": "<|endoftext|>", "eos_id": END_OF_TEXT,
        "pad_id": null,
        "specials": {"<|im_start|>": IM_START, "<|im_end|>": IM_END, "<|endoftext|>": END_OF_TEXT},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(folder.join("generation.json"), generation.to_string()).unwrap();
    fs::write(folder.join("chat_template.jinja"), "").unwrap();
}

/// Writes shards with one split from documents of `(source, ids, roles)`.
pub(crate) fn write_shards(folder: &Path, split: &str, documents: &[(u16, Vec<u16>, Vec<u8>)]) {
    fs::create_dir_all(folder).unwrap();
    let (mut bin, mut idx, mut roles) = (Vec::new(), Vec::new(), Vec::new());
    for (source, ids, document_roles) in documents {
        let n_bytes = ids.iter().filter(|&&id| id < 256).count();
        let record = DocumentRecord {
            start: roles.len() as u64,
            bytes: n_bytes as u32,
            source: *source,
        };
        idx.extend(record.encode());
        bin.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        roles.extend(document_roles);
    }
    let n_targets = roles.iter().filter(|&&role| role & TARGET != 0).count();
    let counts = json!({
        "tokens": roles.len(), "documents": documents.len(), "targets": n_targets,
        "files": [{"name": format!("{split}-00000.bin"), "tokens": roles.len(), "documents": documents.len()}],
    });
    for (extension, bytes) in [("bin", bin), ("idx", idx), ("roles", roles)] {
        fs::write(folder.join(format!("{split}-00000.{extension}")), bytes).unwrap();
    }
    let index = json!({
        "version": 1, "vocab_size": VOCAB_SIZE, "sources": ["first", "second"],
        "template": "chatml", "splits": {split: counts}, "stats": {},
    });
    fs::write(folder.join("shards.json"), index.to_string()).unwrap();
    write_tokenizer(folder, "chatml");
}

/// A dialogue as ChatML ids with roles; the assistant's content and its end are targets.
pub(crate) fn dialogue(user: &str, assistant: &str) -> (Vec<u16>, Vec<u8>) {
    let (mut ids, mut roles) = (Vec::new(), Vec::new());
    let mut push = |text: &str, mark: Option<u16>, role: u8| {
        let new: Vec<u16> = mark
            .into_iter()
            .chain(text.bytes().map(u16::from))
            .collect();
        roles.resize(roles.len() + new.len(), role);
        ids.extend(new);
    };
    push("user\n", Some(IM_START), 2);
    push(user, None, 2);
    push("\n", Some(IM_END), 2);
    push("assistant\n", Some(IM_START), 3);
    push(assistant, None, 3 | TARGET);
    push("", Some(IM_END), 3 | TARGET);
    push("\n", None, 3);
    push("", Some(END_OF_TEXT), 0);
    (ids, roles)
}
