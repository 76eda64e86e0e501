//! The real binary, end to end: one story for each promise.
#![expect(clippy::print_stdout, reason = "what a machine lacks is printed")]

mod damage;
mod experiments;
mod freshness;
mod harness;
mod interruption;
mod listings;
mod mistakes;
mod outside;
mod running;
mod training;
