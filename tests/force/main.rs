//! Force: broken inputs of our own making, thrown at the real binary.
//!
//! Each attack is a generator with a seed and a rule that must hold whatever it makes: no panic, no
//! hang, no answer without a word, nothing that was made lost or changed. The gate lets each run for
//! some seconds; `TINYLM_FORCE_SECONDS` says how long, and `TINYLM_FORCE_SEED` repeats what was seen
//! once (both are printed). For hours, from copies that later builds leave alone:
//!
//! ```text
//! TINYLM_FORCE_BINARY=COPY-OF-TINYLM TINYLM_FORCE_SECONDS=3600 COPY-OF-FORCE --nocapture
//! ```
#![expect(clippy::print_stdout, reason = "seeds and counts are printed")]

mod archives;
mod artifacts;
mod attack;
mod checkpoints;
mod clients;
mod damage;
mod data;
mod disk;
mod experiments;
mod forced;
mod imports;
mod kills;
mod numbers;
mod servers;
#[path = "../skipped/mod.rs"]
mod skipped;
