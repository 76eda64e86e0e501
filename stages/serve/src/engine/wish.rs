//! How an answer is to be chosen: what the sampler does, and what OpenAI's clients ask for beyond it.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use tinylm_model::sampler::{Draw, Sampling, SamplingError};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    pub(crate) sampling: Sampling,
    pub(crate) seed: u64,
    /// Which of several answers to one prompt.
    pub(crate) sample: u64,
    pub(crate) n_max: usize,
    /// Ids that end an answer.
    pub(crate) stop: Vec<u16>,
    /// Added to logits.
    pub(crate) bias: Arc<[(u16, f32)]>,
    /// Taken off the logits of what has been said.
    pub(crate) presence_penalty: f32,
    /// The same, as often as it has been said.
    pub(crate) frequency_penalty: f32,
    /// How many of the likeliest tokens to tell with each, if likelihoods are wanted at all.
    pub(crate) n_top: Option<usize>,
    /// Whether likelihoods of the prompt's tokens are wanted too.
    pub(crate) is_prompt_told: bool,
}

impl Wish {
    /// Chooses the next token after `history`, of which the tokens from `n_prompt` on are the answer.
    pub(super) fn next(
        &self,
        logits: &[f32],
        history: &[u16],
        n_prompt: usize,
    ) -> Result<u16, SamplingError> {
        let said = &history[n_prompt..];
        let draw = Draw {
            seed: self.seed,
            sample: self.sample,
            position: said.len() as u64,
        };
        let logits = self.weighed(logits, said);
        self.sampling.next(&logits, history, draw)
    }

    fn weighed<'a>(&self, logits: &'a [f32], said: &[u16]) -> Cow<'a, [f32]> {
        let has_penalty = self.presence_penalty != 0.0 || self.frequency_penalty != 0.0;
        if self.bias.is_empty() && !has_penalty {
            return Cow::Borrowed(logits);
        }
        let mut logits = logits.to_vec();
        for (id, bias) in &*self.bias {
            if let Some(logit) = logits.get_mut(usize::from(*id)) {
                *logit += bias;
            }
        }
        if has_penalty {
            let mut counts = HashMap::new();
            for id in said {
                *counts.entry(*id).or_insert(0.0_f32) += 1.0;
            }
            for (id, n) in counts {
                logits[usize::from(id)] -= self.presence_penalty + self.frequency_penalty * n;
            }
        }
        Cow::Owned(logits)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn greedy() -> Wish {
        Wish {
            sampling: Sampling::GREEDY,
            seed: 1,
            sample: 0,
            n_max: 8,
            stop: Vec::new(),
            bias: Arc::default(),
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            n_top: None,
            is_prompt_told: false,
        }
    }

    #[test]
    fn a_bias_moves_what_is_likeliest_and_can_forbid_it() {
        let logits = [1.0, 2.0, 1.5];
        assert_eq!(greedy().next(&logits, &[0], 1), Ok(1));
        let biased = Wish {
            bias: [(1, -100.0), (0, 1.0), (900, 5.0)].into(),
            ..greedy()
        };
        assert_eq!(biased.next(&logits, &[0], 1), Ok(0));
    }

    #[test]
    fn penalties_count_what_the_answer_said_and_not_the_prompt() {
        let logits = [1.0, 2.0, 1.5];
        let wish = Wish {
            presence_penalty: 0.2,
            frequency_penalty: 0.2,
            ..greedy()
        };
        assert_eq!(wish.next(&logits, &[1, 1, 1], 3), Ok(1));
        assert_eq!(wish.next(&logits, &[1, 1, 1], 2), Ok(1));
        assert_eq!(wish.next(&logits, &[1, 1, 1], 0), Ok(2));
    }
}
