//! The KV service: keys and their revisions.

use etcfs_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, kv_client::KvClient,
    request_op::Request,
};

use crate::{Client, ClientError, Code, call::Repeat, connection::Connection};

/// Requests on keys.
#[derive(Clone, Copy, Debug)]
pub struct Kv<'a> {
    client: &'a Client,
}

fn stub(connection: Connection) -> KvClient<Connection> {
    let (origin, answer_bytes_max) = (connection.origin(), connection.answer_bytes_max);
    KvClient::with_origin(connection, origin).max_decoding_message_size(answer_bytes_max)
}

impl<'a> Kv<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client }
    }

    /// In the words of etcd's own client. Other requests are small.
    fn check_size(&self, request: &impl prost::Message) -> Result<(), ClientError> {
        let bytes = request.encoded_len();
        match self.client.request_bytes_max {
            Some(max) if bytes > max => Err(ClientError::Status {
                code: Code::ResourceExhausted,
                message: format!("trying to send message larger than max ({bytes} vs. {max})"),
            }),
            _ => Ok(()),
        }
    }

    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| {
                let request = request.clone();
                async move { stub(connection).range(request).await }
            })
            .await
    }

    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, ClientError> {
        self.check_size(&request)?;
        self.client
            .call(Repeat::Unsafe, |connection| {
                let request = request.clone();
                async move { stub(connection).put(request).await }
            })
            .await
    }

    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| {
                let request = request.clone();
                async move { stub(connection).delete_range(request).await }
            })
            .await
    }

    /// A transaction; one that only reads is retried like a read.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, ClientError> {
        self.check_size(&request)?;
        let repeat = if only_reads(&request) { Repeat::Safe } else { Repeat::Unsafe };
        self.client
            .call(repeat, |connection| {
                let request = request.clone();
                async move { stub(connection).txn(request).await }
            })
            .await
    }

    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| async move { stub(connection).compact(request).await })
            .await
    }
}

fn only_reads(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|RequestOp { request }| match request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(inner)) => only_reads(inner),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_txn_only_reads_if_no_branch_at_any_depth_writes() {
        let op = |request| RequestOp { request: Some(request) };
        let range = || op(Request::RequestRange(RangeRequest::default()));
        let put = || op(Request::RequestPut(PutRequest::default()));
        let txn = |success, failure| TxnRequest { compare: vec![], success, failure };
        assert!(only_reads(&txn(vec![range()], vec![])));
        assert!(!only_reads(&txn(vec![range()], vec![put()])));
        assert!(only_reads(&txn(vec![op(Request::RequestTxn(txn(vec![range()], vec![])))], vec![])));
        assert!(!only_reads(&txn(vec![op(Request::RequestTxn(txn(vec![put()], vec![])))], vec![])));
    }
}
