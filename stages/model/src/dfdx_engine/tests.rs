//! Laws of training: fused equals plain, packed equals alone, cut equals whole, and any
//! number of threads computes the same bits.

mod adapters;
mod golden_losses;

use dfdx::prelude::Cpu;
use tinylm_settings::Choice;

use super::*;
use crate::config::{Activation, Norm, NormAt, Positions, Precision, Preset};
use crate::gpu::GpuEngine;
use crate::gpu::tests::{fresh, is_emulated, library};
use crate::noise::{Dropout, mix};
use crate::optimizer::Optimizer;

/// A preset made small enough to differentiate by hand.
fn tiny(preset: Preset) -> ModelConfig {
    let config = preset.config(37);
    let n_kv_heads = if config.n_kv_heads < config.n_heads {
        1
    } else {
        2
    };
    ModelConfig {
        context: 12,
        d_model: 20,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads,
        d_ff: 44,
        ..config
    }
}

/// Every preset, and every choice that no preset makes.
pub(crate) fn configs() -> Vec<(&'static str, ModelConfig)> {
    let mut configs: Vec<_> = Preset::ALL.iter().map(|&p| (p.word(), tiny(p))).collect();
    let silu = ModelConfig {
        activation: Activation::Silu,
        norm: Norm::Rms,
        norm_at: NormAt::Post,
        ..tiny(Preset::Jojo)
    };
    let head_bias = ModelConfig {
        tied: true,
        ..tiny(Preset::FortyOne)
    };
    let pythia = ModelConfig {
        parallel: true,
        positions: Positions::Rope,
        rope_share: 0.4,
        ..tiny(Preset::Mini)
    };
    configs.extend([
        ("silu, rms, post", silu),
        ("tied with a bias", head_bias),
        ("parallel, partly turned", pythia),
    ]);
    configs
}

fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| {
        state = mix(state);
        (state >> 33) as usize % below
    }
}

/// Rows of packed documents with some places that do not count.
pub(crate) fn packed(n_rows: usize, len: usize, seed: u64) -> Batch {
    packed_of(37, n_rows, len, seed)
}

/// The same, of a vocabulary of this size.
pub(crate) fn packed_of(vocab_size: usize, n_rows: usize, len: usize, seed: u64) -> Batch {
    let mut number = numbers(seed);
    let mut batch = Batch {
        n_rows,
        len,
        ..Batch::default()
    };
    for _ in 0..n_rows {
        let mut start = 0;
        for t in 0..len {
            if t > 0 && number(4) == 0 {
                start = t;
            }
            batch.tokens.push(number(vocab_size) as u16);
            batch.targets.push(number(vocab_size) as u16);
            batch.weights.push(if number(3) == 0 { 0.0 } else { 1.0 });
            batch.positions.push((t - start) as u16);
            batch.starts.push(start as u16);
        }
    }
    batch
}

/// One document a row, every place counts.
pub(crate) fn plain_rows(n_rows: usize, len: usize, seed: u64) -> Batch {
    let mut batch = packed(n_rows, len, seed);
    batch.weights.fill(1.0);
    batch.starts.fill(0);
    let positions = (0..n_rows).flat_map(|_| 0..len as u16);
    batch.positions = positions.collect();
    batch
}

pub(crate) fn rows(batch: &Batch, rows: std::ops::Range<usize>) -> Batch {
    let places = rows.start * batch.len..rows.end * batch.len;
    Batch {
        n_rows: rows.len(),
        len: batch.len,
        tokens: batch.tokens[places.clone()].to_vec(),
        targets: batch.targets[places.clone()].to_vec(),
        weights: batch.weights[places.clone()].to_vec(),
        positions: batch.positions[places.clone()].to_vec(),
        starts: batch.starts[places].to_vec(),
        row_offset: batch.row_offset + rows.start,
    }
}

pub(crate) const PASS: Pass = Pass { seed: 5, step: 2 };

/// All of training's extras at once.
pub(crate) fn with_everything() -> EngineSettings {
    EngineSettings {
        dropout: Dropout {
            embedding: 0.1,
            attention: 0.2,
            residual: 0.15,
            mlp: 0.25,
        },
        label_smoothing: 0.1,
        ..EngineSettings::default()
    }
}

pub(crate) fn cpu(config: &ModelConfig, settings: &EngineSettings, threads: usize) -> CpuEngine {
    let mut engine = CpuEngine::new(config.clone(), settings.clone(), 3, threads).unwrap();
    engine.load_weights(&stirred(&engine)).unwrap();
    engine
}

pub(crate) fn plain(config: &ModelConfig, settings: &EngineSettings) -> PlainEngine<Cpu> {
    let device = Cpu::default();
    let mut engine = PlainEngine::on(device, config.clone(), settings.clone(), 3, 1).unwrap();
    engine.load_weights(&stirred(&engine)).unwrap();
    engine
}

/// Opens an engine with the weights that this seed makes.
pub(crate) type Open = fn(&ModelConfig, &EngineSettings, u64) -> Box<dyn Engine>;

/// The engines that people train with: all that holds for one of them holds for the others.
pub(crate) fn openers() -> Vec<Open> {
    let on_a_cpu: Open = |config, settings, seed| {
        Box::new(CpuEngine::new(config.clone(), settings.clone(), seed, 2).unwrap())
    };
    let on_a_gpu: Open = |config, settings, seed| Box::new(fresh(config, settings, seed));
    let on_a_card: Open = |config, settings, seed| {
        Box::new(
            GpuEngine::new(
                crate::machine::Device::CUDA,
                config.clone(),
                settings.clone(),
                seed,
            )
            .unwrap(),
        )
    };
    let with_a_library: Open =
        |config, settings, seed| Box::new(library::watched(config, settings, seed, 0).0);
    let on_a_card_with_a_library: Open =
        |config, settings, seed| Box::new(library::on_card(config, settings, seed).unwrap());
    let has_library = || library::on_card(&configs()[0].1, &EngineSettings::default(), 3).is_some();
    let mut openers = vec![on_a_cpu];
    openers.extend(
        is_emulated()
            .then_some([on_a_gpu, with_a_library])
            .into_iter()
            .flatten(),
    );
    openers.extend(has_library().then_some(on_a_card_with_a_library));
    openers.extend(crate::gpu::find(0).is_ok().then_some(on_a_card));
    #[cfg(feature = "gpu")]
    openers.extend(crate::gpu::tests::portable::opener());
    openers
}

/// The same engines, each with stirred weights.
fn engines() -> Vec<impl Fn(&ModelConfig, &EngineSettings) -> Box<dyn Engine>> {
    let stirring = |open: Open| {
        move |config: &ModelConfig, settings: &EngineSettings| {
            let mut engine = open(config, settings, 3);
            engine.load_weights(&stirred(&*engine)).unwrap();
            engine
        }
    };
    openers().into_iter().map(stirring).collect()
}

/// Weights with no gain at one and no bias at zero, and large enough to matter.
pub(crate) fn stirred(engine: &dyn Engine) -> Tensors {
    let mut weights = engine.weights().unwrap();
    for (name, tensor) in &mut weights {
        for (i, x) in tensor.data.iter_mut().enumerate() {
            let wave = ((i * 7 + name.len()) % 11) as f32 - 5.0;
            *x = 2.0 * *x + 0.02 * wave;
        }
    }
    weights
}

pub(crate) type Named = Vec<(String, Vec<f32>)>;

/// The sums of a pass and the gradients that it adds to those held, which are dropped.
pub(crate) fn gradients(engine: &mut dyn Engine, batch: &Batch) -> (LossSum, Named) {
    let loss = engine.accumulate(batch, PASS).unwrap();
    let mut named = Named::new();
    let mut keep =
        |name: &str, gradient: &mut [f32]| named.push((name.to_owned(), gradient.to_vec()));
    engine.each_gradient(&mut keep).unwrap();
    engine.discard();
    (loss, named)
}

/// The distance of two gradients, relative to their size.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
    let difference = sum(&|i| f64::from(a[i]) - f64::from(b[i]));
    difference / sum(&|i| f64::from(a[i])).max(1e-5)
}

#[track_caller]
pub(crate) fn assert_close(what: &str, a: &(LossSum, Named), b: &(LossSum, Named), tolerance: f64) {
    let off = (a.0.nll - b.0.nll).abs() / a.0.nll;
    assert!(
        off < tolerance,
        "{what}: losses {} and {}",
        a.0.nll,
        b.0.nll
    );
    assert_eq!(a.1.len(), b.1.len(), "{what}");
    for ((name, a), (_, b)) in a.1.iter().zip(&b.1) {
        let distance = distance(a, b);
        assert!(
            distance < tolerance,
            "{what}: `{name}` differs by {distance:e}"
        );
    }
}

#[test]
fn fused_operations_compute_what_plain_ones_do() {
    for (name, config) in configs() {
        for settings in [EngineSettings::default(), with_everything()] {
            let batch = packed(3, 12, 1);
            let fused = gradients(&mut cpu(&config, &settings, 2), &batch);
            let plain = gradients(&mut plain(&config, &settings), &batch);
            assert_eq!(fused.1.len(), config.parameters().len());
            assert_close(name, &fused, &plain, 2e-4);
        }
    }
}

#[test]
fn blocks_of_queries_and_of_logits_change_nothing() {
    for (name, mut config) in configs() {
        config.context = 140;
        let settings = with_everything();
        // More than two blocks of queries, and more rows that count than one block of logits has.
        let batch = packed(12, 140, 6);
        let counted = batch.weights.iter().filter(|&&w| w > 0.0).count();
        assert!(counted > crate::memory::HEAD_ROWS);
        let fused = gradients(&mut cpu(&config, &settings, 2), &batch);
        let plain = gradients(&mut plain(&config, &settings), &batch);
        assert_close(name, &fused, &plain, 2e-4);
    }
}

#[cfg(feature = "cuda")]
#[test]
fn a_gpu_computes_what_the_cpu_does() {
    for (name, config) in configs() {
        let (batch, settings) = (packed(3, 12, 1), with_everything());
        let mut gpu = match CudaEngine::on_gpu(0, config.clone(), settings.clone(), 3, 1) {
            Ok(gpu) => gpu,
            Err(error) => {
                crate::skipped::skipped(&error.to_string());
                return;
            }
        };
        gpu.load_weights(&stirred(&gpu)).unwrap();
        let cpu = gradients(&mut cpu(&config, &settings, 2), &batch);
        assert_close(name, &cpu, &gradients(&mut gpu, &batch), 5e-4);
    }
}

#[test]
fn fused_scores_are_plain_ones() {
    for open in engines() {
        for (name, config) in configs() {
            let (batch, settings) = (packed(3, 12, 1), with_everything());
            let fused = open(&config, &settings).evaluate(&batch).unwrap();
            let plain = plain(&config, &settings).evaluate(&batch).unwrap();
            for (a, b) in fused.iter().zip(&plain) {
                assert!(
                    (a.nll - b.nll).abs() < 1e-4 && a.rank == b.rank,
                    "{name}: {a:?} {b:?}"
                );
            }
        }
    }
}

#[test]
fn gradients_are_slopes_of_the_loss() {
    for (name, config) in configs() {
        let (batch, settings) = (packed(3, 12, 1), with_everything());
        let mut engine = cpu(&config, &settings, 2);
        let weights = engine.weights().unwrap();
        let (_, grads) = gradients(&mut engine, &batch);
        for (tensor, grad) in grads {
            let norm = grad
                .iter()
                .map(|&g| f64::from(g).powi(2))
                .sum::<f64>()
                .sqrt();
            // Steps along the gradient, where the slope is the gradient's norm.
            let mut loss_at = |step: f64| {
                let mut moved = weights.clone();
                let data = &mut moved.get_mut(&tensor).unwrap().data;
                for (x, g) in data.iter_mut().zip(&grad) {
                    *x += (step * f64::from(*g) / norm) as f32;
                }
                engine.load_weights(&moved).unwrap();
                let loss = engine.accumulate(&batch, PASS).unwrap().nll;
                engine.discard();
                loss
            };
            // Four points, so that the error is of fourth order in the step.
            let step = (0.1 / norm).min(4e-3);
            let (near, far) = (
                loss_at(step) - loss_at(-step),
                loss_at(2.0 * step) - loss_at(-2.0 * step),
            );
            let slope = (8.0 * near - far) / (12.0 * step);
            let off = (slope - norm).abs();
            assert!(
                off < 0.01 * norm + 0.02,
                "{name}, `{tensor}`: {slope} for {norm}"
            );
        }
    }
}

#[test]
fn what_is_frozen_changes_no_other_gradient() {
    for open in engines() {
        for (name, config) in configs() {
            let batch = packed(3, 12, 1);
            let whole = gradients(&mut *open(&config, &with_everything()), &batch);
            for frozen in [
                &["blocks.0"][..],
                &["embed", "positions"],
                &["embed", "positions", "blocks.0"],
                &["blocks.1.norm1", "blocks.0.up"],
                &["blocks.0.norm2", "blocks.0.proj", "blocks.1.down"],
            ] {
                let is_frozen = |tensor: &str| frozen.iter().any(|name| tensor.starts_with(name));
                let names = config.parameters().into_iter().map(|p| p.name);
                let settings = EngineSettings {
                    frozen: names.filter(|name| is_frozen(name)).collect(),
                    ..with_everything()
                };
                let mut engine = open(&config, &settings);
                // The second pass works in memory that the first one has used.
                for pass in 1..=2 {
                    let some = gradients(&mut *engine, &batch);
                    assert_eq!(some.0, whole.0, "{name}, {frozen:?}, pass {pass}");
                    let trained = whole.1.iter().filter(|(tensor, _)| !is_frozen(tensor));
                    assert!(trained.eq(&some.1), "{name}, {frozen:?}, pass {pass}");
                }
            }
        }
    }
}

#[test]
fn cutting_a_batch_changes_nothing() {
    for open in engines() {
        for precision in [Precision::F32, Precision::Bf16] {
            let settings = EngineSettings {
                precision,
                ..with_everything()
            };
            let config = tiny(Preset::FortyOne);
            let batch = packed(32, 12, 9);
            let whole = gradients(&mut *open(&config, &settings), &batch);
            let mut engine = open(&config, &settings);
            let mut nll = 0.0;
            for part in 0..7 {
                let part = rows(&batch, part * 4..part * 4 + 4);
                nll += engine.accumulate(&part, PASS).unwrap().nll;
            }
            let mut last = gradients(&mut *engine, &rows(&batch, 28..32));
            last.0.nll += nll;
            assert_close("1 x 32 and 8 x 4", &whole, &last, 1e-5);
        }
    }
}

#[test]
fn any_number_of_threads_computes_the_same_bits() {
    for (name, config) in configs() {
        for precision in [Precision::F32, Precision::Bf16] {
            let settings = EngineSettings {
                precision,
                ..with_everything()
            };
            let train = |threads| {
                let mut engine = cpu(&config, &settings, threads);
                for step in 1..=3 {
                    let batch = packed(5, 12, step);
                    let pass = Pass { seed: 5, step };
                    let sum = engine.accumulate(&batch, pass).unwrap();
                    let divisor = sum.weight;
                    engine
                        .update(&Update {
                            step,
                            lr: 0.01,
                            divisor,
                            clip: 1.0,
                        })
                        .unwrap();
                }
                engine.weights().unwrap()
            };
            let one = train(1);
            assert!(one == train(2), "{name}, two threads, {precision:?}");
            assert!(one == train(3), "{name}, three threads, {precision:?}");
        }
    }
}

#[test]
fn packed_documents_score_as_they_do_alone() {
    for open in engines() {
        for (name, config) in configs() {
            let mut engine = open(&config, &EngineSettings::default());
            let batch = packed(2, 12, 4);
            let scores = engine.evaluate(&batch).unwrap();
            let mut at = 0;
            while at < scores.len() {
                let is_same = |&i: &usize| i / 12 == at / 12 && batch.starts[i] == batch.starts[at];
                let n = (at..scores.len()).take_while(is_same).count();
                let alone = Batch {
                    n_rows: 1,
                    len: n,
                    tokens: batch.tokens[at..at + n].to_vec(),
                    targets: batch.targets[at..at + n].to_vec(),
                    weights: vec![1.0; n],
                    positions: (0..n as u16).collect(),
                    starts: vec![0; n],
                    row_offset: 0,
                };
                for (a, b) in scores[at..at + n]
                    .iter()
                    .zip(engine.evaluate(&alone).unwrap())
                {
                    assert!((a.nll - b.nll).abs() < 1e-4, "{name}: {a:?} {b:?}");
                }
                at += n;
            }
        }
    }
}

#[test]
fn a_document_does_not_see_its_neighbour() {
    for open in engines() {
        for (name, config) in configs() {
            for precision in [Precision::F32, Precision::Bf16] {
                let settings = EngineSettings {
                    precision,
                    ..EngineSettings::default()
                };
                let mut engine = open(&config, &settings);
                let mut batch = plain_rows(2, 12, 4);
                for row in [0, 12] {
                    batch.starts[row + 5..row + 12].fill(5);
                    batch.positions.splice(row + 5..row + 12, 0..7);
                }
                let before = engine.evaluate(&batch).unwrap();
                for token in &mut batch.tokens[..5] {
                    *token = (*token + 11) % 37;
                }
                let after = engine.evaluate(&batch).unwrap();
                assert_ne!(before[..5], after[..5], "{name}");
                assert_eq!(before[5..], after[5..], "{name}");
            }
        }
    }
}

#[test]
fn a_token_does_not_see_the_next() {
    for open in engines() {
        let mut engine = open(&tiny(Preset::Mini), &EngineSettings::default());
        let mut batch = plain_rows(1, 12, 4);
        let before = engine.evaluate(&batch).unwrap();
        batch.tokens[6] = (batch.tokens[6] + 1) % 37;
        let after = engine.evaluate(&batch).unwrap();
        assert_eq!(before[..6], after[..6]);
        assert_ne!(before[6..], after[6..]);
    }
}

#[test]
fn one_batch_can_be_learned_by_heart() {
    for optimizer in [Optimizer::Adamw, Optimizer::Muon] {
        for precision in [Precision::F32, Precision::Bf16] {
            let settings = EngineSettings {
                optimizer,
                precision,
                ..EngineSettings::default()
            };
            let mut engine = CpuEngine::new(tiny(Preset::LlamaTiny), settings, 1, 2).unwrap();
            let batch = plain_rows(2, 12, 8);
            let mut loss = f64::INFINITY;
            for step in 1..=200 {
                let sum = engine.accumulate(&batch, Pass { seed: 1, step }).unwrap();
                loss = sum.nll / sum.weight;
                let update = Update {
                    step,
                    lr: 0.02,
                    divisor: sum.weight,
                    clip: 1.0,
                };
                assert!(engine.update(&update).unwrap().applied);
            }
            assert!(loss < 0.02, "{optimizer:?}, {precision:?}: {loss}");
        }
    }
}

#[test]
fn a_saved_engine_goes_on_to_the_bit() {
    for open in engines() {
        for (optimizer, precision) in [
            (Optimizer::Adamw, Precision::F32),
            (Optimizer::Muon, Precision::F32),
            (Optimizer::Adamw, Precision::Bf16),
        ] {
            let settings = EngineSettings {
                optimizer,
                precision,
                ..with_everything()
            };
            let config = tiny(Preset::Tinylm);
            let go_on = |engine: &mut dyn Engine, steps: std::ops::Range<u64>| {
                for step in steps {
                    let batch = packed(4, 12, step);
                    let sum = engine.accumulate(&batch, Pass { seed: 1, step }).unwrap();
                    let update = Update {
                        step,
                        lr: 0.01,
                        divisor: sum.weight,
                        clip: 1.0,
                    };
                    engine.update(&update).unwrap();
                }
            };
            let mut whole = open(&config, &settings);
            go_on(&mut *whole, 1..4);
            let (weights, state) = (whole.weights().unwrap(), whole.optimizer().unwrap());
            let mut resumed = open(&config, &settings);
            resumed.load_weights(&weights).unwrap();
            resumed.load_optimizer(&state).unwrap();
            go_on(&mut *whole, 4..7);
            go_on(&mut *resumed, 4..7);
            assert!(whole.weights().unwrap() == resumed.weights().unwrap());
            assert!(whole.optimizer().unwrap() == resumed.optimizer().unwrap());
        }
    }
}

#[test]
fn an_optimizer_keeps_as_much_as_its_estimate_says() {
    for (name, config) in configs() {
        for optimizer in [Optimizer::Adamw, Optimizer::Muon] {
            let settings = EngineSettings {
                optimizer,
                ..EngineSettings::default()
            };
            let held = cpu(&config, &settings, 1).optimizer().unwrap();
            let n_held: usize = held.values().map(|tensor| tensor.data.len()).sum();
            let estimate = config.memory(1, 12, Precision::F32, optimizer);
            assert_eq!(estimate.moments, 4 * n_held as u64, "{name}, {optimizer:?}");
        }
    }
}

#[test]
fn only_matrices_decay() {
    for open in engines() {
        for optimizer in [Optimizer::Adamw, Optimizer::Muon] {
            let after_a_step = |weight_decay| {
                let settings = EngineSettings {
                    optimizer,
                    weight_decay,
                    ..EngineSettings::default()
                };
                let mut engine = open(&tiny(Preset::Mini), &settings);
                let sum = engine.accumulate(&packed(4, 12, 1), PASS).unwrap();
                let update = Update {
                    step: 1,
                    lr: 0.01,
                    divisor: sum.weight,
                    clip: 1.0,
                };
                engine.update(&update).unwrap();
                engine.weights().unwrap()
            };
            let (without, with) = (after_a_step(0.0), after_a_step(0.5));
            for (name, tensor) in &without {
                let is_matrix = tensor.shape.len() == 2;
                assert_eq!(*tensor != with[name], is_matrix, "{name}, {optimizer:?}");
            }
        }
    }
}

#[test]
fn frozen_tensors_stay_and_the_others_move() {
    for open in engines() {
        let frozen = vec!["embed".to_string(), "blocks.0".into()];
        let settings = EngineSettings {
            frozen,
            ..with_everything()
        };
        let mut engine = open(&tiny(Preset::Mini), &settings);
        let before = engine.weights().unwrap();
        let sum = engine.accumulate(&packed(4, 12, 1), PASS).unwrap();
        engine
            .update(&Update {
                step: 1,
                lr: 0.01,
                divisor: sum.weight,
                clip: 1.0,
            })
            .unwrap();
        for (name, tensor) in engine.weights().unwrap() {
            let is_frozen = name.starts_with("embed.") || name.starts_with("blocks.0.");
            assert_eq!(tensor == before[&name], is_frozen, "{name}");
        }
        let moments = engine.optimizer().unwrap();
        assert!(!moments.contains_key("adam.m.blocks.0.qkv.weight"));
        assert!(moments.contains_key("adam.v.blocks.1.qkv.weight"));

        let frozen = vec!["block".to_string()];
        let settings = EngineSettings {
            frozen,
            ..EngineSettings::default()
        };
        let refused = CpuEngine::new(tiny(Preset::Mini), settings, 1, 1)
            .err()
            .unwrap();
        assert_eq!(refused.to_string(), "`block` is not part of this model");
    }
}

#[test]
fn a_norm_that_is_not_finite_changes_nothing() {
    for open in engines() {
        let mut engine = open(&tiny(Preset::Mini), &EngineSettings::default());
        let mut weights = engine.weights().unwrap();
        weights.get_mut("blocks.0.up.bias").unwrap().data[3] = f32::INFINITY;
        engine.load_weights(&weights).unwrap();
        engine.accumulate(&packed(2, 12, 1), PASS).unwrap();
        let stats = engine
            .update(&Update {
                step: 1,
                lr: 0.1,
                divisor: 1.0,
                clip: 1.0,
            })
            .unwrap();
        assert!(!stats.applied && !stats.grad_norm.is_finite());
        let after = engine.weights().unwrap();
        assert!(after["embed.weight"] == weights["embed.weight"]);
    }
}

#[test]
fn gradients_are_clipped_to_the_norm() {
    for open in engines() {
        let settings = EngineSettings {
            beta1: 0.0,
            ..EngineSettings::default()
        };
        let mut engine = open(&tiny(Preset::Mini), &settings);
        let sum = engine.accumulate(&packed(2, 12, 1), PASS).unwrap();
        let update = Update {
            step: 1,
            lr: 0.0,
            divisor: sum.weight,
            clip: 0.125,
        };
        let stats = engine.update(&update).unwrap();
        assert!(stats.grad_norm > 0.2, "{stats:?}");
        // Without decay of the first moment, it is the clipped gradient.
        let moments = engine.optimizer().unwrap();
        let first = moments
            .iter()
            .filter(|(name, _)| name.starts_with("adam.m."));
        let squares: f64 = first
            .flat_map(|(_, t)| &t.data)
            .map(|&x| f64::from(x).powi(2))
            .sum();
        assert!((squares.sqrt() - 0.125).abs() < 1e-5, "{}", squares.sqrt());
    }
}

#[test]
fn a_batch_where_nothing_counts_has_no_loss_and_no_gradient() {
    for open in engines() {
        let mut engine = open(&tiny(Preset::Mini), &EngineSettings::default());
        let mut batch = packed(2, 12, 1);
        batch.weights.fill(0.0);
        let (loss, grads) = gradients(&mut *engine, &batch);
        assert_eq!(loss, LossSum::default());
        assert!(grads.iter().all(|(_, grad)| grad.iter().all(|&g| g == 0.0)));
    }
}

#[test]
fn bad_batches_are_refused_by_name() {
    for open in engines() {
        let mut engine = open(&tiny(Preset::Mini), &EngineSettings::default());
        let mut refused = |change: &dyn Fn(&mut Batch)| {
            let mut batch = plain_rows(2, 12, 1);
            change(&mut batch);
            engine.accumulate(&batch, PASS).unwrap_err().to_string()
        };
        assert!(refused(&|b| b.targets[3] = 37).contains("token id 37"));
        assert!(refused(&|b| b.positions[3] = 12).contains("`context` of 12"));
        assert!(refused(&|b| b.starts[3] = 4).contains("starts after it"));
        assert!(refused(&|b| b.weights.truncate(5)).contains("5 weights for 24 places"));
        assert!(refused(&|b| b.n_rows = 0).contains("no tokens"));
    }
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    for open in engines() {
        let mut engine = open(&tiny(Preset::Mini), &EngineSettings::default());
        let weights = engine.weights().unwrap();
        let mut missing = weights.clone();
        missing.remove("norm.weight");
        let refused = engine.load_weights(&missing).unwrap_err();
        assert_eq!(refused.to_string(), "`norm.weight` is missing");
        let mut strange = weights.clone();
        let tensor = Tensor {
            shape: vec![1],
            data: vec![0.0],
        };
        strange.insert("head.bias".into(), tensor.clone());
        let refused = engine.load_weights(&strange).unwrap_err();
        assert_eq!(refused.to_string(), "`head.bias` is not part of this model");
        let mut misshapen = weights;
        misshapen.insert("norm.weight".into(), tensor);
        let refused = engine.load_weights(&misshapen).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`norm.weight` has shape [1], the model needs [20]"
        );
    }
}

#[test]
fn bf16_differs_from_f32_by_rounding_only() {
    for (name, config) in configs() {
        let batch = packed(4, 12, 1);
        let settings = EngineSettings {
            precision: Precision::Bf16,
            ..EngineSettings::default()
        };
        let rounded = gradients(&mut cpu(&config, &settings, 2), &batch);
        let exact = gradients(&mut cpu(&config, &EngineSettings::default(), 2), &batch);
        assert_ne!(rounded.0.nll, exact.0.nll, "{name}: bf16 changed nothing");
        assert_close(name, &exact, &rounded, 0.1);
    }
}

#[test]
fn gradients_of_all_that_is_trained_are_shown_in_the_order_of_parameters() {
    for open in engines() {
        let config = tiny(Preset::Mini);
        let settings = EngineSettings {
            frozen: vec!["embed".to_owned()],
            ..EngineSettings::default()
        };
        let mut engine = open(&config, &settings);
        let mut shown = Vec::new();
        let mut keep = |name: &str, gradient: &mut [f32]| {
            assert!(gradient.iter().all(|&value| value == 0.0), "{name}");
            shown.push((name.to_owned(), gradient.len()));
        };
        engine.each_gradient(&mut keep).unwrap();
        let all = config.parameters().into_iter();
        let trained = all.filter(|parameter| parameter.name != "embed.weight");
        let trained = trained.map(|parameter| (parameter.name.clone(), parameter.n()));
        assert_eq!(shown, trained.collect::<Vec<_>>());
    }
}
