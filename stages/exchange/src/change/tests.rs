//! A model says the same before and after every change.

use tinylm_model::config::{Activation, Preset};
use tinylm_settings::Choice;

use super::*;
use crate::testing::{difference, logits, small, tensors};

const ALL: Bias = Bias {
    norm: true,
    qkv: true,
    proj: true,
    mlp: true,
    head: false,
};

/// Settings in which a GPT may differ from GPT-2, in every combination.
fn gpts() -> Vec<ModelConfig> {
    let mut configs = Vec::new();
    for bits in 0..128_u32 {
        let is_set = |bit: u32| bits >> bit & 1 == 1;
        let mut config = small(Preset::Mini);
        config.norm = if is_set(0) { Norm::Rms } else { Norm::Layer };
        config.bias.head = is_set(1);
        config.positions = [Positions::Learned, Positions::Sinusoidal][usize::from(is_set(2))];
        config.embed_scale = if is_set(3) { 6.0 } else { 1.0 };
        config.tied = is_set(4);
        config.n_kv_heads = if is_set(5) { 2 } else { 6 };
        config.bias.norm = !is_set(0) && is_set(6);
        (config.bias.qkv, config.bias.proj, config.bias.mlp) = (is_set(6), is_set(6), is_set(6));
        config.activation = Activation::Gelu;
        configs.push(config);
    }
    configs
}

#[test]
fn every_gpt_says_the_same_as_a_gpt2() {
    for config in gpts() {
        let tensors = tensors(&config);
        let before = logits(&Form::new(config.clone(), tensors.clone()));
        let all = [
            Change::TabulatePositions,
            Change::ScaleEmbedding { to: 1.0 },
            Change::RepeatHeads,
            Change::Widen,
            Change::AddBiases(ALL),
        ];
        let form = all
            .into_iter()
            .fold(Form::new(config.clone(), tensors), Form::changed);
        let found = &form.config;
        assert_eq!(found.check(), Ok(()));
        assert_eq!((found.norm, found.bias), (Norm::Layer, ALL));
        assert_eq!(found.positions, Positions::Learned);
        assert_eq!((found.n_kv_heads, found.embed_scale), (6, 1.0));
        let difference = difference(&before, &logits(&form));
        assert!(difference < 1e-5, "{difference} {config:?}");
    }
}

#[test]
fn a_change_alone_keeps_what_is_said_whatever_the_model() {
    for &preset in Preset::ALL {
        let config = small(preset);
        let tensors = tensors(&config);
        let before = logits(&Form::new(config.clone(), tensors.clone()));
        let no_norm = Bias { norm: false, ..ALL };
        for change in [
            Change::TabulatePositions,
            Change::ScaleEmbedding { to: 2.5 },
            Change::RepeatHeads,
            Change::AddBiases(no_norm),
        ] {
            let form = Form::new(config.clone(), tensors.clone()).changed(change);
            let difference = difference(&before, &logits(&form));
            assert!(
                difference < 1e-5,
                "{difference} {change:?} {}",
                preset.word()
            );
        }
    }
}

#[test]
fn what_has_nothing_to_change_stays_as_it_is() {
    let config = small(Preset::Mini);
    for change in [
        Change::TabulatePositions,
        Change::ScaleEmbedding { to: 1.0 },
        Change::RepeatHeads,
        Change::Widen,
        Change::AddBiases(ALL),
    ] {
        assert_eq!(change.config(&config), config, "{change:?}");
    }
}
