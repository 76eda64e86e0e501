//! A batch on the device, with the orders in which gradients of looked-up rows are added.

use std::rc::Rc;

use super::launcher::Numbers;
use super::memory::{Buf, Device};
use crate::engine::Batch;
use crate::ops::Result;

pub(crate) struct Inputs {
    pub(crate) n_rows: usize,
    pub(crate) len: usize,
    pub(crate) tokens: Buf,
    pub(crate) targets: Buf,
    pub(crate) positions: Buf,
    pub(crate) starts: Buf,
    pub(crate) weights: Buf,
    /// The places that count.
    pub(crate) counted: Buf,
    pub(crate) n_counted: usize,
    /// None of the two where nothing is trained.
    pub(crate) by_token: Option<Segments>,
    pub(crate) by_position: Option<Segments>,
}

/// Places sorted by the row that they look up: each row's gradient is one sum in a fixed order,
/// where atomic additions would take whichever order they meet in.
pub(crate) struct Segments {
    pub(crate) order: Buf,
    /// Where each row's places begin, and their end.
    pub(crate) starts: Buf,
    pub(crate) n: usize,
}

impl Inputs {
    pub(crate) fn new(device: &Rc<Device>, batch: &Batch, is_trained: bool) -> Result<Self> {
        let places = 0..batch.weights.len();
        let counted = places.filter(|&i| batch.weights[i] != 0.0);
        let counted: Vec<u32> = counted.map(|i| i as u32).collect();
        let ids = |ids: &[u16]| device.upload(Numbers::U16(ids));
        let segments = |ids: &[u16]| is_trained.then(|| Segments::new(device, ids)).transpose();
        Ok(Inputs {
            n_rows: batch.n_rows,
            len: batch.len,
            tokens: ids(&batch.tokens)?,
            targets: ids(&batch.targets)?,
            positions: ids(&batch.positions)?,
            starts: ids(&batch.starts)?,
            weights: device.upload(Numbers::F32(&batch.weights))?,
            counted: device.upload(Numbers::U32(&counted))?,
            n_counted: counted.len(),
            by_token: segments(&batch.tokens)?,
            by_position: segments(&batch.positions)?,
        })
    }

    pub(crate) fn n_tokens(&self) -> usize {
        self.n_rows * self.len
    }
}

impl Segments {
    fn new(device: &Rc<Device>, ids: &[u16]) -> Result<Self> {
        let (order, starts) = sorted(ids);
        Ok(Segments {
            order: device.upload(Numbers::U32(&order))?,
            n: starts.len() - 1,
            starts: device.upload(Numbers::U32(&starts))?,
        })
    }
}

/// The places in the order of their ids, and where each id's begin.
fn sorted(ids: &[u16]) -> (Vec<u32>, Vec<u32>) {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&i| ids[i as usize]);
    let begins = |&i: &usize| i == 0 || ids[order[i] as usize] != ids[order[i - 1] as usize];
    let mut starts: Vec<u32> = (0..ids.len()).filter(begins).map(|i| i as u32).collect();
    starts.push(ids.len() as u32);
    (order, starts)
}

#[cfg(test)]
mod tests {
    use super::sorted;

    #[test]
    fn places_are_sorted_by_id_and_stay_in_order_within_one() {
        let (order, starts) = sorted(&[7, 2, 7, 0, 2]);
        assert_eq!(order, [3, 1, 4, 0, 2]);
        assert_eq!(starts, [0, 1, 3, 5]);
    }
}
