//! The KV service: reads at the store, writes through the log.

use std::sync::Arc;

use etcfs_proto::{
    etcdserverpb::{
        AlarmType, CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
        PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
    },
    etcfs::command::request::Body,
};
use tokio::sync::oneshot;

use super::{Access, Admission, Headers, Refusal, check};
use crate::{
    auth::{AuthError, Caller, Demand},
    mvcc::{Ranged, RangedTxn, ReadError, Store},
    propose::{Alarms, Proposer, ReadBarrier, Response},
};

/// A read of more pairs than this may take long, and moves off the event loop.
const QUICK_READ_PAIRS: i64 = 512;

#[derive(Clone, Debug)]
pub struct Kv {
    pub store: Arc<Store>,
    pub alarms: Alarms,
    pub proposer: Proposer,
    pub barrier: ReadBarrier,
    pub headers: Headers,
    pub admission: Admission,
    pub access: Access,
    pub max_txn_ops: usize,
}

impl Kv {
    pub async fn range(&self, request: RangeRequest, caller: &Caller) -> Result<RangeResponse, Refusal> {
        check::range(&request)?;
        self.allowed(caller, |demand| demand.range(&request), self.read(&request)).await
    }

    /// A range whose answer may be too long to be made at once.
    pub async fn ranged(&self, request: RangeRequest, caller: &Caller) -> Result<Ranged, Refusal> {
        check::range(&request)?;
        let read = self.read_by(&request, || self.store.ranged(&request));
        let mut answer = self.allowed(caller, |demand| demand.range(&request), read).await?;
        let (Ranged::Whole(response) | Ranged::Long(response, _)) = &mut answer;
        self.headers.fill(&mut response.header);
        Ok(answer)
    }

    /// A read that is judged before, and after if users or roles have changed meanwhile.
    pub(super) async fn allowed<T>(
        &self,
        caller: &Caller,
        what: impl Fn(Demand<'_>) -> Result<(), AuthError>,
        read: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let auth = &self.access.auth;
        let judged = (auth.is_enabled(), auth.revision());
        self.access.demand(caller, &what)?;
        let answer = read.await?;
        if (auth.is_enabled(), auth.revision()) != judged {
            self.access.demand(caller, &what)?;
        }
        Ok(answer)
    }

    /// A range as it is, whoever asks.
    pub(super) async fn read(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        let mut response = self.read_by(request, || self.store.range(request)).await?;
        self.headers.fill(&mut response.header);
        Ok(response)
    }

    async fn read_by<T>(
        &self,
        request: &RangeRequest,
        read: impl FnOnce() -> Result<T, ReadError>,
    ) -> Result<T, Refusal> {
        self.ready(request.serializable).await?;
        Ok(if is_quick(request) { read()? } else { tokio::task::block_in_place(read)? })
    }

    /// Waits until the store may be read: has all that anybody has been told of, unless less will do.
    pub(super) async fn ready(&self, serializable: bool) -> Result<(), Refusal> {
        if !serializable {
            if self.is_learner() {
                return Err(Refusal::NotSupportedForLearner);
            }
            self.barrier.wait().await?;
        }
        self.refuse_if_corrupt()
    }

    pub async fn put(&self, request: PutRequest, caller: &Caller) -> Result<PutResponse, Refusal> {
        check::put(&request)?;
        self.access.demand(caller, |demand| demand.put(&request))?;
        self.admission.put(&request).await?;
        match self.write(Body::Put(request), caller).await? {
            Response::Put(mut response) => {
                self.headers.fill(&mut response.header);
                Ok(response)
            }
            other => unexpected(&other),
        }
    }

    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
        caller: &Caller,
    ) -> Result<DeleteRangeResponse, Refusal> {
        check::delete_range(&request)?;
        self.access.demand(caller, |demand| demand.delete_range(&request))?;
        match self.write(Body::DeleteRange(request), caller).await? {
            Response::DeleteRange(mut response) => {
                self.headers.fill(&mut response.header);
                Ok(response)
            }
            other => unexpected(&other),
        }
    }

    /// A transaction whose answer is short.
    pub async fn txn(&self, request: TxnRequest, caller: &Caller) -> Result<TxnResponse, Refusal> {
        match self.ranged_txn(request, caller).await? {
            RangedTxn::Whole(response) => Ok(response),
            RangedTxn::Long(..) | RangedTxn::TooLong => Err(Refusal::AnswerTooLong),
        }
    }

    /// A transaction whose answer may be too long to be made at once, if it only reads.
    pub async fn ranged_txn(&self, request: TxnRequest, caller: &Caller) -> Result<RangedTxn, Refusal> {
        check::txn(&request, self.max_txn_ops)?;
        if !check::is_read_only(&request) {
            return self.write_txn(request, caller).await.map(RangedTxn::Whole);
        }
        let mut answer = self.allowed(caller, |demand| demand.txn(&request), self.read_txn(&request)).await?;
        match &mut answer {
            RangedTxn::Whole(response) | RangedTxn::Long(response, _) => {
                self.headers.fill(&mut response.header);
            }
            RangedTxn::TooLong => return Err(Refusal::AnswerTooLong),
        }
        Ok(answer)
    }

    /// A transaction that changes something, however many operations it has.
    pub(super) async fn write_txn(
        &self,
        request: TxnRequest,
        caller: &Caller,
    ) -> Result<TxnResponse, Refusal> {
        self.access.demand(caller, |demand| demand.txn(&request))?;
        self.admission.txn(&request).await?;
        match self.write(Body::Txn(request), caller).await? {
            Response::Txn(mut response) => {
                self.headers.fill(&mut response.header);
                Ok(response)
            }
            other => unexpected(&other),
        }
    }

    async fn read_txn(&self, request: &TxnRequest) -> Result<RangedTxn, Refusal> {
        if !check::is_serializable(request) {
            self.barrier.wait().await?;
        }
        self.refuse_if_corrupt()?;
        // Up to 128 ranges of any size each.
        Ok(tokio::task::block_in_place(|| self.store.ranged_txn(request))?)
    }

    pub async fn compact(
        &self,
        request: CompactionRequest,
        caller: &Caller,
    ) -> Result<CompactionResponse, Refusal> {
        let CompactionRequest { revision, physical } = request;
        let mut response = match self.write(Body::Compaction(request), caller).await? {
            Response::Compaction(response) => response,
            other => return unexpected(&other),
        };
        if physical {
            let (done, scrubbed) = oneshot::channel();
            let tell = move || {
                // Nobody listens any more if the caller went away.
                let _unheard = done.send(());
            };
            self.store.when_scrubbed(revision, Box::new(tell));
            scrubbed.await.map_err(|_| Refusal::Stopped)?;
        }
        self.headers.fill(&mut response.header);
        Ok(response)
    }

    async fn write(&self, body: Body, caller: &Caller) -> Result<Response, Refusal> {
        let (response, _term) = self.proposer.write(self.access.sign(caller, body)).await?;
        Ok(response)
    }

    fn is_learner(&self) -> bool {
        self.admission.members.status().is_learner
    }

    fn refuse_if_corrupt(&self) -> Result<(), Refusal> {
        if self.alarms.is_raised(AlarmType::Corrupt) { Err(Refusal::Corrupt) } else { Ok(()) }
    }
}

fn is_quick(request: &RangeRequest) -> bool {
    let unsorted = request.sort_order == 0 && request.sort_target == 0;
    request.range_end.is_empty() || (unsorted && (1..=QUICK_READ_PAIRS).contains(&request.limit))
}

/// Apply answers each kind of request with its own kind of response.
pub(super) fn unexpected<T>(response: &Response) -> Result<T, Refusal> {
    unreachable!("a request was answered with {response:?}")
}
