//! One request with its deadline and its retries: the rules that keep a write
//! from being carried out twice.

use std::future::Future;

use tokio::time::{Instant, timeout_at};
use tonic::{Code, Response, Status};

use crate::{Client, ClientError, Lost, Unsent, backoff::Backoff, connection::Connection};

/// Whether carrying the request out twice is the same as once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// A read, or a renewal: send it again whenever the answer is missing.
    Safe,
    /// A write: only if it surely never left.
    Unsafe,
}

/// What follows a failed attempt.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Again,
    Fail,
}

fn after(repeat: Repeat, error: &ClientError) -> Next {
    match (error, repeat) {
        // The same password is no better the next time.
        (ClientError::Unsent(Unsent::Login { .. }), _) => Next::Fail,
        (ClientError::Unsent(_), _) => Next::Again,
        (ClientError::Unknown(_), Repeat::Safe) => Next::Again,
        // No leader, stopping, timed out: another member may know better.
        (ClientError::Status { code: Code::Unavailable, .. }, Repeat::Safe) => Next::Again,
        _ => Next::Fail,
    }
}

impl Client {
    /// Sends a request until it has an answer, an error that stands, or no time left.
    pub(crate) async fn call<T, F, A>(&self, repeat: Repeat, mut send: F) -> Result<T, ClientError>
    where
        F: FnMut(Connection) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.request_timeout;
        let mut backoff = Backoff::new();
        loop {
            let error = match timeout_at(deadline, self.failover.connection()).await {
                Err(_) => return Err(ClientError::Unsent(Unsent::Deadline(self.request_timeout))),
                Ok(Err(unsent)) => ClientError::Unsent(unsent),
                Ok(Ok(connection)) => match timeout_at(deadline, send(connection.clone())).await {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    Ok(Err(status)) => {
                        let error = ClientError::from(status);
                        if error.wants_login() && self.failover.logs_in() {
                            // Refused before anything was done.
                            self.failover.log_in_anew(&connection);
                            let pause = backoff.pause();
                            if Instant::now() + pause < deadline {
                                tokio::time::sleep(pause).await;
                                continue;
                            }
                        }
                        if after(Repeat::Safe, &error) == Next::Again {
                            self.failover.leave(&connection);
                        }
                        error
                    }
                    Err(_) => {
                        self.failover.leave(&connection);
                        return Err(ClientError::Unknown(Lost::Deadline(self.request_timeout)));
                    }
                },
            };
            let pause = backoff.pause();
            if after(repeat, &error) == Next::Fail || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code) -> ClientError {
        ClientError::Status { code, message: String::new() }
    }

    #[test]
    fn a_write_is_sent_again_only_if_it_never_left() {
        let unsent = ClientError::Unsent(Unsent::Returned("closed".into()));
        let lost = ClientError::Unknown(Lost::Broken("reset".into()));
        assert_eq!(after(Repeat::Unsafe, &unsent), Next::Again);
        assert_eq!(after(Repeat::Unsafe, &lost), Next::Fail);
        assert_eq!(after(Repeat::Unsafe, &status(Code::Unavailable)), Next::Fail);
    }

    #[test]
    fn a_read_is_sent_again_unless_the_server_has_judged_it() {
        let lost = ClientError::Unknown(Lost::Broken("reset".into()));
        assert_eq!(after(Repeat::Safe, &lost), Next::Again);
        assert_eq!(after(Repeat::Safe, &status(Code::Unavailable)), Next::Again);
        for code in [Code::InvalidArgument, Code::OutOfRange, Code::Internal, Code::PermissionDenied] {
            assert_eq!(after(Repeat::Safe, &status(code)), Next::Fail);
        }
    }
}
