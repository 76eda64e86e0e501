//! Values of a pass: a matrix, the slot of its gradient, and a way to make it again.

use std::sync::Arc;

use super::gradients::{Done, Grads, Slot, put, take};
use crate::buffer::{Buf, Pool};
use crate::kernels::View;

/// Makes a matrix again, to the bit.
pub(super) type Again = Arc<dyn Fn() -> Buf<f32> + Send + Sync>;

/// A matrix of `width` columns, and where its gradient goes (`None`: nobody wants it).
#[derive(Clone)]
pub(super) struct Node {
    pub(super) data: Arc<Buf<f32>>,
    pub(super) width: usize,
    pub(super) slot: Option<Slot>,
    /// Held for the backward pass instead of the data, where that takes less.
    pub(super) again: Option<Again>,
}

impl Node {
    pub(super) fn view(&self) -> View<'_> {
        View::new(&self.data, self.width)
    }

    pub(super) fn or_again(self, again: impl Fn() -> Buf<f32> + Send + Sync + 'static) -> Self {
        let again: Option<Again> = Some(Arc::new(again));
        Node { again, ..self }
    }
}

/// A node's data as the backward pass holds it.
pub(super) enum Kept {
    Whole(Arc<Buf<f32>>),
    Again(Again),
}

impl Kept {
    pub(super) fn of(node: &Node) -> Self {
        match &node.again {
            Some(again) => Kept::Again(Arc::clone(again)),
            None => Kept::Whole(Arc::clone(&node.data)),
        }
    }

    pub(super) fn data(self) -> Arc<Buf<f32>> {
        match self {
            Kept::Whole(data) => data,
            Kept::Again(again) => Arc::new(again()),
        }
    }
}

/// A gradient's place and size, without holding on to the values it belongs to.
pub(super) struct Target {
    pub(super) slot: Slot,
    pub(super) n: usize,
}

impl Target {
    pub(super) fn of(node: &Node) -> Option<Target> {
        let slot = node.slot.clone()?;
        let n = node.data.len();
        Some(Target { slot, n })
    }

    /// Lets `f` add to the gradient.
    pub(super) fn add_to(
        &self,
        grads: &mut Grads,
        pool: &Pool<f32>,
        f: impl FnOnce(&mut [f32]),
    ) -> Done {
        let mut d = match take(grads, &self.slot, pool)? {
            Some(d) => d,
            None => pool.zeros(self.n),
        };
        f(&mut d);
        put(grads, &self.slot, d)
    }
}

pub(super) fn values(bias: Option<&Node>) -> &[f32] {
    bias.map_or(&[], |bias| &bias.data)
}
