//! How likely tokens were, in logarithms that cannot underflow.

use std::cmp::Ordering;

/// The likelihood of one token, and the likeliest ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Logprobs {
    pub(crate) logprob: f32,
    pub(crate) top: Vec<(u16, f32)>,
}

impl Logprobs {
    pub(crate) fn of(logits: &[f32], id: u16, n_top: usize) -> Logprobs {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|x| f64::from(x - most).exp()).sum();
        let of = |logit: f32| (f64::from(logit - most) - total.ln()) as f32;
        let mut ids: Vec<u16> = (0..logits.len()).map(|id| id as u16).collect();
        let falling = |a: &u16, b: &u16| -> Ordering {
            let [x, y] = [a, b].map(|id| logits[usize::from(*id)]);
            y.total_cmp(&x).then(a.cmp(b))
        };
        let n_top = n_top.min(ids.len());
        if n_top > 0 && n_top < ids.len() {
            ids.select_nth_unstable_by(n_top - 1, falling);
        }
        ids.truncate(n_top);
        ids.sort_unstable_by(falling);
        Logprobs {
            logprob: of(logits[usize::from(id)]),
            top: ids
                .into_iter()
                .map(|id| (id, of(logits[usize::from(id)])))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihoods_are_those_of_the_softmax_however_far_apart_logits_are() {
        let told = Logprobs::of(&[0.0, 2.0, 1.0, -900.0], 3, 2);
        let total: f32 = 1.0 + 2.0_f32.exp() + 1.0_f32.exp();
        assert!((told.logprob - (-900.0 - total.ln())).abs() < 1e-3);
        let ids: Vec<u16> = told.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 2]);
        assert!((told.top[0].1 - (2.0 - total.ln())).abs() < 1e-6);
    }
}
