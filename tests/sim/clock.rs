//! The simulated time, for all who note when something was.
//!
//! turmoil knows it exactly while a host has its turn. Between turns, when hosts
//! are crashed and what they held is dropped, it would ask a clock that is not
//! simulated: so then it is the time at which the last step ended.
//!
//! Who asks the system for the time is told that of the last step too: HTTP/2, for
//! one, forgets streams by the standard library's clock, and a run would depend on
//! how busy the machine is.

use std::{
    cell::Cell,
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

/// Simulated time that hosts run without hearing of each other.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// What the system's clocks show when a run begins: enough to count back from.
const BOOT: Duration = Duration::from_secs(1 << 20);

thread_local! {
    /// When the last step ended, on a thread with a simulation.
    static STEP: Cell<Option<Duration>> = const { Cell::new(None) };
    static BETWEEN: Cell<Option<Duration>> = const { Cell::new(Some(Duration::ZERO)) };
}

/// Time since the run began.
pub(crate) fn now() -> Duration {
    // Whose clock has just jumped is not ahead of the others.
    let of_host = || turmoil::sim_elapsed().map(|now| now.min(tick_end()));
    BETWEEN.get().or_else(of_host).unwrap_or_default()
}

/// Of the tick that hosts have their turns in.
fn tick_end() -> Duration {
    STEP.get().unwrap_or_default() + TICK
}

/// Sets the clock of the host whose turn it is to the end of its tick and `ahead` of that: nothing
/// that waits for an earlier time has its turn before.
pub(crate) fn jump(ahead: Duration) {
    let left = tick_end().saturating_sub(turmoil::sim_elapsed().unwrap_or_default());
    if left + ahead > Duration::ZERO {
        // It has jumped once it was polled; what is left of it would let others have their turns.
        let advance = pin!(tokio::time::advance(left + ahead));
        let _pending = Future::poll(advance, &mut Context::from_waker(Waker::noop()));
    }
}

/// The hosts have their turns now.
pub(crate) fn begin_step() {
    BETWEEN.set(None);
}

/// They have had them, and so much time has passed.
pub(crate) fn end_step(now: Duration) {
    BETWEEN.set(Some(now));
    STEP.set(Some(now));
}

/// From here on the system's clocks stand still on this thread, but for its steps.
pub(crate) fn simulate() {
    STEP.set(Some(Duration::ZERO));
}

/// In place of the C library's function of this name.
///
/// # Safety
///
/// As there: `time` is valid for a write.
#[allow(unsafe_code, reason = "its callers know it by its C name alone")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> i32 {
    // A thread that ends has no such variable any more.
    let Some(step) = STEP.try_with(Cell::get).ok().flatten() else {
        // SAFETY: the caller's promise, passed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as i32;
    };
    let now = BOOT + step;
    let now = libc::timespec { tv_sec: now.as_secs() as i64, tv_nsec: i64::from(now.subsec_nanos()) };
    // SAFETY: the caller vouches for it.
    unsafe { time.write(now) };
    0
}

#[test]
fn the_systems_clocks_stand_still_but_for_the_steps_of_a_simulation() {
    let asked = std::thread::spawn(|| {
        simulate();
        let (instant, wall) = (std::time::Instant::now(), std::time::SystemTime::now());
        assert_eq!((instant.elapsed(), wall.elapsed().expect("on")), (Duration::ZERO, Duration::ZERO));
        end_step(Duration::from_millis(5));
        (instant.elapsed(), wall.elapsed().expect("on"))
    });
    assert_eq!(asked.join().expect("no panic"), (Duration::from_millis(5), Duration::from_millis(5)));
}
