//! What is fed to a graph and what is read from it, by the names that all programs expect.

use tinylm_model::{config::ModelConfig, trace::LOGITS};

use super::graph::{Dimension, Graph, Port, Sort};

pub(super) const IDS: &str = "input_ids";
pub(super) const MASK: &str = "attention_mask";
pub(super) const POSITIONS: &str = "position_ids";

/// Tokens and their cache go in, logits and the longer cache come out.
pub(super) fn ports(graph: &mut Graph, config: &ModelConfig) {
    const BATCH: Dimension = Dimension::Named("batch_size");
    const NEW: Dimension = Dimension::Named("sequence_length");
    const PAST: Dimension = Dimension::Named("past_sequence_length");
    const ALL: Dimension = Dimension::Named("past_sequence_length + sequence_length");
    let port = |name: &str, sort, shape| Port {
        name: name.to_owned(),
        sort,
        shape,
    };
    graph.inputs = vec![
        port(IDS, Sort::I64, vec![BATCH, NEW]),
        port(MASK, Sort::I64, vec![BATCH, ALL]),
        port(POSITIONS, Sort::I64, vec![BATCH, NEW]),
    ];
    let vocabulary = Dimension::Fixed(config.vocab_size);
    graph.outputs = vec![port(LOGITS, Sort::F32, vec![BATCH, NEW, vocabulary])];
    let (heads, width) = (config.n_kv_heads, config.d_head());
    let cache = |n| vec![BATCH, Dimension::Fixed(heads), n, Dimension::Fixed(width)];
    for layer in 0..config.n_layers {
        for what in ["key", "value"] {
            let (past, present) = (past(layer, what), present(layer, what));
            graph.inputs.push(port(&past, Sort::F32, cache(PAST)));
            graph.outputs.push(port(&present, Sort::F32, cache(ALL)));
        }
    }
}

pub(super) fn past(layer: usize, what: &str) -> String {
    format!("past_key_values.{layer}.{what}")
}

pub(super) fn present(layer: usize, what: &str) -> String {
    format!("present.{layer}.{what}")
}
