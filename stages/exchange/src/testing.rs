//! Small models with random numbers, and the logits that they give.

use std::sync::Arc;

use tinylm_model::{
    config::{Activation, ModelConfig, Positions, Preset, ReadPrecision, Role},
    engine::{Tensor, Tensors},
    generate::{Model, Session},
    weights::Source,
};

use crate::change::Form;

/// The presets' settings at a size that takes no time. The width of an RMS model is odd per head.
pub(crate) fn small(preset: Preset) -> ModelConfig {
    let config = preset.config(61);
    let n_kv_heads = if config.n_kv_heads < config.n_heads {
        2
    } else {
        6
    };
    ModelConfig {
        context: 24,
        d_model: 36,
        n_layers: 3,
        n_heads: 6,
        n_kv_heads,
        d_ff: 144,
        ..config
    }
}

/// A model by name: a preset, and what is changed of it.
pub(crate) type Edit = (&'static str, Preset, fn(&mut ModelConfig));

pub(crate) fn config((_, preset, edit): Edit) -> ModelConfig {
    let mut config = small(preset);
    edit(&mut config);
    config.check().unwrap();
    config
}

/// Rope that turns a part of a head, and parts that read the same stream.
pub(crate) const PARTLY: [Edit; 4] = [
    ("mini, partly turning, parallel", Preset::Mini, |c| {
        (c.positions, c.rope_share, c.d_model) = (Positions::Rope, 0.25, 48);
        c.parallel = true;
    }),
    ("mini, gated, partly turning", Preset::Mini, |c| {
        (c.positions, c.rope_share, c.d_model) = (Positions::Rope, 0.5, 48);
        c.activation = Activation::Swiglu;
        (c.bias.proj, c.bias.mlp) = (false, false);
    }),
    ("llama, partly turning", Preset::LlamaTiny, |c| {
        (c.rope_share, c.d_model) = (0.5, 48);
    }),
    ("mini, parallel", Preset::Mini, |c| c.parallel = true),
];

pub(crate) fn tensors(config: &ModelConfig) -> Tensors {
    let mut state = 7u64;
    let mut noise = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let parameters = config.parameters().into_iter();
    parameters
        .map(|parameter| {
            let (centre, size) = match parameter.role {
                Role::Gain => (1.0, 0.3),
                Role::Hidden | Role::Residual => (0.0, 0.5),
                _ => (0.0, 0.4),
            };
            let data = (0..parameter.n())
                .map(|_| centre + size * noise())
                .collect();
            let shape = parameter.shape;
            (parameter.name, Tensor { shape, data })
        })
        .collect()
}

/// The logits after each of some tokens.
pub(crate) fn logits(form: &Form<'_>) -> Vec<f32> {
    let parameters = form.config.parameters().into_iter();
    let tensors = parameters.map(|parameter| {
        let data = form.numbers(&parameter.name).unwrap().into_owned();
        let shape = parameter.shape;
        assert_eq!(
            data.len(),
            shape.iter().product::<usize>(),
            "{}",
            parameter.name
        );
        (parameter.name, Tensor { shape, data })
    });
    let model = Model::from_tensors(form.config.clone(), &tensors.collect(), ReadPrecision::F32);
    let mut session = Session::new(Arc::new(model.unwrap()), 1);
    let ids = (0..20).map(|idx| idx * 17 % 61);
    ids.flat_map(|id| session.feed(&[id]).unwrap().to_vec())
        .collect()
}

/// The largest difference of two lists of logits, relative to the largest logit.
pub(crate) fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let most =
        |numbers: &mut dyn Iterator<Item = f32>| numbers.fold(0.0, |m: f32, x| m.max(x.abs()));
    let largest = most(&mut a.iter().copied());
    most(&mut a.iter().zip(b).map(|(a, b)| a - b)) / largest
}
