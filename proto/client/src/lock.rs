//! The Lock service: one owner at a time, as long as its lease lives.
//!
//! A lock is no more than a key: who holds it must compare that key in each
//! transaction that relies on it, because a lease may end while its owner is
//! paused.

use bytes::Bytes;
use etcfs_proto::v3lockpb::{
    LockRequest, LockResponse, UnlockRequest, UnlockResponse, lock_client::LockClient,
};

use crate::{Client, ClientError, call::Repeat, connection::Connection};

/// Requests on locks.
#[derive(Clone, Copy, Debug)]
pub struct Lock<'a> {
    client: &'a Client,
}

fn stub(connection: Connection) -> LockClient<Connection> {
    let origin = connection.origin();
    LockClient::with_origin(connection, origin)
}

impl<'a> Lock<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client }
    }

    /// Waits for the lock, at most for the client's request timeout; dropping
    /// the future gives up the place in the queue.
    ///
    /// With a lease it is asked for again over broken connections: one lease has
    /// one place in the queue. Without one the server makes a lease of 60 s.
    pub async fn lock(&self, request: LockRequest) -> Result<LockResponse, ClientError> {
        let repeat = if request.lease == 0 { Repeat::Unsafe } else { Repeat::Safe };
        self.client
            .call(repeat, |connection| {
                let request = request.clone();
                async move { stub(connection).lock(request).await }
            })
            .await
    }

    /// Gives up the lock that `key` stands for; it need not be held any more.
    pub async fn unlock(&self, key: Bytes) -> Result<UnlockResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| {
                let request = UnlockRequest { key: key.clone() };
                async move { stub(connection).unlock(request).await }
            })
            .await
    }
}
