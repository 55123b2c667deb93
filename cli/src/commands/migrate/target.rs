//! Writes to the destination: in the source's order, few transactions, each one once.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use etcfs_client::{Client, ClientError, Code};
use etcfs_proto::{
    etcdserverpb::{PutRequest, RequestOp},
    mvccpb::KeyValue,
};
use prost::Message as _;

use super::{
    leases::Leases,
    marker::{Fate, Marker, taken_over},
};
use crate::{
    error::CliError,
    requests::{delete, put},
};

/// Requests of a transaction: servers take 128, and one is the marker's.
const REQUESTS_MAX: usize = 127;
/// Bytes of a transaction: servers take 1.5 MiB.
const BYTES_MAX: usize = 1024 * 1024;
/// A destination that is away is asked again so often, and after so long.
const TRIES: usize = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// What becomes of one key.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(KeyValue),
    Delete(Bytes),
}

impl Change {
    fn key(&self) -> &Bytes {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Delete(key) => key,
        }
    }

    /// The lease that it takes.
    pub(super) fn lease(&self) -> Option<i64> {
        match self {
            Self::Put(kv) if kv.lease != 0 => Some(kv.lease),
            Self::Put(_) | Self::Delete(_) => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put(kv) => kv.encoded_len(),
            Self::Delete(key) => key.len(),
        }
    }

    fn request(&self, leases: &Leases) -> RequestOp {
        match self {
            // A lease that has ended takes the key with it, which is a change that follows.
            Self::Put(kv) => put(PutRequest {
                key: kv.key.clone(),
                value: kv.value.clone(),
                lease: if leases.has(kv.lease) { kv.lease } else { 0 },
                ..PutRequest::default()
            }),
            Self::Delete(key) => delete(key.clone()),
        }
    }
}

/// The destination, and what is on its way there.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) client: Client,
    marker: Marker,
    waiting: Waiting,
}

/// Changes for one transaction, which may name a key once: of two changes of a key the later counts.
#[derive(Debug, Default)]
struct Waiting {
    changes: Vec<Change>,
    places: HashMap<Bytes, usize>,
    bytes: usize,
}

impl Waiting {
    fn has_room(&self, changes: &[Change]) -> bool {
        let bytes: usize = changes.iter().map(Change::bytes).sum();
        self.changes.is_empty()
            || self.changes.len() + changes.len() <= REQUESTS_MAX && self.bytes + bytes <= BYTES_MAX
    }

    fn add(&mut self, change: Change) {
        self.bytes += change.bytes();
        match self.places.get(change.key()) {
            Some(&place) => self.changes[place] = change,
            None => {
                self.places.insert(change.key().clone(), self.changes.len());
                self.changes.push(change);
            }
        }
    }
}

impl Target {
    pub(super) fn new(client: Client, marker: Marker) -> Self {
        Self { client, marker, waiting: Waiting::default() }
    }

    /// Writes changes together, as far as one transaction takes them; true if a lease was lost on the way.
    pub(super) async fn write(
        &mut self,
        changes: Vec<Change>,
        leases: &mut Leases,
        source: &Client,
    ) -> Result<bool, CliError> {
        let mut lost = false;
        if !self.waiting.has_room(&changes) {
            lost |= self.flush(leases, source).await?;
        }
        for change in changes {
            if !self.waiting.has_room(std::slice::from_ref(&change)) {
                lost |= self.flush(leases, source).await?;
            }
            self.waiting.add(change);
        }
        Ok(lost)
    }

    /// Waits until all is written; true if a lease was lost on the way.
    pub(super) async fn flush(&mut self, leases: &mut Leases, source: &Client) -> Result<bool, CliError> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.changes.is_empty() {
            return Ok(false);
        }
        let mut lost = false;
        let mut tries = 0;
        loop {
            let requests = waiting.changes.iter().map(|change| change.request(leases)).collect();
            match self.client.kv().txn(self.marker.guard(requests)).await {
                Ok(answer) if answer.succeeded => {
                    self.marker.wrote(answer.header.unwrap_or_default().revision);
                    return Ok(lost);
                }
                Ok(_) => {}
                // It ran out there: it begins anew, and a pass brings the keys back that went with it.
                Err(ClientError::Status { code: Code::NotFound, .. }) => {
                    lost = true;
                    let ids = || waiting.changes.iter().filter_map(Change::lease);
                    leases.check(&self.client, ids()).await?;
                    leases.ensure(source, &self.client, ids()).await?;
                    continue;
                }
                Err(error) if is_passing(&error) => {
                    tries += 1;
                    if tries == TRIES {
                        return Err(error.into());
                    }
                    if tries == 1 {
                        anstream::eprintln!("The destination is away, and is waited for: {error}");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
            match self.marker.fate(&self.client).await {
                Ok(Fate::Written) => return Ok(lost),
                Ok(Fate::NotYet) => {}
                Ok(Fate::TakenOver) => return Err(taken_over()),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the marker away: the migration is over.
    pub(super) async fn release(&self) -> Result<(), CliError> {
        self.marker.remove(&self.client).await
    }
}

/// True for what goes by itself: nobody there, no answer, no leader.
pub(super) fn is_passing(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Unsent(_)
            | ClientError::Unknown(_)
            | ClientError::Status { code: Code::Unavailable, .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Change {
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
        Change::Put(KeyValue { key, value, ..KeyValue::default() })
    }

    #[test]
    fn of_two_changes_of_a_key_the_later_counts() {
        let mut waiting = Waiting::default();
        waiting.add(put("a", "1"));
        waiting.add(put("b", "1"));
        waiting.add(Change::Delete("a".into()));
        assert_eq!(waiting.changes.len(), 2);
        assert!(matches!(waiting.changes[0], Change::Delete(_)));
        waiting.add(put("a", "2"));
        assert!(matches!(&waiting.changes[0], Change::Put(kv) if kv.value == "2"));
    }

    #[test]
    fn a_transaction_has_limits_but_takes_one_change_of_any_size() {
        let mut waiting = Waiting::default();
        let large = put("large", &"x".repeat(2 * BYTES_MAX));
        assert!(waiting.has_room(std::slice::from_ref(&large)));
        waiting.add(large);
        assert!(!waiting.has_room(&[put("a", "1")]));
        let mut waiting = Waiting::default();
        for number in 0..REQUESTS_MAX {
            assert!(waiting.has_room(&[put("k", "")]), "{number}");
            waiting.add(put(&format!("k{number}"), ""));
        }
        assert!(!waiting.has_room(&[put("one more", "")]));
    }
}
