//! Laws of adapters on a GPU: they learn as they do on a CPU, the base stays, and what is saved goes on to the bit.

use super::*;
use crate::adapter::{Adapter, Projection, add_product};
use crate::dfdx_engine::tests::{Open, openers, plain_rows};
use crate::engine::{Tensors, UpdateStats};

fn settings(config: &ModelConfig, optimizer: Optimizer) -> EngineSettings {
    let adapter = Adapter {
        rank: 4,
        alpha: 16.0,
        on: vec![Projection::Qkv, Projection::Gate, Projection::Down],
    };
    let names = config.parameters().into_iter().map(|p| p.name);
    EngineSettings {
        optimizer,
        frozen: names.filter(|name| !adapter.is_on(name)).collect(),
        adapter: Some(adapter),
        ..with_everything()
    }
}

fn begun(open: Open, config: &ModelConfig, settings: &EngineSettings) -> Box<dyn Engine> {
    let mut engine = open(config, settings, 3);
    engine.load_weights(&stirred(&*engine)).unwrap();
    engine
}

fn step(engine: &mut dyn Engine, step: u64) -> UpdateStats {
    let batch = plain_rows(2, 12, step);
    let sum = engine.accumulate(&batch, Pass { seed: 1, step }).unwrap();
    let update = Update {
        step,
        lr: 0.02,
        divisor: sum.weight,
        clip: 1.0,
    };
    engine.update(&update).unwrap()
}

/// How far the numbers of the same names are apart.
#[track_caller]
fn assert_near(what: &str, found: &Tensors, want: &Tensors, tolerance: f64) {
    assert!(found.keys().eq(want.keys()), "{what}");
    for (name, want) in want {
        let off = crate::dfdx_engine::tests::distance(&want.data, &found[name].data);
        assert!(off < tolerance, "{what}: `{name}` is {off:e} off");
    }
}

#[test]
fn adapters_learn_on_every_engine_as_on_a_cpu() {
    let openers = openers();
    let (on_a_cpu, others) = openers.split_first().unwrap();
    for (name, config) in configs() {
        for optimizer in [Optimizer::Adamw, Optimizer::Muon] {
            // A tiny gradient moves AdamW as far as a large one, whichever way its last digits point.
            let settings = EngineSettings {
                eps: 1e-3,
                ..settings(&config, optimizer)
            };
            let mut want = begun(*on_a_cpu, &config, &settings);
            let base = want.weights().unwrap();
            let norms = [1, 2, 3].map(|at| step(&mut *want, at).grad_norm);
            for open in others {
                let mut found = begun(*open, &config, &settings);
                let what = format!("{name}, {optimizer:?} on {}", found.machine().device);
                for (at, norm) in (1..).zip(norms) {
                    let off = step(&mut *found, at).grad_norm / norm - 1.0;
                    assert!(off.abs() < 1e-3, "{what}: step {at} is {off:e} off");
                }
                let state = found.optimizer().unwrap();
                assert_near(&what, &state, &want.optimizer().unwrap(), 5e-3);
                let mut merged = base.clone();
                for (tensor, merged) in &mut merged {
                    let module = tensor.strip_suffix("weight").unwrap_or_default();
                    if let Some(a) = state.get(&format!("{module}lora_A")) {
                        let b = &state[&format!("{module}lora_B")].data;
                        assert!(b.iter().any(|x| *x != 0.0), "{what}: {tensor}");
                        let n_in = merged.shape[1];
                        add_product(&mut merged.data, &a.data, b, 4.0, n_in);
                    }
                }
                assert_near(&what, &found.weights().unwrap(), &merged, 1e-6);
            }
        }
    }
}

#[test]
fn a_saved_adapter_goes_on_to_the_bit_on_every_engine() {
    for open in openers() {
        let config = configs().remove(3).1;
        let settings = settings(&config, Optimizer::Adamw);
        let mut whole = begun(open, &config, &settings);
        let base = whole.weights().unwrap();
        for at in 1..3 {
            step(&mut *whole, at);
        }
        let saved = (whole.weights().unwrap(), whole.optimizer().unwrap());
        let mut resumed = open(&config, &settings, 9);
        resumed.load_weights(&base).unwrap();
        resumed.restore(&saved.0, &saved.1).unwrap();
        for engine in [&mut whole, &mut resumed] {
            for at in 3..5 {
                step(&mut **engine, at);
            }
        }
        assert!(whole.weights().unwrap() == resumed.weights().unwrap());
        assert!(whole.optimizer().unwrap() == resumed.optimizer().unwrap());
    }
}
