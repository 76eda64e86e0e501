//! The same models, weights and batches as in PyTorch give the same losses.
//!
//! `fixtures/torch_reference.py` wrote the numbers once; weights and batches are formulas
//! there and here.

use tinylm_model::config::{ModelConfig, Preset, Role};
use tinylm_model::engine::{Batch, Engine, Pass, Tensor, Tensors, Update};
use tinylm_model::{CpuEngine, EngineSettings};
use tinylm_settings::Choice;

const ROWS: usize = 3;
const LEN: usize = 16;
const VOCAB: usize = 37;

/// A number from 0 to 1 for each whole number.
fn scramble(x: u64) -> f64 {
    const LOW: u64 = 0xffff_ffff;
    let h = (x * 2_654_435_761 + 12_345) & LOW;
    let h = h ^ (h >> 15);
    let h = (h * 2_246_822_519) & LOW;
    let h = h ^ (h >> 13);
    h as f64 / 2f64.powi(32)
}

fn config(preset: Preset) -> ModelConfig {
    let preset_config = preset.config(VOCAB);
    let is_grouped = preset_config.n_kv_heads < preset_config.n_heads;
    let is_scaled = preset_config.embed_scale != 1.0;
    ModelConfig {
        context: LEN,
        d_model: 24,
        n_heads: 4,
        n_kv_heads: if is_grouped { 2 } else { 4 },
        n_layers: 2,
        d_ff: 40,
        embed_scale: if is_scaled { 24f32.sqrt() } else { 1.0 },
        ..preset_config
    }
}

fn weights(config: &ModelConfig) -> Tensors {
    let tensor = |parameter: &tinylm_model::config::Parameter| {
        let key = parameter.name.bytes().map(u64::from).sum::<u64>() * 65_536;
        let number = |i: usize| {
            let x = scramble(i as u64 + key) - 0.5;
            let x = match parameter.role {
                Role::Gain => 1.0 + 0.2 * x,
                Role::Bias => 0.1 * x,
                _ => x * 2.0 / (parameter.shape[1] as f64).sqrt(),
            };
            x as f32
        };
        let data = (0..parameter.n()).map(number).collect();
        let shape = parameter.shape.clone();
        (parameter.name.clone(), Tensor { shape, data })
    };
    config.parameters().iter().map(tensor).collect()
}

fn batch(step: u64) -> Batch {
    let n = ROWS * LEN;
    let id = |offset: u64| -> Vec<u16> {
        let at = (0..n as u64).map(|i| i + step * 1000 + offset);
        at.map(|at| (scramble(at) * VOCAB as f64) as u16).collect()
    };
    let starts: Vec<u16> = (0..n)
        .map(|i| (i / LEN, i % LEN))
        .map(|(row, t)| if t >= 5 + row { (5 + row) as u16 } else { 0 })
        .collect();
    let counts = |i: u64| {
        if scramble(i + step * 1000 + 900_000_000) >= 0.25 {
            1.0
        } else {
            0.0
        }
    };
    Batch {
        n_rows: ROWS,
        len: LEN,
        tokens: id(0),
        targets: id(500_000_000),
        weights: (0..n as u64).map(counts).collect(),
        positions: (0..n).map(|i| (i % LEN) as u16 - starts[i]).collect(),
        starts,
        row_offset: 0,
    }
}

#[test]
fn training_follows_pytorch() {
    let text = include_str!("fixtures/torch_reference.json");
    let reference: serde_json::Value = serde_json::from_str(text).unwrap();
    for &preset in Preset::ALL {
        let expected = &reference["cases"][preset.word()];
        let config = config(preset);
        let settings = EngineSettings {
            label_smoothing: 0.05,
            ..EngineSettings::default()
        };
        let mut engine = CpuEngine::new(config.clone(), settings, 0, 2).unwrap();
        engine.load_weights(&weights(&config)).unwrap();
        let mut last = f64::NAN;
        for step in 1..=200 {
            let sum = engine
                .accumulate(&batch(step % 10), Pass { seed: 0, step })
                .unwrap();
            let divisor = sum.weight;
            let stats = engine
                .update(&Update {
                    step,
                    lr: 3e-3,
                    divisor,
                    clip: 1.0,
                })
                .unwrap();
            last = sum.nll / sum.weight;
            if step <= 10 {
                let i = step as usize - 1;
                let (loss, norm) = (
                    number(&expected["losses"][i]),
                    number(&expected["norms"][i]),
                );
                let at = format!("{}, step {step}", preset.word());
                assert!((last - loss).abs() < 1e-4, "{at}: loss {last} for {loss}");
                assert!(
                    (stats.grad_norm - norm).abs() < 1e-3,
                    "{at}: {} for {norm}",
                    stats.grad_norm
                );
            }
        }
        let expected = number(&expected["last"]);
        assert!(
            (last - expected).abs() < 1e-2,
            "{}: {last} for {expected}",
            preset.word()
        );
    }
}

fn number(value: &serde_json::Value) -> f64 {
    value.as_f64().unwrap()
}
