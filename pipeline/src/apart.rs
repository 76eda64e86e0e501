//! Work on what a stranger wrote, in a process of its own: what it takes of memory, time and stack ends
//! that process and not this one.
//!
//! A fork and no program that is started anew, because whoever works is a library: a test, a command and
//! a stage's process alike. The copy has one thread, so the work must not ask others to do a part of it.

use std::{
    io::{self, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    sys::{self, Exit},
    using::Using,
};

/// What the copy may take beside what the original holds, where the system counts it.
const BYTES_MAX: u64 = 2 << 30;
const SECONDS_MAX: u64 = 5;
/// For a copy that waits for a lock which a thread of the original held.
const SECONDS_ON_THE_CLOCK: u32 = 60;

/// Returns what `work` returns; nothing where it took too much or crashed.
pub fn apart(work: impl FnOnce() -> Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let (mut reader, writer) = io::pipe()?;
    let held = Using::now().memory_bytes;
    let copy = sys::copy_of_this(|| done(work, writer, held + BYTES_MAX))?;
    let mut bytes = Vec::new();
    let read = reader.read_to_end(&mut bytes);
    let (exit, _) = sys::wait(copy)?;
    read?;
    Ok((exit == Exit::Code(0)).then_some(bytes))
}

/// The copy's life.
fn done(work: impl FnOnce() -> Vec<u8>, mut writer: io::PipeWriter, bytes_max: u64) -> i32 {
    sys::silence_errors();
    sys::end_after(SECONDS_ON_THE_CLOCK);
    let limits = [
        (Resource::Data, bytes_max),
        (Resource::Cpu, SECONDS_MAX),
        (Resource::Core, 0),
    ];
    for (resource, most) in limits {
        let most = Some(most);
        let limit = Rlimit {
            current: most,
            maximum: most,
        };
        // A system without such a limit has the others.
        setrlimit(resource, limit).ok();
    }
    let bytes = catch_unwind(AssertUnwindSafe(work));
    let written = bytes.map(|bytes| writer.write_all(&bytes));
    i32::from(!matches!(written, Ok(Ok(()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep(n: u64) -> u64 {
        match n {
            0 => 0,
            n => std::hint::black_box(deep(n - 1)) + 1,
        }
    }

    #[test]
    fn what_takes_too_much_ends_alone() {
        assert_eq!(apart(|| b"done".to_vec()).unwrap(), Some(b"done".to_vec()));
        let long = vec![7; 1 << 20];
        assert_eq!(apart(|| long.clone()).unwrap(), Some(long.clone()));
        assert_eq!(apart(|| panic!("a library's")).unwrap(), None);
        let stack = apart(|| deep(u64::MAX).to_le_bytes().to_vec());
        assert_eq!(stack.unwrap(), None);
        let memory = apart(|| vec![1; 1 << 40]);
        assert_eq!(memory.unwrap(), None);
    }
}
