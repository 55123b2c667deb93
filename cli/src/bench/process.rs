//! A server's CPU time and memory, as the kernel counts them in /proc.

use std::{fs, io, time::Duration};

/// One process, watched from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pid: u32,
}

impl Process {
    /// Fails with the kernel's words if there is no such process.
    pub(crate) fn find(pid: u32) -> io::Result<Self> {
        let this = Self { pid };
        this.cpu()?;
        Ok(this)
    }

    /// CPU time spent so far by all its threads, in user space and kernel.
    pub(crate) fn cpu(self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let ticks = ticks_of(&stat).ok_or_else(|| malformed("stat"))?;
        let ticks_a_second = rustix::param::clock_ticks_per_second().max(1);
        Ok(Duration::from_nanos(ticks.saturating_mul(1_000_000_000) / ticks_a_second))
    }

    /// The most memory it had resident, since the last [`Self::forget_peak`] if that was allowed.
    pub(crate) fn peak_bytes(self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        memory_of(&status, "VmHWM:").ok_or_else(|| malformed("status"))
    }

    /// The memory it has resident now.
    pub(crate) fn resident_bytes(self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        memory_of(&status, "VmRSS:").ok_or_else(|| malformed("status"))
    }

    /// Starts the peak anew where we are allowed to; else it is the process's whole life's.
    pub(crate) fn forget_peak(self) {
        const RESET_PEAK: &str = "5";
        if let Err(error) = fs::write(format!("/proc/{}/clear_refs", self.pid), RESET_PEAK) {
            tracing::debug!(%error, pid = self.pid, "peak memory can't be reset");
        }
    }
}

fn malformed(file: &str) -> io::Error {
    io::Error::other(format!("/proc/PID/{file} has an unknown form"))
}

fn ticks_of(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything; fields count from after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let (user, system) = (fields.get(11)?, fields.get(12)?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

fn memory_of(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 40 2 0 0 20 0 1 0 100 1000 10";
        assert_eq!(ticks_of(stat), Some(42));
    }

    #[test]
    fn this_process_has_memory() {
        let me = Process::find(std::process::id()).unwrap();
        assert!(me.resident_bytes().unwrap() > 1 << 16);
        assert!(me.peak_bytes().unwrap() > 1 << 16);
    }
}
