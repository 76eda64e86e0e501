//! The settings of a file that are about the model, under the keys that llama.cpp reads.

use tinylm_model::config::{ModelConfig, Norm, Positions};

use super::{choice::Architecture, numbers::Numbers, write::Field};

pub(super) fn of(
    architecture: Architecture,
    config: &ModelConfig,
    numbers: Numbers,
) -> Vec<(String, Field)> {
    let name = architecture.name();
    let mut fields = vec![
        ("general.architecture".to_owned(), Field::text(name)),
        ("general.type".to_owned(), Field::text("model")),
        (
            "general.file_type".to_owned(),
            Field::U32(numbers.file_type()),
        ),
    ];
    if numbers.is_quantised() {
        fields.push(("general.quantization_version".to_owned(), Field::U32(2)));
    }
    let mut put = |key: &str, field: Field| fields.push((format!("{name}.{key}"), field));
    let count = |n: usize| Field::U32(n as u32);
    put("context_length", count(config.context));
    put("embedding_length", count(config.d_model));
    put("block_count", count(config.n_layers));
    put("feed_forward_length", count(config.d_ff));
    put("attention.head_count", count(config.n_heads));
    put("attention.head_count_kv", count(config.n_kv_heads));
    put("vocab_size", count(config.vocab_size));
    let eps = match config.norm {
        Norm::Rms => "attention.layer_norm_rms_epsilon",
        Norm::Layer => "attention.layer_norm_epsilon",
    };
    put(eps, Field::F32(config.norm_eps));
    if config.positions == Positions::Rope {
        put("rope.dimension_count", count(config.d_turned()));
        put("rope.freq_base", Field::F32(config.rope_theta));
    }
    if architecture == Architecture::GptNeox {
        put("use_parallel_residual", Field::Bool(config.parallel));
    }
    fields
}
