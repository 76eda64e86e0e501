//! Work on several threads, taken up in order.
//!
//! The caller's thread makes the items and takes the results in the order of the
//! items; other threads work in between. At most twice as many items as threads are
//! under way, and fewer where they are heavy, so memory is bounded, and the outcome cannot
//! depend on the number of threads. rayon has no such ordered, bounded bridge from a stream.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use tinylm_pipeline::sys::keep_freed_memory;

/// No item is made beside others that weigh more than this together, a thread.
const BYTES_MAX: u64 = 32 << 20;

/// Feeds what `produce` returns through `work` on `n_threads` threads into `consume`;
/// `weigh` says about how many bytes an item is.
pub(crate) fn in_order<T, R, E>(
    n_threads: usize,
    weigh: impl Fn(&T) -> u64,
    mut produce: impl FnMut() -> Result<Option<T>, E>,
    work: impl Fn(T) -> Result<R, E> + Sync,
    mut consume: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E>
where
    T: Send,
    R: Send,
    E: Send,
{
    let n_threads = n_threads.max(1);
    // Megabytes at a time go through here.
    keep_freed_memory();
    let (jobs, waiting) = channel();
    let waiting = Mutex::new(waiting);
    let (done, results) = channel();
    thread::scope(|scope| {
        // Moved in, so that the workers hear of the end however this closure is left.
        let jobs = jobs;
        for _ in 0..n_threads {
            let done = done.clone();
            let (waiting, work) = (&waiting, &work);
            scope.spawn(move || work_off(waiting, work, done));
        }
        drop(done);

        let mut pending = BTreeMap::new();
        let mut weights = VecDeque::new();
        let (mut n_made, mut n_taken, mut at_end) = (0_usize, 0_usize, false);
        let bytes_max = BYTES_MAX * n_threads as u64;
        loop {
            while !at_end
                && n_made - n_taken < 2 * n_threads
                && weights.iter().sum::<u64>() < bytes_max
            {
                let Some(item) = produce()? else {
                    at_end = true;
                    break;
                };
                weights.push_back(weigh(&item));
                if jobs.send((n_made, item)).is_ok() {
                    n_made += 1;
                }
            }
            if n_taken == n_made {
                return Ok(());
            }
            // No worker sends again once one has panicked; leaving joins them, and the
            // panic goes on in this thread.
            let Ok((idx, Some(result))) = results.recv() else {
                return Ok(());
            };
            pending.insert(idx, result);
            while let Some(result) = pending.remove(&n_taken) {
                consume(result?)?;
                weights.pop_front();
                n_taken += 1;
            }
        }
    })
}

/// Lets items that are worked on side by side do one thing in their order, midway.
///
/// It suits [`in_order`]: whoever waits, waits for items that were begun before.
#[derive(Default)]
pub(crate) struct Turns {
    state: Mutex<TurnsState>,
    moved_on: Condvar,
}

#[derive(Default)]
struct TurnsState {
    n_given: usize,
    /// Whose turn it is.
    next: usize,
    /// Those that are over before their time.
    over: BTreeSet<usize>,
}

/// An item's turn. It is over when this is dropped, taken or not.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    idx: usize,
}

impl Turns {
    /// Returns the turn of the next item.
    pub(crate) fn give(&self) -> Turn<'_> {
        let mut state = self.state();
        let idx = state.n_given;
        state.n_given += 1;
        Turn { turns: self, idx }
    }

    fn state(&self) -> MutexGuard<'_, TurnsState> {
        // No code of others runs while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Waits until the turns before it are over, then runs `act`.
    pub(crate) fn take<R>(self, act: impl FnOnce() -> R) -> R {
        let mut state = self.turns.state();
        while state.next != self.idx {
            let woken = self.turns.moved_on.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        act()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.over.insert(self.idx);
        while let next = state.next
            && state.over.remove(&next)
        {
            state.next += 1;
        }
        self.turns.moved_on.notify_all();
    }
}

type Done<R, E> = Sender<(usize, Option<Result<R, E>>)>;

/// Tells the caller that a worker is gone if it goes in a panic.
struct Farewell<R, E>(Done<R, E>);

impl<R, E> Drop for Farewell<R, E> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.send((0, None)).ok();
        }
    }
}

fn work_off<T, R, E>(
    waiting: &Mutex<Receiver<(usize, T)>>,
    work: &(impl Fn(T) -> Result<R, E> + Sync),
    done: Done<R, E>,
) {
    let farewell = Farewell(done);
    loop {
        let next = waiting.lock().ok().and_then(|jobs| jobs.recv().ok());
        let Some((idx, item)) = next else { return };
        if farewell.0.send((idx, Some(work(item)))).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn doubled(n_threads: usize, n_items: u32) -> Vec<u32> {
        let mut items = 0..n_items;
        let mut taken = Vec::new();
        in_order(
            n_threads,
            |_| 1,
            || Ok::<_, ()>(items.next()),
            |item| {
                // The earlier an item, the longer it takes.
                thread::sleep(std::time::Duration::from_micros(u64::from(n_items - item)));
                Ok(2 * item)
            },
            |item| {
                taken.push(item);
                Ok(())
            },
        )
        .unwrap();
        taken
    }

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let wanted: Vec<u32> = (0..100).map(|item| 2 * item).collect();
        for n_threads in [0, 1, 3, 8] {
            assert_eq!(doubled(n_threads, 100), wanted);
        }
        assert!(doubled(2, 0).is_empty());
    }

    #[test]
    fn turns_are_taken_in_order_and_one_that_is_given_up_stops_nobody() {
        let turns = Turns::default();
        let taken = Mutex::new(Vec::new());
        let mut items = 0..100;
        in_order(
            3,
            |_| 1,
            || Ok::<_, ()>(items.next().map(|item| (item, turns.give()))),
            |(item, turn)| {
                // The earlier an item, the later it is ready.
                thread::sleep(std::time::Duration::from_micros(100 - item));
                if item % 7 != 3 {
                    turn.take(|| taken.lock().unwrap().push(item));
                }
                Ok(())
            },
            Ok,
        )
        .unwrap();
        let wanted: Vec<u64> = (0..100).filter(|item| item % 7 != 3).collect();
        assert_eq!(*taken.lock().unwrap(), wanted);
    }

    #[test]
    fn heavy_items_are_not_made_side_by_side() {
        let mut items = 0..10;
        let under_way = AtomicUsize::new(0);
        in_order(
            4,
            |_| 5 * BYTES_MAX,
            || {
                assert_eq!(under_way.load(Ordering::Relaxed), 0);
                let item = items.next();
                under_way.store(usize::from(item.is_some()), Ordering::Relaxed);
                Ok::<_, ()>(item)
            },
            Ok,
            |_| {
                under_way.store(0, Ordering::Relaxed);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(items.next(), None);
    }

    #[test]
    fn the_first_error_in_order_is_the_outcome() {
        let mut items = 0..100;
        let outcome = in_order(
            4,
            |_| 1,
            || Ok(items.next()),
            |item| if item >= 7 { Err(item) } else { Ok(item) },
            |_| Ok(()),
        );
        assert_eq!(outcome, Err(7));
    }

    #[test]
    fn a_panic_in_a_worker_is_a_panic_here() {
        let mut items = 0..100;
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            in_order(
                2,
                |_| 1,
                || Ok::<_, ()>(items.next()),
                |item| {
                    assert_ne!(item, 5, "on purpose");
                    Ok(())
                },
                |()| Ok(()),
            )
        }));
        assert!(caught.is_err());
    }
}
