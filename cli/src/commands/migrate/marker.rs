//! What the destination remembers of a migration: a key of ours, which goes with it.
//!
//! It names the source, so that a run goes on with what another began; and each transaction of a run changes it
//! and compares it, so that of two runs one ends, and a request that was lost on its way can't be carried out late.

use bytes::Bytes;
use etcfs_client::{Client, ClientError};
use etcfs_proto::{
    etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest},
    key::TO_END,
    mvccpb::KeyValue,
};

use crate::{
    error::CliError,
    pages,
    requests::{created_at, delete, put, unchanged},
};

/// Without a slash in front, no mount shows it.
pub(super) const KEY: &[u8] = b"etcfs-migrate";

#[derive(Debug)]
pub(super) struct Marker {
    source: String,
    /// Tells this run from others.
    run: u64,
    /// Transactions of this run.
    number: u64,
    mod_revision: i64,
}

impl Marker {
    /// Makes the destination this migration's, or takes it over from an earlier run.
    pub(super) async fn claim(source: &Client, target: &Client, overwrite: bool) -> Result<Self, CliError> {
        let every = RangeRequest { key: KEY.into(), ..RangeRequest::default() };
        let cluster = source.kv().range(every).await?.header.unwrap_or_default().cluster_id;
        let mut marker =
            Self { source: format!("{cluster:x}"), run: rand::random(), number: 0, mod_revision: 0 };
        let found = pages::get(target, &Bytes::from_static(KEY), 0).await?;
        let goes_on = found.as_ref().is_some_and(|kv| marker.is_of_same_source(kv));
        if !goes_on && !overwrite {
            refuse_what_is_there(target, found.as_ref()).await?;
        }
        // An earlier run that still goes on writes its mark all the time; it ends when it meets ours.
        let created = found.map_or(0, |kv| kv.create_revision);
        let compare = vec![created_at(&Bytes::from_static(KEY), created)];
        let request = TxnRequest { compare, ..marker.guard(Vec::new()) };
        let answer = target.kv().txn(request).await?;
        if !answer.succeeded {
            return Err(taken_over());
        }
        marker.wrote(answer.header.unwrap_or_default().revision);
        // Seen from the source, our mark says that both are one; somebody else's, that it is a destination itself.
        match pages::get(source, &Bytes::from_static(KEY), 0).await? {
            Some(kv) if kv.value == marker.value(marker.number - 1) => {
                marker.remove(target).await?;
                Err(CliError::arguments("source and destination are the same cluster"))
            }
            Some(_) => {
                Err(CliError::failed("the source has a key etcfs-migrate: a migration to it is not finished")
                    .hint("finish that one first, or delete the key"))
            }
            None => Ok(marker),
        }
    }

    fn value(&self, number: u64) -> Bytes {
        format!("source {} run {:x} transaction {number}", self.source, self.run).into()
    }

    fn is_of_same_source(&self, kv: &KeyValue) -> bool {
        kv.value.starts_with(format!("source {} ", self.source).as_bytes())
    }

    fn as_left(&self) -> Compare {
        unchanged(&Bytes::from_static(KEY), self.mod_revision)
    }

    /// A transaction of these requests, for this run alone.
    pub(super) fn guard(&self, mut success: Vec<RequestOp>) -> TxnRequest {
        let (key, value) = (Bytes::from_static(KEY), self.value(self.number));
        success.push(put(PutRequest { key, value, ..PutRequest::default() }));
        TxnRequest { compare: vec![self.as_left()], success, failure: Vec::new() }
    }

    /// The guarded transaction was carried out, at this revision.
    pub(super) fn wrote(&mut self, revision: i64) {
        self.mod_revision = revision;
        self.number += 1;
    }

    /// Finds out what became of the last guarded transaction.
    pub(super) async fn fate(&mut self, target: &Client) -> Result<Fate, ClientError> {
        let request = RangeRequest { key: KEY.into(), ..RangeRequest::default() };
        Ok(match target.kv().range(request).await?.kvs.first() {
            Some(kv) if kv.value == self.value(self.number) => {
                self.wrote(kv.mod_revision);
                Fate::Written
            }
            Some(kv) if kv.mod_revision == self.mod_revision => Fate::NotYet,
            _ => Fate::TakenOver,
        })
    }

    pub(super) async fn remove(&self, target: &Client) -> Result<(), CliError> {
        let success = vec![delete(Bytes::from_static(KEY))];
        let request = TxnRequest { compare: vec![self.as_left()], success, failure: Vec::new() };
        if target.kv().txn(request).await?.succeeded { Ok(()) } else { Err(taken_over()) }
    }
}

/// What became of a transaction whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Written,
    NotYet,
    /// The destination is another run's.
    TakenOver,
}

pub(super) fn taken_over() -> CliError {
    CliError::failed("another run of migrate has taken the destination over")
}

async fn refuse_what_is_there(target: &Client, marker: Option<&KeyValue>) -> Result<(), CliError> {
    if marker.is_some() {
        return Err(CliError::failed("the destination is half a copy of another cluster")
            .hint("--overwrite makes it one of this cluster"));
    }
    let every = RangeRequest {
        key: b"\0".as_slice().into(),
        range_end: TO_END.into(),
        count_only: true,
        ..RangeRequest::default()
    };
    let keys = target.kv().range(every).await?.count;
    let leases = target.lease().leases().await?.leases.len();
    if keys == 0 && leases == 0 {
        return Ok(());
    }
    Err(CliError::failed(format!("the destination is not empty: {keys} keys, {leases} leases"))
        .hint("--overwrite makes it equal to the source; what it has of its own is lost"))
}
