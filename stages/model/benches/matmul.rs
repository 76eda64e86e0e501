//! GFLOP/s of matrix products in the shapes and layouts of a training step, ours and `gemm`'s.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

use std::{fs, hint::black_box};

use tinylm_model::config::Precision;
use tinylm_model::kernels::{self, View, matmul};

const SHAPES: [(usize, usize, usize); 8] = [
    (2048, 512, 512),
    (2048, 2048, 512),
    (2048, 512, 2048),
    (1024, 16_000, 512),
    (512, 2048, 2048),
    (1024, 512, 16_000),
    (16_000, 512, 1024),
    (2048, 768, 256),
];

/// On one thread, by its own seconds on a core.
fn main() {
    match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(bench),
        Err(error) => println!("{error}"),
    }
}

fn bench() {
    println!(
        "kernels {}; GFLOP/s of one thread, best of 7 (n: rows as stored, t: transposed)",
        kernels::name()
    );
    println!(
        "{:<20} {:>6} {:>6} {:>6} {:>8} {:>8}",
        "m, n, k", "nn", "nt", "tn", "nt bf16", "gemm nt"
    );
    for (m, n, k) in SHAPES {
        let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
        let mut out = vec![0f32; m * n];
        let (an, at) = (View::new(&a, k), View::new(&a, m).t());
        let (bn, bt) = (View::new(&b, n), View::new(&b, k).t());
        let speed = |f: &mut dyn FnMut()| {
            let times = (0..7).map(|_| {
                let since = cpu_seconds();
                f();
                cpu_seconds() - since
            });
            2.0 * (m * n * k) as f64 / times.fold(f64::INFINITY, f64::min) / 1e9
        };
        let f32 = Precision::F32;
        let nn = speed(&mut || matmul(black_box(&mut out), false, an, bn, f32));
        let nt = speed(&mut || matmul(black_box(&mut out), false, an, bt, f32));
        let tn = speed(&mut || matmul(black_box(&mut out), false, at, bn, f32));
        let bf16 = speed(&mut || matmul(black_box(&mut out), false, an, bt, Precision::Bf16));
        let other = speed(&mut || {
            // SAFETY: `out` is m x n, `a` m x k and `b` n x k, all row-major.
            unsafe {
                gemm::gemm(
                    m,
                    n,
                    k,
                    out.as_mut_ptr(),
                    1,
                    n as isize,
                    false,
                    a.as_ptr(),
                    1,
                    k as isize,
                    b.as_ptr(),
                    k as isize,
                    1,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        });
        println!(
            "{:<20} {nn:6.0} {nt:6.0} {tn:6.0} {bf16:8.0} {other:8.0}",
            format!("{m}, {n}, {k}")
        );
    }
}

/// Seconds of all this process's threads on a core, 0 where the system does not say. Unlike the
/// clock, it does not count what other programs took.
fn cpu_seconds() -> f64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return 0.0;
    };
    let stats = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    let nanoseconds = stats.filter_map(|stat| stat.split_whitespace().next()?.parse::<u64>().ok());
    nanoseconds.sum::<u64>() as f64 / 1e9
}
