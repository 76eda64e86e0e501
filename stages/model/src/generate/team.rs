//! A few threads that work on one token together.
//!
//! Decoding a token of a small model takes two milliseconds and has some sixty places
//! where every thread must have finished before any goes on. So the threads wait by
//! spinning, which costs a fraction of a microsecond; a work-stealing pool (rayon)
//! costs several each time, a tenth of the token. After a short while without work
//! they sleep, and while waiting long they yield, so a busy machine is not made worse.

use std::{
    cell::UnsafeCell,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::*},
    },
    thread::{self, JoinHandle},
};

/// Turns of a spinning wait before the thread yields at every further turn.
const SPINS: usize = 4_000;

/// Turns without work before a thread sleeps (a few hundred microseconds).
const IDLE_SPINS: usize = 30_000;

/// Threads that run one closure together, the caller among them.
pub(crate) struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// One thread's place in the team while it runs a closure.
pub(crate) struct Member<'a> {
    shared: &'a Shared,
    pub(crate) idx: usize,
    pub(crate) n: usize,
}

struct Shared {
    n: usize,
    job: UnsafeCell<Option<Job>>,
    /// Rises by one with each job.
    epoch: AtomicUsize,
    /// Workers that have not finished the job.
    running: AtomicUsize,
    arrived: AtomicUsize,
    /// Rises by one with each barrier passed.
    barrier: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

type Job = *const (dyn Fn(&Member<'_>) + Sync);

// SAFETY: `job` is written by the caller of `run` only while no worker reads it (before
// the epoch rises, after `running` fell to zero); what it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is never followed outside `run`.
unsafe impl Send for Shared {}

impl Team {
    /// Starts `n - 1` threads; 0 counts as 1.
    pub(crate) fn new(n: usize) -> Team {
        let n = n.max(1);
        let shared = Arc::new(Shared {
            n,
            job: UnsafeCell::new(None),
            epoch: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            barrier: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers = (1..n)
            .map(|idx| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || work(&shared, idx))
            })
            .collect();
        Team { shared, workers }
    }

    pub(crate) fn n_threads(&self) -> usize {
        self.shared.n
    }

    /// Runs `f` once on each thread and returns when all have finished.
    pub(crate) fn run(&mut self, f: impl Fn(&Member<'_>) + Sync) {
        let shared = &*self.shared;
        let job: *const (dyn Fn(&Member<'_>) + Sync + '_) = &raw const f;
        // SAFETY: only the lifetime is dropped. This function does not return, nor
        // unwind, before every worker is done with the closure.
        let job: Job = unsafe { std::mem::transmute(job) };
        // SAFETY: no worker reads the job between two epochs.
        unsafe { *shared.job.get() = Some(job) };
        shared.running.store(self.workers.len(), Release);
        shared.epoch.fetch_add(1, Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let member = Member {
            shared,
            idx: 0,
            n: shared.n,
        };
        let result = catch_unwind(AssertUnwindSafe(|| f(&member)));
        if result.is_err() {
            shared.panicked.store(true, Release);
        }
        spin(|| shared.running.load(Acquire) == 0);
        let panicked = shared.panicked.swap(false, AcqRel);
        shared.arrived.store(0, Release);
        if let Err(payload) = result {
            resume_unwind(payload);
        }
        assert!(!panicked, "a thread of the team panicked");
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A panic was reported by `run` already.
            let _ = worker.join();
        }
    }
}

impl Member<'_> {
    /// Waits for every thread of the team; what each wrote before, all see after.
    pub(crate) fn barrier(&self) {
        let shared = self.shared;
        if shared.n == 1 {
            return;
        }
        let passed = shared.barrier.load(Acquire);
        if shared.arrived.fetch_add(1, AcqRel) + 1 == shared.n {
            shared.arrived.store(0, Release);
            shared.barrier.fetch_add(1, Release);
            return;
        }
        spin(|| shared.barrier.load(Acquire) != passed || shared.panicked.load(Relaxed));
        assert!(
            !shared.panicked.load(Relaxed),
            "another thread of the team panicked"
        );
    }

    /// This thread's part of `0..n`: parts are contiguous and differ by one at most.
    pub(crate) fn part(&self, n: usize) -> Range<usize> {
        n * self.idx / self.n..n * (self.idx + 1) / self.n
    }
}

fn spin(done: impl Fn() -> bool) {
    let mut turns = 0;
    while !done() {
        turns += 1;
        if turns < SPINS {
            std::hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
}

fn work(shared: &Shared, idx: usize) {
    let mut seen = 0;
    loop {
        let mut turns = 0;
        while shared.epoch.load(Acquire) == seen {
            if shared.stop.load(Acquire) {
                return;
            }
            turns += 1;
            match turns {
                0..SPINS => std::hint::spin_loop(),
                SPINS..IDLE_SPINS => thread::yield_now(),
                // An unpark that came before makes this return at once: none is missed.
                _ => thread::park(),
            }
        }
        seen = shared.epoch.load(Acquire);
        // SAFETY: the epoch rose after the job was written, and the caller waits for
        // `running` before it touches the job again or drops the closure.
        let job = unsafe { (*shared.job.get()).expect("an epoch begins with a job") };
        let member = Member {
            shared,
            idx,
            n: shared.n,
        };
        // SAFETY: as above, the closure is alive.
        let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(&member) }));
        if result.is_err() {
            shared.panicked.store(true, Release);
        }
        shared.running.fetch_sub(1, AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_shows_each_thread_what_the_others_wrote() {
        let mut team = Team::new(3);
        let cells: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
        for round in 1..200 {
            team.run(|member| {
                cells[member.idx].store(round, Relaxed);
                member.barrier();
                let sum: usize = cells.iter().map(|cell| cell.load(Relaxed)).sum();
                assert_eq!(sum, 3 * round);
                member.barrier();
            });
        }
    }

    #[test]
    fn parts_cover_everything_once() {
        let mut team = Team::new(3);
        for n in [0, 1, 2, 3, 7, 100] {
            let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            team.run(|member| {
                for i in member.part(n) {
                    counts[i].fetch_add(1, Relaxed);
                }
            });
            assert!(counts.iter().all(|count| count.load(Relaxed) == 1));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        let mut team = Team::new(2);
        let panicking = catch_unwind(AssertUnwindSafe(|| {
            team.run(|member| {
                assert!(member.idx == 0, "told to");
                member.barrier();
            });
        }));
        assert!(panicking.is_err());
        let count = AtomicUsize::new(0);
        team.run(|_| {
            count.fetch_add(1, Relaxed);
        });
        assert_eq!(count.load(Relaxed), 2);
    }

    #[test]
    fn work_after_a_pause_is_done() {
        let mut team = Team::new(2);
        let count = AtomicUsize::new(0);
        for _ in 0..3 {
            team.run(|_| {
                count.fetch_add(1, Relaxed);
            });
            thread::sleep(std::time::Duration::from_millis(30));
        }
        assert_eq!(count.load(Relaxed), 6);
    }
}
