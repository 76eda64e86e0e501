//! How fast this machine can multiply at most, measured rather than looked up.
//!
//! A table of processors would be wrong for every machine that is not in it, and for
//! every one that shares its cores; a product that stays in the caches, timed here and
//! now, is what training could reach if it did nothing but multiply.

use std::time::{Duration, Instant};

use rayon::ThreadPoolBuilder;

use crate::{
    config::Precision,
    kernels::{View, matmul},
};

/// Side of the square matrices: large enough to keep every thread busy.
const SIDE: usize = 512;
/// How long to look for the best time.
const PATIENCE: Duration = Duration::from_millis(150);

/// Returns floating-point operations per second over `threads` threads; `None` if they
/// cannot be started.
pub fn measured_peak(threads: usize, precision: Precision) -> Option<f64> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().ok()?;
    let numbers = vec![0.5_f32; SIDE * SIDE];
    let mut product = vec![0.0_f32; SIDE * SIDE];
    let best = pool.install(|| {
        let started = Instant::now();
        let mut best = Duration::MAX;
        while started.elapsed() < PATIENCE {
            let since = Instant::now();
            let (a, b) = (View::new(&numbers, SIDE), View::new(&numbers, SIDE));
            matmul(&mut product, false, a, b, precision);
            best = best.min(since.elapsed());
        }
        best
    });
    let operations = 2.0 * (SIDE as f64).powi(3);
    Some(operations / best.as_secs_f64().max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_speed_is_found_on_any_machine() {
        let peak = measured_peak(1, Precision::F32).unwrap();
        assert!(peak.is_finite() && peak > 1e7, "{peak}");
    }
}
