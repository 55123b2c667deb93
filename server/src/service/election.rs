//! The Election service: the first in a queue leads, and says something.

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        DeleteRangeRequest, PutRequest, ResponseHeader, TxnRequest, TxnResponse, request_op::Request,
    },
    key::prefix_end,
    mvccpb::{KeyValue, event::EventType},
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
        ProclaimResponse, ResignRequest, ResignResponse,
    },
};
use futures_util::{Stream, stream};

use super::{
    Headers, Refusal,
    queue::{Changes, Queues, made_at, op, prefix},
};
use crate::auth::Caller;

#[derive(Clone, Debug)]
pub struct Election {
    pub queues: Queues,
    pub headers: Headers,
}

impl Election {
    /// Waits until the caller leads. One lease is one candidate; another value is a proclamation.
    pub async fn campaign(
        &self,
        request: CampaignRequest,
        caller: &Caller,
    ) -> Result<CampaignResponse, Refusal> {
        let CampaignRequest { name, lease, value } = request;
        let mut place = self.queues.enter(&name, lease, value.clone(), caller).await?;
        if place.standing.as_ref().is_some_and(|standing| *standing != value) {
            self.put_if_led(&place.key, place.revision, place.lease, value, caller).await?;
        }
        place.wait_for_turn().await?;
        let place = place.keep();
        let (key, rev, lease) = (place.key.clone(), place.revision, place.lease);
        Ok(CampaignResponse { header: place.header, leader: Some(LeaderKey { name, key, rev, lease }) })
    }

    pub async fn proclaim(
        &self,
        request: ProclaimRequest,
        caller: &Caller,
    ) -> Result<ProclaimResponse, Refusal> {
        let LeaderKey { key, rev, lease, .. } = request.leader.ok_or(Refusal::LeaderNotGiven)?;
        let lease = self.queues.lease_or_new(lease, caller).await?;
        let answer = self.put_if_led(&key, rev, lease, request.value, caller).await?;
        Ok(ProclaimResponse { header: answer.header })
    }

    pub async fn leader(&self, request: LeaderRequest, caller: &Caller) -> Result<LeaderResponse, Refusal> {
        let (header, kv) = self.queues.first(&prefix(&request.name), caller).await?;
        Ok(LeaderResponse { header, kv: Some(kv.ok_or(Refusal::NoElectedLeader)?) })
    }

    pub async fn resign(&self, request: ResignRequest, caller: &Caller) -> Result<ResignResponse, Refusal> {
        let LeaderKey { key, rev, .. } = request.leader.ok_or(Refusal::LeaderNotGiven)?;
        let delete = DeleteRangeRequest { key: key.clone(), ..Default::default() };
        let request = TxnRequest {
            compare: vec![made_at(&key, rev)],
            success: vec![op(Request::RequestDeleteRange(delete))],
            failure: vec![],
        };
        let answer = self.queues.kv.txn(request, caller).await?;
        Ok(ResignResponse { header: answer.header })
    }

    /// The leader, then each that follows and each word of theirs.
    pub fn observe(
        &self,
        request: LeaderRequest,
        caller: Caller,
    ) -> impl Stream<Item = Result<LeaderResponse, Refusal>> + Send + use<> {
        let watch = Observed { election: self.clone(), prefix: prefix(&request.name), caller, of: None };
        stream::try_unfold(watch, |mut watch| async move {
            let leader = watch.next().await?;
            Ok(Some((leader, watch)))
        })
    }

    async fn put_if_led(
        &self,
        key: &Bytes,
        revision: i64,
        lease: i64,
        value: Bytes,
        caller: &Caller,
    ) -> Result<TxnResponse, Refusal> {
        let put = PutRequest { key: key.clone(), value, lease, ..Default::default() };
        let request = TxnRequest {
            compare: vec![made_at(key, revision)],
            success: vec![op(Request::RequestPut(put))],
            failure: vec![],
        };
        let answer = self.queues.kv.txn(request, caller).await?;
        if answer.succeeded { Ok(answer) } else { Err(Refusal::NotElectedLeader) }
    }
}

struct Observed {
    election: Election,
    prefix: Bytes,
    caller: Caller,
    /// The leader that was told of last, and what happens to its key.
    of: Option<(Changes, std::vec::IntoIter<etcfs_proto::mvccpb::Event>)>,
}

impl Observed {
    async fn next(&mut self) -> Result<LeaderResponse, Refusal> {
        loop {
            while let Some((changes, waiting)) = &mut self.of {
                let Some(event) = waiting.next() else {
                    *waiting = changes.next().await?.into_iter();
                    continue;
                };
                match event.kv {
                    Some(kv) if event.r#type == EventType::Put as i32 => {
                        // Who observes must still be allowed to.
                        self.election.queues.first(&self.prefix, &self.caller).await?;
                        return Ok(self.told(kv));
                    }
                    _ => self.of = None,
                }
            }
            let (header, first) = self.election.queues.first(&self.prefix, &self.caller).await?;
            let revision = header.map_or(0, |header| header.revision);
            let Some(kv) = first else {
                let (start, end) = (self.prefix.clone(), prefix_end(&self.prefix));
                self.election.queues.follow(start, end, revision + 1).next().await?;
                continue;
            };
            let changes = self.election.queues.follow(kv.key.clone(), Bytes::new(), revision + 1);
            self.of = Some((changes, Vec::new().into_iter()));
            return Ok(LeaderResponse { header, kv: Some(kv) });
        }
    }

    fn told(&self, kv: KeyValue) -> LeaderResponse {
        let header: Option<ResponseHeader> = self.election.headers.at(kv.mod_revision);
        LeaderResponse { header, kv: Some(kv) }
    }
}
