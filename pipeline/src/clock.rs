//! The time of day, for what is recorded beside artifacts and never in one.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns milliseconds since 1970; a clock that stands before is taken for one at its beginning.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
