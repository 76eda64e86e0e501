//! Gradients on dfdx's tape: an empty tensor is a gradient's slot, and its buffer moves in and out.

use dfdx::prelude::*;

use crate::buffer::{Buf, Pool};
use crate::engine::EngineError;
use crate::kernels::rows::{self, Write};

pub(super) type Grads = Gradients<f32, Cpu>;
pub(super) type Slot = Tensor<(usize,), f32, Cpu>;
pub(super) type Done = std::result::Result<(), CpuError>;

/// Takes a gradient out of its slot, if there is one.
pub(super) fn take(
    grads: &mut Grads,
    slot: &Slot,
    pool: &Pool<f32>,
) -> std::result::Result<Option<Buf<f32>>, CpuError> {
    let held: &mut Vec<f32> = grads.get_or_alloc_mut(slot)?;
    let held = std::mem::take(held);
    Ok((!held.is_empty()).then(|| pool.own(held)))
}

/// Takes a gradient out to be added to, or a new buffer to be written.
pub(super) fn take_or_new(
    grads: &mut Grads,
    slot: &Slot,
    pool: &Pool<f32>,
    n: usize,
) -> std::result::Result<(Buf<f32>, Write), CpuError> {
    Ok(match take(grads, slot, pool)? {
        Some(d) => (d, Write::Add),
        None => (pool.take(n), Write::Set),
    })
}

/// Puts a gradient (back) into its empty slot.
pub(super) fn put(grads: &mut Grads, slot: &Slot, d: Buf<f32>) -> Done {
    let held: &mut Vec<f32> = grads.get_or_alloc_mut(slot)?;
    *held = d.into_vec();
    Ok(())
}

/// Adds to a gradient, or becomes it.
pub(super) fn give(grads: &mut Grads, slot: &Slot, d: Buf<f32>) -> Done {
    let held: &mut Vec<f32> = grads.get_or_alloc_mut(slot)?;
    if held.is_empty() {
        *held = d.into_vec();
    } else {
        rows::add_all(held, &d);
    }
    Ok(())
}

pub(super) fn device_error(error: CpuError) -> EngineError {
    EngineError::Device(error.to_string())
}
