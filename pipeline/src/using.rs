//! What a stage takes of the machine just now, as its own process knows it.

use std::fs;

use crate::sys;

/// What this process has used and holds just now, as far as it can know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Using {
    pub(crate) cpu_seconds: f64,
    pub(crate) memory_bytes: u64,
}

impl Using {
    pub(crate) fn now() -> Using {
        let usage = sys::used();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident =
            resident.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse().ok());
        Using {
            cpu_seconds: usage.cpu_seconds,
            // Where the present is not told, the most it ever held has to do.
            memory_bytes: resident
                .map_or(usage.peak_memory_bytes, |kilobytes: u64| kilobytes * 1024),
        }
    }
}

#[cfg(test)]
mod tests {
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
}
