//! The order of the data as a pure function of (seed, epoch).
//!
//! Nothing here is a generator with a state: the row that comes n-th in an epoch can
//! be asked for directly, so a run that resumes at any step reads exactly what an
//! uninterrupted one would have read, and no state of a generator has to be saved.

/// Purposes keep streams apart that share a seed and a counter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Packing = 1,
    Rows = 2,
    Windows = 3,
}

/// A number that depends on all of its arguments and on nothing else.
pub(crate) fn random(seed: u64, purpose: Purpose, epoch: u64, counter: u64) -> u64 {
    let words = [seed, purpose as u64, epoch, counter];
    words.into_iter().fold(0, |state, word| mix(state ^ word))
}

/// `random`, brought down to `0..n`; the bias at 64 bits is far below one row in a corpus.
pub(crate) fn random_below(n: u64, seed: u64, purpose: Purpose, epoch: u64, counter: u64) -> u64 {
    let wide = u128::from(random(seed, purpose, epoch, counter)) * u128::from(n);
    (wide >> 64) as u64
}

/// The numbers `0..n` in an order of their own for each (seed, purpose, epoch).
pub(crate) fn permutation(n: usize, seed: u64, purpose: Purpose, epoch: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    for last in (1..n).rev() {
        let other = random_below(last as u64 + 1, seed, purpose, epoch, last as u64);
        order.swap(last, other as usize);
    }
    order
}

/// The finalizer of splitmix64, whose output passes the usual tests of randomness.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_every_row_once_in_an_order_of_its_own() {
        let orders: Vec<Vec<u32>> = (0..3)
            .map(|epoch| permutation(100, 1337, Purpose::Rows, epoch))
            .collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        }
        assert_ne!(orders[0], orders[1]);
        assert_ne!(orders[1], orders[2]);
        assert_eq!(orders[1], permutation(100, 1337, Purpose::Rows, 1));
        assert_ne!(orders[1], permutation(100, 1338, Purpose::Rows, 1));
    }

    #[test]
    fn random_numbers_spread_evenly() {
        let mut counts = [0_u32; 10];
        for counter in 0..100_000 {
            let number = random_below(10, 7, Purpose::Windows, 3, counter);
            counts[number as usize] += 1;
        }
        // Five standard deviations of a fair draw; the numbers are fixed, so never flaky.
        assert!(
            counts.iter().all(|count| count.abs_diff(10_000) < 475),
            "{counts:?}"
        );
    }

    #[test]
    fn the_order_never_changes_with_a_version() {
        assert_eq!(
            permutation(8, 1337, Purpose::Rows, 0),
            [0, 2, 7, 3, 4, 6, 1, 5]
        );
    }
}
