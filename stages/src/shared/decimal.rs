//! Numbers of the model as an author writes them.
//!
//! The model computes in f32, settings are f64: a default that is widened bit by bit would stand in
//! keys as 0.10000000149.

/// Returns the shortest decimal that means this f32.
pub(crate) fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(number.into())
}
