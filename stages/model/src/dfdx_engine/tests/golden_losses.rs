//! Ten steps on a fixed batch give the losses written down here, for each preset and on each engine that
//! people train with.
//!
//! A change of any operation, start value, random number or optimizer shows up here. The
//! tolerance covers the kernel sets, which add in different orders; each one that this CPU
//! has is asked, in a process of its own.

use std::{env, process::Command};

use super::{Open, openers};
use crate::config::{ModelConfig, Precision, Preset};
use crate::engine::{Batch, EngineSettings, Pass, Update};
use crate::kernels;
use crate::noise::Dropout;
use crate::optimizer::Optimizer;
use tinylm_settings::{Choice as _, Device};

const TOLERANCE: f64 = 2e-4;
/// Numbers that are added in another order are rounded to other bf16 numbers now and then.
const TOLERANCE_BF16: f64 = 1e-3;

const GOLDEN: [(Preset, [f64; 10]); 6] = [
    (
        Preset::Toiny,
        [
            4.12877, 3.87880, 3.67362, 3.55871, 3.41577, 3.28103, 3.00793, 2.94261, 2.88905,
            2.79775,
        ],
    ),
    (
        Preset::Tinylm,
        [
            4.12789, 3.84509, 3.64385, 3.51373, 3.34561, 3.20628, 2.98719, 2.93414, 2.87746,
            2.76504,
        ],
    ),
    (
        Preset::Jojo,
        [
            3.91918, 3.82932, 3.74275, 3.62162, 3.50943, 3.40364, 3.31277, 3.18560, 3.04802,
            2.94484,
        ],
    ),
    (
        Preset::Mini,
        [
            4.12585, 3.78938, 3.46512, 3.25409, 3.08916, 2.91855, 2.70085, 2.54188, 2.42508,
            2.32637,
        ],
    ),
    (
        Preset::FortyOne,
        [
            4.09469, 3.50495, 2.94321, 2.53440, 2.19981, 2.00694, 1.78364, 1.64871, 1.53450,
            1.37616,
        ],
    ),
    (
        Preset::LlamaTiny,
        [
            3.93439, 3.87488, 3.74302, 3.66317, 3.56022, 3.44891, 3.33263, 3.19801, 3.09705,
            2.99814,
        ],
    ),
];

/// The same of `Preset::Mini` with operands rounded to bf16.
const GOLDEN_BF16: [f64; 10] = [
    4.12681, 3.79112, 3.47384, 3.25982, 3.09411, 2.91792, 2.69533, 2.52553, 2.43934, 2.32814,
];

/// The same on a GPU, which rounds a probability before it divides it.
const GOLDEN_BF16_ON_A_GPU: [f64; 10] = [
    4.12656, 3.78970, 3.47185, 3.25794, 3.09042, 2.91836, 2.69790, 2.53271, 2.43563, 2.33020,
];

/// The same with products of a library, which adds in another order.
const GOLDEN_BF16_BY_A_LIBRARY: [f64; 10] = [
    4.12656, 3.78971, 3.47184, 3.25783, 3.09107, 2.91823, 2.69732, 2.53154, 2.43615, 2.33026,
];

/// The same with the kernels for any GPU, which round it beside the highest score of more keys.
const GOLDEN_BF16_ON_ANY_GPU: [f64; 10] = [
    4.12658, 3.78902, 3.46962, 3.25668, 3.09248, 2.91832, 2.69923, 2.53635, 2.43501, 2.33080,
];

/// The same of `Preset::Mini` with Muon.
const GOLDEN_MUON: [f64; 10] = [
    4.12585, 3.78938, 3.51413, 3.30544, 3.06870, 2.92113, 2.75128, 2.58593, 2.41581, 2.27295,
];

fn losses(open: Open, preset: Preset, precision: Precision, optimizer: Optimizer) -> Vec<f64> {
    let config = ModelConfig {
        context: 16,
        d_model: 24,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        d_ff: 48,
        ..preset.config(50)
    };
    let settings = EngineSettings {
        dropout: Dropout::everywhere(0.1),
        label_smoothing: 0.01,
        precision,
        optimizer,
        ..EngineSettings::default()
    };
    let mut engine = open(&config, &settings, 1337);
    let n = 4 * 16;
    let ids = |factor: usize| (0..n).map(|i| (i * factor % 97 % 50) as u16).collect();
    let batch = Batch {
        n_rows: 4,
        len: 16,
        tokens: ids(31),
        targets: ids(57),
        weights: (0..n).map(|i| if i % 5 == 0 { 0.0 } else { 1.0 }).collect(),
        positions: (0..n).map(|i| (i % 8) as u16).collect(),
        starts: (0..n).map(|i| (i % 16 / 8 * 8) as u16).collect(),
        row_offset: 0,
    };
    let step = |step: u64| {
        let sum = engine
            .accumulate(&batch, Pass { seed: 1337, step })
            .unwrap();
        let divisor = sum.weight;
        engine
            .update(&Update {
                step,
                lr: 0.01,
                divisor,
                clip: 1.0,
            })
            .unwrap();
        sum.nll / sum.weight
    };
    (1..=10).map(step).collect()
}

fn is_close(found: &[f64], golden: &[f64], tolerance: f64) -> bool {
    let mut pairs = found.iter().zip(golden);
    pairs.all(|(a, b)| (a - b).abs() < tolerance)
}

#[test]
fn ten_losses_of_each_preset_are_those_written_down() {
    let (f32, bf16, adamw) = (Precision::F32, Precision::Bf16, Optimizer::Adamw);
    let mut off = Vec::new();
    // A set of kernels is this processor's: where one is asked for, GPUs have been seen before.
    let is_of_a_set = env::args().any(|arg| arg.starts_with("kernels="));
    let n_engines = if is_of_a_set { 1 } else { usize::MAX };
    for open in openers().into_iter().take(n_engines) {
        let config = Preset::Mini.config(50);
        let machine = open(&config, &EngineSettings::default(), 0)
            .machine()
            .clone();
        let on = machine.device;
        let golden_bf16 = match on {
            Device::Cpu => GOLDEN_BF16,
            Device::Cuda(_) if machine.kernels.contains("products of") => GOLDEN_BF16_BY_A_LIBRARY,
            Device::Cuda(_) => GOLDEN_BF16_ON_A_GPU,
            Device::Gpu => GOLDEN_BF16_ON_ANY_GPU,
        };
        let of_presets = GOLDEN.map(|(preset, golden)| (preset, f32, adamw, golden, TOLERANCE));
        let others = [
            (Preset::Mini, f32, Optimizer::Muon, GOLDEN_MUON, TOLERANCE),
            (Preset::Mini, bf16, adamw, golden_bf16, TOLERANCE_BF16),
        ];
        for (preset, precision, optimizer, golden, tolerance) in
            of_presets.into_iter().chain(others)
        {
            let found = losses(open, preset, precision, optimizer);
            if !is_close(&found, &golden, tolerance) {
                let what = format!("{}, {precision:?}, {optimizer:?} on {on}", preset.word());
                off.push(format!("{what}: {found:.5?}"));
            }
        }
    }
    assert!(off.is_empty(), "{}: {off:#?}", kernels::name());
}

/// A process has one set, so each gets a process: this program again, which takes the set that its command
/// line names.
#[test]
fn every_kernel_set_of_this_cpu_gives_these_losses() {
    for set in kernels::supported() {
        let mut again = Command::new(env::current_exe().unwrap());
        let golden = "ten_losses_of_each_preset_are_those_written_down";
        let used = "the_set_in_use_is_the_one_asked_for";
        again.args([golden, used, &format!("kernels={set}")]);
        let output = again.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{set}:\n{said}");
        assert!(said.contains("2 passed"), "{set}:\n{said}");
    }
}
