//! Claiming a key against everybody: processes of this machine, and of others that share the home.
//!
//! Two rights, taken in this order. The kernel's lock is quick to wait for and goes with its holder,
//! but may reach no further than this machine; the claim reaches everywhere. On one machine the second
//! is free whenever the first is.

use tinylm_registry::{Claim as Claimed, Claimant, Digest, Error, Holder, Life, Lock};

use crate::{error::StageError, executor::Claim};

/// A key that is ours; the claim goes before the lock.
pub(crate) struct ClaimedKey {
    _claim: Claimed,
    _lock: Lock,
}

/// Waits for a key. `judge` knows of a holder whether it lives, perhaps more than its identity tells.
pub(crate) fn claim_key(
    claim: &Claim,
    key: &Digest,
    judge: &dyn Fn(&Holder) -> Life,
) -> Result<Option<ClaimedKey>, StageError> {
    let lock = claim.home.key_lock(key);
    let lock = Lock::wait_exclusive(&lock, claim.note, claim.cancelled, claim.on_wait)?;
    let Some(lock) = lock else {
        return Ok(None);
    };
    let place = claim.home.key_claim(key);
    let who = Claimant {
        note: claim.note,
        job: claim.job,
    };
    let on_wait = |holder: &Holder| (claim.on_wait)(&holder.words());
    let claimed = Claimed::wait(&place, who, judge, claim.cancelled, on_wait);
    let claimed = claimed.map_err(|error| match &error {
        // It may be the first that is written at all: a limit is told with what to do about it.
        Error::Io { path, source, .. } => StageError::io(path, source),
        _ => StageError::from(error),
    })?;
    Ok(claimed.map(|claim| ClaimedKey {
        _claim: claim,
        _lock: lock,
    }))
}
