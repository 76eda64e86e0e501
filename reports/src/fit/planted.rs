//! Runs made up from a law that is known, for tests.

use super::{
    chance::Chance,
    exact::exp,
    law::{Law, Scale},
    search::Measured,
};

/// Laws of small models on easy text, and Hoffmann's on the web's.
pub(crate) const LAWS: [Law; 3] = [
    Law {
        floor: 1.1,
        of_weights: 18.0,
        of_tokens: 220.0,
        weights_power: 0.3,
        tokens_power: 0.42,
    },
    Law {
        floor: 0.62,
        of_weights: 250.0,
        of_tokens: 8_000.0,
        weights_power: 0.6,
        tokens_power: 0.7,
    },
    Law {
        floor: 1.69,
        of_weights: 406.4,
        of_tokens: 410.7,
        weights_power: 0.34,
        tokens_power: 0.28,
    },
];

/// Five sizes by four budgets, exactly as the law says.
pub(crate) fn grid(law: Law) -> Vec<Measured> {
    let mut runs = Vec::new();
    for weights in [3e4, 1e5, 3e5, 1e6, 3e6] {
        for tokens in [3e5, 1e6, 4e6, 1.6e7] {
            let at = Scale { weights, tokens };
            runs.push(Measured {
                at,
                loss: law.loss(at),
                count: 1.0,
            });
        }
    }
    runs
}

/// The same with errors of about this share of the loss.
pub(crate) fn noisy(law: Law, share: f64, seed: u64) -> Vec<Measured> {
    let mut chance = Chance::new(seed);
    let mut runs = grid(law);
    for run in &mut runs {
        // Twelve even ones make a normal one.
        let normal = (0..12).map(|_| chance.share()).sum::<f64>() - 6.0;
        run.loss *= exp(share * normal);
    }
    runs
}
