//! Asking a run to stop, from another process or another machine.
//!
//! A file rather than a signal: a number of a process may be somebody else's by now, and means
//! nothing where the home is shared. Whoever carries out the run looks for the file and takes it away.

use crate::{Error, Home, claims, locks};

impl Home {
    /// Asks the process that carries out a run to stop at a safe point; says whether there is one.
    pub fn ask_to_stop(&self, run_id: &str) -> Result<bool, Error> {
        let is_here = locks::holder(&self.run_lock(run_id))?.is_some();
        if !is_here && !claims::may_live(&self.run_claim(run_id)) {
            return Ok(false);
        }
        self.stop_wish(run_id).write_atomic(b"")?;
        Ok(true)
    }

    /// Returns whether a run has been asked to stop since this was last asked.
    #[must_use]
    pub fn takes_stop_wish(&self, run_id: &str) -> bool {
        let wish = self.stop_wish(run_id);
        wish.exists() && wish.remove().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lock;

    #[test]
    fn a_wish_reaches_a_run_that_goes_on_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.create().unwrap();
        assert!(!home.ask_to_stop("r").unwrap(), "nobody carries it out");
        assert!(!home.takes_stop_wish("r"));
        let _lock = Lock::try_exclusive(&home.run_lock("r"), "run").unwrap();
        assert!(home.ask_to_stop("r").unwrap());
        assert!(home.takes_stop_wish("r") && !home.takes_stop_wish("r"));
    }
}
