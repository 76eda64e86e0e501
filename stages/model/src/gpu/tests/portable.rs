//! Laws of the kernels for GPUs of every maker, on whatever plays one here: lavapipe, or a real one.

use std::sync::Arc;

use super::*;
use crate::config::ReadPrecision;
use crate::dfdx_engine::tests::Open;
use crate::generate::chorus::tests::assert_each_is_as_alone;
use crate::generate::tests::{
    Reference, all_options, assert_close as assert_logits, assert_company_changes_nothing,
    random_tensors, session, tokens,
};
use crate::generate::{Model, Reader, Session};
use crate::gpu::launcher::{Arg, Launch, Launcher, Numbers, NumbersMut};
use crate::gpu::portable::{Portable, Taken};
use crate::gpu::reader::GpuReader;

fn launcher() -> Option<Box<Portable>> {
    launcher_with(Taken::as_told().f16)
}

/// With tiles of f16 where the GPU has it, or without.
pub(super) fn launcher_with(f16: bool) -> Option<Box<Portable>> {
    let software = true;
    match Portable::open_one(Taken { software, f16 }) {
        Ok(portable) => Some(Box::new(portable)),
        Err(why) if !why.to_string().contains("shows one") => panic!("{why}"),
        Err(why) => {
            let package = "Debian: mesa-vulkan-drivers libvulkan1";
            skipped(&format!("{why} ({package}), so no WGSL runs"));
            None
        }
    }
}

/// With the weights that this seed makes.
pub(crate) fn fresh(
    config: &ModelConfig,
    settings: &EngineSettings,
    seed: u64,
) -> Option<GpuEngine> {
    let what = (config.clone(), settings.clone());
    Some(GpuEngine::on(launcher()?, Device::Gpu, what, seed).unwrap())
}

/// The same for what holds for every engine.
pub(crate) fn opener() -> Option<Open> {
    launcher()?;
    Some(|config, settings, seed| Box::new(fresh(config, settings, seed).unwrap()))
}

fn engine(config: &ModelConfig, settings: &EngineSettings) -> Option<GpuEngine> {
    let mut engine = fresh(config, settings, 3)?;
    engine.load_weights(&stirred(&engine)).unwrap();
    Some(engine)
}

fn reader(config: &ModelConfig, precision: ReadPrecision) -> Option<Reader> {
    let model = Model::emulated(config.clone(), &random_tensors(config), precision).unwrap();
    let reader = GpuReader::on(launcher()?, model.stored().unwrap()).unwrap();
    Some(Reader::on(Arc::new(model), reader))
}

#[test]
fn any_gpu_computes_what_the_plain_operations_do() {
    for (name, config) in configs() {
        for settings in [EngineSettings::default(), with_everything()] {
            let batch = packed(3, 12, 1);
            let Some(mut engine) = engine(&config, &settings) else {
                return;
            };
            let found = gradients(&mut engine, &batch);
            let plain = gradients(&mut plain(&config, &settings), &batch);
            assert_close(name, &found, &plain, 2e-4);
        }
    }
}

#[test]
fn rows_longer_than_a_group_and_cut_sums_change_nothing_on_any_gpu() {
    for (name, mut config) in configs().into_iter().skip(3).step_by(2) {
        config.context = 300;
        let batch = packed(4, 300, 2);
        let Some(mut engine) = engine(&config, &with_everything()) else {
            return;
        };
        let fused = gradients(&mut cpu(&config, &with_everything(), 2), &batch);
        assert_close(name, &gradients(&mut engine, &batch), &fused, 2e-4);
    }
}

#[test]
fn any_gpu_rounds_to_bf16_as_the_cpu_does() {
    for (name, config) in configs() {
        let settings = EngineSettings {
            precision: Precision::Bf16,
            ..EngineSettings::default()
        };
        let batch = packed(3, 12, 1);
        let Some(mut engine) = engine(&config, &settings) else {
            return;
        };
        let fused = gradients(&mut cpu(&config, &settings, 2), &batch);
        assert_close(name, &gradients(&mut engine, &batch), &fused, BF16_BOUND);
    }
}

/// More keys than a group looks at in one turn, and heads that are more numbers than it has threads in a line.
#[test]
fn any_gpu_says_what_a_wide_model_says_here() {
    let (c, tokens) = (super::reading::wide(), tokens(150));
    let Some(reader) = reader(&c, ReadPrecision::F32) else {
        return;
    };
    let (mut found, mut here) = (Session::of(reader), session(&c, ReadPrecision::F32, 2));
    for part in [&tokens[..140], &tokens[140..141], &tokens[141..]] {
        let want = here.feed(part).unwrap().iter().map(|&x| f64::from(x));
        assert_logits(found.feed(part).unwrap(), &want.collect::<Vec<_>>(), 1e-4);
    }
}

#[test]
fn any_gpu_says_what_a_model_says_here_in_whatever_company() {
    for c in all_options() {
        let (tensors, tokens) = (random_tensors(&c), tokens(c.context));
        let want = Reference { c: &c, t: &tensors }.logits(&tokens);
        let Some(reader) = reader(&c, ReadPrecision::F32) else {
            return;
        };
        let mut found = Session::of(reader);
        for (from, to) in [(0, 17), (17, 19), (19, 20), (20, c.context)] {
            let logits = found.feed(&tokens[from..to]).unwrap();
            assert_logits(logits, &want[to - 1], 5e-5);
        }
        let mut here = session(&c, ReadPrecision::F32, 2);
        let (read, targets) = (&tokens[..40], &tokens[4..41]);
        let scores = found.score_behind(read, 3, targets).unwrap();
        for (found, want) in scores.iter().zip(here.score(read, 3, targets).unwrap()) {
            assert!((found.nll - want.nll).abs() < 1e-4 && found.rank == want.rank);
        }
    }
    for precision in [ReadPrecision::F32, ReadPrecision::Bf16] {
        let c = &all_options()[1];
        assert_company_changes_nothing(&mut |_| reader(c, precision).unwrap());
        assert_each_is_as_alone(&mut || reader(c, precision).unwrap());
    }
}

/// More groups than a row of a dispatch may have, in memory that grows several times.
#[test]
fn a_launch_may_have_more_groups_than_a_dispatch_has_columns() {
    let Some(gpu) = launcher() else { return };
    let n = 65_536 * 256 + 1000;
    let (kept, filled) = (gpu.alloc(4).unwrap(), gpu.alloc(4 * n).unwrap());
    gpu.write(kept, Numbers::F32(&[2.5])).unwrap();
    for (at, value) in [(filled, 7.0), (filled + 4 * (n as u64 - 1), 8.0)] {
        let n = if value == 7.0 { n } else { 1 };
        let args = [Arg::At(at), Arg::Float(value), Arg::Long(n as u64)];
        let grid = [n.div_ceil(256) as u32, 1, 1];
        let launch = Launch {
            kernel: "fill",
            grid,
            block: 256,
            shared_bytes: 0,
            args: &args,
        };
        gpu.launch(&launch).unwrap();
    }
    let mut last = [0.0; 3];
    let at = filled + 4 * (n as u64 - 3);
    gpu.read(NumbersMut::F32(&mut last), at).unwrap();
    assert_eq!(last, [7.0, 7.0, 8.0]);
    let mut first = [0.0; 1];
    gpu.read(NumbersMut::F32(&mut first), kept).unwrap();
    assert_eq!(first, [2.5]);
    let too_much = gpu.alloc(1 << 40).unwrap_err().to_string();
    assert!(too_much.contains("too little memory"), "{too_much}");
}

/// As on a GPU that breaks off what it was given and goes on with the rest.
#[test]
fn what_was_broken_off_is_told_though_what_follows_is_done() {
    let Some(gpu) = launcher() else { return };
    let at = gpu.alloc(4).unwrap();
    let set = |value| {
        let args = [Arg::At(at), Arg::Float(value), Arg::Long(1)];
        let launch = Launch {
            kernel: "fill",
            grid: [1; 3],
            block: 256,
            shared_bytes: 0,
            args: &args,
        };
        gpu.launch(&launch).unwrap();
        let mut found = [0.0; 1];
        let read = gpu.read(NumbersMut::F32(&mut found), at);
        read.map(|()| found[0])
    };
    assert_eq!(set(3.0).unwrap(), 3.0);
    gpu.write(0, Numbers::F32(&[0.0])).unwrap();
    let told = set(4.0).unwrap_err().to_string();
    assert!(
        told.contains("the GPU broke off what was launched"),
        "{told}"
    );
}

#[test]
fn heads_wider_than_the_kernels_take_are_refused() {
    let config = ModelConfig {
        d_model: 1024,
        n_heads: 1,
        n_kv_heads: 1,
        ..configs().remove(0).1
    };
    let Some(launcher) = launcher() else { return };
    let what = (config, EngineSettings::default());
    let told = GpuEngine::on(launcher, Device::Gpu, what, 3).err().unwrap();
    let words = "heads of 1024 numbers are too wide for this GPU, whose kernels take 512";
    assert!(told.to_string().contains(words), "{told}");
}

#[test]
fn a_kernel_that_is_not_there_is_an_error() {
    let Some(gpu) = launcher() else { return };
    let launch = Launch {
        kernel: "attend_16",
        grid: [1; 3],
        block: 256,
        shared_bytes: 0,
        args: &[],
    };
    let told = gpu.launch(&launch).unwrap_err().to_string();
    assert!(
        told.starts_with("device: no kernel `attend_16` of 256 threads"),
        "{told}"
    );
}
