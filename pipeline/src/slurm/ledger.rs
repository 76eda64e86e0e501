//! The scheduler's answers about all jobs, asked for by a thread of its own.
//!
//! One question for all jobs and not too often, because a controller serves a whole cluster; and not
//! by whoever waits for reports, because a controller that is away keeps its clients waiting for 18 s.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use super::commands::{Rows, squeue};
use crate::{error::StageError, threads};

/// The last answer, by its number: nothing at all before the first.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    pub(crate) number: u64,
    pub(crate) rows: Option<Arc<Result<Rows, String>>>,
}

pub(crate) struct Ledger {
    last: Mutex<Answer>,
}

impl Ledger {
    /// Starts asking; it ends when nobody holds the ledger any more.
    pub(crate) fn start(every: Duration) -> Result<Arc<Self>, StageError> {
        let ledger = Arc::new(Self {
            last: Mutex::default(),
        });
        let weak = Arc::downgrade(&ledger);
        threads::spawn(move || ask_until_nobody_listens(&weak, every))
            .map_err(|error| StageError::no_thread(&error))?;
        Ok(ledger)
    }

    pub(crate) fn answer(&self) -> Answer {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, rows: Result<Rows, String>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.number += 1;
        last.rows = Some(Arc::new(rows));
    }
}

fn ask_until_nobody_listens(ledger: &Weak<Ledger>, every: Duration) {
    loop {
        let until = Instant::now() + every;
        let rows = squeue();
        match ledger.upgrade() {
            Some(ledger) => ledger.set(rows),
            None => return,
        }
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(100).min(every));
            if ledger.strong_count() == 0 {
                return;
            }
        }
    }
}
