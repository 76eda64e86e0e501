//! The seam between the engine and what computes: memory by address, and kernels by name.
//!
//! An engine never sees a library. `cuda.rs` runs the kernels on an NVIDIA GPU, `emulated.rs` runs the same
//! sources on this machine's CPU for the tests, and `portable.rs` runs others on any GPU. All that is launched runs in the order in which it was.

use crate::ops::Result;

/// Numbers on this machine, on their way to the device.
#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    U16(&'a [u16]),
    U32(&'a [u32]),
}

/// Numbers on this machine that the device's are copied to.
pub(crate) enum NumbersMut<'a> {
    F32(&'a mut [f32]),
    U32(&'a mut [u32]),
}

/// The numbers dropped at one place; `Mask` of `words.h`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Dropped {
    pub(crate) key: u64,
    pub(crate) row_offset: u32,
    pub(crate) len: u32,
    pub(crate) below: u32,
    pub(crate) scale: f32,
}

/// `After` of `after.h`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct After {
    pub(crate) bias: u64,
    pub(crate) residual: u64,
    pub(crate) hidden: u64,
    pub(crate) dropped: Dropped,
    pub(crate) then: i32,
    pub(crate) activation: i32,
}

/// `Heads` of `heads.h`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct HeadsArg {
    pub(crate) n_heads: i32,
    pub(crate) n_kv_heads: i32,
    pub(crate) d_head: i32,
    pub(crate) len: i32,
    pub(crate) round: i32,
    pub(crate) scale: f32,
}

/// `Adam` of `optimizer.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct AdamArg {
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) eps: f32,
    pub(crate) lr: f32,
    pub(crate) correction2: f32,
    pub(crate) keep: f32,
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg {
    At(u64),
    Int(i32),
    Long(u64),
    Float(f32),
    Double(f64),
    Dropped(Dropped),
    After(After),
    Heads(HeadsArg),
    Adam(AdamArg),
}

impl Arg {
    /// Where the argument itself lies, as a launch wants it.
    pub(crate) fn pointer(&self) -> *const std::ffi::c_void {
        match self {
            Arg::At(x) | Arg::Long(x) => std::ptr::from_ref(x).cast(),
            Arg::Int(x) => std::ptr::from_ref(x).cast(),
            Arg::Float(x) => std::ptr::from_ref(x).cast(),
            Arg::Double(x) => std::ptr::from_ref(x).cast(),
            Arg::Dropped(x) => std::ptr::from_ref(x).cast(),
            Arg::After(x) => std::ptr::from_ref(x).cast(),
            Arg::Heads(x) => std::ptr::from_ref(x).cast(),
            Arg::Adam(x) => std::ptr::from_ref(x).cast(),
        }
    }
}

/// A product of matrices that lie row by row, for a library: `to` (m, n) is the sum over k.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    pub(crate) to: u64,
    pub(crate) a: u64,
    pub(crate) b: u64,
    /// m, n and k.
    pub(crate) shape: (usize, usize, usize),
    /// Whether `a` lies (k, m) rather than (m, k), and `b` (n, k) rather than (k, n).
    pub(crate) turned: [bool; 2],
    /// The operands are bf16.
    pub(crate) is_rounded: bool,
    /// `to` is added to.
    pub(crate) accumulate: bool,
}

/// One launch of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch<'a> {
    pub(crate) kernel: &'static str,
    pub(crate) grid: [u32; 3],
    /// Threads of a block.
    pub(crate) block: u32,
    pub(crate) shared_bytes: u32,
    pub(crate) args: &'a [Arg],
}

pub(crate) trait Launcher {
    /// What computes, for the record of a run: another one may round differently.
    fn name(&self) -> String;

    /// Memory that can be had now, where it is known.
    fn free_bytes(&self) -> Option<u64>;

    /// Shared memory that a block can have.
    fn shared_limit(&self) -> usize;

    /// The widest head that its kernels take, where they say one.
    fn widest_head(&self) -> usize {
        usize::MAX
    }

    /// Whether it has the kernels that multiply in bf16 on tensor cores.
    fn has_tensor_cores(&self) -> bool {
        true
    }

    /// Whether it has the kernels of `halves.rs`.
    fn has_f16(&self) -> bool {
        false
    }

    /// Memory aligned to 256 bytes.
    fn alloc(&self, n_bytes: usize) -> Result<u64>;

    fn free(&self, address: u64);

    fn write(&self, to: u64, from: Numbers) -> Result<()>;

    /// Waits for all that was launched, and copies.
    fn read(&self, to: NumbersMut, from: u64) -> Result<()>;

    /// The sum that a kernel left in two words.
    fn double(&self, [low, high]: [u32; 2]) -> f64 {
        f64::from_bits(u64::from(high) << 32 | u64::from(low))
    }

    fn launch(&self, launch: &Launch) -> Result<()>;

    /// Whether a library is to make products of this shape.
    fn multiplies(&self, _shape: (usize, usize, usize)) -> bool {
        false
    }

    /// Launches a product by it; false where it cannot make this one.
    fn multiply(&self, _product: &Product) -> Result<bool> {
        Ok(false)
    }

    /// Told when memory is used a second time; the emulator makes it NaN.
    fn forget(&self, _address: u64, _n_bytes: usize) {}
}
