//! Shapes like those of real models.
//!
//! The small shapes of the other tests end before any loop over the lanes of a warp, the threads of a block
//! or the columns of a tile takes its second turn, and their heads are too narrow for the tiles of 16. Here
//! every such loop turns again, and every kernel that there is must have been launched.

use std::collections::BTreeSet;

use dfdx::prelude::Cpu;

use super::reading::READING;
use super::*;
use crate::PlainEngine;
use crate::config::Preset;
use crate::dfdx_engine::tests::{distance, packed_of};
use crate::engine::{Batch, Tensors, UpdateStats};
use crate::gpu::kernels::{is_tensor, names};

const VOCAB_SIZE: usize = 2000;
const LEN: usize = 40;

/// Wide rows with heads of 70, three of which share keys; heads of 128 that are turned, with a gate; and
/// a narrow one for Muon, whose products take the emulator longest.
fn shapes() -> [(&'static str, Optimizer, ModelConfig); 3] {
    let of = |preset: Preset| ModelConfig {
        context: LEN,
        n_layers: 1,
        ..preset.config(VOCAB_SIZE)
    };
    let wide = ModelConfig {
        d_model: 420,
        n_heads: 6,
        n_kv_heads: 2,
        d_ff: 600,
        ..of(Preset::Mini)
    };
    let wide_heads = ModelConfig {
        d_model: 256,
        n_heads: 2,
        n_kv_heads: 2,
        d_ff: 520,
        ..of(Preset::LlamaTiny)
    };
    let narrow = ModelConfig {
        d_model: 136,
        n_heads: 2,
        n_kv_heads: 2,
        d_ff: 272,
        ..of(Preset::FortyOne)
    };
    [
        ("420 wide", Optimizer::Adamw, wide),
        ("heads of 128", Optimizer::Adamw, wide_heads),
        ("136 wide", Optimizer::Muon, narrow),
    ]
}

/// So that a small gradient moves its weight a little: with AdamW's usual `eps` the last digits of a tiny
/// one decide whether it moves up or down.
fn settings(optimizer: Optimizer) -> EngineSettings {
    EngineSettings {
        optimizer,
        eps: 1e-3,
        ..with_everything()
    }
}

fn batch(seed: u64) -> Batch {
    packed_of(VOCAB_SIZE, 2, LEN, seed)
}

/// No gain at one and no bias at zero. Matrices are only larger than they start: the pattern that stirs the
/// narrow ones would add up along a wide row, and scores of thousands leave no digits to compare.
fn stir(engine: &mut dyn Engine) {
    let mut weights = engine.weights().unwrap();
    for tensor in weights.values_mut() {
        let is_matrix = tensor.shape.len() == 2;
        for (i, x) in tensor.data.iter_mut().enumerate() {
            let wave = ((i * 7) % 11) as f32 - 5.0;
            *x = if is_matrix {
                2.0 * *x
            } else {
                *x + 0.02 * wave
            };
        }
    }
    engine.load_weights(&weights).unwrap();
}

/// An engine in the emulator, and what can be seen of its device.
fn in_emulator(
    watch: Watch,
    config: &ModelConfig,
    settings: &EngineSettings,
    order: u32,
) -> (GpuEngine, Rc<Watched>) {
    let (mut engine, device) = watch(config, settings, 3, order);
    stir(&mut engine);
    (engine, device)
}

fn in_plain(config: &ModelConfig, settings: &EngineSettings) -> impl Engine {
    let what = (config.clone(), settings.clone());
    let mut engine = PlainEngine::on(Cpu::default(), what.0, what.1, 3, 1).unwrap();
    stir(&mut engine);
    engine
}

/// One update of two micro-batches, and how far each weight was moved.
fn update(engine: &mut dyn Engine) -> (UpdateStats, Tensors) {
    let before = engine.weights().unwrap();
    let mut pass = |seed| engine.accumulate(&batch(seed), PASS).unwrap();
    let update = Update {
        step: 1,
        lr: 0.1,
        divisor: pass(2).weight + pass(4).weight,
        clip: 0.1,
    };
    let stats = engine.update(&update).unwrap();
    let mut moved = engine.weights().unwrap();
    for (name, tensor) in &mut moved {
        for (after, before) in tensor.data.iter_mut().zip(&before[name].data) {
            *after -= before;
        }
    }
    (stats, moved)
}

#[track_caller]
fn assert_same_update(name: &str, found: &mut dyn Engine, plain: &mut dyn Engine) {
    let ((found, moved), (plain, expected)) = (update(found), update(plain));
    assert!(found.applied && plain.applied, "{name}");
    let off = (found.grad_norm / plain.grad_norm - 1.0).abs();
    assert!(off < 1e-5, "{name}: {found:?} {plain:?}");
    assert!(plain.grad_norm > 0.1, "{name}: nothing is clipped");
    for (tensor, expected) in &expected {
        let distance = distance(&expected.data, &moved[tensor].data);
        assert!(distance < 5e-3, "{name}: `{tensor}` moved {distance:e} off");
    }
}

/// Gradients, scores and one update.
#[track_caller]
fn assert_same(name: &str, found: &mut dyn Engine, plain: &mut dyn Engine) {
    let gradients_of = |engine: &mut dyn Engine| gradients(engine, &batch(1));
    assert_close(name, &gradients_of(found), &gradients_of(plain), 2e-4);
    let scores = found.evaluate(&batch(3)).unwrap();
    assert!(scores.iter().any(|score| score.rank < 255), "{name}");
    for (a, b) in scores.iter().zip(plain.evaluate(&batch(3)).unwrap()) {
        // Two logits may be as good as equal.
        let is_same = (a.nll - b.nll).abs() < 1e-4 && a.rank.abs_diff(b.rank) <= 1;
        assert!(is_same, "{name}: {a:?} {b:?}");
    }
    assert_same_update(name, found, plain);
}

#[test]
fn shapes_of_real_models_compute_what_the_plain_operations_do() {
    if !is_emulated() {
        return;
    }
    let mut launched = BTreeSet::new();
    for (name, optimizer, config) in shapes() {
        let settings = settings(optimizer);
        for watch in WATCHES {
            let (mut engine, device) = in_emulator(watch, &config, &settings, 0);
            assert_same(name, &mut engine, &mut in_plain(&config, &settings));
            launched.extend(device.launched.borrow().iter().copied());
        }
        let settings = EngineSettings {
            precision: Precision::Bf16,
            ..settings
        };
        let (mut engine, device) = in_emulator(library::watched, &config, &settings, 0);
        update(&mut engine);
        launched.extend(device.launched.borrow().iter().copied());
    }
    launched.retain(|name| !is_tensor(name));
    // A library's products are followed by what follows those of reading.
    let trains =
        |name: &&str| (!READING.contains(name) || *name == "finish_parts") && !is_tensor(name);
    assert_eq!(
        launched,
        names().filter(trains).collect(),
        "kernels that nothing launched"
    );
}

#[test]
fn a_card_learns_and_scores_as_the_plain_operations_do() {
    if let Err(why) = crate::gpu::find(0) {
        return skipped(&why);
    }
    for (name, optimizer, config) in shapes() {
        let settings = settings(optimizer);
        let what = (config.clone(), settings.clone());
        let card = GpuEngine::new(crate::machine::Device::CUDA, what.0, what.1, 3).unwrap();
        let with_a_library = library::on_card(&config, &settings, 3);
        for mut card in [Some(card), with_a_library].into_iter().flatten() {
            stir(&mut card);
            assert_same(name, &mut card, &mut in_plain(&config, &settings));
        }
    }
}

#[test]
fn a_card_multiplies_in_bf16_as_the_emulator_does() {
    if let Err(why) = crate::gpu::find(0) {
        return skipped(&why);
    }
    if !is_emulated() {
        return;
    }
    for (name, optimizer, config) in shapes() {
        let settings = EngineSettings {
            precision: Precision::Bf16,
            ..settings(optimizer)
        };
        let what = (config.clone(), settings.clone());
        let mut card = GpuEngine::new(crate::machine::Device::CUDA, what.0, what.1, 3).unwrap();
        stir(&mut card);
        let found = gradients(&mut card, &batch(1));
        let expected = gradients(
            &mut in_emulator(watched, &config, &settings, 0).0,
            &batch(1),
        );
        assert_close(name, &found, &expected, BF16_BOUND);
    }
}

#[cfg(feature = "gpu")]
#[test]
fn any_gpu_learns_and_scores_as_the_plain_operations_do() {
    for (name, optimizer, config) in shapes() {
        let settings = settings(optimizer);
        let Some(mut engine) = super::portable::fresh(&config, &settings, 3) else {
            return;
        };
        stir(&mut engine);
        assert_same(name, &mut engine, &mut in_plain(&config, &settings));
    }
}

#[test]
fn shapes_of_real_models_compute_the_same_bits_in_any_order_of_threads() {
    if !is_emulated() {
        return;
    }
    for (name, optimizer, config) in shapes().into_iter().skip(1) {
        let settings = EngineSettings {
            precision: Precision::Bf16,
            ..settings(optimizer)
        };
        for watch in WATCHES {
            let engine = |order| in_emulator(watch, &config, &settings, order).0;
            let train = |order| update(&mut engine(order)).1;
            assert!(train(0) == train(3), "{name}");
        }
    }
}
