//! Starting points: the five models that tinylm unites, and a small Llama.
//!
//! A preset is a function from a vocabulary size to a complete config. It is data,
//! not a type: an experiment overrides any field, and what is stored is the result.

use tinylm_settings::choices;

use super::{Activation, Bias, ModelConfig, Norm, NormAt, Positions};

choices! {
    /// Where the shape of a model starts from.
    pub enum Preset {
        /// A post-norm ReLU transformer on a thousand words.
        Toiny = "toiny",
        /// A pre-norm GELU transformer with sinusoidal positions.
        Tinylm = "tinylm",
        /// GPT-2 124M without biases.
        Jojo = "jojo",
        /// A small GPT: 7.3M parameters at a vocabulary of 8,000.
        Mini = "mini",
        /// 41,343,965 parameters at a vocabulary of 32,105.
        FortyOne = "forty-one",
        /// Rotary positions, RMS norm, SwiGLU, grouped-query heads, no biases.
        LlamaTiny = "llama-tiny",
    }
}

const ALL_BIASES: Bias = Bias {
    norm: true,
    qkv: true,
    proj: true,
    mlp: true,
    head: true,
};
const NO_BIAS: Bias = Bias {
    norm: false,
    qkv: false,
    proj: false,
    mlp: false,
    head: false,
};

impl Preset {
    /// The dropout this model is usually trained with (one rate for all four places).
    pub fn dropout(self) -> f32 {
        match self {
            Preset::Tinylm | Preset::FortyOne => 0.1,
            Preset::Jojo => 0.2,
            Preset::Toiny | Preset::Mini | Preset::LlamaTiny => 0.0,
        }
    }

    pub fn config(self, vocab_size: usize) -> ModelConfig {
        match self {
            Preset::Toiny => ModelConfig {
                context: 512,
                n_layers: 6,
                n_heads: 8,
                n_kv_heads: 8,
                positions: Positions::Sinusoidal,
                norm_at: NormAt::Post,
                final_norm: false,
                activation: Activation::Relu,
                bias: ALL_BIASES,
                ..gpt(vocab_size, 256)
            },
            Preset::Tinylm => ModelConfig {
                context: 256,
                n_layers: 8,
                n_heads: 8,
                n_kv_heads: 8,
                positions: Positions::Sinusoidal,
                activation: Activation::Gelu,
                bias: ALL_BIASES,
                ..gpt(vocab_size, 512)
            },
            Preset::Jojo => ModelConfig {
                context: 1024,
                n_layers: 12,
                n_heads: 12,
                n_kv_heads: 12,
                bias: NO_BIAS,
                tied: true,
                ..gpt(vocab_size, 768)
            },
            Preset::Mini => gpt(vocab_size, 256),
            Preset::FortyOne => ModelConfig {
                context: 80,
                n_layers: 6,
                n_heads: 6,
                n_kv_heads: 6,
                d_ff: 2000,
                positions: Positions::Sinusoidal,
                norm: Norm::Rms,
                activation: Activation::Gelu,
                bias: Bias {
                    norm: false,
                    ..ALL_BIASES
                },
                embed_scale: 420f32.sqrt(),
                ..gpt(vocab_size, 420)
            },
            Preset::LlamaTiny => ModelConfig {
                context: 256,
                n_layers: 6,
                n_heads: 6,
                n_kv_heads: 2,
                d_ff: 768,
                positions: Positions::Rope,
                norm: Norm::Rms,
                activation: Activation::Swiglu,
                bias: NO_BIAS,
                tied: true,
                ..gpt(vocab_size, 288)
            },
        }
    }
}

/// A GPT of four layers and four heads, which the presets above vary.
fn gpt(vocab_size: usize, d_model: usize) -> ModelConfig {
    ModelConfig {
        vocab_size,
        context: 128,
        d_model,
        n_layers: 4,
        n_heads: 4,
        n_kv_heads: 4,
        d_ff: 4 * d_model,
        positions: Positions::Learned,
        rope_theta: 10_000.0,
        rope_share: 1.0,
        norm: Norm::Layer,
        norm_at: NormAt::Pre,
        parallel: false,
        final_norm: true,
        norm_eps: 1e-5,
        activation: Activation::GeluTanh,
        bias: Bias {
            head: false,
            ..ALL_BIASES
        },
        tied: false,
        embed_scale: 1.0,
    }
}

#[cfg(test)]
mod tests {
    use tinylm_settings::Choice;

    use super::*;

    #[test]
    fn presets_have_exactly_these_many_parameters() {
        let expected = [
            (Preset::Toiny, 1_000, 5_251_560),
            (Preset::Tinylm, 10_200, 35_675_096),
            (Preset::Jojo, 50_257, 124_337_664),
            (Preset::Mini, 8_000, 7_288_320),
            (Preset::FortyOne, 32_105, 41_343_965),
            (Preset::LlamaTiny, 32_000, 14_528_160),
        ];
        for (preset, vocab_size, n_params) in expected {
            let found = preset.config(vocab_size).n_params();
            assert_eq!(found, n_params, "{}", preset.word());
        }
    }
}
