//! GFLOP/s of matrix products in the shapes and layouts of a training step, ours and `gemm`'s.
//!
//! `cargo bench -p tinylm-model --bench matmul -- [threads=N] [kernels=SET]`

#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

use std::{env, fs, hint::black_box, time::Instant};

use tinylm_model::config::Precision;
use tinylm_model::kernels::{self, View, matmul};

const SHAPES: [(usize, usize, usize); 9] = [
    (2048, 512, 512),
    (2048, 2048, 512),
    (2048, 512, 2048),
    (1024, 16_000, 512),
    (512, 2048, 2048),
    (1024, 512, 16_000),
    (16_000, 512, 1024),
    (2048, 768, 256),
    (256, 256, 2048),
];

fn main() {
    let given = |name: &str| {
        let value = |arg: String| Some(arg.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        env::args().find_map(value)
    };
    let threads = given("threads").map_or(Ok(1), |threads| threads.parse());
    let chosen = given("kernels").map_or(Ok(()), |set| kernels::choose(&set));
    let (Ok(threads), Ok(())) = (threads, chosen) else {
        println!(
            "`threads` is a number, and `kernels` one of {:?}",
            kernels::supported()
        );
        return;
    };
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(|| bench(threads)),
        Err(error) => println!("{error}"),
    }
}

fn bench(threads: usize) {
    println!(
        "kernels {}; GFLOP/s of {threads} threads, best of 7 (n: rows as stored, t: transposed)",
        kernels::name()
    );
    println!(
        "{:<20} {:>6} {:>6} {:>6} {:>8} {:>8} {:>8} {:>8}",
        "m, n, k", "nn", "nt", "tn", "nn bf16", "nt bf16", "tn bf16", "gemm nt"
    );
    for (m, n, k) in SHAPES {
        let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
        let mut out = vec![0f32; m * n];
        let (an, at) = (View::new(&a, k), View::new(&a, m).t());
        let (bn, bt) = (View::new(&b, n), View::new(&b, k).t());
        let speed = |f: &mut dyn FnMut()| {
            // Often enough for the clock of a thread's own seconds, which counts every few milliseconds.
            let n_times = (40_000_000_000 / (2 * m * n * k)).max(1);
            let times = (0..7).map(|_| {
                let (cpu, since) = (cpu_seconds(), Instant::now());
                (0..n_times).for_each(|_| f());
                match threads {
                    // On one thread by its own seconds on a core, whatever else runs here.
                    1 => cpu_seconds() - cpu,
                    _ => since.elapsed().as_secs_f64(),
                }
            });
            let best = times.fold(f64::INFINITY, f64::min) / n_times as f64;
            2.0 * (m * n * k) as f64 / best / 1e9
        };
        print!("{:<20}", format!("{m}, {n}, {k}"));
        for (precision, width) in [(Precision::F32, 6), (Precision::Bf16, 8)] {
            for (a, b) in [(an, bn), (an, bt), (at, bn)] {
                let found = speed(&mut || matmul(black_box(&mut out), false, a, b, precision));
                print!(" {found:width$.0}");
            }
        }
        let parallelism = match threads {
            1 => gemm::Parallelism::None,
            n => gemm::Parallelism::Rayon(n),
        };
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
                    parallelism,
                );
            }
        });
        println!(" {other:8.0}");
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
