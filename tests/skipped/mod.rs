//! What a machine lacks, told where nothing swallows it: each reason once per test program.
//!
//! A test that cannot be carried out passes, and of a test that passes `cargo test` shows nothing that
//! was printed. The capture stands in front of the macros alone, so this writes to the standard error
//! itself. Shared by its path: the crates that say so have no other below all of them, and a crate of
//! one function would be one more in everybody's map.

use std::{
    collections::BTreeSet,
    io::{Write, stderr},
    sync::Mutex,
};

static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Says why a test, or the rest of it, is not carried out here.
pub(crate) fn skipped(reason: &str) {
    let reason = reason.trim_end();
    if TOLD.lock().unwrap().insert(reason.to_owned()) {
        stderr()
            .write_all(format!("SKIPPED: {reason}\n").as_bytes())
            .unwrap();
    }
}
