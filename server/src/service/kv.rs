//! The KV service: reads at the store, writes through the log.

use std::sync::Arc;

use etcfs_proto::{
    etcdserverpb::{
        AlarmType, CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
        PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
    },
    etcfs::command::{Request, request::Body},
};
use tokio::sync::oneshot;

use super::{Admission, Headers, Refusal, check};
use crate::{
    mvcc::Store,
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
    pub max_txn_ops: usize,
}

impl Kv {
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Refusal> {
        check::range(&request)?;
        if !request.serializable {
            self.barrier.wait().await?;
        }
        self.refuse_if_corrupt()?;
        let mut response = if is_quick(&request) {
            self.store.range(&request)?
        } else {
            tokio::task::block_in_place(|| self.store.range(&request))?
        };
        self.headers.fill(&mut response.header);
        Ok(response)
    }

    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Refusal> {
        check::put(&request)?;
        self.admission.put(&request).await?;
        match self.write(Body::Put(request)).await? {
            Response::Put(mut response) => {
                self.headers.fill(&mut response.header);
                Ok(response)
            }
            other => unexpected(&other),
        }
    }

    pub async fn delete_range(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Refusal> {
        check::delete_range(&request)?;
        match self.write(Body::DeleteRange(request)).await? {
            Response::DeleteRange(mut response) => {
                self.headers.fill(&mut response.header);
                Ok(response)
            }
            other => unexpected(&other),
        }
    }

    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Refusal> {
        check::txn(&request, self.max_txn_ops)?;
        let mut response = if check::is_read_only(&request) {
            if !check::is_serializable(&request) {
                self.barrier.wait().await?;
            }
            self.refuse_if_corrupt()?;
            // Up to 128 ranges of any size each.
            tokio::task::block_in_place(|| self.store.read_txn(&request))?
        } else {
            self.admission.txn(&request).await?;
            match self.write(Body::Txn(request)).await? {
                Response::Txn(response) => response,
                other => return unexpected(&other),
            }
        };
        self.headers.fill(&mut response.header);
        Ok(response)
    }

    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Refusal> {
        let CompactionRequest { revision, physical } = request;
        let mut response = match self.write(Body::Compaction(request)).await? {
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

    async fn write(&self, body: Body) -> Result<Response, Refusal> {
        let (response, _term) = self.proposer.write(Request { body: Some(body) }).await?;
        Ok(response)
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
