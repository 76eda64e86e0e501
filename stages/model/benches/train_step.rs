//! Tokens per second and peak memory of full training steps, and where their time goes.
//!
//! `cargo bench -p tinylm-model --bench train_step -- [NAME=VALUE ...]`, with
//!
//! ```text
//! model=all       mini, m41, forty-one; or 124m, which is not among all
//! rows=0          of a batch, instead of the model's own
//! precision=all   f32, bf16
//! steps=8         timed steps
//! threads=2
//! dropout=0       in all four places
//! documents=1     packed into each row, seeing only themselves
//! accumulate=1    micro-batches of a step, each as large as the batch above
//! checkpoint=no   how long writing one holds training up
//! kernels=        another set than this CPU's best one
//! device=cpu      or cuda:0 or gpu: `threads` and `kernels` are the CPU's
//! wait=no         times as many rounds as lines come from standard input, for `train_peers.py`
//! ```
//!
//! One model and precision a process, so that the peak is its own: `all` starts one for each.
//! The peak is of this machine's memory, or of a GPU's where one trains. The first step counts from the start of
//! the process.
//! `torch_peer.py` beside this file is the same in PyTorch, and `train_peers.py` runs both in turn.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

use std::{collections::BTreeMap, env, error::Error, fs, io, process::Command, time::Instant};

use tinylm_model::checkpoint::{Checkpoint, Checkpoints};
use tinylm_model::config::{ModelConfig, Precision, Preset};
use tinylm_model::engine::{Batch, Engine, Pass, Update};
use tinylm_model::{CpuEngine, Dropout, EngineSettings, GpuEngine, kernels, profile};
use tinylm_settings::Device;

/// Steps that are not timed: buffers are made and pages touched.
const WARM_UP: usize = 2;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() {
    // Cargo adds `--bench`, and test runs `--test` or a filter.
    let args: Vec<String> = env::args().skip(1).filter(|a| a.contains('=')).collect();
    if let Err(error) = Asked::parse(&args).and_then(|asked| run(&asked, &args)) {
        println!("{}: {error}", args.join(" "));
    }
}

/// The command line's wishes.
struct Asked {
    model: String,
    rows: usize,
    precision: String,
    steps: usize,
    threads: usize,
    dropout: f32,
    documents: usize,
    accumulate: usize,
    checkpoint: bool,
    kernels: String,
    device: Device,
    wait: bool,
}

impl Asked {
    fn parse(args: &[String]) -> Result<Asked> {
        let mut given: BTreeMap<&str, &str> =
            args.iter().filter_map(|arg| arg.split_once('=')).collect();
        let mut take = |name: &str, default: &str| given.remove(name).unwrap_or(default).to_owned();
        let asked = Asked {
            model: take("model", "all"),
            rows: take("rows", "0").parse()?,
            precision: take("precision", "all"),
            steps: take("steps", "8").parse()?,
            threads: take("threads", "2").parse()?,
            dropout: take("dropout", "0").parse()?,
            documents: take("documents", "1").parse()?,
            accumulate: take("accumulate", "1").parse()?,
            checkpoint: take("checkpoint", "no") == "yes",
            kernels: take("kernels", ""),
            device: take("device", "cpu").parse()?,
            wait: take("wait", "no") == "yes",
        };
        match given.keys().next() {
            Some(name) => Err(format!("there is no `{name}` to set").into()),
            None if asked.steps.min(asked.documents).min(asked.accumulate) == 0 => {
                Err("`steps`, `documents` and `accumulate` are at least 1".into())
            }
            None => Ok(asked),
        }
    }
}

fn run(asked: &Asked, args: &[String]) -> Result<()> {
    let since = Instant::now();
    if asked.model == "all" || asked.precision == "all" {
        return run_each(asked, args);
    }
    if !asked.kernels.is_empty() {
        kernels::choose(&asked.kernels)?;
    }
    let mut training = Training::start(asked)?;
    training.steps(1)?;
    let first_step = since.elapsed().as_secs_f64();
    training.steps(WARM_UP - 1)?;
    if asked.wait {
        for line in io::stdin().lines() {
            line?;
            println!("{}", training.round(asked.steps)?.json());
        }
        return Ok(());
    }
    profile::start();
    let round = training.round(asked.steps)?;
    let times = profile::stop();
    round.print(&training, asked);
    println!("    the first step was done after {first_step:.2} s");
    print_times(times, &round);
    match asked.checkpoint {
        true => checkpoints(&mut training, round.median),
        false => Ok(()),
    }
}

fn run_each(asked: &Asked, args: &[String]) -> Result<()> {
    let program = env::current_exe()?;
    let wanted = |asked: &str, name: &str| asked == "all" || asked == name;
    for model in ["mini", "m41", "forty-one"] {
        for precision in ["f32", "bf16"] {
            if wanted(&asked.model, model) && wanted(&asked.precision, precision) {
                let (model, precision) =
                    (format!("model={model}"), format!("precision={precision}"));
                let mut each = Command::new(&program);
                // The last one counts.
                each.args(args).args([model, precision]).status()?;
            }
        }
    }
    Ok(())
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
        "124m" => {
            let config = ModelConfig {
                context: 1024,
                d_model: 768,
                n_layers: 12,
                n_heads: 12,
                n_kv_heads: 12,
                d_ff: 3072,
                ..Preset::Mini.config(50_257)
            };
            Some((config, 64, 1024))
        }
        _ => None,
    }
}

/// A training that sees one batch again and again.
struct Training {
    engine: Box<dyn Engine>,
    micro_batches: Vec<Batch>,
    step: u64,
    /// Seconds of each step so far, and the loss.
    seconds: Vec<f64>,
    losses: Vec<f64>,
}

impl Training {
    fn start(asked: &Asked) -> Result<Training> {
        let (config, n_rows, len) =
            shape(&asked.model).ok_or("`model` is one of mini, m41, forty-one, 124m, all")?;
        let n_rows = if asked.rows > 0 { asked.rows } else { n_rows };
        let settings = EngineSettings {
            precision: match asked.precision.as_str() {
                "f32" => Precision::F32,
                "bf16" => Precision::Bf16,
                _ => return Err("`precision` is one of f32, bf16, all".into()),
            },
            dropout: Dropout::everywhere(asked.dropout),
            ..EngineSettings::default()
        };
        let micro_batches = (0..asked.accumulate)
            .map(|i| random_batch(&config, i * n_rows..(i + 1) * n_rows, len, asked.documents));
        Ok(Training {
            micro_batches: micro_batches.collect(),
            engine: match asked.device {
                Device::Cpu => Box::new(CpuEngine::new(config, settings, 0, asked.threads)?),
                device => Box::new(GpuEngine::new(device, config, settings, 0)?),
            },
            step: 0,
            seconds: Vec::new(),
            losses: Vec::new(),
        })
    }

    fn n_tokens(&self) -> usize {
        self.micro_batches.iter().map(|b| b.n_rows * b.len).sum()
    }

    /// Takes `n` steps and returns the seconds of each.
    fn steps(&mut self, n: usize) -> Result<&[f64]> {
        for _ in 0..n {
            self.step += 1;
            let (step, since) = (self.step, Instant::now());
            let (mut nll, mut weight) = (0.0, 0.0);
            for batch in &self.micro_batches {
                let sum = self.engine.accumulate(batch, Pass { seed: 0, step })?;
                nll += sum.nll;
                weight += sum.weight;
            }
            self.engine.update(&Update {
                step,
                lr: 1e-4,
                divisor: weight,
                clip: 1.0,
            })?;
            self.seconds.push(since.elapsed().as_secs_f64());
            self.losses.push(nll / weight);
        }
        Ok(&self.seconds[self.seconds.len() - n..])
    }

    fn round(&mut self, n_steps: usize) -> Result<Round> {
        let cpu = cpu_seconds();
        let mut seconds = self.steps(n_steps)?.to_vec();
        seconds.sort_by(f64::total_cmp);
        Ok(Round {
            n_tokens: self.n_tokens() as f64,
            n_steps: n_steps as f64,
            total: seconds.iter().sum(),
            median: seconds[n_steps / 2],
            best: seconds[0],
            cpu: (cpu_seconds() - cpu) / n_steps as f64,
            peak_mb: match self.engine.device_bytes() {
                Some(bytes) => (bytes / 1_000_000) as usize,
                None => peak_memory_mb() as usize,
            },
        })
    }
}

/// Seconds that some steps took.
struct Round {
    n_tokens: f64,
    n_steps: f64,
    total: f64,
    median: f64,
    best: f64,
    /// Of all threads on a core, a step.
    cpu: f64,
    /// Most memory that was taken.
    peak_mb: usize,
}

impl Round {
    fn json(&self) -> String {
        format!(
            r#"{{"tokens_per_second": {:.1}, "best": {:.1}, "peak_mb": {}}}"#,
            self.n_tokens / self.median,
            self.n_tokens / self.best,
            self.peak_mb
        )
    }

    fn print(&self, training: &Training, asked: &Asked) {
        let (config, batch) = (training.engine.config(), &training.micro_batches[0]);
        let settings = training.engine.settings();
        let (precision, optimizer) = (settings.precision, settings.optimizer);
        let flops = config.flops_per_token(batch.len) as f64;
        let estimate = config.memory(batch.n_rows, batch.len, precision, optimizer);
        println!(
            "{} {} ({:.1}M, {} x {} x {}, {} documents a row, dropout {}, kernels {}, {} threads): \
             {:.0} tokens/s (best {:.0}, {:.0} per CPU second), {:.0} GFLOP/s, peak {} MB (estimate {}), \
             loss {:.4} to {:.4}",
            asked.model,
            asked.precision,
            config.n_params() as f64 / 1e6,
            asked.accumulate,
            batch.n_rows,
            batch.len,
            asked.documents,
            asked.dropout,
            training.engine.machine().kernels,
            asked.threads,
            self.n_tokens / self.median,
            self.n_tokens / self.best,
            self.n_tokens / self.cpu,
            flops * self.n_tokens / self.median / 1e9,
            self.peak_mb,
            estimate.step() / 1_000_000,
            training.losses[0],
            training.losses[training.losses.len() - 1],
        );
    }
}

fn print_times(times: BTreeMap<&'static str, std::time::Duration>, round: &Round) {
    let seconds = times.iter().map(|(kind, time)| (*kind, time.as_secs_f64()));
    let mut kinds: Vec<(&str, f64)> = seconds.collect();
    kinds.sort_by(|a, b| b.1.total_cmp(&a.1));
    let named: f64 = kinds.iter().map(|(_, seconds)| seconds).sum();
    kinds.push(("other", round.total - named));
    for (kind, seconds) in kinds {
        let (ms, share) = (1e3 * seconds / round.n_steps, 100.0 * seconds / round.total);
        println!("    {kind:<16} {ms:8.2} ms  {share:5.1} %");
    }
}

/// Prints how long training stands still for a checkpoint, and how much longer the steps take
/// during which it is written. `usual` is a step's time without.
fn checkpoints(training: &mut Training, usual: f64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut checkpoints = Checkpoints::open(folder.path(), 2)?;
    for _ in 0..3 {
        let since = Instant::now();
        let (weights, optimizer) = (training.engine.weights()?, training.engine.optimizer()?);
        let copied = since.elapsed().as_secs_f64();
        checkpoints.save(Checkpoint {
            step: training.step,
            state: Vec::new(),
            weights,
            optimizer,
            needs: None,
        })?;
        let saved = since.elapsed().as_secs_f64();
        let n_steps = (3.0 / usual).ceil() as usize;
        let steps: f64 = training.steps(n_steps)?.iter().sum();
        let since = Instant::now();
        checkpoints.wait()?;
        println!(
            "    checkpoint: {:.0} ms to copy, {:.0} ms to hand over, {n_steps} steps took {:.0} ms longer, \
             {:.0} ms to wait for its end; peak {} MB",
            1e3 * copied,
            1e3 * (saved - copied),
            1e3 * (steps - n_steps as f64 * usual),
            1e3 * since.elapsed().as_secs_f64(),
            peak_memory_mb(),
        );
    }
    Ok(())
}

/// These rows of a batch, each of several documents of about the same length.
fn random_batch(
    config: &ModelConfig,
    rows: std::ops::Range<usize>,
    len: usize,
    n_documents: usize,
) -> Batch {
    let mut state = 1 + rows.start as u64;
    let mut id = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize % config.vocab_size) as u16
    };
    let n = rows.len() * len;
    let document_len = len.div_ceil(n_documents);
    let start = |i: usize| i % len / document_len * document_len;
    Batch {
        n_rows: rows.len(),
        len,
        tokens: (0..n).map(|_| id()).collect(),
        targets: (0..n).map(|_| id()).collect(),
        weights: vec![1.0; n],
        positions: (0..n).map(|i| (i % len - start(i)) as u16).collect(),
        starts: (0..n).map(|i| start(i) as u16).collect(),
        row_offset: rows.start,
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
