//! Ends an operation when its caller has a signal to take.
//!
//! The kernel tells a FUSE server of interrupts by a request that the library
//! refuses, after which it tells no more; so the caller's pending signals are
//! looked at instead while its request waits. What is looked at is
//! `/proc/PID/status` of the calling thread: pending, not blocked, not ignored.
//!
//! Who saves data is not kept from it by a signal that it only takes note of, such
//! as that of a timer which draws a progress bar: close(2) is not called again
//! after EINTR, and a save would be lost.
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

/// Signals of timers, children, terminals and descriptors. Caught, they tell a program of something, and ask it to
/// end nothing.
const NOTED: [i32; 7] =
    [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF, libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGIO];

/// What ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupts {
    /// Any signal that the caller takes.
    Any,
    /// None that it only takes note of: it carries data.
    ButNoted,
}

/// Runs `operation` until it is done, or `pid` (a thread; 0 where it is not known) has
/// a signal to take that `interrupts` it, or may have had one.
pub(crate) async fn interruptible<T>(
    pid: u32,
    interrupts: Interrupts,
    operation: impl Future<Output = Result<T, OpError>>,
) -> Result<T, OpError> {
    tokio::select! {
        biased;
        result = operation => result,
        () = signalled(pid, interrupts) => Err(OpError::Interrupted),
    }
}

async fn signalled(pid: u32, interrupts: Interrupts) {
    let since = Instant::now();
    if pid == 0 || !seen_signalled(pid, interrupts).await {
        sleep_until(since + UNSEEN_WAIT_MAX).await;
    }
}

/// Waits for a signal; false if signals can't be seen.
async fn seen_signalled(pid: u32, interrupts: Interrupts) -> bool {
    let path = format!("/proc/{pid}/status");
    loop {
        sleep(LOOK).await;
        match std::fs::read_to_string(&path) {
            Ok(status) if has_signal(&status, interrupts) => return true,
            Ok(_) => {}
            // It waits for us, and so is there: hidden, or in a namespace that is not ours.
            Err(_) => return false,
        }
    }
}

fn has_signal(status: &str, interrupts: Interrupts) -> bool {
    let mask = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0)
    };
    let noted = match interrupts {
        Interrupts::Any => 0,
        // What is not caught ends the program.
        Interrupts::ButNoted => {
            NOTED.iter().fold(0, |mask, signal| mask | 1 << (signal - 1)) & mask("SigCgt")
        }
    };
    (mask("SigPnd") | mask("ShdPnd")) & !mask("SigBlk") & !mask("SigIgn") & !noted != 0
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
        (interruptible(pid, Interrupts::Any, pending()).await, since.elapsed())
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
            assert!(interruptible(pid, Interrupts::Any, async { Ok(()) }).await.is_ok());
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
        let has_signal = |status: &str| has_signal(status, Interrupts::Any);
        assert!(has_signal(&status("0000000000000002", "0", "0")));
        assert!(!has_signal(&status("0000000000000002", "0000000000000002", "0")));
        assert!(!has_signal(&status("0000000000000002", "0", "0000000000000002")));
        assert!(!has_signal(&status("0", "0", "0")));
    }

    #[test]
    fn a_signal_of_a_timer_that_is_caught_does_not_interrupt_a_save() {
        let (alarm, both) = ("0000000000002000", "0000000000002002");
        let status =
            |pending: &str, caught: &str| format!("SigPnd:\t0\nShdPnd:\t{pending}\nSigCgt:\t{caught}\n");
        assert!(has_signal(&status(alarm, alarm), Interrupts::Any));
        assert!(!has_signal(&status(alarm, alarm), Interrupts::ButNoted));
        assert!(has_signal(&status(alarm, "0"), Interrupts::ButNoted), "it ends the program");
        assert!(has_signal(&status(both, both), Interrupts::ButNoted), "Ctrl-C");
    }
}
