//! The Tree service, which etcd does not have: see `etcfs/tree.proto`.

use etcfs_proto::etcfs::v1::{
    ChildrenRequest, ChildrenResponse, RenameRequest, RenameResponse, TimesRequest, TimesResponse,
    tree_client::TreeClient,
};

use crate::{Client, ClientError, call::Repeat, connection::Connection};

/// Requests on the key space as a tree. A server without them answers with the code `Unimplemented`.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    client: &'a Client,
}

fn stub(connection: Connection) -> TreeClient<Connection> {
    let (origin, answer_bytes_max) = (connection.origin(), connection.answer_bytes_max);
    TreeClient::with_origin(connection, origin).max_decoding_message_size(answer_bytes_max)
}

impl<'a> Tree<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client }
    }

    pub async fn children(&self, request: ChildrenRequest) -> Result<ChildrenResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| {
                let request = request.clone();
                async move { stub(connection).children(request).await }
            })
            .await
    }

    /// When revisions were made.
    pub async fn times(&self, request: TimesRequest) -> Result<TimesResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| {
                let request = request.clone();
                async move { stub(connection).times(request).await }
            })
            .await
    }

    pub async fn rename(&self, request: RenameRequest) -> Result<RenameResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| {
                let request = request.clone();
                async move { stub(connection).rename(request).await }
            })
            .await
    }
}
