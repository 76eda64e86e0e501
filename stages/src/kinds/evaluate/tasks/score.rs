//! How probable the answers of an example are, and which of them the model would give.

use tinylm_model::{
    engine::Score,
    generate::{GenerateError, Session},
};
use tinylm_pipeline::StageError;

use super::{
    example::{Example, Form},
    prompt::Prompt,
};
use crate::shared::speak::{SpeakError, narrow};

/// The sums over one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Answer {
    /// The mean loss by CORE's rule of where it begins.
    mean_loss: f64,
    /// The log-probability by the rule of lm-evaluation-harness.
    pub(super) log_probability: f64,
    /// Whether each token of it was the likeliest.
    is_greedy: bool,
    n_chars: usize,
    pub(super) n_tokens: usize,
    /// The prompt did not fit the context: its beginning was left out.
    is_cropped: bool,
}

/// The judgement of an example.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    pub(super) answers: Vec<Answer>,
    /// By the sum, as `acc` of lm-evaluation-harness.
    pub(super) is_right: bool,
    /// By the sum for each character.
    pub(super) is_right_by_chars: bool,
    /// By the mean, as CORE.
    pub(super) is_right_by_mean: bool,
}

impl Verdict {
    pub(super) fn n_cropped(&self) -> usize {
        self.answers
            .iter()
            .filter(|answer| answer.is_cropped)
            .count()
    }

    pub(super) fn of(example: &Example, answers: Vec<Answer>) -> Self {
        let best = |value: &dyn Fn(&Answer) -> f64| {
            let mut best = 0;
            for (idx, answer) in answers.iter().enumerate() {
                if value(answer) > value(&answers[best]) {
                    best = idx;
                }
            }
            best
        };
        let by_sum = best(&|answer| answer.log_probability);
        let by_chars = best(&|answer| answer.log_probability / answer.n_chars.max(1) as f64);
        let by_mean = best(&|answer| -answer.mean_loss);
        let rights = match example {
            Example::Choice { gold, .. } => [by_sum, by_chars, by_mean].map(|best| best == *gold),
            Example::Schema { gold, .. } => [by_mean == *gold; 3],
            Example::Continuation { .. } => [answers[0].is_greedy; 3],
            // The first is the sentence that is possible; a tie is no preference.
            Example::Pair { .. } => [answers[0].log_probability > answers[1].log_probability; 3],
        };
        let [is_right, is_right_by_chars, is_right_by_mean] = rights;
        Self {
            answers,
            is_right,
            is_right_by_chars,
            is_right_by_mean,
        }
    }
}

/// Scores one prompt's answer. A prompt longer than the context loses its beginning.
pub(super) fn answer(
    session: &mut Session,
    prompt: &Prompt,
    form: Form,
) -> Result<Answer, StageError> {
    let ids = narrow(&prompt.ids)?;
    let n_cropped = ids.len().saturating_sub(session.config().context + 1);
    let ids = &ids[n_cropped..];
    let place = |start: usize| start.saturating_sub(n_cropped).max(1);
    let (apart, behind) = (place(prompt.apart), place(prompt.behind));
    let first = apart.min(behind);
    let scores = match first < ids.len() {
        true => session
            .score_behind(&ids[..ids.len() - 1], first - 1, &ids[first..])
            .map_err(GenerateError::from)
            .map_err(SpeakError::from)?,
        // Nothing is left to predict: an answer without tokens.
        false => Vec::new(),
    };
    let of_apart = scores.get(apart - first..).unwrap_or_default();
    let of_behind = scores.get(behind - first..).unwrap_or_default();
    let of_mean = if form == Form::Pair {
        of_behind
    } else {
        of_apart
    };
    Ok(Answer {
        mean_loss: nll(of_mean) / of_mean.len().max(1) as f64,
        log_probability: -nll(of_behind),
        is_greedy: !of_apart.is_empty() && of_apart.iter().all(|score| score.rank == 0),
        n_chars: prompt.n_chars,
        n_tokens: of_behind.len(),
        is_cropped: n_cropped > 0,
    })
}

fn nll(scores: &[Score]) -> f64 {
    scores.iter().map(|score| f64::from(score.nll)).sum()
}
