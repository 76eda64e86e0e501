//! What a law's intervals draw by chance: shares, places and waits.
//!
//! Its logarithm is the law's own, so that the draws are the same digits everywhere.

use super::exact::ln;
use crate::random::Random;

pub(super) struct Chance(Random);

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        Chance(Random::new(seed))
    }

    /// Returns a number between 0 and 1, and neither.
    pub(super) fn share(&mut self) -> f64 {
        ((self.0.next() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// Returns a place below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.share() * n as f64) as usize
    }

    /// Returns a positive number of mean 1, as waiting times have it.
    pub(super) fn wait(&mut self) -> f64 {
        -ln(self.share())
    }
}
