//! The arithmetic of the fused engine, on plain slices.
//!
//! Which instructions are used is decided at run time (`level`), so one binary runs on any
//! machine and still uses what it finds. Everything here is bit-identical for any number of
//! threads: work is cut into chunks of fixed size, and partial sums are added in chunk order.
//!
//! Loops are written as plain Rust and compiled once per instruction set by `simd!`; the
//! compiler vectorises them. Only the matrix products are written with intrinsics.

pub(crate) mod attention;
pub(crate) mod loss;
mod matmul;
pub(crate) mod optimizer;
#[cfg(target_arch = "x86_64")]
mod panels;
pub(crate) mod rows;
mod simd;

pub(crate) use matmul::{Scratch, multiply_local};
pub use matmul::{View, matmul};
pub(crate) use simd::{CHUNK, ROWS, exp, simd};
pub use simd::{add_scaled, dot, exp_into, max, sum};

use std::sync::LazyLock;

/// What this machine's vector units can do.
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

static LEVEL: LazyLock<Level> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if avx2 && avx512 && is_x86_feature_detected!("avx512bf16") && is_amd() {
            return Level::Avx512Bf16;
        }
        if avx2 && avx512 {
            return Level::Avx512;
        }
        if avx2 {
            return Level::Avx2;
        }
    }
    Level::Plain
});

/// Intel's cores multiply bf16 pairs at half the rate of f32 numbers (110 against 195 GFLOP/s
/// on an Emerald Rapids), so that rounding the operands and multiplying in f32 is faster there.
#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    let letters = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    letters.concat() == b"AuthenticAMD"
}

#[inline(always)]
pub(crate) fn level() -> Level {
    *LEVEL
}

/// The kernel set in use. Two machines with the same set compute the same bits.
pub fn name() -> &'static str {
    match level() {
        Level::Plain => "plain",
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => "avx2",
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => "avx512",
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Bf16 => "avx512-bf16",
    }
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

/// A pointer that tasks share; each of them touches a part of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);
// SAFETY: tasks write disjoint parts, as said wherever one is used.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}
impl<T> Shared<T> {
    /// # Safety
    /// `offset` must be within what the pointer was made from.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}
