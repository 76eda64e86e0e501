//! Laws of reading on a GPU: what a model says there is what it says here, in whatever company.

use std::{collections::BTreeSet, rc::Rc, sync::Arc};

use super::*;
use crate::config::{Preset, ReadPrecision};
use crate::generate::chorus::tests::assert_each_is_as_alone;
use crate::generate::tests::{
    Reference, all_options, assert_close as assert_logits, assert_company_changes_nothing,
    random_tensors, session, tokens,
};
use crate::generate::{Fed, FeedError, Model, Reader, Sequence, Session};
use crate::gpu::reader::GpuReader;

/// The kernels of which training has no need where no library multiplies.
pub(super) const READING: [&str; 3] = ["remember", "attend_cached", "finish_parts"];

/// A reader in the emulator, with its threads in this order, and what can be seen of its device.
fn in_emulator(
    config: &ModelConfig,
    precision: ReadPrecision,
    order: u32,
) -> (Reader, Rc<Watched>) {
    let model = Model::emulated(config.clone(), &random_tensors(config), precision).unwrap();
    let launcher = Emulated::new(library().unwrap(), order);
    let watched = Rc::clone(&launcher.watched);
    let reader = GpuReader::on(Box::new(launcher), model.stored().unwrap()).unwrap();
    (Reader::on(Arc::new(model), reader), watched)
}

fn emulated_session(config: &ModelConfig, precision: ReadPrecision) -> Session {
    Session::of(in_emulator(config, precision, 0).0)
}

/// Heads whose numbers are more than a warp has lanes, sums that are cut and followed by what training never cuts.
pub(super) fn wide() -> ModelConfig {
    ModelConfig {
        context: 150,
        n_layers: 2,
        d_model: 280,
        n_heads: 4,
        n_kv_heads: 2,
        d_ff: 600,
        ..Preset::Mini.config(300)
    }
}

#[test]
fn logits_are_those_of_the_definition_for_every_option() {
    if !is_emulated() {
        return;
    }
    for c in all_options() {
        let tensors = random_tensors(&c);
        let tokens = tokens(c.context);
        let want = Reference { c: &c, t: &tensors }.logits(&tokens);
        let mut session = emulated_session(&c, ReadPrecision::F32);
        // A prompt, two more tokens, one more, and the rest.
        for (from, to) in [(0, 17), (17, 19), (19, 20), (20, c.context)] {
            let logits = session.feed(&tokens[from..to]).unwrap();
            assert_logits(logits, &want[to - 1], 5e-5);
        }
        // Taking back leaves no trace.
        let logits = session.hold(&tokens[..9]).unwrap();
        assert_logits(logits, &want[8], 5e-5);
    }
}

#[test]
fn wide_models_say_what_they_say_here() {
    if !is_emulated() {
        return;
    }
    let (c, tokens) = (wide(), tokens(150));
    let (reader, device) = in_emulator(&c, ReadPrecision::F32, 0);
    let mut found = Session::of(reader);
    let mut want = session(&c, ReadPrecision::F32, 2);
    for part in [&tokens[..140], &tokens[140..141], &tokens[141..]] {
        let want = want.feed(part).unwrap().iter().map(|&x| f64::from(x));
        assert_logits(found.feed(part).unwrap(), &want.collect::<Vec<_>>(), 1e-4);
    }
    let launched = device.launched.borrow();
    let launched: BTreeSet<&str> = launched.iter().copied().collect();
    assert!(READING.iter().all(|kernel| launched.contains(kernel)));
}

/// On the first GPU, where there is one.
#[test]
fn a_card_says_what_this_machine_says_in_whatever_company() {
    if let Err(why) = crate::gpu::find(0) {
        return skipped(&why);
    }
    let on_card = |c: &ModelConfig, precision| {
        let model = Model::emulated(c.clone(), &random_tensors(c), precision).unwrap();
        let reader = GpuReader::open(model.stored().unwrap()).unwrap();
        Reader::on(Arc::new(model), reader)
    };
    for c in all_options().iter().chain([&wide()]) {
        let tokens = tokens(c.context);
        let mut found = Session::of(on_card(c, ReadPrecision::F32));
        let mut want = session(c, ReadPrecision::F32, 2);
        for part in [&tokens[..30], &tokens[30..31], &tokens[31..]] {
            let want = want.feed(part).unwrap().iter().map(|&x| f64::from(x));
            assert_logits(found.feed(part).unwrap(), &want.collect::<Vec<_>>(), 1e-4);
        }
        for precision in [ReadPrecision::F32, ReadPrecision::Bf16] {
            assert_company_changes_nothing(&mut |_| on_card(c, precision));
            assert_each_is_as_alone(&mut || on_card(c, precision));
        }
    }
}

#[test]
fn company_and_the_order_of_threads_change_no_bit() {
    if !is_emulated() {
        return;
    }
    let mut all = all_options();
    all.push(ModelConfig {
        context: 45,
        ..wide()
    });
    for c in all {
        for precision in [ReadPrecision::F32, ReadPrecision::Bf16] {
            // Each reader that is asked for has its threads in another order.
            let mut order = 0;
            assert_company_changes_nothing(&mut |_| {
                order += 1;
                in_emulator(&c, precision, order % 4).0
            });
        }
    }
}

#[test]
fn each_of_a_chorus_goes_on_as_it_would_alone() {
    if !is_emulated() {
        return;
    }
    let c = &all_options()[1];
    for precision in [ReadPrecision::F32, ReadPrecision::Bf16] {
        assert_each_is_as_alone(&mut || in_emulator(c, precision, 0).0);
    }
}

#[test]
fn bf16_is_as_near_as_it_is_here() {
    if !is_emulated() {
        return;
    }
    for c in all_options() {
        let tensors = random_tensors(&c);
        let tokens = tokens(30);
        let want = Reference { c: &c, t: &tensors }.logits(&tokens);
        let mut found = emulated_session(&c, ReadPrecision::Bf16);
        assert_logits(found.feed(&tokens).unwrap(), &want[29], 0.3);
        let mut here = session(&c, ReadPrecision::Bf16, 2);
        let here = here.feed(&tokens).unwrap().iter().map(|&x| f64::from(x));
        // A sum that falls on the other side of a rounding moves the result by a bf16 step.
        let here: Vec<f64> = here.collect();
        assert_logits(found.hold(&tokens).unwrap(), &here, 0.1);
    }
}

#[test]
fn scores_are_those_of_this_machine() {
    if !is_emulated() {
        return;
    }
    for c in all_options() {
        let tokens = tokens(41);
        let (mut found, mut want) = (
            emulated_session(&c, ReadPrecision::F32),
            session(&c, ReadPrecision::F32, 2),
        );
        for (first, end) in [(3, 40), (28, 30), (28, 35)] {
            let (read, targets) = (&tokens[..end], &tokens[first + 1..=end]);
            let found = found.score_behind(read, first, targets).unwrap();
            let want = want.score_behind(read, first, targets).unwrap();
            assert_eq!(found.len(), want.len());
            for (found, want) in found.iter().zip(want) {
                assert!((found.nll - want.nll).abs() < 1e-4);
                assert_eq!(found.rank, want.rank);
            }
        }
    }
}

#[test]
fn a_sequence_that_nobody_has_gives_its_memory_to_the_next() {
    if !is_emulated() {
        return;
    }
    let (mut reader, device) = in_emulator(&all_options()[1], ReadPrecision::F32, 0);
    let read = |reader: &mut Reader| {
        let mut sequence = Sequence::new(reader.model());
        let fed = Fed {
            sequence: &mut sequence,
            tokens: &[1, 2, 3],
            n_asked: 1,
        };
        reader.feed(&mut [fed]).unwrap();
        sequence
    };
    drop(read(&mut reader));
    let n_bytes = device.n_bytes.get();
    for _ in 0..3 {
        drop(read(&mut reader));
    }
    assert_eq!(device.n_bytes.get(), n_bytes);
    let kept = [read(&mut reader), read(&mut reader)];
    assert!(device.n_bytes.get() > n_bytes);
    drop(kept);
}

#[test]
fn a_device_that_fails_is_told_and_nothing_was_fed() {
    if !is_emulated() {
        return;
    }
    let c = &all_options()[1];
    let (reader, device) = in_emulator(c, ReadPrecision::F32, 0);
    let mut session = Session::of(reader);
    let want = emulated_session(c, ReadPrecision::F32);
    let (mut want, tokens) = (want, tokens(20));
    session.feed(&tokens[..7]).unwrap();
    let mut calls = || {
        let before = device.n_calls.get();
        session.feed(&tokens[7..]).unwrap();
        session.truncate(7);
        device.n_calls.get() - before
    };
    // The second time it has all the memory that it needs.
    let n_calls = calls().min(calls());
    // At its first request, in its midst, and where the logits are copied.
    for n_calls in [0, n_calls / 2, n_calls - 1] {
        // Twice: memory that cannot be had is asked for again.
        device.falter_after(n_calls, 2);
        let lost = FeedError::Device("the device is lost".to_owned());
        assert_eq!(session.feed(&tokens[7..]).unwrap_err(), lost);
        assert_eq!(session.held(), &tokens[..7]);
        device.falter_after(0, 0);
    }
    assert_eq!(session.feed(&tokens[7..]), want.feed(&tokens));
}
