//! Ctrl-C and SIGTERM as wishes: the first to stop at a safe point, the second to stop at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tinylm_pipeline::{Interrupt, StageError};
use tinylm_registry::Registry;

use crate::{failure::Failure, output::eprint};

static TERMINATED: AtomicBool = AtomicBool::new(false);

/// Turns the first Ctrl-C or SIGTERM into a wish to stop, and the second into insistence.
pub(crate) fn listen_for_signals() -> Result<Arc<Interrupt>, Failure> {
    use signal_hook::{consts, iterator::Signals};
    let interrupt = Arc::new(Interrupt::default());
    let mut signals = Signals::new([consts::SIGINT, consts::SIGTERM, consts::SIGHUP])
        .map_err(|error| Failure::wrong(format!("signals cannot be heard: {error}")))?;
    let heard = Arc::clone(&interrupt);
    let listen = move || {
        for signal in signals.forever() {
            Registry::hurry();
            if signal != consts::SIGINT {
                TERMINATED.store(true, Ordering::Relaxed);
            }
            if heard.asked.swap(true, Ordering::Relaxed) {
                heard.insisted.store(true, Ordering::Relaxed);
            } else {
                eprint("stopping at the next safe point; again to stop at once");
            }
        }
    };
    thread::Builder::new()
        .spawn(listen)
        .map_err(|error| Failure::from(StageError::no_thread(&error)))?;
    Ok(interrupt)
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
