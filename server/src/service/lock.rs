//! The Lock service: the first in a queue holds the lock.

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::DeleteRangeRequest,
    v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse},
};

use super::{Refusal, queue::Queues};
use crate::auth::Caller;

#[derive(Clone, Debug)]
pub struct Lock {
    pub queues: Queues,
}

impl Lock {
    /// Waits until the lock is the caller's. One lease locks a name once, however often it asks.
    pub async fn lock(&self, request: LockRequest, caller: &Caller) -> Result<LockResponse, Refusal> {
        let mut place = self.queues.enter(&request.name, request.lease, Bytes::new(), caller).await?;
        place.wait_for_turn().await?;
        if !place.stands().await? {
            return Err(Refusal::SessionExpired);
        }
        let place = place.keep();
        Ok(LockResponse { header: place.header, key: place.key.clone() })
    }

    pub async fn unlock(&self, request: UnlockRequest, caller: &Caller) -> Result<UnlockResponse, Refusal> {
        let request = DeleteRangeRequest { key: request.key, ..Default::default() };
        let answer = self.queues.kv.delete_range(request, caller).await?;
        Ok(UnlockResponse { header: answer.header })
    }
}
