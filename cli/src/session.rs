//! A lease that lives as long as a command does, and a place in a queue of keys that lives on it: what locks and
//! elections are made of. The keys are those that etcd's own clients make, so that all of them queue up together.

use bytes::Bytes;
use etcfs_client::{Client, ClientError, KeepAlive};
use etcfs_proto::{
    etcdserverpb::{
        DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, TxnRequest, WatchCreateRequest,
        range_request::{SortOrder, SortTarget},
    },
    key::prefix_end,
    mvccpb::event::EventType,
};
use futures_util::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    error::CliError,
    requests::{put, unchanged},
};

/// A lease that is renewed until it is closed or lost.
#[derive(Debug)]
pub(crate) struct Session {
    lease: i64,
    renewals: KeepAlive,
}

impl Session {
    pub(crate) async fn open(client: &Client, ttl_seconds: i64) -> Result<Self, CliError> {
        let granted = client.lease().grant(LeaseGrantRequest { ttl: ttl_seconds, id: 0 }).await?;
        Ok(Self { lease: granted.id, renewals: client.lease().keep_alive(granted.id) })
    }

    pub(crate) fn lease(&self) -> i64 {
        self.lease
    }

    /// Returns once the lease is gone, and with it every place that lived on it.
    pub(crate) async fn lost(&mut self) {
        // Errors between two renewals are mended by the client itself.
        while let Some(renewal) = self.renewals.next().await {
            if renewal.is_err() {
                return;
            }
        }
    }

    /// Ends the lease, so that whoever waits need not wait for its time to pass.
    pub(crate) async fn close(self, client: &Client) -> Result<(), CliError> {
        drop(self.renewals);
        match client.lease().revoke(self.lease).await {
            // Gone already is as good.
            Ok(_) | Err(ClientError::Status { code: etcfs_client::Code::NotFound, .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A place in the queue of a name: a key below it, first come, first served by create revision.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    prefix: Bytes,
    pub(crate) key: Bytes,
    /// The fencing token: rises from owner to owner.
    pub(crate) revision: i64,
}

impl Place {
    /// Queues up, with a value for others to see.
    pub(crate) async fn take(
        client: &Client,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<Self, CliError> {
        let prefix: Bytes = [name, b"/"].concat().into();
        let key: Bytes = [&prefix[..], format!("{lease:x}").as_bytes()].concat().into();
        let new = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let request =
            TxnRequest { compare: vec![unchanged(&key, 0)], success: vec![put(new)], failure: Vec::new() };
        loop {
            let done = client.kv().txn(request.clone()).await;
            // The key has our lease in its name, so nobody else makes it: a look tells what a lost answer did not.
            match done {
                Ok(_) | Err(ClientError::Unknown(_)) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(revision) = create_revision(client, &key).await? {
                return Ok(Self { prefix, key, revision });
            }
            if done.is_ok() {
                return Err(expired());
            }
        }
    }

    /// Waits until nobody is before this place.
    pub(crate) async fn first(&self, client: &Client) -> Result<(), CliError> {
        loop {
            let before = RangeRequest {
                key: self.prefix.clone(),
                range_end: prefix_end(&self.prefix),
                max_create_revision: self.revision - 1,
                sort_order: SortOrder::Descend.into(),
                sort_target: SortTarget::Create.into(),
                limit: 1,
                keys_only: true,
                ..RangeRequest::default()
            };
            let answer = client.kv().range(before).await?;
            let Some(before) = answer.kvs.into_iter().next() else { break };
            let from = answer.header.unwrap_or_default().revision + 1;
            gone(client, before.key, from).await?;
        }
        // The last to go may have been this place itself, with its lease.
        match create_revision(client, &self.key).await? {
            Some(revision) if revision == self.revision => Ok(()),
            _ => Err(expired()),
        }
    }

    pub(crate) async fn leave(&self, client: &Client) -> Result<(), CliError> {
        let delete = DeleteRangeRequest { key: self.key.clone(), ..DeleteRangeRequest::default() };
        client.kv().delete_range(delete).await?;
        Ok(())
    }
}

pub(crate) fn expired() -> CliError {
    CliError::failed("session expired")
}

async fn create_revision(client: &Client, key: &Bytes) -> Result<Option<i64>, CliError> {
    let get = RangeRequest { key: key.clone(), keys_only: true, ..RangeRequest::default() };
    Ok(client.kv().range(get).await?.kvs.first().map(|kv| kv.create_revision))
}

/// Returns once a key is deleted at or after a revision; also early, where history does not tell.
async fn gone(client: &Client, key: Bytes, from: i64) -> Result<(), CliError> {
    let mut watch =
        client.watch(WatchCreateRequest { key, start_revision: from, ..WatchCreateRequest::default() });
    while let Some(batch) = watch.next().await {
        match batch {
            Ok(batch) if batch.events.iter().any(|event| event.r#type() == EventType::Delete) => break,
            Ok(_) => {}
            Err(ClientError::Compacted { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Returns when somebody wants this command to end.
pub(crate) async fn interrupted() -> Result<(), CliError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
