//! Products of bf16 in tiles of f16, on GPUs that have f16: half of the shared memory, and the same bits.
//!
//! f16 has more digits than bf16 and a smaller range. So each operand is multiplied by a power of two that brings
//! its largest between 2^15 and 2^16, and the sum by what undoes both. A number down to 2^-32 of its operand's largest
//! is held as it is, and one below it within 2^-40 of the largest: `k` products lose `k` times 2^-39 of what
//! the two largest make, of which f32 loses more. (A GPU that keeps no subnormal numbers loses what is below 2^-29.)
//! The largest is found beforehand, as bits and in parts, which the product puts together: a maximum is
//! the same in any order, and the host waits for nothing. One that is not finite makes all of the result so.
//!
//! Numbers are multiplied in f32, where a product of two bf16 is exact. In f16 it is not, which training can tell:
//! `DESIGN.md` has the figures. Nor would it be faster unless sums were f16 as well: of four products, a pair of
//! instructions multiplies, and eight more widen and add what four of f32 do alone.

use std::rc::Rc;

use super::launcher::Arg;
use super::memory::{Buf, Device};
use crate::config::Precision;
use crate::ops::Result;

/// Parts of an operand, of each of which the largest is found; `TOPS` of `halves.wgsl`.
const TOPS: usize = 128;

/// The kernels that a launcher with f16 has in place of others, by layout.
pub(crate) const PRODUCTS: [&str; 3] = ["product_nt_f16", "product_nn_f16", "product_tn_f16"];

/// All that it has beside the others.
#[cfg(feature = "gpu")]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PRODUCTS.into_iter().chain(["largest"])
}

/// The largest magnitudes of parts of two operands, on the device.
pub(crate) struct Halves(Buf);

impl Halves {
    /// Of two operands and how many numbers they are; none where the device has no f16, or where they are not rounded.
    pub(crate) fn of(
        device: &Rc<Device>,
        (a, b): (Arg, Arg),
        (n_a, n_b): (usize, usize),
        precision: Precision,
    ) -> Result<Option<Self>> {
        if precision != Precision::Bf16 || !device.launcher.has_f16() {
            return Ok(None);
        }
        let tops = device.floats(2 * TOPS)?;
        let [n_a, n_b] = [n_a, n_b].map(|n| Arg::Long(n as u64));
        let args = [tops.at(), a, b, n_a, n_b];
        device.launch("largest", [TOPS, 2, 1], 256, 0, &args)?;
        Ok(Some(Halves(tops)))
    }

    pub(crate) fn at(&self) -> Arg {
        self.0.at()
    }
}
