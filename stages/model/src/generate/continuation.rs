//! A prompt and what the model makes of it, one token at a time, for as long as wanted.
//!
//! A context ends and a continuation need not: when it is full, the older half of what
//! may slide is dropped and the rest read again. Half rather than one token, because
//! positions are part of what is kept of a token, so sliding by one would mean reading
//! everything again for each token. Some tokens at the beginning can be told to stay.

use super::{
    reader::{FeedError, check_ids},
    session::Session,
};
use crate::config::ModelConfig;
use crate::sampler::{Candidate, Draw, Sampling, SamplingError, candidates};

/// How a prompt is continued.
#[derive(Debug, Clone)]
pub struct Rules {
    pub sampling: Sampling,
    pub seed: u64,
    /// Which of several samples of the same prompt.
    pub sample: u64,
    /// Most tokens to generate; `usize::MAX` for no end.
    pub n_max: usize,
    /// Ids at which to stop.
    pub stop: Vec<u16>,
    /// Tokens at the beginning of the prompt that never slide out.
    pub n_stay: usize,
    /// How many candidates to list with each token.
    pub n_candidates: usize,
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub id: u16,
    /// Whether it is one of the stop ids; nothing follows it then.
    pub is_stop: bool,
    pub candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GenerateError {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

/// A prompt being continued, whoever reads it.
pub(super) struct Voice {
    rules: Rules,
    context: usize,
    /// Everything so far, also what has slid out.
    tokens: Vec<u16>,
    /// Tokens to be fed before the next token can be chosen.
    pub(super) waiting: Vec<u16>,
    n_generated: usize,
    n_cropped: usize,
    n_slides: usize,
    stopped: bool,
}

impl Voice {
    /// Checks prompt and rules.
    pub(super) fn new(
        config: &ModelConfig,
        prompt: &[u16],
        rules: Rules,
    ) -> Result<Self, GenerateError> {
        rules.sampling.check()?;
        if prompt.is_empty() {
            return Err(FeedError::Empty.into());
        }
        check_ids(config, prompt)?;
        let waiting = crop(prompt, rules.n_stay, config.context, rules.n_max);
        Ok(Voice {
            context: config.context,
            tokens: prompt.to_vec(),
            n_cropped: prompt.len() - waiting.len(),
            waiting,
            rules,
            n_generated: 0,
            n_slides: 0,
            stopped: false,
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.stopped || self.n_generated >= self.rules.n_max
    }

    /// Tokens of the prompt that did not fit the context and were left out.
    pub(super) fn n_cropped(&self) -> usize {
        self.n_cropped
    }

    /// How often the oldest tokens were dropped because the context was full.
    pub(super) fn n_slides(&self) -> usize {
        self.n_slides
    }

    /// Chooses the next token by the logits behind all that waited.
    pub(super) fn choose(&mut self, logits: &[f32]) -> Result<Step, GenerateError> {
        let draw = Draw {
            seed: self.rules.seed,
            sample: self.rules.sample,
            position: self.n_generated as u64,
        };
        let id = self.rules.sampling.next(logits, &self.tokens, draw)?;
        let candidates = candidates(logits, self.rules.n_candidates);
        self.waiting.clear();
        self.waiting.push(id);
        self.tokens.push(id);
        self.n_generated += 1;
        self.stopped = self.rules.stop.contains(&id);
        Ok(Step {
            id,
            is_stop: self.stopped,
            candidates,
        })
    }

    /// Drops the older half of what may slide when the next token does not fit, and returns how many of
    /// the tokens held stay; the others wait again.
    pub(super) fn make_room(&mut self, held: &[u16]) -> Option<usize> {
        let context = self.context;
        if held.len() + self.waiting.len() <= context {
            return None;
        }
        let n_stay = self.rules.n_stay.min(context / 2);
        let n_kept = (context - n_stay) / 2;
        let mut rest = held[held.len() - n_kept.min(held.len())..].to_vec();
        rest.append(&mut self.waiting);
        self.waiting = rest;
        self.n_slides += 1;
        Some(n_stay)
    }
}

/// A prompt that a session continues.
pub struct Continuation<'a> {
    session: &'a mut Session,
    voice: Voice,
}

impl<'a> Continuation<'a> {
    /// Checks prompt and rules; the prompt is read with the first token.
    pub fn new(
        session: &'a mut Session,
        prompt: &[u16],
        rules: Rules,
    ) -> Result<Self, GenerateError> {
        let voice = Voice::new(session.config(), prompt, rules)?;
        Ok(Continuation { session, voice })
    }

    /// Tokens of the prompt that did not fit the context and were left out.
    pub fn n_cropped(&self) -> usize {
        self.voice.n_cropped()
    }

    /// How often the oldest tokens were dropped because the context was full.
    pub fn n_slides(&self) -> usize {
        self.voice.n_slides()
    }

    /// Prompt and everything generated.
    pub fn tokens(&self) -> &[u16] {
        &self.voice.tokens
    }

    /// Returns the next token; none after a stop or the last that was asked for.
    pub fn advance(&mut self) -> Result<Option<Step>, GenerateError> {
        let voice = &mut self.voice;
        if voice.is_over() {
            return Ok(None);
        }
        let logits = if voice.n_generated == 0 {
            self.session.hold(&voice.waiting)?
        } else {
            if let Some(n_stay) = voice.make_room(self.session.held()) {
                self.session.truncate(n_stay);
            }
            self.session.feed(&voice.waiting)?
        };
        voice.choose(logits).map(Some)
    }
}

/// Returns a prompt that leaves room for an answer: its beginning that must stay, and
/// the end of the rest.
fn crop(prompt: &[u16], n_stay: usize, context: usize, n_max: usize) -> Vec<u16> {
    if prompt.len() <= context {
        return prompt.to_vec();
    }
    let n_kept = context - n_max.min(context / 4);
    let n_stay = n_stay.min(n_kept / 2);
    let (stay, rest) = prompt.split_at(n_stay);
    [stay, &rest[rest.len() - (n_kept - n_stay)..]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::ReadPrecision,
        generate::tests::{session, tiny},
    };

    fn rules(n_max: usize) -> Rules {
        Rules {
            sampling: Sampling {
                temperature: 1.0,
                ..Sampling::GREEDY
            },
            seed: 3,
            sample: 0,
            n_max,
            stop: vec![],
            n_stay: 0,
            n_candidates: 0,
        }
    }

    fn ids(prompt: &[u16], rules: Rules) -> Vec<u16> {
        let mut session = session(&tiny(), ReadPrecision::F32, 1);
        let mut continuation = Continuation::new(&mut session, prompt, rules).unwrap();
        let mut ids = Vec::new();
        while let Some(step) = continuation.advance().unwrap() {
            ids.push(step.id);
        }
        ids
    }

    #[test]
    fn a_continuation_outlives_the_context() {
        let mut session = session(&tiny(), ReadPrecision::F32, 1);
        let rules = Rules {
            n_stay: 3,
            ..rules(200)
        };
        let mut continuation = Continuation::new(&mut session, &[9, 8, 7, 6], rules).unwrap();
        let mut n = 0;
        while continuation.advance().unwrap().is_some() {
            n += 1;
        }
        assert_eq!(n, 200);
        assert!(continuation.n_slides() > 4);
        let tokens = continuation.tokens().to_vec();
        let held = session.held();
        assert_eq!(held[..3], [9, 8, 7]);
        // The last token was chosen and not fed.
        assert!(tokens[..tokens.len() - 1].ends_with(&held[3..]));
    }

    #[test]
    fn samples_differ_and_each_is_the_same_alone() {
        let first = ids(&[1, 2], rules(12));
        let second = ids(
            &[1, 2],
            Rules {
                sample: 1,
                ..rules(12)
            },
        );
        assert_ne!(first, second);
        assert_eq!(first, ids(&[1, 2], rules(12)));
        assert_eq!(first[..5], ids(&[1, 2], rules(5)));
    }

    #[test]
    fn a_stop_token_is_the_last() {
        let free = ids(&[1, 2], rules(12));
        let stop = free[4];
        let first = free.iter().position(|&id| id == stop).unwrap();
        let stopped = ids(
            &[1, 2],
            Rules {
                stop: vec![stop],
                ..rules(12)
            },
        );
        assert_eq!(stopped, free[..=first]);
    }

    #[test]
    fn a_prompt_longer_than_the_context_keeps_its_end() {
        let prompt: Vec<u16> = (0..77).collect();
        let mut session = session(&tiny(), ReadPrecision::F32, 1);
        let mut continuation = Continuation::new(&mut session, &prompt, rules(30)).unwrap();
        assert!(continuation.n_cropped() > 77 - 45);
        continuation.advance().unwrap().unwrap();
        assert!(prompt.ends_with(session.held()));
    }

    #[test]
    fn bad_prompts_and_settings_are_errors() {
        let mut session = session(&tiny(), ReadPrecision::F32, 1);
        let mut message =
            |prompt: &[u16], rules| match Continuation::new(&mut session, prompt, rules) {
                Ok(_) => panic!("accepted"),
                Err(error) => error.to_string(),
            };
        assert_eq!(
            message(&[], rules(1)),
            "nothing to read: the prompt has no tokens"
        );
        assert!(message(&[500], rules(1)).starts_with("token 500 is outside"));
        let mut nan = rules(1);
        nan.sampling.temperature = f32::NAN;
        assert_eq!(
            message(&[1], nan),
            "`temperature` is NaN, it must be 0 or more"
        );
    }

    #[test]
    fn candidates_come_with_each_token() {
        let mut session = session(&tiny(), ReadPrecision::F32, 1);
        let rules = Rules {
            sampling: Sampling::GREEDY,
            n_candidates: 5,
            ..rules(3)
        };
        let mut continuation = Continuation::new(&mut session, &[4], rules).unwrap();
        while let Some(step) = continuation.advance().unwrap() {
            assert_eq!(step.candidates.len(), 5);
            assert_eq!(step.candidates[0].id, step.id);
        }
    }

    proptest! {
        #[test]
        fn a_cropped_prompt_fits_with_room_to_spare(n in 1usize..200, n_stay in 0usize..200, context in 1usize..60, n_max in 1usize..80) {
            let prompt: Vec<u16> = (0..n as u16).collect();
            let cropped = crop(&prompt, n_stay, context, n_max);
            prop_assert!(!cropped.is_empty() && cropped.len() <= context);
            if n > context {
                prop_assert!(cropped.len() + n_max.min(context / 4) <= context);
                prop_assert_eq!(cropped.last(), prompt.last());
            }
        }
    }
}
