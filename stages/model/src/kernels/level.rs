//! Which instructions the kernels use: decided once per process, named in one place.
//!
//! All that a process trains is computed by one set, so that two machines with the same set
//! compute the same bits.

use std::sync::OnceLock;

/// A kernel set, by what it asks of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 with fast products of bf16 pairs.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

static LEVEL: OnceLock<Level> = OnceLock::new();

/// The kernel set in use.
#[inline(always)]
pub(crate) fn level() -> Level {
    *LEVEL.get_or_init(first_choice)
}

static LEVEL_OF_FEW_ROWS: OnceLock<Level> = OnceLock::new();

/// The kernel set for products of a few rows, which wait for memory: where a set was not asked
/// for, pairs of bf16 are used wherever the CPU has them, since they halve what is read.
pub(crate) fn level_of_few_rows() -> Level {
    *LEVEL_OF_FEW_ROWS.get_or_init(|| {
        let used = level();
        let best = supported_levels().into_iter().max().unwrap_or(used);
        if is_first_choice() { best } else { used }
    })
}

/// Whether nobody asked for another set than this CPU's first choice.
fn is_first_choice() -> bool {
    level() == supported_levels()[0]
}

/// The kernel set in use. Two machines with the same set compute the same bits.
pub fn name() -> &'static str {
    level().name()
}

/// The names of the kernel sets that this CPU can run, the one it uses first.
pub fn supported() -> Vec<&'static str> {
    supported_levels().into_iter().map(Level::name).collect()
}

#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    #[error("this CPU has no kernel set `{0}`")]
    Unsupported(String),
    #[error("the kernel set `{0}` is in use already")]
    TooLate(&'static str),
}

/// Uses this kernel set instead of the best one, for tests and benchmarks. All that a process
/// computes is computed by one set, so this comes before anything is.
pub fn choose(name: &str) -> Result<(), ChooseError> {
    let mut levels = supported_levels().into_iter();
    let level = levels.find(|level| level.name() == name);
    let level = level.ok_or_else(|| ChooseError::Unsupported(name.to_owned()))?;
    match LEVEL.get_or_init(|| level) {
        used if *used == level => Ok(()),
        used => Err(ChooseError::TooLate(used.name())),
    }
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Plain => "plain",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => "avx512-bf16",
        }
    }
}

#[cfg(not(test))]
fn first_choice() -> Level {
    supported_levels()[0]
}

/// In this crate's own tests, a filter such as `kernels=avx2` matches none of them and names a set.
#[cfg(test)]
fn first_choice() -> Level {
    let asked = tests::asked();
    let mut levels = supported_levels().into_iter();
    let is_asked = |level: &Level| asked.as_deref().is_none_or(|name| name == level.name());
    levels.find(is_asked).expect("the set asked for exists")
}

/// The sets that this CPU can run, the best first; never empty.
pub(crate) fn supported_levels() -> Vec<Level> {
    let mut levels = vec![Level::Plain];
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        let pairs = is_x86_feature_detected!("avx512bf16");
        let sets = [
            (avx2, Level::Avx2),
            (avx2 && avx512 && pairs && !is_amd(), Level::Avx512Bf16),
            (avx2 && avx512, Level::Avx512),
            (avx2 && avx512 && pairs && is_amd(), Level::Avx512Bf16),
        ];
        levels.extend(sets.iter().filter(|set| set.0).map(|set| set.1));
    }
    levels.reverse();
    levels
}

/// Whether products of bf16 pairs are as fast as those of f32 numbers, two at a time.
/// Intel's cores multiply bf16 pairs at half the rate of f32 numbers (110 against 195 GFLOP/s
/// on an Emerald Rapids), so that rounding the operands and multiplying in f32 is faster there.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_amd() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    let letters = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    letters.concat() == b"AuthenticAMD"
}

/// Whether bf16 needs rounded copies of whole operands here.
pub(crate) fn copies_operands() -> bool {
    #[cfg(target_arch = "x86_64")]
    return level() < Level::Avx512;
    #[cfg(not(target_arch = "x86_64"))]
    true
}

/// Whether `precision: bf16` is fast here; elsewhere operands are rounded and multiplied in f32.
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return level() == Level::Avx512Bf16;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    /// The set named on the command line.
    pub(super) fn asked() -> Option<String> {
        env::args().find_map(|arg| arg.strip_prefix("kernels=").map(str::to_owned))
    }

    #[test]
    fn the_set_in_use_is_the_one_asked_for() {
        assert_eq!(name(), asked().as_deref().unwrap_or(supported()[0]));
    }

    #[test]
    fn a_set_in_use_stays_and_an_unknown_one_is_refused() {
        let used = name();
        assert!(choose(used).is_ok());
        for other in supported().into_iter().filter(|other| *other != used) {
            let refused = choose(other).unwrap_err().to_string();
            assert_eq!(
                refused,
                format!("the kernel set `{used}` is in use already")
            );
        }
        let refused = choose("abacus").unwrap_err();
        assert_eq!(refused.to_string(), "this CPU has no kernel set `abacus`");
    }

    /// A process has one set, so each of the others gets a process: this program again.
    #[test]
    fn every_set_of_this_cpu_passes_the_tests_of_the_best_one() {
        const TESTS: [&str; 7] = [
            "kernels::",
            "generate::",
            "fused_operations_compute_what_plain_ones_do",
            "fused_scores_are_plain_ones",
            "blocks_of_queries_and_of_logits",
            "any_number_of_threads_computes_the_same_bits",
            "a_document_does_not_see_its_neighbour",
        ];
        for set in supported().into_iter().filter(|set| *set != name()) {
            let mut again = Command::new(env::current_exe().unwrap());
            again.args(TESTS).arg(format!("kernels={set}"));
            again.args(["--skip", "every_set_of_this_cpu"]);
            let output = again.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{set}:\n{said}");
            let used = "kernels::level::tests::the_set_in_use_is_the_one_asked_for ... ok";
            assert!(said.contains(used), "{set} was not used:\n{said}");
        }
    }
}
