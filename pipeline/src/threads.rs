//! Threads, where there may be no room for another one.
//!
//! The standard library says so where a thread's stack does not fit, and ends the whole process where that
//! fits and the little that it lays beside it does not. So room for both is asked for first, and given back. Between
//! that and the thread's start another one may take it; that is rare where it used to be likely.

use std::{
    io,
    thread::{Builder, JoinHandle, Scope, ScopedJoinHandle},
};

use crate::sys;

/// A thread's stack, and more than whatever is laid beside it.
const BYTES: usize = (2 << 20) + (256 << 10);

/// Fails where so many threads more would not fit into the process.
pub fn room_for(n_threads: usize) -> io::Result<()> {
    sys::find_room(n_threads.saturating_mul(BYTES))
}

/// Starts a thread.
pub fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    room_for(1)?;
    Builder::new().spawn(work)
}

/// Starts a thread that ends with its scope.
pub fn spawn_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    room_for(1)?;
    Builder::new().spawn_scoped(scope, work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_a_few_and_not_for_more_than_there_are_addresses() {
        assert!(room_for(0).is_ok());
        assert!(room_for(4).is_ok());
        let error = room_for(usize::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
        assert_eq!(spawn(|| 7).unwrap().join().unwrap(), 7);
        let sum = std::thread::scope(|scope| spawn_in(scope, || 8).unwrap().join().unwrap());
        assert_eq!(sum, 8);
    }
}
