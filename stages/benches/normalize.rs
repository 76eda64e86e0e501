//! Normalize: megabytes a second and peak memory on ShareGPT-like JSON lines.
//!
//! `cargo bench -p tinylm-stages --bench normalize -- FILE` reads a file that exists.
//! `data_peers.py` makes one, and measures all data stages beside their peers.

#![expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]

use std::{env, fs, path::Path, time::Instant};

use tinylm_pipeline::testing::StageTest;
use tinylm_stages::kinds::normalize::Normalize;

fn main() {
    // `cargo bench` adds a flag of its own.
    let Some(path) = env::args().skip(1).find(|arg| !arg.starts_with("--")) else {
        println!("SKIPPED: no file is named; see data_peers.py");
        return;
    };
    let path = Path::new(&path);
    let n_bytes = fs::metadata(path).expect("the file can be read").len();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let input = dir.path().join("in");
    fs::create_dir(&input).expect("a folder can be made");
    let name = path.file_name().expect("a file has a name");
    let target = path.canonicalize().expect("the file can be found");
    std::os::unix::fs::symlink(target, input.join(name)).expect("a link can be made");

    let settings = env::var("SETTINGS").unwrap_or_else(|_| "{}".to_owned());
    let began = Instant::now();
    let outcome = StageTest::new(dir.path())
        .input("sources", &input)
        .run::<Normalize>(&settings)
        .expect("the file can be normalized");
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "normalize {:.1} MB/s, {:.2} s, {} documents, peak memory {} MB",
        n_bytes as f64 / 1e6 / seconds,
        seconds,
        outcome.metrics.get("documents").unwrap_or(0.0),
        peak_memory_mb()
    );
}

/// The kernel's own figure of the most memory this process had.
fn peak_memory_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}
