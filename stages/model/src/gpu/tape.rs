//! Values on a device, and the slots of their gradients.
//!
//! The first operation backward moves its buffer into a slot, later ones add to it; nothing is zeroed in
//! order to be added to.

use std::rc::Rc;

use super::launcher::Arg;
use super::memory::{Buf, Device};
use crate::config::Parameter;
use crate::ops::Result;

/// What one operation does backward.
pub(crate) type Back = Box<dyn FnOnce(&mut Grads) -> Result<()>>;

/// Makes a value again, to the bit.
type Again = Rc<dyn Fn() -> Result<Buf>>;

/// A matrix of `n` numbers, and where its gradient goes (`None`: nobody wants it).
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) data: Rc<Buf>,
    pub(crate) n: usize,
    pub(crate) width: usize,
    pub(crate) slot: Option<usize>,
    /// Held for the backward pass in place of the data, where that takes less.
    again: Option<Again>,
}

impl Node {
    pub(crate) fn new(data: Buf, n: usize, width: usize, slot: Option<usize>) -> Self {
        Node {
            data: Rc::new(data),
            n,
            width,
            slot,
            again: None,
        }
    }

    pub(crate) fn or_again(self, again: impl Fn() -> Result<Buf> + 'static) -> Self {
        let again: Option<Again> = Some(Rc::new(again));
        Node { again, ..self }
    }

    pub(crate) fn at(&self) -> Arg {
        self.data.at()
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.n / self.width
    }

    pub(crate) fn kept(&self) -> Kept {
        match &self.again {
            Some(again) => Kept::Again(Rc::clone(again)),
            None => Kept::Whole(Rc::clone(&self.data)),
        }
    }
}

/// A node's data as the backward pass holds it.
pub(crate) enum Kept {
    Whole(Rc<Buf>),
    Again(Again),
}

impl Kept {
    pub(crate) fn data(self) -> Result<Rc<Buf>> {
        match self {
            Kept::Whole(data) => Ok(data),
            Kept::Again(again) => again().map(Rc::new),
        }
    }
}

/// Gradients by slot.
pub(crate) struct Grads {
    device: Rc<Device>,
    held: Vec<Option<Buf>>,
}

impl Grads {
    pub(crate) fn new(device: &Rc<Device>, n_slots: usize) -> Self {
        let device = Rc::clone(device);
        let held = (0..n_slots).map(|_| None).collect();
        Grads { device, held }
    }

    pub(crate) fn take(&mut self, slot: usize) -> Option<Buf> {
        self.held[slot].take()
    }

    pub(crate) fn held(&self, slot: usize) -> Option<&Buf> {
        self.held[slot].as_ref()
    }

    pub(crate) fn put(&mut self, slot: usize, d: Buf) {
        self.held[slot] = Some(d);
    }

    /// A gradient to be added to, or a new buffer to be written.
    pub(crate) fn target(&mut self, slot: usize, n: usize) -> Result<(Buf, bool)> {
        match self.take(slot) {
            Some(d) => Ok((d, true)),
            None => Ok((self.device.floats(n)?, false)),
        }
    }

    pub(crate) fn zeros_or_held(&mut self, slot: usize, n: usize) -> Result<Buf> {
        self.take(slot).map_or_else(|| self.device.zeros(n), Ok)
    }

    /// Adds to a gradient, or becomes it.
    pub(crate) fn give(&mut self, slot: Option<usize>, d: Buf, n: usize) -> Result<()> {
        let Some(slot) = slot else {
            return Ok(());
        };
        if let Some(held) = &self.held[slot] {
            let args = [held.at(), d.at(), Arg::Long(n as u64)];
            return self.device.each("add_to", n, &args);
        }
        self.put(slot, d);
        Ok(())
    }

    /// Makes room for the slots of a pass, or drops those behind the weights'.
    pub(crate) fn resize(&mut self, n_slots: usize) {
        self.held.resize_with(n_slots, || None);
    }

    /// All that is held, with its size.
    pub(crate) fn all(&self, parameters: &[Parameter]) -> Vec<(&Buf, usize)> {
        let sized = self.held.iter().zip(parameters);
        sized
            .filter_map(|(held, parameter)| Some((held.as_ref()?, parameter.n())))
            .collect()
    }
}
