//! Python's `random.Random`, whose shuffles and samples others' figures rest on.
//!
//! CORE takes the examples of a task after a shuffle with one seed, and the examples before each
//! with another: another generator would measure the same model on other prompts.

const N: usize = 624;
const M: usize = 397;

/// The Mersenne Twister as CPython seeds and draws from it.
pub(super) struct Random {
    state: [u32; N],
    next: usize,
}

impl Random {
    /// `random.Random(seed)`.
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [0_u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            let before = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = before.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        let mut i = 1;
        let mut turn = |state: &mut [u32; N], factor: u32, add: &dyn Fn(usize) -> u32| {
            let before = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = (state[i] ^ before.wrapping_mul(factor)).wrapping_add(add(i));
            i += 1;
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        };
        // The key has one word, which is the seed.
        for _ in 0..N {
            turn(&mut state, 1_664_525, &|_| seed);
        }
        for _ in 1..N {
            turn(&mut state, 1_566_083_941, &|i| (i as u32).wrapping_neg());
        }
        state[0] = 0x8000_0000;
        Self { state, next: N }
    }

    fn next(&mut self) -> u32 {
        if self.next == N {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn refill(&mut self) {
        for k in 0..N {
            let y = (self.state[k] & 0x8000_0000) | (self.state[(k + 1) % N] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[k] = self.state[(k + M) % N] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// A number below `n`, which is at least 1.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let drawn = (self.next() >> (32 - bits)) as usize;
            if drawn < n {
                return drawn;
            }
        }
    }

    /// `random.shuffle`.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }

    /// `random.sample(range(n), k)`, of `k` at most `n`.
    pub(super) fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut room = 21;
        if k > 5 {
            room += 4_usize.pow(((3 * k) as f64).log(4.0).ceil() as u32);
        }
        let mut drawn = Vec::with_capacity(k);
        if n <= room {
            let mut pool: Vec<usize> = (0..n).collect();
            for i in 0..k {
                let at = self.below(n - i);
                drawn.push(pool[at]);
                pool[at] = pool[n - i - 1];
            }
            return drawn;
        }
        while drawn.len() < k {
            let at = self.below(n);
            if !drawn.contains(&at) {
                drawn.push(at);
            }
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHUFFLED: [usize; 12] = [6, 0, 1, 4, 10, 7, 3, 11, 2, 5, 8, 9];
    const OF_20: [usize; 10] = [14, 3, 0, 2, 1, 10, 11, 15, 12, 5];
    const OF_300: [usize; 10] = [225, 59, 3, 46, 298, 17, 42, 50, 181, 121];
    const OF_50: [usize; 3] = [41, 29, 22];

    #[test]
    fn it_draws_what_python_draws() {
        // python3 -c "import random; r = random.Random(1337); l = list(range(12)); r.shuffle(l); print(l)"
        let mut list: Vec<usize> = (0..12).collect();
        Random::new(1337).shuffle(&mut list);
        assert_eq!(list, SHUFFLED);
        // random.Random(1234).sample(range(20), 10), and of range(300), and 3 of range(50)
        assert_eq!(Random::new(1234).sample(20, 10), OF_20);
        assert_eq!(Random::new(1234).sample(300, 10), OF_300);
        assert_eq!(Random::new(1240).sample(50, 3), OF_50);
    }
}
