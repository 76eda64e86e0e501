//! The orchestrator's figures: `cargo bench --bench orchestrator`.
//!
//! A run of ten stages with nothing to do (process start included), and planning a
//! thousand stages. Medians of alternating rounds of the real binary, in a temporary
//! folder. The store's and the registry's own figures are in `registry/benches`.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const ROUNDS: usize = 21;

fn main() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("ten.yaml"), chain(10))?;
    fs::write(dir.path().join("thousand.yaml"), chain(1000))?;
    tinylm(dir.path(), &["run", "ten.yaml"])?;
    // The store distrusts files younger than two seconds; a second run settles them.
    std::thread::sleep(Duration::from_millis(2100));
    tinylm(dir.path(), &["run", "ten.yaml"])?;
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(tinylm(dir.path(), &["run", "ten.yaml"])?);
        times[1].push(tinylm(dir.path(), &["plan", "ten.yaml"])?);
        times[2].push(tinylm(dir.path(), &["plan", "thousand.yaml"])?);
    }
    let names = [
        "run, ten stages, nothing to do",
        "plan, ten stages, all fresh",
        "plan, a thousand stages",
    ];
    for (name, times) in names.iter().zip(&mut times) {
        times.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let (median, min, max) = (times[ROUNDS / 2], times[0], times[ROUNDS - 1]);
        writeln!(
            io::stdout(),
            "{name:<32} {:7.1} ms  ({:.1} to {:.1})",
            ms(median),
            ms(min),
            ms(max)
        )?;
    }
    Ok(())
}

/// A chain of stages, each of which copies what the one before it wrote.
fn chain(n_stages: usize) -> String {
    let mut text =
        "stages:\n  s0: { kind: download, with: { rows: [{ text: hello }] } }\n".to_owned();
    for n in 1..n_stages {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  s{n}: {{ kind: command, inputs: {{ before: s{} }}, with: {{ run: [sh, -c, \"echo {n} > '{{out}}/x'\"], outputs: [x] }} }}",
            n - 1
        );
    }
    text
}

fn tinylm(dir: &Path, args: &[&str]) -> io::Result<Duration> {
    let started = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_tinylm"))
        .args(args)
        .current_dir(dir)
        .env("TINYLM_OFFLINE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() {
        return Ok(started.elapsed());
    }
    Err(io::Error::other(format!(
        "tinylm {args:?} ended with {status}"
    )))
}
