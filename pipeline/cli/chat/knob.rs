//! The numbers by which a conversation is steered: how each is called, set and told.

use std::str::FromStr;

use tinylm_stages::shared::speak::Manner;

use crate::manner::length;

/// A number that can be changed between two turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knob {
    Temperature,
    TopK,
    TopP,
    Seed,
    Length,
}

impl Knob {
    pub(super) const ALL: [Knob; 5] = [
        Knob::Temperature,
        Knob::TopK,
        Knob::TopP,
        Knob::Seed,
        Knob::Length,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Knob::Temperature => "temp",
            Knob::TopK => "top-k",
            Knob::TopP => "top-p",
            Knob::Seed => "seed",
            Knob::Length => "length",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Knob::Temperature => "/temp 0.8",
            Knob::TopK => "/top-k 40",
            Knob::TopP => "/top-p 0.95",
            Knob::Seed => "/seed 42",
            Knob::Length => "/length 256",
        }
    }

    /// Returns the manner with this number changed, or why it stays as it is.
    pub(super) fn set(self, manner: &Manner, value: &str) -> Result<Manner, String> {
        let mut new = manner.clone();
        let sampling = &mut new.sampling;
        match self {
            Knob::Temperature => sampling.temperature = self.number(value)?,
            Knob::TopK => sampling.top_k = self.number(value)?,
            Knob::TopP => sampling.top_p = self.number(value)?,
            Knob::Seed => new.seed = self.number(value)?,
            Knob::Length => new.max_tokens = length(value).map_err(|_| self.advice())?,
        }
        match new.sampling.check() {
            Ok(()) => Ok(new),
            Err(error) => Err(error.to_string()),
        }
    }

    fn number<T: FromStr>(self, value: &str) -> Result<T, String> {
        value.parse().map_err(|_| self.advice())
    }

    fn advice(self) -> String {
        format!("say it like `{}`", self.example())
    }

    pub(super) fn told(self, manner: &Manner) -> String {
        let sampling = &manner.sampling;
        match self {
            Knob::Temperature => format!("the temperature is {}", sampling.temperature),
            Knob::TopK if sampling.top_k == 0 => "choosing among all tokens".to_owned(),
            Knob::TopK => format!("choosing among the {} most likely tokens", sampling.top_k),
            Knob::TopP if sampling.top_p >= 1.0 => "choosing whatever tokens add up to".to_owned(),
            Knob::TopP => format!(
                "choosing among the most likely tokens that add up to {}",
                sampling.top_p
            ),
            Knob::Seed => format!("the seed is {}", manner.seed),
            Knob::Length if manner.max_tokens == usize::MAX => "answers have no end".to_owned(),
            Knob::Length => format!("answers have at most {} tokens", manner.max_tokens),
        }
    }
}
