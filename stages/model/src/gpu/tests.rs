//! Laws of the engine on a GPU, held without one: the kernels run in the emulator.

mod adapted;
#[cfg(feature = "gpu")]
mod halves;
pub(crate) mod library;
#[cfg(feature = "gpu")]
pub(crate) mod portable;
mod reading;
mod rounding;
mod tensor;
mod wide;

use std::rc::Rc;

use tinylm_settings::Device;

pub(crate) use super::emulated::Watched;
use super::emulated::{Emulated, Library, library};
use super::engine::GpuEngine;
use super::product::{Layout, Shape};
use crate::config::{ModelConfig, Precision};
use crate::dfdx_engine::tests::{
    PASS, assert_close, configs, cpu, gradients, packed, plain, stirred, with_everything,
};
use crate::engine::{Engine, EngineSettings, Pass, Update};
use crate::optimizer::Optimizer;
use crate::skipped::skipped;

/// How far the gradients of the two engines are apart in bf16, as measured: 4.7e-2 at most. Each is as
/// far from f32, so they round in different places; see `DESIGN.md`.
const BF16_BOUND: f64 = 0.05;

/// Whether kernels can be compiled here; says so where they cannot.
pub(crate) fn is_emulated() -> bool {
    match library() {
        Ok(_) => true,
        Err(why) => {
            skipped(&why);
            false
        }
    }
}

/// Of each number of a product, what it is the sum of: the definition of all three layouts.
fn products(
    layout: Layout,
    (a, b): (&[f64], &[f64]),
    (m, n, k): Shape,
) -> impl Iterator<Item = Vec<f64>> {
    let left = move |i: usize, q: usize| match layout {
        Layout::Tn => a[q * m + i],
        Layout::Nt | Layout::Nn => a[i * k + q],
    };
    let right = move |j: usize, q: usize| match layout {
        Layout::Nt => b[j * k + q],
        Layout::Nn | Layout::Tn => b[q * n + j],
    };
    let all = (0..m).flat_map(move |i| (0..n).map(move |j| (i, j)));
    all.map(move |(i, j)| (0..k).map(|q| left(i, q) * right(j, q)).collect())
}

/// An engine in the emulator, with the weights that this seed makes.
pub(crate) fn fresh(config: &ModelConfig, settings: &EngineSettings, seed: u64) -> GpuEngine {
    watched(config, settings, seed, 0).0
}

/// The same with its threads in this order, and what can be seen of its device.
pub(crate) fn watched(
    config: &ModelConfig,
    settings: &EngineSettings,
    seed: u64,
    order: u32,
) -> (GpuEngine, Rc<Watched>) {
    let launcher = Emulated::new(library().unwrap(), order);
    let watched = Rc::clone(&launcher.watched);
    let what = (config.clone(), settings.clone());
    let engine = GpuEngine::on(Box::new(launcher), Device::CUDA, what, seed).unwrap();
    (engine, watched)
}

/// What opens an engine with its threads in some order, and shows its device.
pub(crate) type Watch = fn(&ModelConfig, &EngineSettings, u64, u32) -> (GpuEngine, Rc<Watched>);

/// With products of the kernels, and of a library.
pub(crate) const WATCHES: [Watch; 2] = [watched, library::watched];

/// With its threads in this order, and stirred weights.
fn emulated(config: &ModelConfig, settings: &EngineSettings, order: u32) -> GpuEngine {
    emulated_by(watched, config, settings, order)
}

fn emulated_by(
    watch: Watch,
    config: &ModelConfig,
    settings: &EngineSettings,
    order: u32,
) -> GpuEngine {
    let mut engine = watch(config, settings, 3, order).0;
    engine.load_weights(&stirred(&engine)).unwrap();
    engine
}

/// Each engine in the emulator, with what tests call the model and it.
fn each_of(
    configs: Vec<(&'static str, ModelConfig)>,
) -> impl Iterator<Item = (String, ModelConfig, Watch)> {
    let both = |(name, config): (&str, ModelConfig)| {
        let names = [name.to_owned(), format!("{name}, products of a library")];
        let pairs: Vec<_> = names.into_iter().zip(WATCHES).collect();
        pairs
            .into_iter()
            .map(move |(name, watch)| (name, config.clone(), watch))
    };
    configs.into_iter().flat_map(both)
}

/// The same on the first GPU, where `find` has found one.
fn on_card(config: &ModelConfig, settings: &EngineSettings) -> GpuEngine {
    let mut engine = GpuEngine::new(
        crate::machine::Device::CUDA,
        config.clone(),
        settings.clone(),
        3,
    )
    .unwrap();
    engine.load_weights(&stirred(&engine)).unwrap();
    engine
}

#[test]
fn a_card_computes_what_the_emulator_does() {
    if let Err(why) = crate::gpu::find(0) {
        return skipped(&why);
    }
    for (name, config) in configs() {
        let batch = packed(3, 12, 1);
        let found = gradients(&mut on_card(&config, &with_everything()), &batch);
        let plain = gradients(&mut plain(&config, &with_everything()), &batch);
        assert_close(name, &found, &plain, 2e-4);
    }
}

#[test]
fn a_gpu_computes_what_the_plain_operations_do() {
    if !is_emulated() {
        return;
    }
    for (name, config, watch) in each_of(configs()) {
        for settings in [EngineSettings::default(), with_everything()] {
            let batch = packed(3, 12, 1);
            let found = gradients(&mut emulated_by(watch, &config, &settings, 0), &batch);
            let plain = gradients(&mut plain(&config, &settings), &batch);
            assert_close(&name, &found, &plain, 2e-4);
        }
    }
}

#[test]
fn tiles_of_queries_chunks_of_rows_and_cut_sums_change_nothing() {
    if !is_emulated() {
        return;
    }
    for (name, mut config) in configs().into_iter().skip(3).step_by(2) {
        config.context = 140;
        let batch = packed(12, 140, 6);
        let counted = batch.weights.iter().filter(|&&w| w > 0.0).count();
        assert!(counted > crate::memory::HEAD_ROWS);
        let found = gradients(&mut emulated(&config, &with_everything(), 0), &batch);
        let fused = gradients(&mut cpu(&config, &with_everything(), 2), &batch);
        assert_close(name, &found, &fused, 2e-4);
    }
}

#[test]
fn any_order_of_threads_computes_the_same_bits() {
    if !is_emulated() {
        return;
    }
    for (name, config, watch) in each_of(configs()) {
        for (precision, optimizer) in [
            (Precision::F32, Optimizer::Adamw),
            (Precision::Bf16, Optimizer::Muon),
        ] {
            let settings = EngineSettings {
                precision,
                optimizer,
                ..with_everything()
            };
            let train = |order| {
                let mut engine = emulated_by(watch, &config, &settings, order);
                for step in 1..=2 {
                    let batch = packed(3, 12, step);
                    let sum = engine.accumulate(&batch, Pass { seed: 5, step }).unwrap();
                    let update = Update {
                        step,
                        lr: 0.01,
                        divisor: sum.weight,
                        clip: 1.0,
                    };
                    assert!(engine.update(&update).unwrap().applied);
                }
                engine.weights().unwrap()
            };
            let forward = train(0);
            for order in 1..4 {
                assert!(
                    forward == train(order),
                    "{name}, {precision:?}, order {order}"
                );
            }
        }
    }
}

#[test]
fn a_gpu_rounds_to_bf16_as_the_cpu_does() {
    if !is_emulated() {
        return;
    }
    for (name, config, watch) in each_of(configs()) {
        let settings = EngineSettings {
            precision: Precision::Bf16,
            ..EngineSettings::default()
        };
        let batch = packed(3, 12, 1);
        let found = gradients(&mut emulated_by(watch, &config, &settings, 0), &batch);
        let fused = gradients(&mut cpu(&config, &settings, 2), &batch);
        assert_close(&name, &found, &fused, BF16_BOUND);
    }
}

#[test]
fn a_gpu_goes_on_where_a_cpu_stopped_and_back() {
    if !is_emulated() {
        return;
    }
    for optimizer in [Optimizer::Adamw, Optimizer::Muon] {
        let settings = EngineSettings {
            optimizer,
            ..with_everything()
        };
        let config = configs().remove(3).1;
        let (mut on_cpu, mut on_gpu) =
            (cpu(&config, &settings, 2), emulated(&config, &settings, 0));
        let step = |engine: &mut dyn Engine, step| {
            let sum = engine
                .accumulate(&packed(4, 12, step), Pass { seed: 1, step })
                .unwrap();
            let update = Update {
                step,
                lr: 0.01,
                divisor: sum.weight,
                clip: 1.0,
            };
            engine.update(&update).unwrap().grad_norm
        };
        for at in 1..=6 {
            let (cpu_norm, gpu_norm) = (step(&mut on_cpu, at), step(&mut on_gpu, at));
            assert!(
                (cpu_norm / gpu_norm - 1.0).abs() < 1e-3,
                "{optimizer:?}, step {at}: {cpu_norm} {gpu_norm}"
            );
            // They change places.
            let from_cpu = (on_cpu.weights().unwrap(), on_cpu.optimizer().unwrap());
            let from_gpu = (on_gpu.weights().unwrap(), on_gpu.optimizer().unwrap());
            on_gpu.restore(&from_cpu.0, &from_cpu.1).unwrap();
            on_cpu.restore(&from_gpu.0, &from_gpu.1).unwrap();
        }
    }
}

/// A library whose sources have a fault.
pub(crate) fn faulty(file: &str, right: &str, wrong: &str) -> &'static Library {
    let change = |at: &str, text: &str| {
        if at != file {
            return text.to_owned();
        }
        assert!(text.contains(right));
        text.replace(right, wrong)
    };
    Box::leak(Box::new(Library::compiled(change).unwrap()))
}

/// A norm's gradients, with the threads in this order.
fn norm_gradients(library: &'static Library, order: u32) -> Vec<(String, Vec<f32>)> {
    let (config, settings) = (configs().remove(3).1, EngineSettings::default());
    let launcher = Box::new(Emulated::new(library, order));
    let mut engine = GpuEngine::on(launcher, Device::CUDA, (config, settings), 3).unwrap();
    gradients(&mut engine, &packed(3, 12, 1)).1
}

#[test]
fn a_missing_barrier_changes_bits_with_the_order_of_threads() {
    if !is_emulated() {
        return;
    }
    let right = "  parts[256 + threadIdx.x] = product;\n  __syncthreads();";
    let faulty = faulty("rows.cu", right, "  parts[256 + threadIdx.x] = product;");
    let bits = |order| -> Vec<u32> {
        let all = norm_gradients(faulty, order).into_iter();
        all.flat_map(|(_, grad)| grad).map(f32::to_bits).collect()
    };
    assert_ne!(bits(0), bits(1));
}

#[test]
fn copies_that_nobody_waits_for_are_told() {
    if !is_emulated() {
        return;
    }
    let faulty = faulty("attention.cu", "wait_for_copies();", "");
    let (config, settings) = (configs().remove(3).1, EngineSettings::default());
    let launcher = Box::new(Emulated::new(faulty, 0));
    let mut engine = GpuEngine::on(launcher, Device::CUDA, (config, settings), 3).unwrap();
    let told = engine.accumulate(&packed(3, 12, 1), PASS).unwrap_err();
    assert!(
        told.to_string().contains("copies that nobody waited for"),
        "{told}"
    );
}

#[test]
fn gradients_that_a_device_cannot_show_are_an_error_and_no_zeros() {
    if !is_emulated() {
        return;
    }
    let (config, settings) = (configs().remove(3).1, EngineSettings::default());
    let faltering_after = |n_calls| {
        let (mut engine, device) = watched(&config, &settings, 3, 0);
        engine.accumulate(&packed(3, 12, 1), PASS).unwrap();
        device.falter_after(n_calls, 1);
        engine.each_gradient(&mut |_, _| ())
    };
    // The first is read, and then held anew; others follow.
    for n_calls in [0, 1, 9] {
        let told = faltering_after(n_calls).unwrap_err();
        assert_eq!(told.to_string(), "device: the device is lost");
    }
}

#[test]
fn kernels_compiled_for_gpus_are_those_of_the_sources() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gpu/kernels");
    if !here.join("build.py").is_file() {
        return skipped("the sources of the kernels are not on this machine");
    }
    let out = tempfile::tempdir().unwrap();
    let script = std::process::Command::new("python3")
        .arg(here.join("build.py"))
        .arg(out.path())
        .output();
    let Ok(said) = script else {
        return skipped("no python3");
    };
    match said.status.code() {
        Some(0) => (),
        Some(3) => return skipped(&String::from_utf8_lossy(&said.stdout)),
        _ => panic!("{}", String::from_utf8_lossy(&said.stderr)),
    }
    for file in ["sm_80.cubin", "sm_90a.cubin", "compute_80.ptx"] {
        let read = |folder: &std::path::Path| std::fs::read(folder.join(file)).unwrap();
        assert!(
            read(out.path()) == read(&here.join("built")),
            "{file}: run build.py"
        );
    }
}
