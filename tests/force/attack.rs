//! Shared by all attacks: the seed, the time, damage to bytes, and the binary under a time limit.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// No command that is attacked takes longer.
const LIMIT_SECONDS: u64 = 90;

/// What addresses alone may come to, threads' stacks among them; only [`bounded`] commands are held to it.
const MEMORY_KB: u64 = 6_000_000;

/// Numbers that follow from a seed: `splitmix64`.
pub(crate) struct Dice(u64);

impl Dice {
    /// The seed of this run of the suite, another one each time unless it is given.
    pub(crate) fn new(attack: &str) -> Self {
        let given = env::var("TINYLM_FORCE_SEED").ok();
        let now = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| since.as_nanos() as u64)
        };
        let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
        println!("{attack}: TINYLM_FORCE_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// How long an attack may go on.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        let seconds = env::var("TINYLM_FORCE_SECONDS").ok();
        let seconds = seconds.and_then(|seconds| seconds.parse().ok());
        Self(Instant::now() + Duration::from_secs(seconds.unwrap_or(6)))
    }

    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.0
    }
}

/// Runs `tinylm` in a folder, cut off from the network; it is killed when it does not end.
pub(crate) fn tinylm(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

/// The binary: that of the build, or the copy that a long run was given.
pub(crate) fn binary() -> PathBuf {
    let given = env::var_os("TINYLM_FORCE_BINARY");
    given.map_or_else(|| env!("CARGO_BIN_EXE_tinylm").into(), PathBuf::from)
}

pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = cut_off(Command::new("timeout"), folder);
    command
        .args(["-s", "KILL", &LIMIT_SECONDS.to_string()])
        .arg(binary())
        .args(args);
    command
}

/// As [`command`], with less memory than a file may claim.
pub(crate) fn bounded(folder: &Path, args: &[&str]) -> Command {
    let mut command = cut_off(Command::new("sh"), folder);
    command
        .args(["-c", "ulimit -v $0; exec timeout -s KILL \"$@\""])
        .args([MEMORY_KB, LIMIT_SECONDS].map(|number| number.to_string()))
        .arg(binary())
        .args(args);
    command
}

/// Cuts a command off from the caller's environment and network.
pub(crate) fn cut_off(mut command: Command, folder: &Path) -> Command {
    command
        .current_dir(folder)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("HF_HOME", folder.join("hf"))
        .env("TINYLM_OFFLINE", "1")
        .env("NO_COLOR", "1");
    command
}

/// Returns bytes with something wrong: flipped, cut, doubled, taken out or put in.
pub(crate) fn damaged(dice: &mut Dice, bytes: &[u8], odd: &[&[u8]]) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(damaged.len().max(1)).min(damaged.len());
        let end = (at + dice.below(64)).min(damaged.len());
        match dice.below(5) {
            0 if at < damaged.len() => damaged[at] ^= 1 << dice.below(8),
            1 => damaged.truncate(at),
            2 => {
                let part = damaged[at..end].to_vec();
                damaged.splice(at..at, part);
            }
            3 => drop(damaged.drain(at..end)),
            _ => {
                let part = dice.pick::<&[u8]>(odd).to_vec();
                damaged.splice(at..at, part);
            }
        }
    }
    damaged
}

/// Replaces, removes or swaps one value somewhere in JSON, more often near the top.
pub(crate) fn odd_json(dice: &mut Dice, value: &mut Value) {
    let n_inside = match value {
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if n_inside == 0 || dice.below(5) == 0 {
        *value = odd_value(dice, value);
        return;
    }
    let idx = dice.below(n_inside);
    match value {
        Value::Array(items) if dice.below(12) == 0 => drop(items.remove(idx)),
        Value::Array(items) if dice.below(12) == 0 => items.push(items[idx].clone()),
        Value::Array(items) if dice.below(12) == 0 => items.swap(0, idx),
        Value::Array(items) => odd_json(dice, &mut items[idx]),
        Value::Object(map) => {
            let name = map.keys().nth(idx).cloned().unwrap_or_default();
            match dice.below(12) {
                0 => drop(map.remove(&name)),
                1 => {
                    let other = map.values().nth(dice.below(n_inside)).cloned();
                    map.insert(name, other.unwrap_or_default());
                }
                _ => odd_json(dice, &mut map[&name]),
            }
        }
        _ => {}
    }
}

fn odd_value(dice: &mut Dice, now: &Value) -> Value {
    match (dice.below(16), now.as_u64()) {
        (0, _) => Value::Null,
        (1, _) => json!(true),
        (2, _) => json!(-1),
        (3, _) => json!(0),
        (4, _) => json!(1.5),
        (5, _) => json!(1e308),
        (6, _) => json!(u64::MAX),
        (7, _) => json!(1_u64 << (31 + dice.below(33))),
        (8, _) => json!(65_535 + dice.below(3)),
        (9, _) => json!(""),
        (10, _) => json!("x".repeat(70_000)),
        (11, _) => json!("\u{0}\u{202e}"),
        (12, _) => json!([]),
        (13, _) => json!({}),
        (_, Some(n)) => json!((n ^ (1 << dice.below(20))).wrapping_add(dice.below(3) as u64)),
        _ => json!(dice.next() % 1000),
    }
}

/// A small experiment of every kind but `command`.
pub(crate) const EXPERIMENT: &str = "
stages:
  download: { kind: download, with: { rows: [{ text: 'one two three four five six' }, { text: 'two three one' }] } }
  normalize: { kind: normalize, inputs: [download] }
  dedupe: { kind: dedupe, inputs: [normalize], with: { method: minhash } }
  tokenizer: { kind: tokenizer, inputs: [dedupe], with: { vocab_size: 300 } }
  binarize: { kind: binarize, inputs: { documents: dedupe, tokenizer: tokenizer } }
  pretrain:
    kind: pretrain
    inputs: [binarize]
    with: { keep_optimizer: true, model: { preset: mini, d_model: 16, n_heads: 2, n_layers: 1, d_ff: 16, context: 16 }, train: { steps: 1, batch: 1, lr: 1e-3 } }
  finetune:
    kind: finetune
    inputs: { model: pretrain, shards: binarize }
    with: { train: { steps: 1, batch: 1, lr: 1e-3 } }
  evaluate: { kind: evaluate, inputs: { model: finetune, documents: dedupe } }
  sample: { kind: sample, inputs: [finetune], with: { prompts: [one], max_tokens: 2 } }
";

/// Its stages but `evaluate`, which writes down how long it took.
pub(crate) const STAGES: [&str; 8] = [
    "download",
    "normalize",
    "dedupe",
    "tokenizer",
    "binarize",
    "pretrain",
    "finetune",
    "sample",
];

/// A folder with the experiment as `all.yaml`.
pub(crate) fn project() -> tempfile::TempDir {
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("all.yaml"), EXPERIMENT).unwrap();
    project
}

/// Runs the experiment to its end.
#[track_caller]
pub(crate) fn run(folder: &Path, more: &[&str], what: &str) {
    let output = tinylm(folder, &[&["run", "all.yaml"], more].concat());
    assert_told(&output, what);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
}

/// Where the last run's artifact of a stage is: its digest is a part of the path.
#[track_caller]
pub(crate) fn artifact(folder: &Path, stage: &str) -> PathBuf {
    let output = tinylm(folder, &["cache", "path", &format!("@last/{stage}")]);
    assert!(output.status.success(), "{stage}: {output:?}");
    folder.join(String::from_utf8(output.stdout).unwrap().trim())
}

/// The artifacts of the last run, by their places in the home.
#[track_caller]
pub(crate) fn artifacts(folder: &Path, stages: &[&str]) -> Vec<PathBuf> {
    let relative = |path: PathBuf| path.strip_prefix(folder).unwrap().to_owned();
    let stages = stages.iter();
    stages
        .map(|stage| relative(artifact(folder, stage)))
        .collect()
}

/// Every file below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

/// The rule of all attacks on a command: it ends by itself, without a panic, no stage of it dies
/// without a word of its own, and where it fails it says why.
#[track_caller]
pub(crate) fn assert_told(output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    let is_known = matches!(code, Some(0..=3));
    assert!(is_known, "{what}: ended with {:?}\n{said}", output.status);
    let is_silent = said.contains("failed: its process ") || said.contains("panicked");
    assert!(!is_silent, "{what}: {said}");
    assert!(
        code == Some(0) || said.contains("error: "),
        "{what}: {code:?}\n{said}"
    );
}
