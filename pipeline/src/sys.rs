//! The few system calls that neither the standard library nor rustix offers safely.
//!
//! A child's own cpu time and peak memory come from `wait4`, because the figures a
//! process could report of itself are lost when it is killed; a child dies with its
//! parent through `prctl`, because a parent that was killed cannot clean up; and a stage
//! that streams asks for its freed memory to be kept through `mallopt`, and for what it writes
//! to be stored meanwhile through `sync_file_range`. What a stranger wrote is worked on in a copy of the
//! process (`fork`), which is silent and ends in time. A library that listens to nothing but the environment is told
//! through it, before there are threads.

use std::{io, os::unix::process::CommandExt, process::Command};

use crate::usage::Usage;

/// Tells a layer of Mesa that there is no screen, where there is none: it asks for one before it shows any GPU, and
/// complains on standard error.
///
/// To be called before there are other threads.
pub fn look_for_no_screen() {
    let is_there = |name| std::env::var_os(name).is_some();
    if ["XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY"]
        .into_iter()
        .any(is_there)
    {
        return;
    }
    // SAFETY: no other thread is there to read the environment meanwhile, as the caller promises.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
}

/// Where addresses are limited (`ulimit -v`), has all threads share one heap. Each would otherwise take 128 MiB
/// of them for its own, most of which go back at once: a moment in which another thread may start, find
/// nothing, and take the process with it.
pub fn share_one_heap_where_addresses_are_few() {
    use rustix::process::{Resource, getrlimit};
    if getrlimit(Resource::As).current.is_none() {
        return;
    }
    share_one_heap();
}

/// Has all threads share one heap. A heap of its own for each keeps what the thread has freed, which in a training
/// is a checkpoint's or an answer's memory: a quarter of the whole, for threads that allocate next to nothing.
pub(crate) fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers and locks what it changes.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Fails where the process has no addresses left for so many bytes. They are asked of the kernel and given back:
/// the allocator might keep them.
pub(crate) fn find_room(bytes: usize) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let (protection, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a mapping of nothing, at an address of the kernel's choice, touches no other memory.
    let room = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if room == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was mapped above, as a whole, and nobody else knows of it.
    match unsafe { libc::munmap(room, bytes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// Waits for a child of this process and returns what the kernel says it and its own waited-for
/// children used; restarted when a signal interrupts it.
pub(crate) fn wait(pid: u32) -> io::Result<(Exit, Usage)> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut status = 0;
    loop {
        // SAFETY: `rusage` is plain old data, for which all zeros is a valid value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live locals of the types that wait4 writes.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            return Ok((exit(status), usage_of(&usage)));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// What this process and the children that it waited for have used.
pub(crate) fn used() -> Usage {
    let of = |whose| {
        // SAFETY: `rusage` is plain old data, for which all zeros is a valid value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live local of the type that getrusage writes.
        unsafe { libc::getrusage(whose, &raw mut usage) };
        usage_of(&usage)
    };
    let (own, waited_for) = (of(libc::RUSAGE_SELF), of(libc::RUSAGE_CHILDREN));
    Usage {
        cpu_seconds: own.cpu_seconds + waited_for.cpu_seconds,
        ..own
    }
}

/// The unit of processor time in the files of `/proc`.
pub(crate) fn ticks_per_second() -> f64 {
    // SAFETY: sysconf takes a number and touches no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ticks.max(1) as f64
}

fn exit(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }
}

fn usage_of(usage: &libc::rusage) -> Usage {
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    Usage {
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        // Linux counts kilobytes, macOS bytes.
        peak_memory_bytes: usage.ru_maxrss.unsigned_abs()
            * if cfg!(target_os = "macos") { 1 } else { 1024 },
    }
}

/// Makes the program to be started die with this process.
///
/// The kernel ties the promise to the *thread* that starts the program, so start it
/// from the thread that waits for it.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        // SAFETY: prctl and getppid are async-signal-safe and touch no memory of ours.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // The parent may have died before the promise was made.
                if libc::getppid().unsigned_abs() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
    }
    command
}

/// Runs `work` in a copy of this process, which ends with what it returns; returns the copy's number.
///
/// The copy has one thread, and nothing of the original is dropped or flushed twice.
pub(crate) fn copy_of_this(work: impl FnOnce() -> i32) -> io::Result<u32> {
    // SAFETY: the copy runs `work` on its only thread and leaves by `_exit`. The allocator of the C
    // library may be used behind a fork.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = work();
            // SAFETY: it does not return and touches no memory.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid.unsigned_abs()),
    }
}

/// What this process says on standard error is for nobody from now on.
pub(crate) fn silence_errors() {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd;
    if let Ok(silent) = rustix::fs::open("/dev/null", OFlags::WRONLY, Mode::empty()) {
        // SAFETY: both descriptors are open.
        unsafe { libc::dup2(silent.as_raw_fd(), 2) };
    }
}

/// Ends this process by a signal after so many seconds by the clock.
pub(crate) fn end_after(seconds: u32) {
    // SAFETY: alarm touches no memory.
    unsafe { libc::alarm(seconds) };
}

/// Asks the allocator to hold on to what this process frees, up to 64 MB a thread.
///
/// Buffers of a row group come and go hundreds of times. Given back to the kernel each time,
/// their pages are taken away, handed out and zeroed anew, which costs a stage that streams
/// an eighth of its time.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// The highest that glibc takes.
        const MAPPED_FROM: libc::c_int = 32 << 20;
        const TRIMMED_FROM: libc::c_int = 64 << 20;
        // SAFETY: mallopt locks what it changes and touches no memory of ours. Where it
        // refuses a value, nothing changes.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIMMED_FROM);
        }
    }
}

/// Gives the system what the allocator keeps of memory that was freed: after opening a model, which takes for a
/// moment as much again as its tokenizer.
pub fn give_back_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number and locks the heap itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Asks the kernel to begin storing what has been written to a file.
///
/// Otherwise it begins when the artifact is complete, and everything waits for the disk: at
/// a gigabyte of documents that is a twentieth of a stage's time.
pub fn begin_to_store(file: &std::fs::File) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is open as long as `file` is, and no memory is touched.
        // A failure here is made up for when the artifact is flushed, which does look for errors.
        unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Sends a signal to a whole process group; one that is gone already is no error.
pub fn signal_group(leader: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(leader)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        rustix::process::kill_process_group(pid, signal).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use rustix::process::Signal;

    use super::*;

    fn start(script: &str) -> u32 {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::null());
        die_with_parent(command.process_group(0))
            .spawn()
            .unwrap()
            .id()
    }

    #[test]
    fn an_exit_code_and_what_was_used_are_the_kernels_own() {
        let (exit, usage) = wait(start("exit 7")).unwrap();
        assert_eq!(exit, Exit::Code(7));
        assert!(usage.peak_memory_bytes > 100_000, "{usage:?}");
    }

    #[test]
    fn a_signal_reaches_the_whole_group() {
        let pid = start("sleep 100 & wait");
        std::thread::sleep(std::time::Duration::from_millis(50));
        signal_group(pid, Signal::KILL);
        assert_eq!(wait(pid).unwrap().0, Exit::Signal(9));
    }
}
