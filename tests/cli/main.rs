//! The real binary, end to end: one story for each promise.

mod damage;
mod experiments;
mod freshness;
mod harness;
mod interruption;
mod listings;
mod mistakes;
mod running;
