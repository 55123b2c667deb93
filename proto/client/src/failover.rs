//! Which endpoint is in use: one at a time, the next when it fails.
//!
//! Callers that come while a connection is being made share that attempt and
//! its outcome, so that a dead server costs one timeout and not one a caller.

use std::{fmt, sync::Arc};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

use crate::{ClientError, Config, Endpoint, Unsent, connection::Connection, endpoint::Scheme, tls::Renewed};

type Attempt = Shared<BoxFuture<'static, Result<Connection, Unsent>>>;

pub(crate) struct Failover {
    endpoints: Vec<Endpoint>,
    config: Config,
    tls: Option<Renewed>,
    /// Held for a few lines only, never while a connection is being made.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Connection>,
    attempt: Option<Attempt>,
    /// Where the next attempt starts in the list.
    first: usize,
    connections: u64,
}

impl Failover {
    pub(crate) fn new(config: Config) -> Result<Self, ClientError> {
        let endpoints = config.endpoints.iter().map(|e| Endpoint::parse(e)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(ClientError::Endpoint { endpoint: String::new(), reason: "none is given" });
        }
        let needs_tls = config.tls.is_some() || endpoints.iter().any(|e| e.scheme() == Scheme::Tls);
        let tls = match needs_tls {
            true => Some(Renewed::new(config.tls.clone().unwrap_or_default())?),
            false => None,
        };
        Ok(Self { endpoints, config, tls, state: Mutex::default() })
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The connection in use, or a new one to the first endpoint that answers.
    pub(crate) async fn connection(self: &Arc<Self>) -> Result<Connection, Unsent> {
        let attempt = {
            let mut state = self.state.lock();
            match &state.live {
                Some(live) if !live.is_closed() => return Ok(live.clone()),
                Some(_) => state.live = None,
                None => {}
            }
            match &state.attempt {
                Some(attempt) => attempt.clone(),
                None => {
                    let attempt = self.begin(&mut state);
                    state.attempt = Some(attempt.clone());
                    attempt
                }
            }
        };
        attempt.await
    }

    /// Turns away from a connection that does not serve; streams that use it go on.
    pub(crate) fn leave(&self, connection: &Connection) {
        let mut state = self.state.lock();
        if state.live.as_ref().is_some_and(|live| live.number == connection.number) {
            state.first = (connection.place + 1) % self.endpoints.len();
            // With a single endpoint a working connection is as good as the next one.
            if self.endpoints.len() > 1 || connection.is_closed() {
                state.live = None;
            }
        }
    }

    /// True iff the client logs in by itself.
    pub(crate) fn logs_in(&self) -> bool {
        self.config.credentials.is_some()
    }

    /// Has the next request make a connection, with another login; streams that use this one go on.
    pub(crate) fn log_in_anew(&self, connection: &Connection) {
        let mut state = self.state.lock();
        if state.live.as_ref().is_some_and(|live| live.number == connection.number) {
            state.live = None;
            state.first = connection.place;
        }
    }

    fn begin(self: &Arc<Self>, state: &mut State) -> Attempt {
        state.connections += 1;
        let (this, first, number) = (Arc::clone(self), state.first, state.connections);
        // On its own task: it must go on when the caller that began it gives up.
        let task = tokio::spawn(async move {
            let outcome = this.dial(first, number).await;
            let mut state = this.state.lock();
            state.attempt = None;
            if let Ok(connection) = &outcome {
                state.live = Some(connection.clone());
                state.first = connection.place;
            }
            outcome
        });
        let limit = self.config.connect_timeout;
        // The task neither panics nor is aborted, but by the runtime's own end.
        task.map(move |joined| joined.unwrap_or(Err(Unsent::Deadline(limit)))).boxed().shared()
    }

    async fn dial(&self, first: usize, number: u64) -> Result<Connection, Unsent> {
        let mut failure = Unsent::Deadline(self.config.connect_timeout);
        // The first comes right after the client was made.
        let tls = self.tls.as_ref().map(|tls| if number == 1 { tls.last() } else { tls.renew() });
        for step in 0..self.endpoints.len() {
            let place = (first + step) % self.endpoints.len();
            let endpoint = Arc::new(self.endpoints[place].clone());
            match Connection::dial(endpoint, place, number, &self.config, tls.as_ref()).await {
                Ok(connection) => {
                    tracing::debug!(endpoint = %connection.endpoint(), "connected");
                    return Ok(connection);
                }
                // Another server has the same users.
                Err(error @ Unsent::Login { .. }) => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl fmt::Debug for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}
