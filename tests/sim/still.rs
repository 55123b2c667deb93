//! A member that is held still, as by SIGSTOP, and one whose clock is fast.
//!
//! Turmoil runs every host in every tick. What holds one still is a queue: tasks
//! have their turns in the order in which they were woken, and of so many that do
//! nothing some are left in each tick, before anybody else's turn. They take the
//! tick's time with them, so that what waits for the time is late as well.

use std::time::Duration;

use tokio::time;

use crate::clock::{self, TICK};

/// Turns that tokio gives between two looks at the clock.
const TURNS: u32 = 61;
/// How far a fast clock jumps.
const JUMP: Duration = Duration::from_millis(1);
/// How much faster than another a member's clock is at most, in thousandths. No rule of the
/// members compares two clocks, so that it may be far more than machines ever differ by.
pub(crate) const FAST_MAX: u32 = 40;

/// Nothing of the host whose turn it is goes on before `until`, but for what was to go on now.
pub(crate) fn hold(until: Duration) {
    let ticks = until.saturating_sub(clock::now()).as_millis() / TICK.as_millis() + 1;
    for _ in 0..ticks * u128::from(TURNS) {
        tokio::spawn(async move {
            if clock::now() < until {
                clock::jump(Duration::ZERO);
            }
        });
    }
}

/// Has the clock of a host run faster by so many thousandths, for ever.
pub(crate) async fn run_fast(thousandths: u32) {
    let Some(pause) = (1000 * JUMP).checked_div(thousandths) else { return };
    loop {
        time::sleep(pause).await;
        clock::jump(JUMP);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::Instant;

    use super::*;

    /// Runs `host` for `ticks`; the times, the simulation's and the host's own, at which it was told.
    fn times<F>(ticks: u32, host: impl Fn() -> F + Send + Sync + 'static) -> Vec<(Duration, Duration)>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let run = move || {
            clock::simulate();
            let told = Arc::new(Mutex::new(Vec::new()));
            let tells = told.clone();
            let mut sim = turmoil::Builder::new().tick_duration(TICK).build();
            let host = Arc::new(host);
            sim.host("m0", move || {
                let (told, host) = (tells.clone(), host.clone());
                async move {
                    tokio::spawn(host());
                    let began = Instant::now();
                    tokio::spawn(async move {
                        loop {
                            time::sleep(Duration::from_millis(2)).await;
                            told.lock().unwrap().push((clock::now(), began.elapsed()));
                        }
                    });
                    std::future::pending().await
                }
            });
            for _ in 0..ticks {
                clock::begin_step();
                sim.step().unwrap();
                clock::end_step(sim.elapsed());
            }
            drop(sim);
            Arc::try_unwrap(told).unwrap().into_inner().unwrap()
        };
        std::thread::spawn(run).join().unwrap()
    }

    #[test]
    fn who_is_held_still_does_nothing_and_finds_that_time_has_passed() {
        let (from, until) = (Duration::from_millis(100), Duration::from_millis(1000));
        let told = times(400, move || async move {
            time::sleep(from).await;
            hold(until);
        });
        let (before, after): (Vec<_>, Vec<_>) = told.into_iter().partition(|(at, _)| *at < until);
        assert!(before.iter().all(|(at, _)| *at <= from + TICK), "{before:?}");
        let (at, own) = after[0];
        assert!(at < until + TICK && own + TICK >= until, "{at:?} {own:?}");
        assert!(after.len() > 400, "and goes on: {}", after.len());
    }

    #[test]
    fn a_fast_clock_is_ahead_by_what_it_is_said_to_be_and_never_jumps_far() {
        let told = times(2000, || run_fast(FAST_MAX));
        let (at, own) = told[told.len() - 1];
        let ahead = own.as_secs_f64() / at.as_secs_f64() - 1.0;
        assert!((0.03..=0.04).contains(&ahead), "{ahead}");
        assert!(told.is_sorted());
        assert!(told.windows(2).all(|pair| pair[1].1 - pair[0].1 <= 2 * TICK), "{told:?}");
    }
}
