//! What every attack shares: its seed, its time, and the binary under a time limit.

use std::{
    env,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// No command that is attacked takes longer.
const LIMIT_SECONDS: u64 = 30;

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
    let mut command = Command::new("timeout");
    command
        .args(["-s", "KILL", &LIMIT_SECONDS.to_string()])
        .arg(env!("CARGO_BIN_EXE_tinylm"))
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("HF_HOME", folder.join("hf"))
        .env("TINYLM_OFFLINE", "1")
        .env("NO_COLOR", "1");
    command.output().unwrap()
}

/// The rule of all attacks on a command: it ends by itself, without a panic, and where it fails it
/// says why.
#[track_caller]
pub(crate) fn assert_told(output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    let is_known = matches!(code, Some(0..=3));
    assert!(is_known, "{what}: ended with {:?}\n{said}", output.status);
    assert!(!said.contains("panicked"), "{what}: {said}");
    assert!(
        code == Some(0) || said.contains("error: "),
        "{what}: {code:?}\n{said}"
    );
}
