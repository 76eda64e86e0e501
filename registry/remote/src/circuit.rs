//! The circuit to a remote, which breaks when nobody answers.
//!
//! A run of a hundred stages must not wait a hundred times for a server that is down, nor say so a
//! hundred times. After a failure nothing is asked for a while; then one question tries again.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long nothing is asked after a failure.
const PAUSE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(crate) struct Circuit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open_until: Option<Instant>,
    is_told: bool,
}

impl Circuit {
    /// Whether somebody may be asked.
    pub(crate) fn is_closed(&self) -> bool {
        let mut state = self.state();
        match state.open_until {
            Some(until) if Instant::now() < until => false,
            Some(_) => {
                // One tries; whoever comes meanwhile waits for what it finds.
                state.open_until = Some(Instant::now() + PAUSE);
                true
            }
            None => true,
        }
    }

    /// Somebody answered.
    pub(crate) fn close(&self) {
        self.state().open_until = None;
    }

    /// Nobody answered; returns whether that is news.
    pub(crate) fn open(&self) -> bool {
        let mut state = self.state();
        state.open_until = Some(Instant::now() + PAUSE);
        !std::mem::replace(&mut state.is_told, true)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_once_and_nothing_is_asked_after_it_for_a_while() {
        let circuit = Circuit::default();
        assert!(circuit.is_closed());
        assert!(circuit.open());
        assert!(!circuit.is_closed());
        assert!(!circuit.open(), "it is told once");
        circuit.state().open_until = Some(Instant::now());
        assert!(circuit.is_closed(), "one tries again");
        assert!(!circuit.is_closed(), "and only one");
        circuit.close();
        assert!(circuit.is_closed());
    }
}
