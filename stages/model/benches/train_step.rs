//! Tokens per second and peak memory of full training steps, and where their time goes.
//!
//! `cargo bench -p tinylm-model --bench train_step -- [MODEL] [PRECISION] [STEPS] [DROPOUT] [THREADS]`
//! with MODEL `mini`, `m41`, `forty-one` or `all`. One model and precision a process, so that the
//! peak is its own: `all` starts one for each. `torch_peer.py` beside this file is the same in PyTorch.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

use std::{env, fs, process::Command, time::Instant};

use tinylm_model::config::{ModelConfig, Precision, Preset};
use tinylm_model::engine::{Batch, Engine, EngineError, Pass, Update};
use tinylm_model::{CpuEngine, Dropout, EngineSettings, kernels, profile};

/// Steps that are not timed: buffers are made and pages touched.
const WARM_UP: usize = 2;

fn main() {
    // Cargo adds `--bench`, and test runs `--test` or a filter.
    let args: Vec<String> = env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let arg = |i: usize, default: &str| args.get(i).cloned().unwrap_or_else(|| default.into());
    let (model, precision) = (arg(0, "all"), arg(1, "all"));
    let rest = [arg(2, "8"), arg(3, "0"), arg(4, "2")];
    if model == "all" || precision == "all" {
        run_each(&model, &precision, &rest);
        return;
    }
    let numbers = (rest[0].parse(), rest[1].parse(), rest[2].parse());
    let (Ok(n_steps), Ok(dropout), Ok(threads)) = numbers else {
        println!("STEPS, DROPOUT and THREADS are numbers, not {rest:?}");
        return;
    };
    if let Err(error) = bench(&model, &precision, n_steps, dropout, threads) {
        println!("{model} {precision}: {error}");
    }
}

fn run_each(model: &str, precision: &str, rest: &[String]) {
    let Ok(program) = env::current_exe() else {
        println!("this program cannot find itself");
        return;
    };
    for each in ["mini", "m41", "forty-one"]
        .iter()
        .filter(|m| model == "all" || model == **m)
    {
        for precision in ["f32", "bf16"]
            .iter()
            .filter(|p| precision == "all" || precision == **p)
        {
            if let Err(error) = Command::new(&program)
                .arg(each)
                .arg(precision)
                .args(rest)
                .status()
            {
                println!("{each} {precision}: {error}");
            }
        }
    }
}

/// The model, its rows a batch and tokens a row.
fn shape(model: &str) -> Option<(ModelConfig, usize, usize)> {
    match model {
        "mini" => Some((Preset::Mini.config(8000), 16, 128)),
        "m41" => {
            let config = ModelConfig {
                context: 256,
                d_model: 512,
                n_layers: 8,
                n_heads: 8,
                n_kv_heads: 8,
                d_ff: 2048,
                ..Preset::Mini.config(16_000)
            };
            Some((config, 8, 256))
        }
        "forty-one" => Some((Preset::FortyOne.config(32_105), 32, 80)),
        _ => None,
    }
}

fn bench(
    model: &str,
    precision: &str,
    n_steps: usize,
    dropout: f32,
    threads: usize,
) -> Result<(), EngineError> {
    let Some((config, n_rows, len)) = shape(model) else {
        println!("`{model}` is none of mini, m41, forty-one");
        return Ok(());
    };
    let settings = EngineSettings {
        precision: if precision == "bf16" {
            Precision::Bf16
        } else {
            Precision::F32
        },
        dropout: Dropout::everywhere(dropout),
        ..EngineSettings::default()
    };
    let flops = config.flops_per_token(len) as f64;
    let estimate = config.memory(n_rows, len, settings.precision, 2).total();
    let n_params = config.n_params();
    let batch = random_batch(&config, n_rows, len);
    let mut engine = CpuEngine::new(config, settings, 0, threads)?;
    let (mut seconds, mut losses, mut cpu) = (Vec::new(), Vec::new(), 0.0);
    for step in 1..=WARM_UP + n_steps {
        if step == WARM_UP + 1 {
            profile::start();
            cpu = cpu_seconds();
        }
        let (step, since) = (step as u64, Instant::now());
        let sum = engine.accumulate(&batch, Pass { seed: 0, step })?;
        engine.update(&Update {
            step,
            lr: 1e-4,
            divisor: sum.weight,
            clip: 1.0,
        })?;
        seconds.push(since.elapsed().as_secs_f64());
        losses.push(sum.nll / sum.weight);
    }
    let cpu = (cpu_seconds() - cpu) / n_steps as f64;
    let times = profile::stop();
    let timed = &mut seconds[WARM_UP..];
    let total: f64 = timed.iter().sum();
    timed.sort_by(f64::total_cmp);
    let n_tokens = (n_rows * len) as f64;
    let (median, best) = (timed[timed.len() / 2], timed[0]);
    println!(
        "{model} {precision} ({:.1}M, {n_rows} x {len}, kernels {}, {threads} threads): {:.0} tokens/s (best {:.0}, {:.0} per CPU second), \
         {:.0} GFLOP/s, peak {} MB (estimate {}), loss {:.4} to {:.4}",
        n_params as f64 / 1e6,
        kernels::name(),
        n_tokens / median,
        n_tokens / best,
        n_tokens / cpu,
        flops * n_tokens / median / 1e9,
        peak_memory_mb(),
        estimate / 1_000_000,
        losses[0],
        losses[losses.len() - 1],
    );
    let mut kinds: Vec<_> = times.into_iter().collect();
    kinds.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    let mut named = 0.0;
    for (kind, time) in kinds {
        let time = time.as_secs_f64();
        named += time;
        println!(
            "    {kind:<16} {:8.2} ms  {:5.1} %",
            1e3 * time / n_steps as f64,
            100.0 * time / total
        );
    }
    let other = total - named;
    println!(
        "    {:<16} {:8.2} ms  {:5.1} %",
        "other",
        1e3 * other / n_steps as f64,
        100.0 * other / total
    );
    Ok(())
}

fn random_batch(config: &ModelConfig, n_rows: usize, len: usize) -> Batch {
    let mut state = 1u64;
    let mut id = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize % config.vocab_size) as u16
    };
    let n = n_rows * len;
    Batch {
        n_rows,
        len,
        tokens: (0..n).map(|_| id()).collect(),
        targets: (0..n).map(|_| id()).collect(),
        weights: vec![1.0; n],
        positions: (0..n).map(|i| (i % len) as u16).collect(),
        starts: vec![0; n],
        row_offset: 0,
    }
}

/// The most memory this process ever held, 0 where the system does not say.
fn peak_memory_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024 / 1_000_000
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
