//! Laws of adapters: the base stays, the factors learn, and only they have moments.

use super::*;
use crate::adapter::{Adapter, Projection, add_product};

fn adapter(rank: usize) -> Option<Adapter> {
    Some(Adapter {
        rank,
        alpha: 16.0,
        on: vec![Projection::Qkv, Projection::Gate, Projection::Down],
    })
}

/// An engine whose blocks have adapters, and which trains nothing else.
fn adapted(config: &ModelConfig, optimizer: Optimizer, threads: usize) -> CpuEngine {
    let adapter = adapter(4);
    let is_on = |name: &str| adapter.as_ref().unwrap().is_on(name);
    let names = config.parameters().into_iter().map(|p| p.name);
    let settings = EngineSettings {
        optimizer,
        frozen: names.filter(|name| !is_on(name)).collect(),
        adapter: adapter.clone(),
        ..EngineSettings::default()
    };
    cpu(config, &settings, threads)
}

fn steps(engine: &mut CpuEngine, steps: std::ops::Range<u64>) -> f64 {
    let mut loss = 0.0;
    for step in steps {
        let sum = engine
            .accumulate(&plain_rows(2, 12, 8), Pass { seed: 1, step })
            .unwrap();
        loss = sum.nll / sum.weight;
        let update = Update {
            step,
            lr: 0.02,
            divisor: sum.weight,
            clip: 1.0,
        };
        assert!(engine.update(&update).unwrap().applied);
    }
    loss
}

#[test]
fn an_adapter_learns_and_the_model_is_its_base_and_the_product_to_the_bit() {
    for (name, config) in configs() {
        for optimizer in [Optimizer::Adamw, Optimizer::Muon] {
            let mut engine = adapted(&config, optimizer, 2);
            let base = engine.weights().unwrap();
            let before = steps(&mut engine, 1..2);
            let after = steps(&mut engine, 2..60);
            assert!(
                after < 0.8 * before,
                "{name}, {optimizer:?}: {before} {after}"
            );

            let state = engine.optimizer().unwrap();
            for (tensor, trained) in engine.weights().unwrap() {
                let module = tensor.strip_suffix("weight").unwrap_or_default();
                let mut expected = base[&tensor].data.clone();
                if let Some(a) = state.get(&format!("{module}lora_A")) {
                    let b = &state[&format!("{module}lora_B")].data;
                    assert!(b.iter().any(|x| *x != 0.0), "{tensor}");
                    add_product(&mut expected, &a.data, b, 4.0, trained.shape[1]);
                }
                assert!(trained.data == expected, "{name}, {optimizer:?}: {tensor}");
            }
        }
    }
}

#[test]
fn only_the_factors_have_moments_and_the_estimate_knows() {
    for (name, config) in configs() {
        for optimizer in [Optimizer::Adamw, Optimizer::Muon] {
            let engine = adapted(&config, optimizer, 1);
            let state = engine.optimizer().unwrap();
            let moments = state
                .iter()
                .filter(|(name, _)| !name.starts_with("blocks."));
            let n_held: usize = moments.map(|(_, tensor)| tensor.data.len()).sum();
            let estimate = engine.settings().memory(&config, 1, 12);
            assert_eq!(estimate.moments, 4 * n_held as u64, "{name}, {optimizer:?}");
            let whole = config.memory(1, 12, Precision::F32, optimizer);
            assert!(
                estimate.moments < whole.moments / 2,
                "{name}, {optimizer:?}"
            );
            assert!(estimate.gradients < whole.gradients);
            let n_factors: usize = state.values().map(|tensor| tensor.data.len()).sum();
            let n_trained = engine.settings().n_trained(&config).unwrap();
            assert_eq!(n_trained, n_factors - n_held, "{name}, {optimizer:?}");
        }
    }
}

#[test]
fn a_saved_adapter_goes_on_to_the_bit_on_its_base() {
    for optimizer in [Optimizer::Adamw, Optimizer::Muon] {
        let config = tiny(Preset::LlamaTiny);
        let mut whole = adapted(&config, optimizer, 2);
        let base = whole.weights().unwrap();
        steps(&mut whole, 1..4);
        let (weights, state) = (whole.weights().unwrap(), whole.optimizer().unwrap());
        let mut resumed = adapted(&config, optimizer, 1);
        resumed.load_weights(&base).unwrap();
        resumed.restore(&weights, &state).unwrap();
        assert!(resumed.weights().unwrap() == weights);
        steps(&mut whole, 4..7);
        steps(&mut resumed, 4..7);
        assert!(whole.weights().unwrap() == resumed.weights().unwrap());
        assert!(whole.optimizer().unwrap() == resumed.optimizer().unwrap());
        // On other weights it begins anew.
        resumed.load_weights(&weights).unwrap();
        assert!(resumed.weights().unwrap() == weights);
        let factors = resumed.optimizer().unwrap();
        assert!(
            factors["blocks.0.qkv.lora_B"]
                .data
                .iter()
                .all(|x| *x == 0.0)
        );
    }
}

#[test]
fn the_norm_that_is_clipped_is_that_of_the_factors() {
    let config = tiny(Preset::LlamaTiny);
    let mut engine = adapted(&config, Optimizer::Adamw, 2);
    let sum = engine.accumulate(&plain_rows(2, 12, 8), PASS).unwrap();
    let update = Update {
        step: 1,
        lr: 0.01,
        divisor: sum.weight,
        clip: 1e-3,
    };
    let stats = engine.update(&update).unwrap();
    assert!(stats.grad_norm > 1e-2, "{stats:?}");
    let state = engine.optimizer().unwrap();
    let first = state.iter().filter(|(name, _)| name.starts_with("adam.m."));
    let squares = first.flat_map(|(_, tensor)| &tensor.data);
    let norm: f64 = squares.map(|x| f64::from(*x).powi(2)).sum();
    let share = 1.0 - f64::from(engine.settings().beta1);
    assert!((norm.sqrt() / share - 1e-3).abs() < 1e-6, "{}", norm.sqrt());
}
