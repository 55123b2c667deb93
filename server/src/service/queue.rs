//! Places in a queue: keys under a prefix, in the order in which they were made.
//!
//! What locks and elections have in common. Each place is a key of its owner's
//! lease, so that one who dies leaves the queue with it; the oldest is first.
//! Every step is an ordinary request with the caller's rights.

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
        TxnRequest, WatchCreateRequest,
        compare::{CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        response_op::Response,
    },
    key::prefix_end,
    mvccpb::{Event, KeyValue, event::EventType},
};
use futures_util::StreamExt as _;

use super::{Kv, Lease, Refusal};
use crate::{
    auth::Caller,
    watch::{Hub, WatchControl, WatchStream},
};

/// Of a lease that the server makes for who brings none.
const LEASE_TTL_SECONDS: i64 = 60;

/// All queues; cheap to clone.
#[derive(Clone, Debug)]
pub struct Queues {
    pub kv: Kv,
    pub lease: Lease,
    pub hub: Hub,
}

/// A place, which is given up when this is dropped before [`Place::keep`].
#[derive(Debug)]
pub(super) struct Place {
    queues: Queues,
    caller: Caller,
    pub(super) key: Bytes,
    prefix: Bytes,
    /// Which made it.
    pub(super) revision: i64,
    pub(super) lease: i64,
    /// The value, if it was there before.
    pub(super) standing: Option<Bytes>,
    pub(super) header: Option<ResponseHeader>,
    kept: bool,
}

/// `<name>/`, under which the places of a queue lie.
pub(super) fn prefix(name: &Bytes) -> Bytes {
    [name.as_ref(), b"/"].concat().into()
}

impl Queues {
    /// Takes a place, or finds the one that the lease has already.
    pub(super) async fn enter(
        &self,
        name: &Bytes,
        lease: i64,
        value: Bytes,
        caller: &Caller,
    ) -> Result<Place, Refusal> {
        let lease = self.lease_or_new(lease, caller).await?;
        let prefix = prefix(name);
        let key: Bytes = [prefix.as_ref(), format!("{lease:x}").as_bytes()].concat().into();
        let put = PutRequest { key: key.clone(), value, lease, ..Default::default() };
        let get = RangeRequest { key: key.clone(), ..Default::default() };
        let request = TxnRequest {
            compare: vec![made_at(&key, 0)],
            success: vec![op(Request::RequestPut(put))],
            failure: vec![op(Request::RequestRange(get))],
        };
        let answer = self.kv.txn(request, caller).await?;
        let header = answer.header;
        let mut place = Place {
            queues: self.clone(),
            caller: caller.clone(),
            key,
            prefix,
            revision: header.map_or(0, |header| header.revision),
            lease,
            standing: None,
            header,
            kept: false,
        };
        if let Some(Response::ResponseRange(range)) =
            answer.responses.into_iter().next().and_then(|op| op.response)
            && let Some(kv) = range.kvs.into_iter().next()
        {
            place.revision = kv.create_revision;
            place.standing = Some(kv.value);
        }
        Ok(place)
    }

    /// The lease that a caller brings, or else one that lasts for a while, as etcd's sessions do.
    pub(super) async fn lease_or_new(&self, lease: i64, caller: &Caller) -> Result<i64, Refusal> {
        Ok(match lease {
            0 => self.lease.grant(LeaseGrantRequest { ttl: LEASE_TTL_SECONDS, id: 0 }, caller).await?.id,
            lease => lease,
        })
    }

    /// The first in the queue.
    pub(super) async fn first(
        &self,
        prefix: &Bytes,
        caller: &Caller,
    ) -> Result<(Option<ResponseHeader>, Option<KeyValue>), Refusal> {
        let request = RangeRequest {
            key: prefix.clone(),
            range_end: prefix_end(prefix),
            limit: 1,
            sort_order: SortOrder::Ascend as i32,
            sort_target: SortTarget::Create as i32,
            ..Default::default()
        };
        let mut answer = self.kv.range(request, caller).await?;
        Ok((answer.header, answer.kvs.pop()))
    }

    /// Changes that happen to a key, or below a prefix, from `revision` on.
    pub(super) fn follow(&self, key: Bytes, range_end: Bytes, revision: i64) -> Changes {
        let (control, answers) = self.hub.open();
        let request = WatchCreateRequest { key, range_end, start_revision: revision, ..Default::default() };
        control.create(request);
        Changes { _control: control, answers }
    }
}

impl Place {
    /// Returns once nobody is before it, and says as of when.
    pub(super) async fn wait_for_turn(&mut self) -> Result<(), Refusal> {
        loop {
            let request = RangeRequest {
                key: self.prefix.clone(),
                range_end: prefix_end(&self.prefix),
                limit: 1,
                sort_order: SortOrder::Descend as i32,
                sort_target: SortTarget::Create as i32,
                max_create_revision: self.revision - 1,
                ..Default::default()
            };
            let mut answer = self.queues.kv.range(request, &self.caller).await?;
            let revision = answer.header.map_or(0, |header| header.revision);
            // The newest before it: whoever is before that one is that one's affair.
            let Some(before) = answer.kvs.pop() else { return Ok(()) };
            let mut changes = self.queues.follow(before.key, Bytes::new(), revision + 1);
            while !changes.next().await?.iter().any(|event| event.r#type() == EventType::Delete) {}
        }
    }

    /// Whether the place is still there, as of the header: its lease may have ended in the queue.
    pub(super) async fn stands(&mut self) -> Result<bool, Refusal> {
        let request = RangeRequest { key: self.key.clone(), ..Default::default() };
        let answer = self.queues.kv.range(request, &self.caller).await?;
        self.header = answer.header;
        Ok(answer.kvs.iter().any(|kv| kv.create_revision == self.revision))
    }

    /// From here on it is the caller's to give up.
    pub(super) fn keep(mut self) -> Self {
        self.kept = true;
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // The caller went away, or it failed: nobody else knows of the place.
        let (kv, caller) = (self.queues.kv.clone(), self.caller.clone());
        let key = std::mem::take(&mut self.key);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let request = DeleteRangeRequest { key, ..Default::default() };
            if let Err(refusal) = kv.delete_range(request, &caller).await {
                tracing::warn!(%refusal, "a place in a queue stays until its lease ends");
            }
        });
    }
}

/// Changes as they come.
#[derive(Debug)]
pub(super) struct Changes {
    /// Ends the watch with this.
    _control: WatchControl,
    answers: WatchStream,
}

impl Changes {
    /// The next ones. Of what was compacted meanwhile a deletion is made up: look again.
    pub(super) async fn next(&mut self) -> Result<Vec<Event>, Refusal> {
        loop {
            let answer = self.answers.next().await.ok_or(Refusal::Stopped)?;
            if answer.canceled {
                return Ok(vec![Event { r#type: EventType::Delete as i32, ..Default::default() }]);
            }
            if !answer.events.is_empty() {
                return Ok(answer.events);
            }
        }
    }
}

/// Holds iff the key was made at this revision; at 0 iff it is not there.
pub(super) fn made_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        key: key.clone(),
        target: CompareTarget::Create as i32,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

pub(super) fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}
