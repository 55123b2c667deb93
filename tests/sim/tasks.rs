//! The product's threads as tasks of the simulated host.
//!
//! Each turn comes after a pause of its own, as if the thread or its disk had
//! been busy: so the orders of turns that threads may have are tried out.

use std::{io, time::Duration};

use etcfs_server::threads::{Bell, Join, Threads, Turn, Work};
use tokio::time;

/// A turn is late this often, and by how much at most.
const SLOW_ONE_IN: u32 = 40;
const SLOW_MAX_MS: u64 = 150;
const USUAL_MAX_MS: u64 = 3;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tasks;

impl Threads for Tasks {
    fn start(&self, _name: &str, bell: Bell, mut work: Work) -> io::Result<Join> {
        tokio::spawn(async move {
            loop {
                pause().await;
                match work() {
                    Turn::Again => {}
                    Turn::Wait => bell.heard().await,
                    // Which of the two it was is looked at by the work itself.
                    Turn::WaitUntil(at) => drop(time::timeout_at(at, bell.heard()).await),
                    Turn::End => return,
                }
            }
        });
        // Nothing may block here; who is stopped is not asked for again.
        Ok(Box::new(|| ()))
    }

    fn aside(&self, _name: &str, job: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        job();
        Ok(())
    }
}

async fn pause() {
    let max = if rand::random_ratio(1, SLOW_ONE_IN) { SLOW_MAX_MS } else { USUAL_MAX_MS };
    match rand::random_range(0..=max) {
        0 => tokio::task::yield_now().await,
        millis => time::sleep(Duration::from_millis(millis)).await,
    }
}
