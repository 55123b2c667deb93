//! Connections to other members: the one place that opens them.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Error};

/// Receive windows: a snapshot must not wait for a round trip every 64 KiB.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// How peers are reached; cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// Silence after which a connection is pinged, and the time to answer in:
    /// packets to an isolated host vanish without an error.
    ping: Duration,
    connect_timeout: Duration,
}

impl Dialer {
    /// For members that give each other `election_timeout` before they look for another leader.
    pub fn new(election_timeout: Duration) -> Self {
        // A handshake that was lost is tried again by the kernel after 1 s, 3 s, 7 s: sooner is ours.
        Self { ping: election_timeout / 2, connect_timeout: election_timeout }
    }

    /// A connection that is made when first used, and again after a loss.
    pub(super) fn channel(&self, url: &str) -> Result<Channel, Error> {
        let endpoint = Endpoint::from_shared(url.to_owned())?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.ping)
            .keep_alive_timeout(self.ping)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Ok(endpoint.connect_lazy())
    }
}
