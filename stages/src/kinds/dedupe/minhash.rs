//! Signatures whose agreement tells how much two sets of n-grams overlap.
//!
//! A signature holds, for each of many hash functions, the smallest value that any
//! n-gram has; two sets share a value as often as they share n-grams. Signatures are cut
//! into bands, and documents that share a whole band are proposed as a pair. There are so
//! many rows in a band that a pair at the threshold is proposed with a chance of
//! [`CHANCE`]; proposing too many costs time only, since every pair is measured.

use crate::shared::ngrams::mix;

/// How likely a pair exactly at the threshold is at least proposed.
const CHANCE: f64 = 0.97;

/// A family of hash functions and how their values are cut into bands.
pub(super) struct MinHash {
    factors: Vec<u64>,
    offsets: Vec<u64>,
    n_rows: usize,
}

impl MinHash {
    pub(super) fn new(permutations: usize, threshold: f64) -> Self {
        Self::of_rows(permutations, rows(permutations, threshold))
    }

    /// One whose bands have so many rows, which is all that the threshold decides.
    pub(super) fn of_rows(permutations: usize, n_rows: usize) -> Self {
        let numbers = |from: u64| (0..permutations as u64).map(move |n| mix(from + n));
        Self {
            // Odd, so that different n-grams stay different.
            factors: numbers(0x0010_0000).map(|number| number | 1).collect(),
            offsets: numbers(0x0020_0000).collect(),
            n_rows,
        }
    }

    pub(super) fn n_bands(&self) -> usize {
        self.factors.len() / self.n_rows
    }

    /// Replaces `signature` by that of a set of n-grams.
    pub(super) fn sign(&self, grams: &[u64], signature: &mut Vec<u32>) {
        signature.clear();
        signature.resize(self.factors.len(), u32::MAX);
        for gram in grams {
            // 32 bits of the n-gram by 64 of the factor: the upper half is spread evenly.
            let gram = gram >> 32;
            let hashes = self.factors.iter().zip(&self.offsets);
            for (smallest, (factor, offset)) in signature.iter_mut().zip(hashes) {
                let value = (gram.wrapping_mul(*factor).wrapping_add(*offset) >> 32) as u32;
                *smallest = (*smallest).min(value);
            }
        }
    }

    /// Returns one number for each band, different for different bands.
    pub(super) fn bands(&self, signature: &[u32]) -> impl Iterator<Item = u64> {
        signature
            .chunks_exact(self.n_rows)
            .enumerate()
            .map(|(band, rows)| {
                let start = mix(band as u64 + 1);
                rows.iter()
                    .fold(start, |hash, row| mix(hash ^ u64::from(*row)))
            })
    }
}

/// Returns the most rows a band may have for the chance to be reached.
pub(super) fn rows(permutations: usize, threshold: f64) -> usize {
    let chance = |rows: usize| {
        let bands = permutations / rows;
        1.0 - (1.0 - threshold.powi(rows as i32)).powi(bands as i32)
    };
    (1..=permutations)
        .rev()
        .find(|&rows| chance(rows) >= CHANCE)
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_as_wide_as_the_chance_allows() {
        assert_eq!(rows(112, 0.8), 7);
        assert_eq!(rows(112, 1.0), 112);
        assert!(rows(112, 0.5) < 4);
        assert_eq!(rows(8, 0.1), 1);
    }

    #[test]
    fn signatures_agree_as_often_as_sets_overlap() {
        let minhash = MinHash::new(1024, 0.8);
        for shared in [0, 250, 500, 800, 1000] {
            let grams = |from: u64| (from..from + 1000).map(mix).collect::<Vec<u64>>();
            let [mut a, mut b] = [Vec::new(), Vec::new()];
            minhash.sign(&grams(0), &mut a);
            minhash.sign(&grams(1000 - shared), &mut b);
            let jaccard = shared as f64 / (2000 - shared) as f64;
            let agreeing = a.iter().zip(&b).filter(|(x, y)| x == y).count() as f64 / 1024.0;
            assert!(
                (agreeing - jaccard).abs() < 0.06,
                "{shared}: {agreeing} for {jaccard}"
            );
        }
    }
}
