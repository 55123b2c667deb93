//! Places where a crash test may end the process, spoil what it holds, or shorten a wait.
//!
//! Compiled in by the feature `failpoints`, and armed by the environment:
//! `FAILPOINTS=wal-after-append=1%return` kills at one in a hundred passes. Kills,
//! not panics: nothing may be flushed or unwound that a power cut would not.

use std::time::Duration;

/// Dies here, at once, if the failpoint `name` is armed with `return`. Any other
/// action (`sleep`, `pause`, `print`) does what it does in the fail crate.
#[cfg(feature = "failpoints")]
pub fn kill(name: &'static str) {
    if fail::eval(name, |_| ()).is_some() {
        tracing::error!(failpoint = name, "killed");
        if let Some(me) = rustix::process::Pid::from_raw(std::process::id().cast_signed()) {
            // Nobody to report to: the process ends here, or by the abort below.
            let _ended = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
        std::process::abort();
    }
}

/// Nothing, without the feature.
#[cfg(not(feature = "failpoints"))]
pub fn kill(_name: &'static str) {}

/// So many milliseconds as the failpoint is armed with (`return(300)`); `usual` if it is not.
#[cfg(feature = "failpoints")]
pub fn time(name: &'static str, usual: Duration) -> Duration {
    let armed = fail::eval(name, |millis| millis.and_then(|millis| millis.parse().ok())).flatten();
    armed.map_or(usual, Duration::from_millis)
}

/// The usual time, without the feature.
#[cfg(not(feature = "failpoints"))]
pub fn time(_name: &'static str, usual: Duration) -> Duration {
    usual
}

/// Other bytes than those given, as a broken machine makes them, if the failpoint is armed with `return`.
#[cfg(feature = "failpoints")]
pub fn spoil(name: &'static str, bytes: bytes::Bytes) -> bytes::Bytes {
    if fail::eval(name, |_| ()).is_none() {
        return bytes;
    }
    tracing::warn!(failpoint = name, "spoiled");
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

/// The same bytes, without the feature.
#[cfg(not(feature = "failpoints"))]
pub fn spoil(_name: &'static str, bytes: bytes::Bytes) -> bytes::Bytes {
    bytes
}
