//! The end of a sweep: its runs below each other, and what can be done with them.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use tinylm_registry::Status;

use crate::{
    failure::Failure,
    job::HowArgs,
    lookup::runs_of_sweep,
    output::{print_line, say},
    project::Project,
    runs::listed,
};

/// Carries out the runs of a sweep, so many at the same time; returns the worst exit code. `run` is
/// told whether an earlier one has stopped the sweep: then it only writes down that it was to be.
pub(crate) fn carry_out(
    n: usize,
    n_at_once: usize,
    how: &HowArgs,
    run: &(dyn Fn(usize, bool) -> Result<u8, Failure> + Sync),
) -> Result<u8, Failure> {
    let (next, is_stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let in_turn = || {
        let mut worst = 0;
        loop {
            let idx = next.fetch_add(1, Ordering::Relaxed);
            if idx >= n {
                return Ok(worst);
            }
            let code = run(idx, is_stopped.load(Ordering::Relaxed)).inspect_err(|_| {
                is_stopped.store(true, Ordering::Relaxed);
            })?;
            worst = worst.max(code);
            if how.stops_after(code) {
                is_stopped.store(true, Ordering::Relaxed);
            }
        }
    };
    if n_at_once <= 1 {
        return in_turn();
    }
    thread::scope(|scope| {
        let turns: Vec<_> = (0..n_at_once).map(|_| scope.spawn(in_turn)).collect();
        let joined = turns.into_iter().map(|turn| {
            let lost = |_| {
                Err(Failure::wrong(
                    "the thread of a run panicked, which is a bug in tinylm",
                ))
            };
            turn.join().unwrap_or_else(lost)
        });
        let all: Vec<Result<u8, Failure>> = joined.collect();
        all.into_iter()
            .try_fold(0, |worst, code| Ok(worst.max(code?)))
    })
}

/// Prints the runs of a sweep in the order in which they ran.
pub(crate) fn print(project: &Project, sweep: &str) -> Result<(), Failure> {
    // A home that cannot be written to has no record of them.
    let Ok(registry) = project.registry() else {
        return Ok(());
    };
    let runs = runs_of_sweep(&registry, sweep)?;
    let Some(first) = runs.first() else {
        return Ok(());
    };
    print_line("");
    print_line(listed(project, &registry, &runs, &[])?);
    let name = &first.name;
    let n_left = runs.iter().filter(|run| run.status != Status::Done).count();
    say(
        &project.global,
        &match n_left {
            0 => format!("`tinylm report --sweep {name}` puts them side by side"),
            n => format!(
                "{n} of {} are not done; `tinylm resume {name} --sweep` goes on with them",
                runs.len()
            ),
        },
    );
    Ok(())
}
