//! The stage's present use of the machine, as its own process knows it.
//!
//! Programs that the stage has started are its use too: a `command` does all of its work in one.

use std::{fs, iter};

use crate::sys;

/// What a process has used and holds just now, as far as it can know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Using {
    pub(crate) cpu_seconds: f64,
    pub(crate) memory_bytes: u64,
}

impl Using {
    /// The use of this process and of all that it has started.
    pub(crate) fn now() -> Using {
        let usage = sys::used();
        let own = Using {
            cpu_seconds: usage.cpu_seconds,
            // Where the present is not told, the most it ever held has to do.
            memory_bytes: resident("self").unwrap_or(usage.peak_memory_bytes),
        };
        programs().fold(own, |all, one| Using {
            cpu_seconds: all.cpu_seconds + one.cpu_seconds,
            memory_bytes: all.memory_bytes + one.memory_bytes,
        })
    }
}

/// The programs below this process, each with those below it that it has waited for.
fn programs() -> impl Iterator<Item = Using> {
    let mut open = children("self");
    iter::from_fn(move || {
        let pid = open.pop()?;
        open.extend(children(&pid));
        Some(Using {
            cpu_seconds: cpu_seconds(&pid).unwrap_or(0.0),
            memory_bytes: resident(&pid).unwrap_or(0),
        })
    })
}

fn children(pid: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let of_thread = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children"));
    let lists = threads.filter_map(|thread| of_thread(thread).ok());
    let pids = lists.flat_map(|list| {
        let pids = list.split_whitespace().map(str::to_owned);
        pids.collect::<Vec<_>>()
    });
    pids.collect()
}

fn resident(pid: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn cpu_seconds(pid: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A program's name stands in brackets and may be anything; the eleven fields behind it are others.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(4);
    let ticks: u64 = ticks.filter_map(|text| text.parse::<u64>().ok()).sum();
    Some(ticks as f64 / sys::ticks_per_second())
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_process_knows_what_it_holds() {
        let before = Using::now();
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        let now = Using::now();
        assert!(
            now.memory_bytes >= before.memory_bytes + (48 << 20),
            "{now:?}"
        );
        assert!(now.cpu_seconds >= before.cpu_seconds && held[held.len() - 1] == 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_below_a_program_is_counted_too() {
        // The inner shell is busy, the outer one waits for it.
        let script = "sh -c 'while :; do :; done'; :";
        let mut program = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let started = Instant::now();
        let is_busy = |one: &Using| one.cpu_seconds > 0.05 && one.memory_bytes > 0;
        while programs().filter(is_busy).count() == 0 {
            assert!(started.elapsed() < Duration::from_secs(30), "never seen");
            thread::sleep(Duration::from_millis(20));
        }
        let inner = children(&program.id().to_string());
        Command::new("kill").args(&inner).status().unwrap();
        program.wait().unwrap();
        assert_eq!(inner.len(), 1);
    }
}
