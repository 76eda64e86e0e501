//! A model of another program taken in, spoken to and gone on with; and what is no model.

mod adapters;

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;
use tinylm_model::{
    config::ReadPrecision,
    engine::{Tensor, Tensors},
    folder::{ModelFolder, Which},
    weights::write_tensors,
};
use tinylm_pipeline::testing::{Outcome, StageTest};

use super::*;
use crate::shared::{
    speak::Speaker,
    template::{Role as Speaks, Spacing, Template},
    tokens::{
        Tokenizer, byte_level_char,
        json::{added_token, bpe_json, byte_level_decoder, byte_level_pre_tokenizer},
    },
};

/// A GPT-2 of one block that knows bytes and two marks, and three rows that no token has.
fn write_gpt2(folder: &Path) {
    let config = json!({
        "model_type": "gpt2", "vocab_size": 261, "n_embd": 4, "n_layer": 1, "n_head": 2,
        "n_positions": 64, "eos_token_id": 257,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let shapes: [(&str, &[usize]); 16] = [
        ("wte.weight", &[261, 4]),
        ("wpe.weight", &[64, 4]),
        ("h.0.ln_1.weight", &[4]),
        ("h.0.ln_1.bias", &[4]),
        ("h.0.attn.c_attn.weight", &[4, 12]),
        ("h.0.attn.c_attn.bias", &[12]),
        ("h.0.attn.c_proj.weight", &[4, 4]),
        ("h.0.attn.c_proj.bias", &[4]),
        ("h.0.ln_2.weight", &[4]),
        ("h.0.ln_2.bias", &[4]),
        ("h.0.mlp.c_fc.weight", &[4, 16]),
        ("h.0.mlp.c_fc.bias", &[16]),
        ("h.0.mlp.c_proj.weight", &[16, 4]),
        ("h.0.mlp.c_proj.bias", &[4]),
        ("ln_f.weight", &[4]),
        ("ln_f.bias", &[4]),
    ];
    let tensors: Tensors = shapes
        .iter()
        .map(|(name, shape)| {
            let n: usize = shape.iter().product();
            let data = (0..n).map(|idx| (idx as f32 * 0.7).sin()).collect();
            let shape = shape.to_vec();
            ((*name).to_owned(), Tensor { shape, data })
        })
        .collect();
    write_tensors(&folder.join("model.safetensors"), &tensors).unwrap();
    write_tokenizer(folder);
}

fn write_tokenizer(folder: &Path) {
    let mut vocab: serde_json::Map<String, Value> = (0..=255_u8)
        .map(|byte| (byte_level_char(byte).to_string(), Value::from(byte)))
        .collect();
    let marks = ["<|im_start|>", "<|im_end|>"];
    let added: Vec<Value> = marks
        .iter()
        .zip(256..)
        .map(|(mark, id)| added_token(id, mark, true))
        .collect();
    vocab.extend(
        marks
            .iter()
            .zip(256..)
            .map(|(mark, id)| ((*mark).to_owned(), Value::from(id))),
    );
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level_pre_tokenizer(),
        "decoder": byte_level_decoder(),
        "model": bpe_json(vocab, json!([]), None),
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

fn import(folder: &Path, settings: &str) -> Result<Outcome, StageError> {
    StageTest::new(folder.parent().unwrap())
        .input("weights", folder)
        .run::<Import>(settings)
}

fn with_gpt2(change: impl FnOnce(&Path)) -> (TempDir, Result<Outcome, StageError>) {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("files");
    fs::create_dir(&folder).unwrap();
    write_gpt2(&folder);
    change(&folder);
    let outcome = import(&folder, "{context: 32}");
    (dir, outcome)
}

#[test]
fn a_model_speaks_with_its_own_ids_and_its_own_template() {
    let chatml = Template::Chatml.jinja(Spacing::Nowhere);
    let (_dir, outcome) = with_gpt2(|folder| {
        fs::write(folder.join("chat_template.jinja"), &chatml).unwrap();
    });
    let out = outcome.unwrap().out;
    let tokenizer = Tokenizer::load(&out).unwrap();
    assert!(tokenizer.knows_turns());
    assert_eq!(tokenizer.vocab_size(), 261);
    assert_eq!(tokenizer.stop_ids(), [257]);
    let ids = tokenizer
        .render_chat(&[(Speaks::User, "hi")], true)
        .unwrap();
    let written = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(tokenizer.decode_all(&ids).unwrap(), written);
    assert_eq!((ids[0], ids[1]), (256, u32::from(b'u')));
    let folder = ModelFolder::open(&out).unwrap();
    assert_eq!(folder.config().unwrap().context, 32);
    let mut speaker = Speaker::open(&out, Which::Best, ReadPrecision::F32, 1).unwrap();
    assert!(speaker.is_chat() && speaker.session().config().vocab_size == 261);
}

#[test]
fn weights_that_no_step_followed_are_best_and_last_and_written_once() {
    let (_dir, outcome) = with_gpt2(|_| ());
    let out = outcome.unwrap().out;
    assert!(!out.join("last.safetensors").exists());
    let (folder, config) = (
        ModelFolder::open(&out).unwrap(),
        ModelFolder::open(&out).unwrap().config().unwrap(),
    );
    let [best, last] =
        [Which::Best, Which::Last].map(|which| folder.weights(which, &config).unwrap());
    assert_eq!(best, last);
}

#[test]
fn a_model_without_a_template_continues_texts() {
    let (_dir, outcome) = with_gpt2(|_| ());
    let tokenizer = Tokenizer::load(&outcome.unwrap().out).unwrap();
    assert!(!tokenizer.knows_turns());
    assert_eq!(tokenizer.generation().eos.as_deref(), Some("<|im_end|>"));
}

#[test]
fn what_is_no_model_is_refused_with_what_would_be_one() {
    let changes: [fn(&Path); 7] = [
        |folder| fs::remove_file(folder.join("config.json")).unwrap(),
        |folder| fs::rename(folder.join("config.json"), folder.join("tinylm.json")).unwrap(),
        |folder| fs::rename(folder.join("model.safetensors"), folder.join("weights")).unwrap(),
        |folder| {
            fs::rename(
                folder.join("model.safetensors"),
                folder.join("pytorch_model.bin"),
            )
            .unwrap()
        },
        |folder| {
            fs::write(
                folder.join("model.safetensors"),
                b"PK\x03\x04 a pickle in disguise",
            )
            .unwrap()
        },
        |folder| fs::remove_file(folder.join("tokenizer.json")).unwrap(),
        |folder| {
            let config = fs::read_to_string(folder.join("config.json")).unwrap();
            fs::write(
                folder.join("config.json"),
                config.replace("eos_token_id", "eos"),
            )
            .unwrap();
        },
    ];
    let mut messages = Vec::new();
    for change in changes {
        let (dir, outcome) = with_gpt2(change);
        messages.push(match outcome {
            Err(error) => {
                let root = dir.path().display().to_string();
                format!(
                    "{} {}",
                    error.message.replace(&root, "DIR"),
                    error.cause.unwrap_or_default().replace(&root, "DIR")
                )
            }
            Ok(outcome) => format!("made {:?}", outcome.metrics),
        });
    }
    insta::assert_snapshot!(messages.join("\n"), @"
    there is no model among these files: model.safetensors, tokenizer.json 
    with `tinylm.json` these files are a model as tinylm keeps it 
    there is no model among these files: config.json, tokenizer.json, weights 
    `pytorch_model.bin` is a pickle, which is a program and is not run here 
    `model.safetensors` is a pickle, which is a program and is not run here 
    there is no tokenizer among the files 
    nothing says with which token its texts end
    ");
}
