//! Every token but the first is scored once, in windows as long as the model's context.

use tinylm_model::{
    engine::Score,
    generate::{GenerateError, Session},
};
use tinylm_pipeline::StageError;

use crate::shared::speak::SpeakError;

/// Scores every token but the first, once, with as much before it as the windows give.
pub(super) fn rolling_scores(
    session: &mut Session,
    ids: &[u16],
    progress: &dyn Fn(usize) -> Result<(), StageError>,
) -> Result<Vec<Score>, StageError> {
    let context = session.config().context;
    let n = ids.len().saturating_sub(1);
    let mut scores = Vec::with_capacity(n);
    while scores.len() < n {
        let done = scores.len();
        progress(done)?;
        let (start, end) = window(done, n, context);
        let targets = &ids[done + 1..=end];
        let scored = session.score(&ids[start..end], done - start, targets);
        scores.extend(
            scored
                .map_err(GenerateError::from)
                .map_err(SpeakError::from)?,
        );
    }
    Ok(scores)
}

/// The next window over `n` places of which `done` are scored: where it starts and ends.
pub(super) fn window(done: usize, n: usize, context: usize) -> (usize, usize) {
    let end = n.min(done + context);
    (done.min(end.saturating_sub(context)), end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn windows_score_every_place_once_and_fit_the_context(n in 1usize..400, context in 1usize..50) {
            let mut done = 0;
            while done < n {
                let (start, end) = window(done, n, context);
                prop_assert!(start <= done && done < end && end - start <= context);
                // All but the first see as much as fits.
                prop_assert!(start == 0 || end - start == context);
                done = end;
            }
            prop_assert_eq!(done, n);
        }
    }

    #[test]
    fn windows_are_those_of_lm_eval() {
        let mut windows = Vec::new();
        let mut done = 0;
        while done < 10 {
            let (start, end) = window(done, 10, 4);
            windows.push((start, done, end));
            done = end;
        }
        assert_eq!(windows, [(0, 0, 4), (4, 4, 8), (6, 8, 10)]);
    }
}
