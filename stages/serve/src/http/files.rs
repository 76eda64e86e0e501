//! How many files a process may have open, of which each connection is one.
//!
//! The limit that a process begins with is often 1,024 and may be raised a thousandfold. A server that keeps
//! to it is held up by whoever opens as many connections: beyond the limit none is even refused.

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Files that are open beside connections: a registry's, models that are being read, the runtime's own.
const OTHERS: u64 = 128;

/// Raises the limit as far as `most` connections need it and it may be raised; returns how many it leaves
/// room for.
pub(super) fn room_for(most: usize) -> usize {
    room(raised(most as u64 + OTHERS), most)
}

fn raised(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let now = limit.current.unwrap_or(u64::MAX);
    let more = limit.maximum.unwrap_or(u64::MAX).min(wanted);
    let higher = Rlimit {
        current: Some(more),
        ..limit
    };
    match now < more && setrlimit(Resource::Nofile, higher).is_ok() {
        true => more,
        false => now,
    }
}

/// Where files are few, half of them are for connections.
fn room(limit: u64, most: usize) -> usize {
    let room = limit.saturating_sub(OTHERS).max(limit / 2);
    room.clamp(1, most as u64) as usize
}

/// Whether an error says that the process, or the machine, has no file left.
pub(super) fn are_used_up(error: &std::io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        for (limit, connections) in [
            (16, 8),
            (256, 128),
            (1024, 896),
            (1152, 1024),
            (u64::MAX, 1024),
        ] {
            assert_eq!(room(limit, 1024), connections, "of {limit}");
        }
    }
}
