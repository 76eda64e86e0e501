//! Ctrl-C and SIGTERM as wishes: the first to stop at a safe point, the second to stop at once.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tinylm_pipeline::{Interrupt, StageError};
use tinylm_registry::{Home, Registry};

use crate::{failure::Failure, output::eprint};

static TERMINATED: AtomicBool = AtomicBool::new(false);

/// How often it is looked whether somebody wishes to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Turns the first Ctrl-C, SIGTERM or `tinylm stop` into a wish to stop, the second into insistence.
pub(crate) fn listen_for_signals() -> Result<Arc<Interrupt>, Failure> {
    use signal_hook::{consts, iterator::Signals};
    let interrupt = Arc::new(Interrupt::default());
    let mut signals = Signals::new([consts::SIGINT, consts::SIGTERM, consts::SIGHUP])
        .map_err(|error| Failure::wrong(format!("signals cannot be heard: {error}")))?;
    let heard = Arc::clone(&interrupt);
    // One thread looks for both: where threads are scarce, each may be one too many.
    let listen = move || {
        loop {
            for signal in signals.pending() {
                if signal != consts::SIGINT {
                    TERMINATED.store(true, Ordering::Relaxed);
                }
                wish_to_stop(&heard);
            }
            let run = RUN.lock().unwrap_or_else(PoisonError::into_inner);
            if run
                .as_ref()
                .is_some_and(|(home, id)| home.takes_stop_wish(id))
            {
                wish_to_stop(&heard);
            }
            drop(run);
            thread::sleep(LOOK_EVERY);
        }
    };
    thread::Builder::new()
        .spawn(listen)
        .map_err(|error| Failure::from(StageError::no_thread(&error)))?;
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

/// The run that others may ask to stop. One for all, as signals are.
static RUN: Mutex<Option<(Home, String)>> = Mutex::new(None);

/// Hears `tinylm stop`, as long as it is kept.
pub(crate) struct Ear;

impl Ear {
    pub(crate) fn of(home: &Home, run_id: &str) -> Ear {
        // Asked of a process that is dead, which this one is not.
        let _ = home.takes_stop_wish(run_id);
        set_run(Some((home.clone(), run_id.to_owned())));
        Ear
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        set_run(None);
    }
}

fn set_run(run: Option<(Home, String)>) {
    *RUN.lock().unwrap_or_else(PoisonError::into_inner) = run;
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
