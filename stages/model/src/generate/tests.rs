//! Generation against a reference that could not be simpler.

use std::{sync::Arc, thread};

use super::*;
use tinylm_settings::Choice;

use crate::{
    CpuEngine, EngineSettings,
    config::{
        Activation, Bias, ModelConfig, Norm, NormAt, Parameter, Positions, ReadPrecision, Role,
    },
    engine::{Batch, Engine, Tensor, Tensors},
    kernels::tiles::Tiles,
};

/// A number that looks random and is the same on every machine.
fn noise(i: usize) -> f32 {
    let mut x = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
}

pub(crate) fn tiny() -> ModelConfig {
    ModelConfig {
        vocab_size: 77,
        context: 45,
        d_model: 24,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 4,
        d_ff: 50,
        positions: Positions::Learned,
        rope_theta: 10_000.0,
        rope_share: 1.0,
        norm: Norm::Layer,
        norm_at: NormAt::Pre,
        parallel: false,
        final_norm: true,
        norm_eps: 1e-5,
        activation: Activation::GeluTanh,
        bias: Bias {
            norm: true,
            qkv: true,
            proj: true,
            mlp: true,
            head: true,
        },
        tied: false,
        embed_scale: 1.0,
    }
}

/// Configurations that between them choose every option.
pub(crate) fn all_options() -> Vec<ModelConfig> {
    let bare = Bias {
        norm: false,
        qkv: false,
        proj: false,
        mlp: false,
        head: false,
    };
    vec![
        tiny(),
        ModelConfig {
            positions: Positions::Rope,
            norm: Norm::Rms,
            activation: Activation::Swiglu,
            bias: bare,
            tied: true,
            n_kv_heads: 2,
            ..tiny()
        },
        ModelConfig {
            positions: Positions::Sinusoidal,
            norm_at: NormAt::Post,
            final_norm: false,
            activation: Activation::Relu,
            embed_scale: 24f32.sqrt(),
            ..tiny()
        },
        ModelConfig {
            // Heads of odd width, and one key/value head for all.
            d_model: 21,
            n_heads: 3,
            n_kv_heads: 1,
            d_ff: 33,
            norm: Norm::Rms,
            bias: Bias {
                norm: false,
                ..tiny().bias
            },
            activation: Activation::Gelu,
            n_layers: 3,
            ..tiny()
        },
        ModelConfig {
            activation: Activation::Silu,
            norm_at: NormAt::Post,
            positions: Positions::Rope,
            bias: Bias {
                qkv: true,
                mlp: true,
                ..bare
            },
            tied: true,
            ..tiny()
        },
        ModelConfig {
            // Pythia's: heads of eight, two of whose numbers are turned.
            d_model: 32,
            positions: Positions::Rope,
            rope_share: 0.25,
            parallel: true,
            activation: Activation::Gelu,
            ..tiny()
        },
    ]
}

pub(crate) fn random_tensors(c: &ModelConfig) -> Tensors {
    let mut at = 0;
    let parameters = c.parameters().into_iter();
    parameters
        .map(|Parameter { name, shape, role }| {
            let n: usize = shape.iter().product();
            let centre = if role == Role::Gain { 1.0 } else { 0.0 };
            let scale = if shape.len() == 2 {
                1.5 / (shape[1] as f32).sqrt()
            } else {
                0.3
            };
            let data = (at..at + n).map(|i| centre + scale * noise(i)).collect();
            at += n;
            (name, Tensor { shape, data })
        })
        .collect()
}

/// The definition, in f64: every position from the beginning, nothing kept.
pub(crate) struct Reference<'a> {
    pub(crate) c: &'a ModelConfig,
    pub(crate) t: &'a Tensors,
}

impl Reference<'_> {
    fn get(&self, name: &str) -> Option<Vec<f64>> {
        self.t
            .get(name)
            .map(|t| t.data.iter().map(|&x| f64::from(x)).collect())
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let w = self.get(&format!("{name}.weight")).unwrap();
        let bias = self.get(&format!("{name}.bias"));
        w.chunks(x.len())
            .enumerate()
            .map(|(o, w)| {
                let sum: f64 = w.iter().zip(x).map(|(w, x)| w * x).sum();
                sum + bias.as_ref().map_or(0.0, |b| b[o])
            })
            .collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = match self.c.norm {
            Norm::Layer => x.iter().sum::<f64>() / n,
            Norm::Rms => 0.0,
        };
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let w = self.get(&format!("{name}.weight")).unwrap();
        let bias = self.get(&format!("{name}.bias"));
        (0..x.len())
            .map(|i| {
                (x[i] - mean) / (variance + f64::from(self.c.norm_eps)).sqrt() * w[i]
                    + bias.as_ref().map_or(0.0, |b| b[i])
            })
            .collect()
    }

    fn activate(&self, x: f64) -> f64 {
        match self.c.activation {
            Activation::Relu => x.max(0.0),
            Activation::Silu | Activation::Swiglu => x / (1.0 + (-x).exp()),
            Activation::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }
            Activation::Gelu => {
                // The series of the error function converges for every argument.
                let z = x / 2f64.sqrt();
                let (mut term, mut sum) = (z, z);
                for n in 1..200 {
                    term *= -z * z / f64::from(n);
                    sum += term / f64::from(2 * n + 1);
                }
                0.5 * x * (1.0 + 2.0 / std::f64::consts::PI.sqrt() * sum)
            }
        }
    }

    fn rotate(&self, x: &mut [f64], pos: usize) {
        let half = x.len() / 2;
        let n_turned = x.len() as f64 * f64::from(self.c.rope_share);
        for i in 0..(n_turned / 2.0) as usize {
            let theta = f64::from(self.c.rope_theta).powf(-(2.0 * i as f64) / n_turned);
            let (sin, cos) = (pos as f64 * theta).sin_cos();
            (x[i], x[i + half]) = (
                x[i] * cos - x[i + half] * sin,
                x[i + half] * cos + x[i] * sin,
            );
        }
    }

    fn attention(&self, layer: usize, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (c, d) = (self.c, self.c.d_head());
        let qkv: Vec<Vec<f64>> = x
            .iter()
            .enumerate()
            .map(|(pos, x)| {
                let mut row = self.linear(&format!("blocks.{layer}.qkv"), x);
                if c.positions == Positions::Rope {
                    for head in row[..c.d_model + c.d_kv()].chunks_mut(d) {
                        self.rotate(head, pos);
                    }
                }
                row
            })
            .collect();
        (0..x.len())
            .map(|pos| {
                let mut out = Vec::new();
                for head in 0..c.n_heads {
                    let kv = head * c.n_kv_heads / c.n_heads;
                    let q = &qkv[pos][head * d..][..d];
                    let scores: Vec<f64> = qkv[..=pos]
                        .iter()
                        .map(|row| {
                            let k = &row[c.d_model + kv * d..][..d];
                            q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (d as f64).sqrt()
                        })
                        .collect();
                    let total: f64 = scores.iter().map(|s| s.exp()).sum();
                    for i in 0..d {
                        let v = |row: &Vec<f64>| row[c.d_model + c.d_kv() + kv * d + i];
                        out.push(
                            scores
                                .iter()
                                .zip(&qkv)
                                .map(|(s, row)| s.exp() / total * v(row))
                                .sum(),
                        );
                    }
                }
                self.linear(&format!("blocks.{layer}.proj"), &out)
            })
            .collect()
    }

    fn mlp(&self, layer: usize, x: &[f64]) -> Vec<f64> {
        let name = |part: &str| format!("blocks.{layer}.{part}");
        let up = self.linear(&name("up"), x);
        let hidden: Vec<f64> = if self.c.activation == Activation::Swiglu {
            let gate = self.linear(&name("gate"), x);
            gate.iter()
                .zip(up)
                .map(|(g, u)| self.activate(*g) * u)
                .collect()
        } else {
            up.into_iter().map(|x| self.activate(x)).collect()
        };
        self.linear(&name("down"), &hidden)
    }

    fn branch(&self, x: &mut [Vec<f64>], norm: &str, f: impl Fn(&[Vec<f64>]) -> Vec<Vec<f64>>) {
        let pre = self.c.norm_at == NormAt::Pre;
        let input: Vec<Vec<f64>> = x
            .iter()
            .map(|x| if pre { self.norm(norm, x) } else { x.clone() })
            .collect();
        for (x, y) in x.iter_mut().zip(f(&input)) {
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
            if !pre {
                *x = self.norm(norm, x);
            }
        }
    }

    /// Both parts of a block read the same stream.
    fn both(&self, x: &mut [Vec<f64>], layer: usize) {
        let normed = |norm: &str| -> Vec<Vec<f64>> {
            let name = format!("blocks.{layer}.{norm}");
            x.iter().map(|x| self.norm(&name, x)).collect()
        };
        let (mixed, for_mlp) = (self.attention(layer, &normed("norm1")), normed("norm2"));
        for (at, x) in x.iter_mut().enumerate() {
            let added = mixed[at].iter().zip(self.mlp(layer, &for_mlp[at]));
            x.iter_mut().zip(added).for_each(|(x, (a, b))| *x += a + b);
        }
    }

    pub(crate) fn logits(&self, tokens: &[u16]) -> Vec<Vec<f64>> {
        let (c, d) = (self.c, self.c.d_model);
        let embed = self.get("embed.weight").unwrap();
        let learned = self.get("positions.weight");
        let position = |pos: usize, i: usize| match c.positions {
            Positions::Learned => learned.as_ref().unwrap()[pos * d + i],
            Positions::Rope => 0.0,
            Positions::Sinusoidal => {
                let angle = pos as f64 / 10_000f64.powf((i - i % 2) as f64 / d as f64);
                if i.is_multiple_of(2) {
                    angle.sin()
                } else {
                    angle.cos()
                }
            }
        };
        let mut x: Vec<Vec<f64>> = tokens
            .iter()
            .enumerate()
            .map(|(pos, &id)| {
                let row = &embed[usize::from(id) * d..][..d];
                (0..d)
                    .map(|i| row[i] * f64::from(c.embed_scale) + position(pos, i))
                    .collect()
            })
            .collect();
        for layer in 0..c.n_layers {
            if c.parallel {
                self.both(&mut x, layer);
                continue;
            }
            self.branch(&mut x, &format!("blocks.{layer}.norm1"), |x| {
                self.attention(layer, x)
            });
            self.branch(&mut x, &format!("blocks.{layer}.norm2"), |x| {
                x.iter().map(|x| self.mlp(layer, x)).collect()
            });
        }
        x.iter()
            .map(|x| {
                let x = if c.final_norm {
                    self.norm("norm", x)
                } else {
                    x.clone()
                };
                if c.tied {
                    let bias = self.get("head.bias");
                    embed
                        .chunks(d)
                        .enumerate()
                        .map(|(o, w)| {
                            w.iter().zip(&x).map(|(w, x)| w * x).sum::<f64>()
                                + bias.as_ref().map_or(0.0, |b| b[o])
                        })
                        .collect()
                } else {
                    self.linear("head", &x)
                }
            })
            .collect()
    }
}

pub(crate) fn tokens(n: usize) -> Vec<u16> {
    (0..n)
        .map(|i| ((noise(i + 50) + 1.0) * 38.0) as u16)
        .collect()
}

fn model(c: &ModelConfig, precision: ReadPrecision) -> Model {
    Model::from_tensors(c.clone(), &random_tensors(c), precision).unwrap()
}

pub(crate) fn session(c: &ModelConfig, precision: ReadPrecision, n_threads: usize) -> Session {
    Session::new(Arc::new(model(c, precision)), n_threads)
}

/// A session whose products are computed by these tiles.
fn session_of(
    c: &ModelConfig,
    precision: ReadPrecision,
    tiles: Tiles,
    n_threads: usize,
) -> Session {
    let model = model(c, precision);
    Session::new(Arc::new(model.with(tiles)), n_threads)
}

#[track_caller]
pub(crate) fn assert_close(found: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(found.len(), want.len());
    for (i, (found, want)) in found.iter().zip(want).enumerate() {
        let error = (f64::from(*found) - want).abs();
        assert!(error < tolerance, "logit {i}: {found}, not {want}");
    }
}

#[test]
fn logits_are_those_of_the_definition_for_every_option_and_cpu() {
    for c in all_options() {
        let tensors = random_tensors(&c);
        let tokens = tokens(c.context);
        let want = Reference { c: &c, t: &tensors }.logits(&tokens);
        let largest = want.iter().flatten().fold(0f64, |a, b| a.max(b.abs()));
        assert!(largest > 0.5, "the logits say nothing");
        for tiles in Tiles::all() {
            for n_threads in [1, 2, 3] {
                let mut session = session_of(&c, ReadPrecision::F32, tiles, n_threads);
                // A prompt, two more tokens, one more, and the rest.
                for (from, to) in [(0, 17), (17, 19), (19, 20), (20, c.context)] {
                    let logits = session.feed(&tokens[from..to]).unwrap();
                    assert_close(logits, &want[to - 1], 5e-5);
                }
            }
        }
    }
}

#[test]
fn bf16_is_near_and_alike_on_every_cpu() {
    for c in all_options() {
        let tensors = random_tensors(&c);
        let tokens = tokens(30);
        let want = Reference { c: &c, t: &tensors }.logits(&tokens);
        let mut all = Vec::new();
        let both_ways = |tiles: Tiles| {
            [1, usize::MAX].map(|widen_from| Tiles {
                widen_from,
                ..tiles
            })
        };
        for tiles in Tiles::all().into_iter().flat_map(both_ways) {
            let mut session = session_of(&c, ReadPrecision::Bf16, tiles, 2);
            session.feed(&tokens[..29]).unwrap();
            let logits = session.feed(&tokens[29..]).unwrap().to_vec();
            assert_close(&logits, &want[29], 0.3);
            all.push(logits);
        }
        for other in &all[1..] {
            // A sum that falls on the other side of a rounding moves the result by a bf16 step.
            let other: Vec<f64> = other.iter().map(|&x| f64::from(x)).collect();
            assert_close(&all[0], &other, 0.1);
        }
    }
}

/// Matrices with their groups of 64 inputs rounded to 255 steps; the embedding is looked up as it is.
fn rounded(c: &ModelConfig, mut tensors: Tensors) -> Tensors {
    let matrices = c.parameters().into_iter();
    for Parameter { name, shape, .. } in
        matrices.filter(|p| p.role.is_hidden() || p.role == Role::Head)
    {
        let rows = tensors.get_mut(&name).unwrap().data.chunks_mut(shape[1]);
        for group in rows.flat_map(|row| row.chunks_mut(64)) {
            let scale = group.iter().fold(0f32, |a, b| a.max(b.abs())) / 127.0;
            group
                .iter_mut()
                .for_each(|x| *x = (*x * (1.0 / scale)).round() * scale);
        }
    }
    tensors
}

#[test]
fn int8_is_f32_of_rounded_weights_to_the_bit_however_tokens_are_fed() {
    for c in all_options() {
        // More than a block of the depth, and a group that is not whole.
        let c = ModelConfig {
            d_ff: 330,
            tied: false,
            ..c
        };
        let tokens = tokens(40);
        let other = rounded(&c, random_tensors(&c));
        for tiles in Tiles::all() {
            let of = |tensors: &Tensors, precision| {
                let model = Model::from_tensors(c.clone(), tensors, precision).unwrap();
                Session::new(Arc::new(model.with(tiles)), 2)
            };
            let mut int8 = of(&random_tensors(&c), ReadPrecision::Int8);
            let mut f32 = of(&other, ReadPrecision::F32);
            for (from, to) in [(0, 31), (31, 34), (34, 35), (35, 40)] {
                let part = &tokens[from..to];
                let (found, want) = (int8.feed(part).unwrap(), f32.feed(part).unwrap());
                assert!(
                    found
                        .iter()
                        .zip(want)
                        .all(|(a, b)| a.to_bits() == b.to_bits())
                );
            }
        }
    }
}

#[test]
fn a_token_costs_nothing_new_whatever_way_it_was_fed() {
    let c = &all_options()[1];
    let tokens = tokens(40);
    let mut once = session(c, ReadPrecision::F32, 2);
    let want = once.feed(&tokens).unwrap().to_vec();
    let mut other = session(c, ReadPrecision::F32, 2);
    other.feed(&tokens[..30]).unwrap();
    other.feed(&[1, 2, 3, 4, 5]).unwrap();
    // Taking back leaves no trace, and `hold` finds the common beginning itself.
    let found = other.hold(&tokens).unwrap();
    let want: Vec<f64> = want.iter().map(|&x| f64::from(x)).collect();
    assert_close(found, &want, 2e-5);
    assert_eq!(other.held(), tokens);
    let again = other.hold(&tokens).unwrap();
    assert_close(again, &want, 2e-5);
}

/// What a sequence is told when it is fed alone, a token at a time after its beginning.
fn told_alone(reader: Reader, tokens: &[u16], n_first: usize) -> Vec<Vec<u32>> {
    let mut session = Session::of(reader);
    let (first, rest) = tokens.split_at(n_first);
    let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect();
    let mut told = vec![bits(session.feed(first).unwrap())];
    for token in rest {
        told.push(bits(session.feed(&[*token]).unwrap()));
    }
    told
}

#[test]
fn a_sequence_is_told_the_same_bits_whatever_is_fed_beside_it() {
    for precision in [ReadPrecision::F32, ReadPrecision::Int8] {
        for c in all_options() {
            let model = Arc::new(model(&c, precision));
            assert_company_changes_nothing(&mut |n_threads| {
                Reader::new(Arc::clone(&model), n_threads)
            });
        }
    }
}

/// Three sequences, one of which comes later and one of which ends sooner; `reader` is asked with how many threads
/// it is to read.
pub(crate) fn assert_company_changes_nothing(reader: &mut dyn FnMut(usize) -> Reader) {
    let all = tokens(40);
    let plans = [(0, 17, 9), (3, 1, 20), (1, 30, 4)];
    let alone = plans.map(|(_, first, more)| told_alone(reader(2), &all[..first + more], first));
    let mut reader = reader(3);
    let mut sequences = plans.map(|_| Sequence::new(reader.model()));
    for round in 0..26 {
        let mut fed = Vec::new();
        let mut asked = Vec::new();
        for (idx, sequence) in sequences.iter_mut().enumerate() {
            let (begins, first, more) = plans[idx];
            let Some(step) = usize::checked_sub(round, begins).filter(|step| *step <= more) else {
                continue;
            };
            let tokens = match step {
                0 => &all[..first],
                _ => &all[first + step - 1..first + step],
            };
            // Some of the logits are of no interest to anybody.
            let is_asked = (round + idx) % 3 != 0;
            if is_asked {
                asked.push((idx, step));
            }
            fed.push(Fed {
                sequence,
                tokens,
                n_asked: usize::from(is_asked),
            });
        }
        if fed.is_empty() {
            continue;
        }
        let told = reader.feed(&mut fed).unwrap();
        assert_eq!(told.len(), asked.len());
        for (logits, (idx, step)) in told.iter().zip(asked) {
            let bits = logits.iter().map(|x| x.to_bits());
            assert!(bits.eq(alone[idx][step].iter().copied()), "{idx} {step}");
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for &precision in ReadPrecision::ALL {
        let c = &all_options()[3];
        let logits = |n_threads| {
            let mut session = session(c, precision, n_threads);
            let mut bits = Vec::new();
            for part in tokens(40).chunks(31) {
                bits.extend(session.feed(part).unwrap().iter().map(|x| x.to_bits()));
            }
            bits
        };
        assert_eq!(logits(1), logits(2));
        assert_eq!(logits(1), logits(3));
    }
}

/// The logits after each of some parts of a text, to the bit.
fn said(session: &mut Session, parts: &[&[u16]]) -> Vec<Vec<u32>> {
    let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect();
    parts
        .iter()
        .map(|part| bits(session.feed(part).unwrap()))
        .collect()
}

#[test]
fn sessions_of_one_model_say_what_each_says_alone() {
    for &precision in ReadPrecision::ALL {
        let model = Arc::new(model(&all_options()[1], precision));
        let tokens = tokens(40);
        let parts: [Vec<&[u16]>; 2] = [tokens.chunks(7).collect(), tokens[5..].chunks(6).collect()];
        let session = || Session::new(Arc::clone(&model), 2);
        let alone = parts.each_ref().map(|parts| said(&mut session(), parts));
        assert_ne!(alone[0], alone[1]);

        let mut sessions = [session(), session()];
        for turn in 0..6 {
            for (i, session) in sessions.iter_mut().enumerate() {
                assert_eq!(said(session, &parts[i][turn..=turn])[0], alone[i][turn]);
            }
        }
        thread::scope(|scope| {
            let talks = parts
                .each_ref()
                .map(|parts| scope.spawn(|| said(&mut session(), parts)));
            assert_eq!(talks.map(|talk| talk.join().unwrap()), alone);
        });
    }
}

#[test]
fn scores_are_those_of_the_logits() {
    let c = &all_options()[0];
    let tensors = random_tensors(c);
    let tokens = tokens(41);
    let want = Reference { c, t: &tensors }.logits(&tokens[..40]);
    let mut session = session(c, ReadPrecision::F32, 2);
    let scores = session.score(&tokens[..40], 3, &tokens[4..]).unwrap();
    assert_eq!(scores.len(), 37);
    for (i, score) in scores.iter().enumerate() {
        let logits = &want[i + 3];
        let target = logits[usize::from(tokens[i + 4])];
        let nll = logits.iter().map(|x| x.exp()).sum::<f64>().ln() - target;
        assert!((f64::from(score.nll) - nll).abs() < 1e-4);
        assert_eq!(
            usize::from(score.rank),
            logits.iter().filter(|&&x| x > target).count()
        );
    }
}

#[test]
fn several_ends_of_one_beginning_score_as_each_alone() {
    for c in all_options() {
        let (mut all, mut alone) = (
            session(&c, ReadPrecision::F32, 2),
            session(&c, ReadPrecision::F32, 2),
        );
        let tokens = tokens(41);
        for end in [30, 35, 33, 31] {
            let (read, targets) = (&tokens[..end], &tokens[29..=end]);
            let behind = all.score_behind(read, 28, &targets[..end - 28]).unwrap();
            assert_eq!(behind, alone.score(read, 28, &targets[..end - 28]).unwrap());
        }
    }
}

/// Two documents in one row, and a third in another with padding behind it.
fn packed(ids: &[u16]) -> Batch {
    let rows: [(usize, &[usize]); 2] = [(0, &[14, 6]), (20, &[11])];
    let mut batch = Batch {
        n_rows: 2,
        len: 20,
        tokens: vec![0; 40],
        targets: vec![0; 40],
        weights: vec![0.0; 40],
        positions: vec![0; 40],
        starts: vec![0; 40],
        row_offset: 0,
    };
    for (from, lengths) in rows {
        let mut start = from;
        for &len in lengths {
            for i in 0..len {
                let place = start + i;
                batch.tokens[place] = ids[place];
                batch.targets[place] = ids[place + 1];
                batch.weights[place] = 1.0;
                batch.positions[place] = i as u16;
                batch.starts[place] = (start - from) as u16;
            }
            start += len;
        }
    }
    batch
}

#[test]
fn scores_are_those_of_the_training_engine_packed_or_not() {
    for c in all_options() {
        let tensors = random_tensors(&c);
        let mut engine = CpuEngine::new(c.clone(), EngineSettings::default(), 1, 2).unwrap();
        engine.load_weights(&tensors).unwrap();
        let ids = tokens(41);
        let batch = packed(&ids);
        let trained = engine.evaluate(&batch).unwrap();
        let mut session = session(&c, ReadPrecision::F32, 2);
        for (start, len) in [(0, 14), (14, 6), (20, 11)] {
            let (tokens, targets) = (
                &batch.tokens[start..start + len],
                &batch.targets[start..start + len],
            );
            let scores = session.score(tokens, 0, targets).unwrap();
            for (found, want) in scores.iter().zip(&trained[start..]) {
                assert!(
                    (found.nll - want.nll).abs() < 1e-4,
                    "{found:?}, not {want:?}"
                );
                assert_eq!(found.rank, want.rank);
            }
        }
    }
}

#[test]
fn what_cannot_be_fed_is_an_error_and_changes_nothing() {
    let c = &all_options()[0];
    let mut session = session(c, ReadPrecision::F32, 1);
    session.feed(&[1, 2]).unwrap();
    assert_eq!(session.feed(&[]).unwrap_err(), FeedError::Empty);
    let outside = FeedError::OutsideVocabulary {
        id: 77,
        vocab_size: 77,
    };
    assert_eq!(session.feed(&[3, 77]).unwrap_err(), outside);
    let long = FeedError::TooLong { n: 46, context: 45 };
    assert_eq!(session.feed(&[0; 44]).unwrap_err(), long);
    assert_eq!(session.held(), [1, 2]);
}

mod folders {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::{
        folder::{LAST_NAME, OLD_SHAPE_NAME, SHAPE_NAME, WEIGHTS_NAME, Which},
        weights::write_tensors,
    };

    fn write(c: &ModelConfig, tensors: &Tensors) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(SHAPE_NAME), serde_json::to_vec(c).unwrap()).unwrap();
        write_tensors(&dir.path().join(WEIGHTS_NAME), tensors).unwrap();
        dir
    }

    #[track_caller]
    fn refusal(dir: &TempDir) -> String {
        let Err(error) = Model::open(dir.path(), Which::Best, ReadPrecision::F32) else {
            panic!("opened")
        };
        error
            .to_string()
            .replace(&*dir.path().to_string_lossy(), "[DIR]")
    }

    #[test]
    fn a_folder_and_its_tensors_are_the_same_model() {
        let c = tiny();
        let dir = write(&c, &random_tensors(&c));
        let open = || Arc::new(Model::open(dir.path(), Which::Best, ReadPrecision::F32).unwrap());
        let mut built = session(&c, ReadPrecision::F32, 1);
        let built = built.feed(&[5, 6]).unwrap();
        assert_eq!(Session::new(open(), 1).feed(&[5, 6]).unwrap(), built);
        // As earlier versions wrote it.
        fs::rename(dir.path().join(SHAPE_NAME), dir.path().join(OLD_SHAPE_NAME)).unwrap();
        assert_eq!(Session::new(open(), 1).feed(&[5, 6]).unwrap(), built);
    }

    #[test]
    fn the_weights_of_the_last_step_speak_where_they_are_asked_for() {
        let c = tiny();
        let best = random_tensors(&c);
        let dir = write(&c, &best);
        let mut last = best.clone();
        last.get_mut("embed.weight").unwrap().data.reverse();
        write_tensors(&dir.path().join(LAST_NAME), &last).unwrap();
        let says = |which| {
            let model = Arc::new(Model::open(dir.path(), which, ReadPrecision::F32).unwrap());
            Session::new(model, 1).feed(&[5, 6]).unwrap().to_vec()
        };
        let of = |tensors| {
            let model = Model::from_tensors(c.clone(), tensors, ReadPrecision::F32).unwrap();
            let mut session = Session::new(Arc::new(model), 1);
            session.feed(&[5, 6]).unwrap().to_vec()
        };
        assert_eq!(says(Which::Best), of(&best));
        assert_eq!(says(Which::Last), of(&last));
        assert_ne!(says(Which::Last), says(Which::Best));
    }

    #[test]
    fn a_config_of_the_format_of_others_is_not_read_beside_our_own() {
        let c = tiny();
        let dir = write(&c, &random_tensors(&c));
        let theirs = r#"{"model_type": "llama", "hidden_size": 24}"#;
        fs::write(dir.path().join(OLD_SHAPE_NAME), theirs).unwrap();
        let model = Model::open(dir.path(), Which::Best, ReadPrecision::F32).unwrap();
        assert_eq!(*model.config(), c);
    }

    #[test]
    fn what_is_no_model_is_refused_with_a_reason() {
        let c = tiny();
        let tensors = random_tensors(&c);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(
            refusal(&empty),
            "`[DIR]` is no model: it has no `tinylm.json`"
        );

        let dir = write(&c, &tensors);
        fs::remove_file(dir.path().join(WEIGHTS_NAME)).unwrap();
        assert_eq!(
            refusal(&dir),
            "`[DIR]` is no model: it has no `model.safetensors`"
        );

        let dir = write(&c, &tensors);
        let file = dir.path().join(WEIGHTS_NAME);
        let bytes = fs::read(&file).unwrap();
        for n in [0, 5, 100, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&file, &bytes[..n]).unwrap();
            let found = refusal(&dir);
            assert!(
                found.starts_with("`[DIR]/model.safetensors` is damaged or cut short: "),
                "{found}"
            );
        }

        let dir = write(&c, &tensors);
        fs::remove_file(dir.path().join(SHAPE_NAME)).unwrap();
        fs::write(dir.path().join(OLD_SHAPE_NAME), r#"{"model_type": "gpt2"}"#).unwrap();
        let found = refusal(&dir);
        assert!(
            found.starts_with("`[DIR]/config.json` does not describe a model of this program"),
            "{found}"
        );

        let mut foreign = tensors.clone();
        foreign.insert("lm_head.weight".into(), tensors["head.weight"].clone());
        let found = refusal(&write(&c, &foreign));
        assert_eq!(
            found,
            "`lm_head.weight` among the weights is not part of this model"
        );

        let mut missing = tensors.clone();
        missing.remove("blocks.1.up.bias");
        assert_eq!(
            refusal(&write(&c, &missing)),
            "`blocks.1.up.bias` is missing from the weights"
        );

        let other = ModelConfig {
            d_ff: 51,
            ..c.clone()
        };
        let found = refusal(&write(&other, &tensors));
        assert_eq!(
            found,
            "`blocks.0.up.weight` has shape [50, 24], the configuration needs [51, 24]"
        );
    }

    #[test]
    fn configurations_that_cannot_be_are_refused_before_anything_is_computed() {
        let c = tiny();
        for (broken, reason) in [
            (
                ModelConfig {
                    n_heads: 0,
                    ..c.clone()
                },
                "`n_heads` must be at least 1",
            ),
            (
                ModelConfig {
                    n_heads: 5,
                    n_kv_heads: 5,
                    ..c.clone()
                },
                "must be a multiple of `n_heads` (5)",
            ),
            (
                ModelConfig {
                    n_kv_heads: 3,
                    ..c.clone()
                },
                "must be a multiple of `n_kv_heads` (3)",
            ),
            (
                ModelConfig {
                    d_ff: 1 << 40,
                    ..c.clone()
                },
                "`d_ff` (1099511627776) must be at most 65536",
            ),
        ] {
            let found = refusal(&write(&broken, &Tensors::new()));
            assert!(found.ends_with(reason), "{found}");
        }
    }
}
