//! Runs on a real Slurm: its daemons, its nodes, its faults.
//!
//! What a stage makes on a cluster is what it makes here; whatever dies, nothing is lost, nothing is
//! made twice, and a clear line says what happened. Where there is no Slurm to start, the tests say
//! so and pass.

mod absences;
mod faults;
mod lab;
mod parts;
mod project;
mod running;
#[path = "../skipped/mod.rs"]
mod skipped;
mod trust;
