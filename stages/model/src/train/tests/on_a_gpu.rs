//! The loop on a GPU, which is emulated here: what is interrupted goes on, on it or elsewhere, and a device that
//! is lost costs the steps since the last checkpoint and nothing else.

use std::rc::Rc;

use super::*;
use crate::gpu::GpuEngine;
use crate::gpu::tests::{WATCHES, Watch, Watched, is_emulated, library, watched};

/// The transformer of the other stories.
fn on_a_gpu(precision: Precision) -> (GpuEngine, Rc<Watched>) {
    on_a_gpu_by(watched, precision)
}

fn on_a_gpu_by(watch: Watch, precision: Precision) -> (GpuEngine, Rc<Watched>) {
    let plain = transformer(Optimizer::Adamw, 1);
    let settings = EngineSettings {
        precision,
        ..plain.settings().clone()
    };
    watch(plain.config(), &settings, 7, 0)
}

fn story() -> Story {
    let mut settings = settings();
    settings.schedule.lr = 0.01;
    Story::new(settings)
}

#[test]
fn a_training_on_a_gpu_killed_and_resumed_is_as_if_never_stopped() {
    if !is_emulated() {
        return;
    }
    let precisions = [Precision::F32, Precision::Bf16];
    let pairs = WATCHES.map(|watch| precisions.map(|precision| (watch, precision)));
    for (watch, precision) in pairs.into_iter().flatten() {
        let engine = || on_a_gpu_by(watch, precision).0;
        let whole = story().finish_with(engine());
        for passes in [0, 5, 9, 16] {
            let mut story = story();
            assert!(matches!(
                story.run_until_killed(engine(), passes),
                End::Killed
            ));
            assert_same(&story.finish_with(engine()), &whole);
        }
    }
}

#[test]
fn a_training_goes_from_a_cpu_to_a_gpu_and_back_and_says_so() {
    if !is_emulated() {
        return;
    }
    let on_a_cpu = || transformer(Optimizer::Adamw, 1);
    let whole = story().finish_with(on_a_cpu());
    let mut story = story();
    assert!(matches!(story.run_until_killed(on_a_cpu(), 9), End::Killed));
    let on_a_gpu = on_a_gpu(Precision::F32).0;
    assert!(matches!(story.run_until_killed(on_a_gpu, 7), End::Killed));
    let (trained, notes) = story.finish_with(on_a_cpu());
    let cpu = on_a_cpu().machine().kernels.clone();
    let end = "left: the last digits may differ";
    let expected = [
        format!("going on with emulated on cuda:0 what {cpu} on cpu {end}"),
        format!("going on with {cpu} on cpu what emulated on cuda:0 {end}"),
    ];
    assert_eq!(notes.warnings, expected);
    assert_eq!(trained.report.steps, whole.0.report.steps);
    assert!(notes.metrics.keys().eq(whole.1.metrics.keys()));
    for (key, value) in &notes.metrics {
        let off = (value - whole.1.metrics[key]).abs();
        assert!(off < 1e-4 * value.abs(), "{key:?}: {value} {off:e} off");
    }
}

#[test]
fn a_training_that_goes_on_with_products_of_a_library_says_so() {
    if !is_emulated() {
        return;
    }
    let mut story = story();
    let own = on_a_gpu(Precision::F32).0;
    assert!(matches!(story.run_until_killed(own, 9), End::Killed));
    let with_a_library = on_a_gpu_by(library::watched, Precision::F32).0;
    let (_, notes) = story.finish_with(with_a_library);
    let expected = "going on with emulated, products of cuBLASLt 12.4.5 on cuda:0 what emulated on cuda:0 left: \
                    the last digits may differ";
    assert_eq!(notes.warnings, [expected]);
}

#[test]
fn a_training_on_pairs_learns_on_a_gpu_as_on_a_cpu() {
    if !is_emulated() {
        return;
    }
    let settings = settings_of_pairs();
    let plain = transformer(Optimizer::Adamw, 1);
    let how = EngineSettings {
        dropout: Dropout::default(),
        ..plain.settings().clone()
    };
    let cpu = CpuEngine::new(plain.config().clone(), how.clone(), 7, 1).unwrap();
    let gpu = || watched(plain.config(), &how, 7, 0).0;
    let want = story_of_pairs(&settings).finish_with(cpu);
    let whole = story_of_pairs(&settings).finish_with(gpu());
    for (key, want) in &want.1.metrics {
        let off = (whole.1.metrics[key] - want).abs();
        assert!(off < 2e-3 * want.abs().max(1.0), "{key:?}: {off:e} off");
    }
    let mut story = story_of_pairs(&settings);
    assert!(matches!(story.run_until_killed(gpu(), 9), End::Killed));
    assert_same(&story.finish_with(gpu()), &whole);
}

/// The newest checkpoint in the folder.
fn newest_step(folder: &Path) -> Option<u64> {
    let name = newest_checkpoint(folder)?.file_name()?.to_str()?.to_owned();
    name.strip_prefix("step-")?.parse().ok()
}

#[test]
fn a_device_that_is_lost_leaves_a_checkpoint_which_the_error_names_and_a_cpu_goes_on_from() {
    if !is_emulated() {
        return;
    }
    let (engine, device) = on_a_gpu(Precision::F32);
    let opened = device.n_calls.get();
    let whole = story().finish_with(engine);
    let n_calls = device.n_calls.get() - opened;
    let mut named = Vec::new();
    for tenth in 0..10 {
        let (engine, device) = on_a_gpu(Precision::F32);
        device.lose_after(n_calls * tenth / 10 + 1);
        let mut story = story();
        let End::Failed(error) = story.run(engine) else {
            panic!("it did not fail");
        };
        let TrainError::AtStep { kept, cause, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(cause.to_string(), "device: the device is lost");
        assert_eq!(
            *kept,
            newest_step(story.checkpoints.path()),
            "tenth {tenth}"
        );
        named.push(*kept);
        let (trained, _) = story.finish_with(transformer(Optimizer::Adamw, 2));
        assert_eq!(trained.report.steps, 11);
        let off = trained.report.best.unwrap().validation_loss
            / whole.0.report.best.unwrap().validation_loss
            - 1.0;
        assert!(off.abs() < 1e-4, "{off:e}");
    }
    assert!(named.is_sorted() && named[0].is_none(), "{named:?}");
    let n_named = named.iter().flatten().count();
    assert!(n_named > 5 && named[9] > Some(8), "{named:?}");
}

#[test]
fn a_device_that_falters_leaves_no_half_of_an_update_behind() {
    if !is_emulated() {
        return;
    }
    let (engine, device) = on_a_gpu(Precision::F32);
    let opened = device.n_calls.get();
    let whole = story().finish_with(engine);
    let n_calls = device.n_calls.get() - opened;
    let places = (1..n_calls).step_by(n_calls as usize / 23);
    // A launch that fails is an error; memory is asked for a second time.
    for (at, n_failing) in places.flat_map(|at| [(at, 1), (at, 2)]) {
        let (engine, device) = on_a_gpu(Precision::F32);
        device.falter_after(at, n_failing);
        let mut story = story();
        let (trained, notes) = match story.run(engine) {
            End::Done(trained) => (trained, story.notes),
            End::Killed => panic!("killed"),
            End::Failed(error) => {
                let TrainError::AtStep { kept, .. } = &error else {
                    panic!("{error:?}");
                };
                let newest = newest_step(story.checkpoints.path());
                assert_eq!(*kept, newest, "call {at}");
                story.finish_with(on_a_gpu(Precision::F32).0)
            }
        };
        assert_same(&(trained, notes), &whole);
    }
}
