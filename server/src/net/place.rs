//! A connection's place among all: its slot, its part of the count, and the
//! server's wait for it at the end.
//!
//! It is held by what reads the connection: the task that serves requests or,
//! once a request has turned the connection into something else, who took it over.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use crate::metrics::Metrics;

#[derive(Debug)]
pub(super) struct Place {
    metrics: Arc<Metrics>,
    /// 0 for a connection that is nobody's of the clients.
    counted: i64,
    /// When it must end.
    pub(super) shutdown: CancellationToken,
    _slot: OwnedSemaphorePermit,
    _awaited: TaskTrackerToken,
}

impl Place {
    pub(super) fn take(
        slot: OwnedSemaphorePermit,
        is_clients: bool,
        metrics: Arc<Metrics>,
        awaited: TaskTrackerToken,
        shutdown: CancellationToken,
    ) -> Self {
        let counted = i64::from(is_clients);
        metrics.connections.add(counted);
        Self { metrics, counted, shutdown, _slot: slot, _awaited: awaited }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.sub(self.counted);
    }
}
