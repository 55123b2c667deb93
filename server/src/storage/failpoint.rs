//! Places where a crash test may end the process.
//!
//! Compiled in by the feature `failpoints`, and armed by the environment:
//! `FAILPOINTS=wal-after-append=1%return` kills at one in a hundred passes. Kills,
//! not panics: nothing may be flushed or unwound that a power cut would not.

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
