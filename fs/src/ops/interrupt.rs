//! Ends an operation when its caller has a signal to take.
//!
//! The kernel tells a FUSE server of interrupts by a request that the library
//! refuses, after which it tells no more; so the caller's pending signals are
//! looked at instead while its request waits. What is looked at is
//! `/proc/PID/status` of the calling thread: pending, not blocked, not ignored.

use std::future::Future;
use std::time::Duration;

use crate::errno::OpError;

/// How soon a signal ends a waiting operation.
const LOOK: Duration = Duration::from_millis(100);

/// Runs `operation` until it is done or `pid` (a thread; 0 where it is not known) has
/// a signal to take.
pub(crate) async fn interruptible<T>(
    pid: u32,
    operation: impl Future<Output = Result<T, OpError>>,
) -> Result<T, OpError> {
    tokio::select! {
        biased;
        result = operation => result,
        () = signalled(pid) => Err(OpError::Interrupted),
    }
}

async fn signalled(pid: u32) {
    if pid == 0 {
        return std::future::pending().await;
    }
    let path = format!("/proc/{pid}/status");
    loop {
        tokio::time::sleep(LOOK).await;
        match std::fs::read_to_string(&path) {
            Ok(status) if has_signal(&status) => return,
            Ok(_) => {}
            // Gone, or in a namespace that is not ours: nobody to watch.
            Err(_) => return std::future::pending().await,
        }
    }
}

fn has_signal(status: &str) -> bool {
    let mask = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0)
    };
    (mask("SigPnd") | mask("ShdPnd")) & !mask("SigBlk") & !mask("SigIgn") != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signal_that_is_neither_blocked_nor_ignored_interrupts() {
        let status = |pending: &str, blocked: &str, ignored: &str| {
            format!(
                "Name:\tcat\nSigPnd:\t0000000000000000\nShdPnd:\t{pending}\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\n"
            )
        };
        assert!(has_signal(&status("0000000000000002", "0", "0")));
        assert!(!has_signal(&status("0000000000000002", "0000000000000002", "0")));
        assert!(!has_signal(&status("0000000000000002", "0", "0000000000000002")));
        assert!(!has_signal(&status("0", "0", "0")));
    }
}
