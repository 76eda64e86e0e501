//! A model as a graph for onnxruntime, laid out for transformers.js, optimum and onnxruntime-genai.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tinylm_exchange::{
    Claim,
    hf::Ids,
    onnx::{BYTES_MAX, Export},
};
use tinylm_model::{config::ModelConfig, sampler::Sampling, weights::TensorFile};
use tinylm_pipeline::{At, StageError};

use super::{
    ask::{Ask, opened},
    card,
    exported::Exported,
    files::{Described, GENAI_NAME, GRAPH_NAME},
    ids::{self, Reader},
};
use crate::shared::{decimal::decimal, json::write_json, tokens::Tokenizer};

pub(super) fn write(
    ask: &Ask<'_>,
    config: &ModelConfig,
    tensors: TensorFile,
    tokenizer: &Tokenizer,
    out: &Path,
) -> Result<Exported, StageError> {
    let model = Export::of(config.clone(), tensors);
    if model.n_bytes() > BYTES_MAX {
        return Err(StageError::new(
            "the model does not fit into an ONNX file, which ends at 2 GiB",
        )
        .help("`--to hf` and `--to gguf` take every size")
        .is_final());
    }
    let described = Described {
        from: ask.model,
        ours: config,
        claim: &Claim::Exact,
        tokenizer,
        has_cache: true,
    };
    let ids = described.write(out, |ids| model.settings(ids))?;
    write_json(&out.join(GENAI_NAME), &genai(config, tokenizer, ids))?;
    let share = ids::check(out, tokenizer, ask.documents, Reader::HuggingFace)?;
    let path = out.join(GRAPH_NAME);
    let folder = path.parent().unwrap_or(out);
    fs::create_dir(folder).at(folder)?;
    opened(model.write(&path))?;
    let exported = Exported {
        to: ask.to,
        form: "graph",
        has_code: false,
        claim: Claim::Exact,
        numbers: ask.numbers,
        n_fallen_back: 0,
        share,
        widths: (config.d_model, config.d_model),
        n_params: config.n_params(),
        n_tokens: None,
    };
    card::write(out, ask.story, &exported, tokenizer)?;
    Ok(exported)
}

/// What onnxruntime-genai reads.
fn genai(c: &ModelConfig, tokenizer: &Tokenizer, ids: Ids) -> Value {
    let sampling = Sampling::default();
    let stop = tokenizer.stop_ids();
    json!({
        "model": {
            // The sort whose inputs and outputs are those named below, whatever computes them.
            "type": "decoder",
            "bos_token_id": ids.bos.or(ids.eos),
            "eos_token_id": stop,
            "pad_token_id": ids.pad,
            "context_length": c.context,
            "vocab_size": c.vocab_size,
            "decoder": {
                "filename": GRAPH_NAME,
                "head_size": c.d_head(),
                "hidden_size": c.d_model,
                "num_attention_heads": c.n_heads,
                "num_hidden_layers": c.n_layers,
                "num_key_value_heads": c.n_kv_heads,
                "session_options": {"provider_options": []},
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": true,
            "temperature": decimal(sampling.temperature),
            "top_k": sampling.top_k,
            "top_p": decimal(sampling.top_p),
            "max_length": c.context,
            "min_length": 0,
            "num_beams": 1,
            "repetition_penalty": 1.0,
            "past_present_share_buffer": false,
        },
    })
}
