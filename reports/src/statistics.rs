//! How far a difference goes beyond chance: intervals of 95 % for a few seeds and for many documents.
//!
//! Seeds are few (three, five), so theirs is Student's interval, which is wide for few and says so.
//! Documents are many and their losses anything but normal, and the number that matters is a quotient
//! of sums, so theirs is a bootstrap: the documents are drawn again with replacement, and each draw
//! takes a document's numbers of both models along. The draws are the same each time: no seed is set,
//! no clock is read.

use serde::Serialize;

use crate::random::Random;

/// A difference and the interval that holds it 95 times of a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub by: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// Returns whether chance alone would hardly have done it.
    pub fn is_beyond_noise(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    /// The difference seen from the other side.
    pub(crate) fn turned(self) -> Estimate {
        Estimate {
            by: -self.by,
            low: -self.high,
            high: -self.low,
        }
    }

    fn around(by: f64, half: f64) -> Estimate {
        Estimate {
            by,
            low: by - half,
            high: by + half,
        }
    }
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Returns the standard deviation of what the values were drawn from (n - 1); none of a single value.
pub(crate) fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// Returns the mean of differences between pairs; none of fewer than two.
pub(crate) fn paired(differences: &[f64]) -> Option<Estimate> {
    let n = differences.len();
    let error = deviation(differences)? / (n as f64).sqrt();
    let half = student(n - 1) * error;
    Some(Estimate::around(mean(differences), half))
}

/// Returns by how much the mean of `values` is above that of `others`, by Welch; none where one of
/// them has fewer than two.
pub(crate) fn unpaired(values: &[f64], others: &[f64]) -> Option<Estimate> {
    let share = |values: &[f64]| Some(deviation(values)?.powi(2) / values.len() as f64);
    let (a, b) = (share(values)?, share(others)?);
    let spread = |share: f64, values: &[f64]| share.powi(2) / (values.len() - 1) as f64;
    let freedom = (a + b).powi(2) / (spread(a, values) + spread(b, others));
    // Rounded down: the interval is never too narrow for it. Without any spread it is a point.
    let freedom = if freedom.is_nan() {
        1
    } else {
        freedom as usize
    };
    let half = student(freedom.max(1)) * (a + b).sqrt();
    Some(Estimate::around(mean(values) - mean(others), half))
}

/// Two models' sums over one document, or over several: what is divided, and by what.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) losses: [f64; 2],
    pub(crate) sizes: [f64; 2],
}

impl Sums {
    pub(crate) fn add(&mut self, other: Sums) {
        for side in 0..2 {
            self.losses[side] += other.losses[side];
            self.sizes[side] += other.sizes[side];
        }
    }

    /// By how much the second model's loss is above that of the first.
    fn difference(&self) -> f64 {
        self.losses[1] / self.sizes[1] - self.losses[0] / self.sizes[0]
    }
}

const DRAWS: usize = 2_000;

/// More documents than this are drawn in so many lots, which are as independent as documents are and
/// give the same interval: a hundred thousand then cost no more than these.
const LOTS: usize = 4_000;

/// Returns by how much the second model's loss over all documents is above the first's, and how far
/// that depends on which documents they are. The order of the documents is that of the draws.
pub(crate) fn bootstrap(documents: &[Sums]) -> Option<Estimate> {
    if documents.len() < 2 {
        return None;
    }
    let mut lots = vec![Sums::default(); documents.len().min(LOTS)];
    let n = lots.len();
    for (idx, document) in documents.iter().enumerate() {
        lots[idx % n].add(*document);
    }
    let mut random = Random::new(0);
    let mut draws: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let mut drawn = Sums::default();
            for _ in 0..n {
                drawn.add(lots[random.below(n)]);
            }
            drawn.difference()
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    let mut all = Sums::default();
    lots.iter().for_each(|lot| all.add(*lot));
    let estimate = Estimate {
        by: all.difference(),
        low: draws[DRAWS / 40 - 1],
        high: draws[DRAWS - DRAWS / 40],
    };
    let is_finite = [estimate.by, estimate.low, estimate.high].map(f64::is_finite);
    (is_finite == [true; 3]).then_some(estimate)
}

/// The 97.5th percentile of Student's t by its degrees of freedom, as tables have it.
const STUDENT: [f64; 12] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179,
];

/// Beyond the table by the first terms of its expansion around the normal, good to three decimals.
fn student(freedom: usize) -> f64 {
    const NORMAL: f64 = 1.959_964;
    if let Some(known) = STUDENT.get(freedom - 1) {
        return *known;
    }
    let (n, z) = (freedom as f64, NORMAL);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    z + first / n + second / n.powi(2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Documents of very different difficulty, on each of which the second model is worse by about so much.
    fn planted(n: usize, by: f64) -> Vec<Sums> {
        let mut random = Random::new(7);
        let mut unit = || random.next() as f64 / u64::MAX as f64;
        (0..n)
            .map(|_| {
                let tokens = 5.0 + (60.0 * unit()).floor();
                let loss = 1.0 + 4.0 * unit();
                let second = loss + by + 0.2 * (unit() - 0.5);
                Sums {
                    losses: [tokens * loss, tokens * second],
                    sizes: [tokens; 2],
                }
            })
            .collect()
    }

    #[test]
    fn students_numbers_are_those_of_the_tables() {
        for (freedom, known) in [
            (1, 12.706),
            (4, 2.776),
            (13, 2.160),
            (30, 2.042),
            (120, 1.980),
        ] {
            assert!((student(freedom) - known).abs() < 1e-3, "{freedom}");
        }
    }

    #[test]
    fn the_interval_of_three_pairs_is_the_one_of_the_textbook() {
        // Mean 2, deviation 1: 4.303 / sqrt(3) on either side.
        let estimate = paired(&[1.0, 2.0, 3.0]).unwrap();
        assert!((estimate.by - 2.0).abs() < 1e-12);
        assert!((estimate.high - 4.4843).abs() < 1e-3, "{estimate:?}");
        assert!(!estimate.is_beyond_noise());
        assert_eq!(paired(&[1.0]), None);
        assert_eq!(unpaired(&[1.0, 2.0], &[1.0]), None);
    }

    #[test]
    fn pairs_find_what_seeds_that_differ_more_than_the_groups_would_hide() {
        let first = [1.0, 2.0, 3.0, 4.0, 5.0];
        let second = [1.11, 2.09, 3.10, 4.12, 5.08];
        let differences: Vec<f64> = second.iter().zip(first).map(|(b, a)| b - a).collect();
        assert!(paired(&differences).unwrap().is_beyond_noise());
        assert!(!unpaired(&second, &first).unwrap().is_beyond_noise());
    }

    #[test]
    fn a_planted_difference_is_found_and_none_is_not() {
        for n in [50, 1_000, 20_000] {
            let estimate = bootstrap(&planted(n, 0.03)).unwrap();
            assert!(estimate.is_beyond_noise(), "{n}: {estimate:?}");
            assert!(
                estimate.low < 0.03 && 0.03 < estimate.high,
                "{n}: {estimate:?}"
            );
        }
        let documents = planted(400, 0.0);
        assert!(!bootstrap(&documents).unwrap().is_beyond_noise());
        let equal = documents.into_iter().map(|document| Sums {
            losses: [document.losses[0]; 2],
            ..document
        });
        let equal = bootstrap(&equal.collect::<Vec<_>>()).unwrap();
        let nothing = Estimate::around(0.0, 0.0);
        assert_eq!(equal, nothing);
    }

    #[test]
    fn pairs_of_documents_tell_more_than_two_heaps_of_them() {
        let documents = planted(500, 0.03);
        let mut others: Vec<Sums> = documents.clone();
        others.rotate_left(250);
        let unpaired: Vec<Sums> = documents
            .iter()
            .zip(others)
            .map(|(one, other)| Sums {
                losses: [one.losses[0], other.losses[1]],
                sizes: [one.sizes[0], other.sizes[1]],
            })
            .collect();
        let width = |documents: &[Sums]| {
            let estimate = bootstrap(documents).unwrap();
            estimate.high - estimate.low
        };
        assert!(10.0 * width(&documents) < width(&unpaired));
    }

    #[test]
    fn lots_of_documents_give_the_interval_that_documents_give() {
        // The same spread of one document: the interval shrinks with the root of their number.
        let width = |n: usize| {
            let estimate = bootstrap(&planted(n, 0.03)).unwrap();
            (estimate.high - estimate.low) * (n as f64).sqrt()
        };
        let (alone, in_lots) = (width(LOTS), width(10 * LOTS + 7));
        assert!((in_lots / alone - 1.0).abs() < 0.1, "{alone} and {in_lots}");
    }

    #[test]
    fn the_interval_holds_the_truth_about_as_often_as_it_says() {
        let mut random = Random::new(3);
        let mut n_held = 0;
        for _ in 0..200 {
            let from = planted(100_000, 0.0);
            let documents: Vec<Sums> = (0..60).map(|_| from[random.below(from.len())]).collect();
            let estimate = bootstrap(&documents).unwrap();
            n_held += usize::from(!estimate.is_beyond_noise());
        }
        assert!((180..=198).contains(&n_held), "{n_held} of 200");
    }

    proptest! {
        #[test]
        fn the_other_side_sees_the_same_difference(values in prop::collection::vec(-1e3..1e3f64, 2..12)) {
            let turned: Vec<f64> = values.iter().map(|value| -value).collect();
            let (one, other) = (paired(&values).unwrap(), paired(&turned).unwrap().turned());
            prop_assert!((one.by - other.by).abs() < 1e-9 && (one.low - other.low).abs() < 1e-9);
            prop_assert!(one.low <= one.by && one.by <= one.high);
        }
    }
}
