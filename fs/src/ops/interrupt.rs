//! Ends an operation when its caller has a signal to take.
//!
//! The kernel tells a FUSE server of interrupts by a request that the library
//! refuses, after which it tells no more; so the caller's pending signals are
//! looked at instead while its request waits. What is looked at is
//! `/proc/PID/status` of the calling thread: pending, not blocked, not ignored.
//!
//! A caller whose signals can't be seen, such as one in another pid namespace,
//! could not even be killed while it waits: its wait is bounded.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::errno::OpError;

/// How soon a signal ends a waiting operation.
const LOOK: Duration = Duration::from_millis(100);

/// How long a caller waits whose signals can't be seen.
const UNSEEN_WAIT_MAX: Duration = Duration::from_secs(30);

/// Runs `operation` until it is done, or `pid` (a thread; 0 where it is not known) has
/// a signal to take or may have had one.
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
    let since = Instant::now();
    if pid == 0 || !seen_signalled(pid).await {
        sleep_until(since + UNSEEN_WAIT_MAX).await;
    }
}

/// Waits for a signal; false if signals can't be seen.
async fn seen_signalled(pid: u32) -> bool {
    let path = format!("/proc/{pid}/status");
    loop {
        sleep(LOOK).await;
        match std::fs::read_to_string(&path) {
            Ok(status) if has_signal(&status) => return true,
            Ok(_) => {}
            // It waits for us, and so is there: hidden, or in a namespace that is not ours.
            Err(_) => return false,
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
    use std::future::pending;
    use std::process::Command;

    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
    use tokio::time::timeout;

    use super::*;

    /// What comes of a wait without an end, and how long it took.
    async fn waited(pid: u32) -> (Result<(), OpError>, Duration) {
        let since = Instant::now();
        (interruptible(pid, pending()).await, since.elapsed())
    }

    /// Without the server the mount waits
    /// A wait for a lock ends with a signal
    #[tokio::test(start_paused = true)]
    async fn a_caller_whose_signals_cant_be_seen_waits_half_a_minute() {
        let nobody = u32::MAX >> 1;
        for pid in [0, nobody] {
            let (done, took) = waited(pid).await;
            assert!(matches!(done, Err(OpError::Interrupted)), "{done:?}");
            assert!((UNSEEN_WAIT_MAX..UNSEEN_WAIT_MAX + LOOK).contains(&took), "{took:?}");
            assert!(interruptible(pid, async { Ok(()) }).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_can_be_seen_waits_until_it_has_a_signal() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let (pid, seen) = (child.id(), Pid::from_child(&child));
        let early = timeout(UNSEEN_WAIT_MAX * 3, waited(pid)).await;
        // Stopped, it does not take the next signal.
        kill_process(seen, Signal::STOP).unwrap();
        waitpid(Some(seen), WaitOptions::UNTRACED).unwrap();
        kill_process(seen, Signal::TERM).unwrap();
        let (done, took) = waited(pid).await;
        kill_process(seen, Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(early.is_err(), "it has no signal");
        assert!(matches!(done, Err(OpError::Interrupted)) && took <= LOOK * 2, "{done:?} {took:?}");
    }

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
