//! A buffer whose parts several threads write at the same time.

/// A buffer that all threads see; who may touch which part is the caller's business.
pub(crate) struct Slab<T> {
    start: *mut T,
    pub(crate) len: usize,
}

// SAFETY: a plain address; every use is unsafe and says why it may.
unsafe impl<T: Send> Sync for Slab<T> {}

impl<T> Slab<T> {
    pub(crate) fn new(data: &mut [T]) -> Slab<T> {
        Slab {
            start: data.as_mut_ptr(),
            len: data.len(),
        }
    }

    pub(crate) fn at(&self, offset: usize) -> *mut T {
        assert!(offset <= self.len);
        self.start.wrapping_add(offset)
    }

    /// # Safety
    ///
    /// Nobody else may write this part, nor read it while it is written.
    #[expect(
        clippy::mut_from_ref,
        reason = "threads take disjoint parts of one buffer"
    )]
    pub(crate) unsafe fn part(&self, offset: usize, len: usize) -> &mut [T] {
        assert!(offset + len <= self.len);
        // SAFETY: inside the buffer, and the caller promises that it is alone there.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}
