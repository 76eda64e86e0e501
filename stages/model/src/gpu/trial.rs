//! Whether a GPU computes what this machine's processor does, asked before a training is left to it unasked.
//!
//! What tests held elsewhere says nothing of the card and the driver that are here. Small models take three steps on
//! both, and a wide one takes one, with dropout, in each precision: half a second, most of which a driver takes to start. It is no test of the
//! kernels, which have their own, but of the machine under them.

use tinylm_settings::{Choice as _, Device};

use super::engine::GpuEngine;
use crate::{
    CpuEngine,
    config::{ModelConfig, Precision, Preset},
    engine::{Batch, Engine, EngineError, EngineSettings, Pass, Update},
    noise::Dropout,
};

/// Of the small models, and of the wide one.
const STEPS: [u64; 2] = [3, 1];
const VOCAB_SIZE: usize = 300;
const CONTEXT: usize = 48;
const PRESETS: [Preset; 2] = [Preset::FortyOne, Preset::LlamaTiny];

/// Trains on a GPU and here; the error says how they differ.
pub fn trial(device: Device) -> Result<(), String> {
    let open = |config: &ModelConfig, settings: &EngineSettings| {
        let engine = GpuEngine::new(device, config.clone(), settings.clone(), 1)?;
        Ok(Box::new(engine) as Box<dyn Engine>)
    };
    trial_of(&open)
}

type Open<'a> = &'a dyn Fn(&ModelConfig, &EngineSettings) -> Result<Box<dyn Engine>, EngineError>;

fn trial_of(open: Open<'_>) -> Result<(), String> {
    for precision in [Precision::F32, Precision::Bf16] {
        let small = PRESETS.map(|preset| (small(preset), STEPS[0]));
        for (config, n_steps) in small.into_iter().chain([(wide(), STEPS[1])]) {
            let settings = EngineSettings {
                precision,
                dropout: Dropout::everywhere(0.1),
                ..EngineSettings::default()
            };
            let here = CpuEngine::new(config.clone(), settings.clone(), 1, 1);
            let here = here.map_err(|error| error.to_string())?;
            let there = open(&config, &settings).map_err(|error| error.to_string())?;
            compare(Box::new(here), there, n_steps, precision)?;
        }
    }
    Ok(())
}

fn small(preset: Preset) -> ModelConfig {
    ModelConfig {
        context: CONTEXT,
        d_model: 64,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        d_ff: 128,
        ..preset.config(VOCAB_SIZE)
    }
}

/// Wide enough for what small ones leave out: sums that are cut, wide heads, products that a library makes.
fn wide() -> ModelConfig {
    ModelConfig {
        context: CONTEXT,
        d_model: 512,
        n_layers: 1,
        n_heads: 4,
        n_kv_heads: 4,
        d_ff: 1024,
        ..Preset::LlamaTiny.config(VOCAB_SIZE)
    }
}

/// How far a figure may be from this machine's, of its size. In bf16 each is as far from f32.
fn bound(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-3,
        Precision::Bf16 => 0.05,
    }
}

fn compare(
    mut here: Box<dyn Engine>,
    mut there: Box<dyn Engine>,
    n_steps: u64,
    precision: Precision,
) -> Result<(), String> {
    for step in 1..=n_steps {
        let ours = figures(&mut *here, step).map_err(|error| error.to_string())?;
        let theirs = figures(&mut *there, step).map_err(|error| error.to_string())?;
        for (what, ours, theirs) in [
            ("loss", ours.0, theirs.0),
            ("norm of gradients", ours.1, theirs.1),
        ] {
            let is_near = (theirs - ours).abs() <= bound(precision) * ours.abs();
            if !is_near {
                return Err(format!(
                    "in {}, in step {step} of a small model, its {what} is {theirs:.5} and this processor's {ours:.5}",
                    precision.word()
                ));
            }
        }
    }
    Ok(())
}

/// The loss of a step and the norm of its gradients.
fn figures(engine: &mut dyn Engine, step: u64) -> Result<(f64, f64), EngineError> {
    let batch = batch(step);
    let loss = engine.accumulate(&batch, Pass { seed: 1, step })?;
    let stats = engine.update(&Update {
        step,
        lr: 1e-3,
        divisor: loss.weight,
        clip: 1.0,
    })?;
    Ok((loss.nll / loss.weight, stats.grad_norm))
}

/// Two rows of two documents each, of numbers that look like any.
fn batch(step: u64) -> Batch {
    let (n_rows, half) = (2, CONTEXT / 2);
    let id = |i: usize| ((i as u64 + step) * 2_654_435_761 % VOCAB_SIZE as u64) as u16;
    let places = 0..n_rows * CONTEXT;
    let start = |i: usize| i % CONTEXT / half * half;
    Batch {
        n_rows,
        len: CONTEXT,
        tokens: places.clone().map(id).collect(),
        targets: places.clone().map(|i| id(i + 1)).collect(),
        weights: places.clone().map(|i| f32::from(i % 5 != 0)).collect(),
        positions: places.clone().map(|i| (i % half) as u16).collect(),
        starts: places.map(|i| start(i) as u16).collect(),
        row_offset: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{
        emulated::{Emulated, Library, library},
        tests::{faulty, is_emulated},
    };

    const FAULTS: [(&str, &str, &str); 3] = [
        ("optimizer.cu", "step.keep - step.lr", "step.keep + step.lr"),
        ("words.h", "? 0.f : line.scale", "? 1.f : 1.f"),
        ("attention.cu", "- deltas[at]) * h.scale", ") * h.scale"),
    ];

    fn tried(library: &'static Library) -> Result<(), String> {
        trial_of(&|config, settings| {
            let launcher = Box::new(Emulated::new(library, 0));
            let what = (config.clone(), settings.clone());
            let engine = GpuEngine::on(launcher, Device::CUDA, what, 1)?;
            Ok(Box::new(engine))
        })
    }

    #[test]
    fn a_gpu_that_computes_as_this_processor_does_passes() {
        if is_emulated() {
            assert_eq!(tried(library().unwrap()), Ok(()));
        }
    }

    #[test]
    fn a_gpu_that_computes_something_else_is_told_with_what_it_computes() {
        if !is_emulated() {
            return;
        }
        for (file, right, wrong) in FAULTS {
            let told = tried(faulty(file, right, wrong)).unwrap_err();
            let start = "in f32, in step ";
            assert!(
                told.starts_with(start) && told.contains("this processor's"),
                "{file}: {told}"
            );
        }
    }
}
