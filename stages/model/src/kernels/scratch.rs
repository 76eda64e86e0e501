//! Buffers of packed operands that a thread keeps between small products.

#[cfg(target_arch = "x86_64")]
/// One cache line of units.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u32; 16]);

/// Scratch of one thread for `multiply_local`.
#[derive(Default)]
pub(crate) struct Scratch {
    #[cfg(target_arch = "x86_64")]
    pub(super) panels: Vec<Line>,
}
