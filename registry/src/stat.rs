//! The kernel's word about a file, and when it may be believed instead of reading the file.
//!
//! A file can be changed twice within one tick of its file system's clock, and then looks
//! untouched. So a stat vouches for contents only if the file's last change (`ctime`, which no
//! program can set) was at least two seconds old when the contents were read.
//!
//! A file that several artifacts share is the exception: whoever comes or goes moves its `ctime`, so there the
//! `mtime` has to do, which a program can put back after a write.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// The coarsest clock of a file system that we know of.
const TICK_NS: i64 = 2_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stat {
    pub(crate) bytes: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
    pub(crate) inode: u64,
}

impl Stat {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Stat {
            bytes: metadata.len(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }

    /// Whether nothing but the `ctime` is another: a name came or went, or rights were changed. A write would
    /// have moved the `mtime`, unless somebody put that back.
    pub(crate) fn is_same_but_ctime(&self, other: &Self) -> bool {
        let of = |stat: &Self| (stat.bytes, stat.mtime_ns, stat.inode);
        of(self) == of(other)
    }

    /// Returns whether a file with this stat had been left alone long enough before `read_at`.
    pub(crate) fn was_settled(&self, read_at_ns: i64) -> bool {
        read_at_ns.saturating_sub(self.ctime_ns) >= TICK_NS
    }
}

pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}
