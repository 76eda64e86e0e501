//! Arithmetic on plain slices, for the fused engine and for generation.
//!
//! Which instructions are used is decided at run time (`level`), so one binary runs on any
//! machine and still uses what it finds. Everything here is bit-identical for any number of
//! threads: work is cut into chunks of fixed size, and partial sums are added in chunk order.
//!
//! Loops are written as plain Rust and compiled once per instruction set by `simd!`; the
//! compiler vectorises them. Only the matrix products are written with intrinsics.

pub(crate) mod attention;
pub(crate) mod int8;
pub(crate) mod level;
pub(crate) mod loss;
pub(crate) mod math;
mod matmul;
pub(crate) mod optimizer;
#[cfg(target_arch = "x86_64")]
mod panels;
pub(crate) mod rows;
mod scratch;
mod shared;
mod simd;
pub(crate) mod tile;
pub(crate) mod tiles;
mod view;

pub(crate) use level::copies_operands;
pub use level::{ChooseError, choose, has_bf16, name, supported};
pub use math::{rotations, sinusoids};
pub use matmul::matmul;
pub use view::View;
