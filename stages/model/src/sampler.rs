//! From logits to the next token.
//!
//! The order and the defaults are llama.cpp's: repetition penalty, top-k, top-p, min-p,
//! temperature. Numbers are drawn as a function of (seed, sample, position), never from
//! a generator that is passed along: the third of ten samples is the same when it is
//! asked for alone, and going on after a stop is the same as not having stopped.

use std::cmp::Ordering;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Only this many of the most likely tokens; 0 is all.
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability; 1 is all.
    pub top_p: f32,
    /// Only tokens at least this fraction as likely as the most likely one; 0 is all.
    pub min_p: f32,
    /// Tokens seen lately count as this much less likely; 1 is no penalty.
    pub repeat_penalty: f32,
    /// How many of the last tokens the penalty looks at.
    pub repeat_last_n: usize,
}

/// The defaults of llama.cpp.
impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
        }
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    #[error("`{name}` is {value}, it must be {bound}")]
    Setting {
        name: &'static str,
        value: f32,
        bound: &'static str,
    },
    #[error("the model's logits are not numbers: its weights have diverged")]
    NotANumber,
}

/// Which random number is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    pub seed: u64,
    /// Which of several samples of a prompt.
    pub sample: u64,
    /// Which token of the sample.
    pub position: u64,
}

/// A token that could come next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub id: u16,
    /// Of all tokens, before anything is cut off or penalised.
    pub probability: f32,
}

impl Sampling {
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
        repeat_last_n: 64,
    };

    /// Refuses settings that mean nothing, NaN first of all.
    pub fn check(&self) -> Result<(), SamplingError> {
        let bounds: [(&'static str, f32, bool, &'static str); 4] = [
            (
                "temperature",
                self.temperature,
                self.temperature >= 0.0,
                "0 or more",
            ),
            (
                "top_p",
                self.top_p,
                (0.0..=1.0).contains(&self.top_p),
                "between 0 and 1",
            ),
            (
                "min_p",
                self.min_p,
                (0.0..=1.0).contains(&self.min_p),
                "between 0 and 1",
            ),
            (
                "repeat_penalty",
                self.repeat_penalty,
                self.repeat_penalty > 0.0,
                "above 0",
            ),
        ];
        for (name, value, holds, bound) in bounds {
            if !holds || !value.is_finite() {
                return Err(SamplingError::Setting { name, value, bound });
            }
        }
        Ok(())
    }

    /// Returns the next token after `history` (prompt included).
    pub fn next(&self, logits: &[f32], history: &[u16], draw: Draw) -> Result<u16, SamplingError> {
        let penalised;
        let mut logits = logits;
        if self.repeat_penalty != 1.0 {
            penalised = self.penalise(logits, history);
            logits = &penalised;
        }
        let mut choices = largest(
            logits,
            if self.temperature == 0.0 {
                1
            } else {
                self.top_k
            },
        );
        let Some(&(best, id)) = choices.first() else {
            return Err(SamplingError::NotANumber);
        };
        if self.temperature == 0.0 || choices.len() == 1 {
            return Ok(id);
        }
        self.cut_top_p(&mut choices);
        if self.min_p > 0.0 {
            let least = best + self.min_p.ln();
            choices.retain(|(logit, _)| *logit >= least);
        }
        Ok(pick(&choices, self.temperature, draw.uniform()))
    }

    fn penalise(&self, logits: &[f32], history: &[u16]) -> Vec<f32> {
        let mut logits = logits.to_vec();
        let lately = &history[history.len().saturating_sub(self.repeat_last_n)..];
        let mut seen = lately.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(logit) = logits.get_mut(usize::from(id)) {
                *logit = if *logit > 0.0 {
                    *logit / self.repeat_penalty
                } else {
                    *logit * self.repeat_penalty
                };
            }
        }
        logits
    }

    /// Keeps the smallest beginning whose probabilities reach `top_p`, one token at least.
    fn cut_top_p(&self, choices: &mut Vec<(f32, u16)>) {
        if self.top_p >= 1.0 {
            return;
        }
        let best = choices[0].0;
        let total: f64 = choices
            .iter()
            .map(|(logit, _)| f64::from(logit - best).exp())
            .sum();
        let mut reached = 0.0;
        let n_kept = choices.iter().position(|(logit, _)| {
            reached += f64::from(logit - best).exp() / total;
            reached >= f64::from(self.top_p)
        });
        choices.truncate(n_kept.map_or(choices.len(), |last| last + 1));
    }
}

/// Returns the `n` most likely tokens with their probabilities, the most likely first.
pub fn candidates(logits: &[f32], n: usize) -> Vec<Candidate> {
    if n == 0 {
        return Vec::new();
    }
    let choices = largest(logits, n);
    let Some(&(best, _)) = choices.first() else {
        return Vec::new();
    };
    let finite = logits.iter().filter(|logit| !logit.is_nan());
    let total: f64 = finite.map(|logit| f64::from(logit - best).exp()).sum();
    let probability = |logit: f32| (f64::from(logit - best).exp() / total) as f32;
    choices
        .into_iter()
        .map(|(logit, id)| Candidate {
            id,
            probability: probability(logit),
        })
        .collect()
}

/// Returns the `k` largest logits (0: all) in falling order, the smaller id first among
/// equals. NaN and infinities take no part: a model that is all of them has no choice.
fn largest(logits: &[f32], k: usize) -> Vec<(f32, u16)> {
    let k = if k == 0 {
        logits.len()
    } else {
        k.min(logits.len())
    };
    let mut kept: Vec<(f32, u16)> = Vec::with_capacity(4 * k.min(1 << 14));
    // Whatever is below the k-th of some logits is below the k-th of all.
    let mut least = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > least && logit.is_finite() {
            kept.push((logit, id as u16));
            if kept.len() == 4 * k && k < logits.len() {
                kept.select_nth_unstable_by(k - 1, falling);
                kept.truncate(k);
                least = kept[k - 1].0;
            }
        }
    }
    if kept.len() > k {
        kept.select_nth_unstable_by(k - 1, falling);
        kept.truncate(k);
    }
    kept.sort_unstable_by(falling);
    kept
}

fn falling(a: &(f32, u16), b: &(f32, u16)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Returns the token where the summed probabilities pass `uniform`.
fn pick(choices: &[(f32, u16)], temperature: f32, uniform: f64) -> u16 {
    let best = choices[0].0;
    let weight = |logit: f32| (f64::from(logit - best) / f64::from(temperature)).exp();
    let total: f64 = choices.iter().map(|(logit, _)| weight(*logit)).sum();
    let mut left = uniform * total;
    for (logit, id) in choices {
        left -= weight(*logit);
        if left < 0.0 {
            return *id;
        }
    }
    // Rounding can leave a crumb; it belongs to the last.
    choices[choices.len() - 1].1
}

impl Draw {
    /// Returns a number in `[0, 1)` that depends on nothing but the draw.
    pub fn uniform(self) -> f64 {
        let mixed = mix(mix(mix(self.seed) ^ self.sample) ^ self.position);
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The finalizer of SplitMix64, one step on.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOGITS: [f32; 6] = [0.0, 2.0, -1.0, 2.0, 1.0, 0.5];

    fn draw(position: u64) -> Draw {
        Draw {
            seed: 7,
            sample: 0,
            position,
        }
    }

    /// How often each of the six tokens comes in 4000 draws.
    fn counts(sampling: &Sampling) -> [usize; 6] {
        let mut counts = [0; 6];
        for position in 0..4000 {
            let id = sampling.next(&LOGITS, &[], draw(position)).unwrap();
            counts[usize::from(id)] += 1;
        }
        counts
    }

    const ALL: Sampling = Sampling {
        temperature: 1.0,
        ..Sampling::GREEDY
    };

    #[test]
    fn greedy_takes_the_first_of_the_most_likely() {
        assert_eq!(Sampling::GREEDY.next(&LOGITS, &[], draw(0)), Ok(1));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let total: f64 = LOGITS.iter().map(|&x| f64::from(x).exp()).sum();
        for (id, n) in counts(&ALL).into_iter().enumerate() {
            let expected = 4000.0 * f64::from(LOGITS[id]).exp() / total;
            assert!(
                (n as f64 - expected).abs() < 5.0 * expected.sqrt(),
                "{id}: {n}, not {expected}"
            );
        }
    }

    #[test]
    fn a_high_temperature_flattens_and_a_low_one_sharpens() {
        let cold = counts(&Sampling {
            temperature: 0.05,
            ..ALL
        });
        assert_eq!(cold[1] + cold[3], 4000);
        let hot = counts(&Sampling {
            temperature: 1e6,
            ..ALL
        });
        assert!(hot.iter().all(|&n| n > 500), "{hot:?}");
    }

    #[test]
    fn cuts_keep_only_what_they_say() {
        let kept = |sampling| counts(&sampling).map(|n| n > 0);
        let [t, f] = [true, false];
        assert_eq!(kept(Sampling { top_k: 3, ..ALL }), [f, t, f, t, t, f]);
        assert_eq!(kept(Sampling { top_k: 99, ..ALL }), [t; 6]);
        // The two best have 0.36 each, the third 0.13.
        assert_eq!(kept(Sampling { top_p: 0.3, ..ALL }), [f, t, f, f, f, f]);
        assert_eq!(kept(Sampling { top_p: 0.6, ..ALL }), [f, t, f, t, f, f]);
        assert_eq!(kept(Sampling { top_p: 0.75, ..ALL }), [f, t, f, t, t, f]);
        assert_eq!(kept(Sampling { top_p: 0.0, ..ALL }), [f, t, f, f, f, f]);
        // e^-1 = 0.37 and e^-1.5 = 0.22 of the most likely.
        assert_eq!(kept(Sampling { min_p: 0.3, ..ALL }), [f, t, f, t, t, f]);
        assert_eq!(kept(Sampling { min_p: 0.2, ..ALL }), [f, t, f, t, t, t]);
        assert_eq!(kept(Sampling { min_p: 1.0, ..ALL }), [f, t, f, t, f, f]);
    }

    #[test]
    fn a_penalty_counts_against_what_was_said_lately() {
        let sampling = Sampling {
            repeat_penalty: 2.0,
            repeat_last_n: 2,
            ..Sampling::GREEDY
        };
        assert_eq!(sampling.next(&LOGITS, &[1, 4, 4], draw(0)), Ok(1));
        assert_eq!(sampling.next(&LOGITS, &[4, 1, 4], draw(0)), Ok(3));
        // Both best are halved to 1.0, which token 4 has already; the smaller id wins.
        assert_eq!(sampling.next(&LOGITS, &[1, 3], draw(0)), Ok(1));
        // A negative logit becomes more so.
        assert_eq!(sampling.next(&[-1.0, -1.5], &[0], draw(0)), Ok(1));
    }

    #[test]
    fn a_draw_depends_on_seed_sample_and_position_alone() {
        let base = Draw {
            seed: 1,
            sample: 2,
            position: 3,
        };
        assert_eq!(base.uniform(), base.uniform());
        let others = [
            Draw { seed: 2, ..base },
            Draw { sample: 3, ..base },
            Draw {
                position: 4,
                ..base
            },
            Draw {
                sample: 3,
                position: 2,
                ..base
            },
        ];
        for other in others {
            assert_ne!(base.uniform(), other.uniform());
        }
        let mean = (0..10_000)
            .map(|position| Draw { position, ..base }.uniform())
            .sum::<f64>()
            / 1e4;
        assert!((mean - 0.5).abs() < 0.015, "{mean}");
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        assert_eq!(Sampling::default().check(), Ok(()));
        assert_eq!(Sampling::GREEDY.check(), Ok(()));
        for (broken, message) in [
            (
                Sampling {
                    temperature: f32::NAN,
                    ..ALL
                },
                "`temperature` is NaN, it must be 0 or more",
            ),
            (
                Sampling {
                    temperature: -1.0,
                    ..ALL
                },
                "`temperature` is -1, it must be 0 or more",
            ),
            (
                Sampling {
                    temperature: f32::INFINITY,
                    ..ALL
                },
                "`temperature` is inf, it must be 0 or more",
            ),
            (
                Sampling { top_p: 1.5, ..ALL },
                "`top_p` is 1.5, it must be between 0 and 1",
            ),
            (
                Sampling { min_p: -0.1, ..ALL },
                "`min_p` is -0.1, it must be between 0 and 1",
            ),
            (
                Sampling {
                    repeat_penalty: 0.0,
                    ..ALL
                },
                "`repeat_penalty` is 0, it must be above 0",
            ),
        ] {
            assert_eq!(broken.check().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_diverged_model_is_an_error_and_a_few_bad_logits_are_not() {
        let nan = [f32::NAN; 4];
        assert_eq!(ALL.next(&nan, &[], draw(0)), Err(SamplingError::NotANumber));
        assert_eq!(
            Sampling::GREEDY.next(&nan, &[], draw(0)),
            Err(SamplingError::NotANumber)
        );
        assert_eq!(
            ALL.next(&[f32::NAN, 1.0, f32::NEG_INFINITY], &[], draw(0)),
            Ok(1)
        );
        assert_eq!(candidates(&nan, 3), []);
    }

    #[test]
    fn candidates_have_their_probabilities_among_all() {
        let found = candidates(&LOGITS, 2);
        assert_eq!(found.iter().map(|c| c.id).collect::<Vec<_>>(), [1, 3]);
        assert!((found[0].probability - 0.3602).abs() < 1e-3, "{found:?}");
        let all: f32 = candidates(&LOGITS, 100).iter().map(|c| c.probability).sum();
        assert!((all - 1.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn the_largest_are_what_sorting_finds(logits in prop::collection::vec(-50i8..50, 1..400), k in 0usize..30) {
            let logits: Vec<f32> = logits.into_iter().map(|x| f32::from(x) / 4.0).collect();
            let mut sorted: Vec<(f32, u16)> = logits.iter().enumerate().map(|(i, &x)| (x, i as u16)).collect();
            sorted.sort_by(falling);
            if k > 0 {
                sorted.truncate(k);
            }
            prop_assert_eq!(largest(&logits, k), sorted);
        }
    }
}
