//! Buffers that are handed back instead of freed.
//!
//! A training step asks for the same sizes every time. Freshly mapped memory costs a page
//! fault per 4 KiB, which at a gigabyte of activations is a tenth of a step; a buffer used
//! before costs nothing, and is already initialised, so no kernel needs uninitialised memory.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The free buffers, by capacity.
type Shelf<T> = BTreeMap<usize, Vec<Vec<T>>>;

pub(crate) struct Pool<T>(Arc<Mutex<Shelf<T>>>);

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Pool(Arc::clone(&self.0))
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool(Arc::default())
    }
}

impl<T: Copy + Default> Pool<T> {
    /// Returns `n` numbers of any value; the caller is going to overwrite them.
    pub(crate) fn take(&self, n: usize) -> Buf<T> {
        let mut data = self.find(n).unwrap_or_default();
        if data.capacity() < n {
            data = vec![T::default(); n];
        } else {
            data.resize(n, T::default());
        }
        self.own(data)
    }

    /// Returns `n` zeros.
    pub(crate) fn zeros(&self, n: usize) -> Buf<T> {
        match self.find(n) {
            Some(mut data) => {
                data.clear();
                data.resize(n, T::default());
                self.own(data)
            }
            // The system's fresh pages are zero already.
            None => self.own(vec![T::default(); n]),
        }
    }

    /// Takes over a buffer made elsewhere.
    pub(crate) fn own(&self, data: Vec<T>) -> Buf<T> {
        let pool = self.clone();
        Buf { data, pool }
    }

    /// Frees what nobody holds: shapes are about to change.
    pub(crate) fn clear(&self) {
        self.shelf().clear();
    }

    /// The smallest free buffer that is large enough, unless it is much too large.
    fn find(&self, n: usize) -> Option<Vec<T>> {
        let mut shelf = self.shelf();
        let (&capacity, free) = shelf.range_mut(n..=n + n / 4 + 64).next()?;
        let data = free.pop();
        if free.is_empty() {
            shelf.remove(&capacity);
        }
        data
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<T>> {
        // A shelf is whole between any two of its operations.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer that returns to its pool when dropped.
pub(crate) struct Buf<T: Copy + Default> {
    data: Vec<T>,
    pool: Pool<T>,
}

impl<T: Copy + Default> Buf<T> {
    /// Leaves the pool for good.
    pub(crate) fn into_vec(mut self) -> Vec<T> {
        std::mem::take(&mut self.data)
    }
}

impl<T: Copy + Default> Drop for Buf<T> {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        if data.capacity() > 0 {
            self.pool
                .shelf()
                .entry(data.capacity())
                .or_default()
                .push(data);
        }
    }
}

impl<T: Copy + Default> Deref for Buf<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.data
    }
}

impl<T: Copy + Default> DerefMut for Buf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let pool = Pool::<f32>::default();
        let first = pool.take(1000);
        let address = first.as_ptr();
        drop(first);
        let second = pool.take(990);
        assert_eq!((second.as_ptr(), second.len()), (address, 990));
        assert_ne!(pool.take(990).as_ptr(), address);
    }

    #[test]
    fn zeros_are_zero_even_when_used_again() {
        let pool = Pool::<f32>::default();
        pool.take(10).fill(3.0);
        assert!(pool.zeros(10).iter().all(|&x| x == 0.0));
    }

    #[test]
    fn a_much_larger_buffer_is_left_for_others() {
        let pool = Pool::<f32>::default();
        drop(pool.take(100_000));
        let small = pool.take(10);
        assert!(small.into_vec().capacity() < 1000);
    }
}
