//! Ctrl-C and SIGTERM as wishes: the first to stop at a safe point, the second to stop at once.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tinylm_pipeline::{Interrupt, StageError, slurm, threads};
use tinylm_registry::{Home, Registry};

use crate::{failure::Failure, output::eprint};

static TERMINATED: AtomicBool = AtomicBool::new(false);

/// Whether what is at work goes on without this process: jobs of a cluster do.
static DETACHES: AtomicBool = AtomicBool::new(false);

/// From now on a terminal that hangs up ends this process and nothing else.
pub(crate) fn detach_on_hangup() {
    DETACHES.store(true, Ordering::Relaxed);
}

/// The time of a driver's job is nearly up, or its node is wanted: it comes again, and what it has begun goes on.
fn make_way() -> ! {
    let comes_again = slurm::queue_driver_again();
    eprint(match comes_again {
        true => "the driver's job makes way and is queued again: the jobs go on",
        false => "the driver's job ends: the jobs go on, and `tinylm resume` follows them again",
    });
    give_claims_back();
    std::process::exit(if comes_again { 0 } else { EX_TEMPFAIL })
}

/// The run is neither done nor failed: whatever waits for this job must not begin.
const EX_TEMPFAIL: i32 = 75;

fn give_claims_back() {
    for (home, _) in runs().iter() {
        home.give_claims_back();
    }
}

fn detach() -> ! {
    eprint("hung up: the jobs go on, and `tinylm resume` follows them again");
    give_claims_back();
    std::process::exit(129)
}

/// How often it is looked whether somebody wishes to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Turns the first Ctrl-C, SIGTERM or `tinylm stop` into a wish to stop, the second into insistence.
pub(crate) fn listen_for_signals() -> Result<Arc<Interrupt>, Failure> {
    use signal_hook::{consts, iterator::Signals};
    let interrupt = Arc::new(Interrupt::default());
    let mut heard = vec![consts::SIGINT, consts::SIGTERM, consts::SIGHUP];
    if slurm::is_driver_job() {
        heard.push(consts::SIGUSR1);
    }
    let mut signals = Signals::new(heard)
        .map_err(|error| Failure::wrong(format!("signals cannot be heard: {error}")))?;
    let heard = Arc::clone(&interrupt);
    // One thread looks for both: where threads are scarce, each may be one too many.
    let listen = move || {
        loop {
            for signal in signals.pending() {
                match signal {
                    consts::SIGHUP if DETACHES.load(Ordering::Relaxed) => detach(),
                    consts::SIGUSR1 => make_way(),
                    consts::SIGTERM if slurm::is_driver_in_the_way() => make_way(),
                    _ => {}
                }
                if signal != consts::SIGINT {
                    TERMINATED.store(true, Ordering::Relaxed);
                }
                wish_to_stop(&heard);
            }
            if runs().iter().any(|(home, id)| home.takes_stop_wish(id)) {
                wish_to_stop(&heard);
            }
            thread::sleep(LOOK_EVERY);
        }
    };
    threads::spawn(listen).map_err(|error| Failure::from(StageError::no_thread(&error)))?;
    Ok(interrupt)
}

fn wish_to_stop(interrupt: &Interrupt) {
    Registry::hurry();
    if interrupt.asked.swap(true, Ordering::Relaxed) {
        interrupt.insisted.store(true, Ordering::Relaxed);
    } else {
        eprint("stopping at the next safe point; again to stop at once");
    }
}

/// The runs that others may ask to stop: all of a process stop as one, as with a signal.
static RUNS: Mutex<Vec<(Home, String)>> = Mutex::new(Vec::new());

fn runs() -> MutexGuard<'static, Vec<(Home, String)>> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears `tinylm stop`, as long as it is kept.
pub(crate) struct Ear {
    run_id: String,
}

impl Ear {
    pub(crate) fn of(home: &Home, run_id: &str) -> Ear {
        // Asked of a process that is dead, which this one is not.
        let _ = home.takes_stop_wish(run_id);
        runs().push((home.clone(), run_id.to_owned()));
        let run_id = run_id.to_owned();
        Ear { run_id }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        runs().retain(|(_, id)| *id != self.run_id);
    }
}

/// The exit code of a run that was stopped: that of the signal which asked for it.
pub(crate) fn exit_code() -> u8 {
    if TERMINATED.load(Ordering::Relaxed) {
        143
    } else {
        130
    }
}

/// Makes a file that grows beyond the limit an ordinary error of the write, with its path; left
/// alone the signal ends the process without a word.
pub(crate) fn survive_file_limits() {
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()).ok();
}

/// Lets signals end the first process of a container, which hears none that it does not listen for. For
/// commands that have nothing to put away.
pub(crate) fn end_as_first_process() {
    use signal_hook::{consts, flag::register_conditional_shutdown};
    if std::process::id() != 1 {
        return;
    }
    for signal in [consts::SIGINT, consts::SIGTERM] {
        let always = Arc::new(AtomicBool::new(true));
        register_conditional_shutdown(signal, 128 + signal, always).ok();
    }
}
