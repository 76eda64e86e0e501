//! Several GPUs that train together, emulated here: the bits are those of one.

use super::sharing::divided;
use super::*;
use crate::gpu::GpuEngine;
use crate::gpu::tests::{is_emulated, watched};

fn of(precision: Precision, optimizer: Optimizer) -> EngineSettings {
    EngineSettings {
        precision,
        ..transformer(optimizer, 1).settings().clone()
    }
}

/// An engine whose threads are in this order.
fn gpu(settings: &EngineSettings, order: usize) -> GpuEngine {
    let plain = transformer(Optimizer::Adamw, 1);
    watched(plain.config(), settings, 7, order as u32 % 4).0
}

/// Goes on with a story on so many GPUs, which are made by `make`.
fn run_on(story: &mut Story, n: usize, make: Make<'_>, first: impl Engine) -> End {
    let names = (1..n).map(|number| format!("cuda:{number}")).collect();
    let (_data, shards) = shards();
    let settings = story.settings.clone();
    with_crew(names, make, (&shards, &settings), |crew| {
        story.run_with(first, crew)
    })
}

#[track_caller]
fn whole(mut story: Story, n: usize, settings: &EngineSettings) -> (Trained, Notes) {
    let make = |idx: usize| Ok(Box::new(gpu(settings, idx + 1)) as Box<dyn Engine>);
    match run_on(&mut story, n, &make, gpu(settings, 0)) {
        End::Done(trained) => (trained, story.notes),
        End::Failed(error) => panic!("{error}"),
        End::Killed => panic!("killed"),
    }
}

#[test]
fn any_number_of_gpus_makes_the_same_bits() {
    if !is_emulated() {
        return;
    }
    for settings in [
        of(Precision::F32, Optimizer::Adamw),
        of(Precision::Bf16, Optimizer::Muon),
    ] {
        let alone = Story::new(divided()).finish_with(gpu(&settings, 0));
        for n in [1, 2, 4, 7] {
            assert_same(&whole(Story::new(divided()), n, &settings), &alone);
        }
    }
}

#[test]
fn a_training_that_is_killed_on_some_goes_on_on_others_to_the_same_bits() {
    if !is_emulated() {
        return;
    }
    let settings = of(Precision::F32, Optimizer::Adamw);
    let alone = Story::new(divided()).finish_with(gpu(&settings, 0));
    for (n, passes, then) in [(4, 9, 2), (2, 14, 1), (1, 11, 3)] {
        let mut story = Story::new(divided());
        let make = |idx: usize| Ok(Box::new(gpu(&settings, idx)) as Box<dyn Engine>);
        let first = Mortal {
            engine: gpu(&settings, 0),
            passes_left: passes,
        };
        assert!(matches!(run_on(&mut story, n, &make, first), End::Killed));
        assert_same(&whole(story, then, &settings), &alone);
    }
}

#[test]
fn a_gpu_that_is_lost_is_named_and_the_others_go_on_from_the_checkpoint() {
    if !is_emulated() {
        return;
    }
    let settings = of(Precision::F32, Optimizer::Adamw);
    let alone = Story::new(divided()).finish_with(gpu(&settings, 0));
    let lost = |story: &mut Story, n_calls: u64| {
        let make = |idx: usize| {
            let (engine, device) = watched(gpu(&settings, 0).config(), &settings, 7, 0);
            if idx == 1 {
                device.lose_after(n_calls);
            }
            Ok(Box::new(engine) as Box<dyn Engine>)
        };
        match run_on(story, 3, &make, gpu(&settings, 0)) {
            End::Failed(error) => Some(error),
            End::Done(_) => None,
            End::Killed => panic!("killed"),
        }
    };
    let mut named = Vec::new();
    // Ever later, until the training is over before.
    for n_calls in (0..).map(|n: u64| 100 * n * n) {
        let mut story = Story::new(divided());
        let Some(error) = lost(&mut story, n_calls) else {
            break;
        };
        let TrainError::AtStep { kept, cause, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(cause.to_string(), "`cuda:2`: device: the device is lost");
        named.push(*kept);
        assert_same(&whole(story, 2, &settings), &alone);
    }
    assert!(
        named.is_sorted() && named.first() < named.last(),
        "{named:?}"
    );
}

#[test]
fn a_gpu_that_cannot_be_opened_or_panics_ends_the_training() {
    if !is_emulated() {
        return;
    }
    let settings = of(Precision::F32, Optimizer::Adamw);
    let told = |make: Make<'_>| {
        let mut story = Story::new(divided());
        match run_on(&mut story, 2, make, gpu(&settings, 0)) {
            End::Failed(error) => match error {
                TrainError::AtStep { cause, .. } => cause.to_string(),
                other => other.to_string(),
            },
            _ => panic!("it did not fail"),
        }
    };
    let closed = |_| Err(EngineError::Device("it is taken".to_owned()));
    assert_eq!(told(&closed), "`cuda:1`: device: it is taken");
    let panics = |_| panic!("told by this test");
    assert_eq!(told(&panics), "`cuda:1`: its thread panicked");
}
