//! The quota: what may not grow any more.
//!
//! As with etcd, a change is judged before it is proposed, by what it may add
//! at most; the first that does not fit raises the NOSPACE alarm for the whole
//! cluster, and from then on apply refuses what needs room. Deleting and compacting
//! always work; once they have made room, `background` clears the alarm.

use etcfs_proto::{
    etcdserverpb::{
        AlarmRequest, AlarmType, PutRequest, RequestOp, TxnRequest, alarm_request::AlarmAction,
        request_op::Request as Op,
    },
    etcfs::command::{Request, request::Body},
};

use super::Refusal;
use crate::{
    config::Quota,
    maintain::Sizes,
    propose::{Members, Proposer},
};

/// What a pair takes beside key and value, at most.
const PUT_OVERHEAD_BYTES: u64 = 256;
const LEASE_BYTES: u64 = 64;

/// Admits what fits; cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission {
    pub quota: Quota,
    pub sizes: Sizes,
    pub members: Members,
    pub proposer: Proposer,
}

impl Admission {
    pub(super) async fn put(&self, request: &PutRequest) -> Result<(), Refusal> {
        self.admit(put(request)).await
    }

    pub(super) async fn txn(&self, request: &TxnRequest) -> Result<(), Refusal> {
        self.admit(puts(&request.success).max(puts(&request.failure))).await
    }

    pub(super) async fn lease(&self) -> Result<(), Refusal> {
        self.admit(LEASE_BYTES).await
    }

    async fn admit(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes == 0 {
            return Ok(());
        }
        let in_use = self.sizes.in_use();
        let fits = match self.quota {
            Quota::Bytes(quota) => in_use + bytes < quota,
            Quota::Unlimited => true,
        };
        if fits && !self.sizes.disk_is_full_for(bytes) {
            return Ok(());
        }
        let alarm = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.members.member_id(),
            alarm: AlarmType::Nospace as i32,
        };
        let what = if fits { "the disk is nearly full" } else { "the quota is exceeded" };
        tracing::warn!(in_use, free = self.sizes.disk().free, "{what}: raising the NOSPACE alarm");
        // Before the alarm can be seen: who clears it must know that it is no person's.
        self.sizes.note_shortage(true);
        if let Err(error) = self.proposer.write(Request { body: Some(Body::Alarm(alarm)) }).await {
            self.sizes.note_shortage(false);
            return Err(error.into());
        }
        Err(Refusal::NoSpace)
    }
}

fn put(request: &PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + (request.key.len() + request.value.len()) as u64
}

/// Of one branch; a nested transaction takes its larger one.
fn puts(ops: &[RequestOp]) -> u64 {
    ops.iter()
        .map(|op| match &op.request {
            Some(Op::RequestPut(request)) => put(request),
            Some(Op::RequestTxn(txn)) => puts(&txn.success).max(puts(&txn.failure)),
            Some(Op::RequestRange(_) | Op::RequestDeleteRange(_)) | None => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_costs_what_its_larger_branch_puts() {
        let op = |value: usize| {
            let request = PutRequest { key: "k".into(), value: vec![0; value].into(), ..Default::default() };
            RequestOp { request: Some(Op::RequestPut(request)) }
        };
        assert_eq!(puts(&[op(10), op(20)]), 2 * 257 + 30);
        let nested = TxnRequest { success: vec![op(1)], failure: vec![op(100)], ..Default::default() };
        assert_eq!(puts(&[op(10), RequestOp { request: Some(Op::RequestTxn(nested)) }]), 2 * 257 + 110);
        assert_eq!(puts(&[RequestOp { request: None }]), 0);
    }
}
