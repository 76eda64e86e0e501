//! The tensors of each architecture under llama.cpp's names.

use std::collections::BTreeMap;

use tinylm_model::config::ModelConfig;

use super::choice::Architecture;
use crate::layout::Tensor;

/// The tensors of an architecture that a model of this shape has been fitted to.
pub(super) fn tensors(
    architecture: Architecture,
    config: &ModelConfig,
) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    let mut part = |from: &str, name: &str, lay: &dyn Fn(Tensor) -> Tensor| {
        for sort in ["weight", "bias"] {
            let tensor = Tensor::of(config, &format!("{from}.{sort}"));
            if !tensor.shape.is_empty() {
                tensors.insert(format!("{name}.{sort}"), lay(tensor));
            }
        }
    };
    for (from, name) in [
        ("embed", "token_embd"),
        ("positions", "position_embd"),
        ("norm", "output_norm"),
        ("head", "output"),
    ] {
        part(from, name, &|tensor| tensor);
    }
    // It asks for a head of its own.
    let has_own_head = matches!(architecture, Architecture::StableLm | Architecture::GptNeox);
    if has_own_head && config.tied {
        part("embed", "output", &|tensor| tensor);
    }
    for i in 0..config.n_layers {
        let (from, to) = (
            |part: &str| format!("blocks.{i}.{part}"),
            |part: &str| format!("blk.{i}.{part}"),
        );
        for (ours, name) in [
            ("norm1", "attn_norm"),
            ("norm2", "ffn_norm"),
            ("proj", "attn_output"),
            ("gate", "ffn_gate"),
            ("up", "ffn_up"),
            ("down", "ffn_down"),
        ] {
            part(&from(ours), &to(name), &|tensor| tensor);
        }
        if matches!(architecture, Architecture::Gpt2 | Architecture::GptNeox) {
            part(&from("qkv"), &to("attn_qkv"), &|tensor| {
                tensor.turned_first(config)
            });
            continue;
        }
        let (d, d_kv) = (config.d_model, config.d_kv());
        let rows = [0..d, d..d + d_kv, d + d_kv..d + 2 * d_kv];
        for (name, rows) in ["attn_q", "attn_k", "attn_v"].into_iter().zip(rows) {
            // Llama's rope turns neighbours, ours two that are half a head apart.
            let is_turned = architecture == Architecture::Llama && name != "attn_v";
            part(&from("qkv"), &to(name), &|tensor| {
                let tensor = tensor.turned_first(config).rows(rows.clone());
                match is_turned {
                    true => tensor.halves_interleaved(config.d_head()),
                    false => tensor,
                }
            });
        }
    }
    tensors
}
