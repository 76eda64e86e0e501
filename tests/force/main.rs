//! What force does: broken inputs of our own making, thrown at the real binary.
//!
//! Each attack is a generator with a seed and a rule that must hold whatever it makes: no panic, no
//! hang, no answer without a word. The gate lets each run for some seconds; `TINYLM_FORCE_SECONDS`
//! says how long, and `TINYLM_FORCE_SEED` repeats what was seen once (both are printed).
#![expect(clippy::print_stdout, reason = "seeds and counts are printed")]

mod attack;
mod numbers;
