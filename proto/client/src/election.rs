//! The Election service: one leader of a name, and who it is.

use bytes::Bytes;
use etcfs_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse, election_client::ElectionClient,
};
use tonic::Streaming;

use crate::{Client, ClientError, Unsent, call::Repeat, connection::Connection};

/// Requests on elections.
#[derive(Clone, Copy, Debug)]
pub struct Election<'a> {
    client: &'a Client,
}

fn stub(connection: Connection) -> ElectionClient<Connection> {
    let origin = connection.origin();
    ElectionClient::with_origin(connection, origin)
}

impl<'a> Election<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client }
    }

    /// Waits to become the leader, at most for the client's request timeout;
    /// dropping the future gives up the candidacy.
    pub async fn campaign(&self, request: CampaignRequest) -> Result<CampaignResponse, ClientError> {
        // One lease is one candidate, however often it says so.
        let repeat = if request.lease == 0 { Repeat::Unsafe } else { Repeat::Safe };
        self.client
            .call(repeat, |connection| {
                let request = request.clone();
                async move { stub(connection).campaign(request).await }
            })
            .await
    }

    /// Changes what the leader says.
    pub async fn proclaim(&self, leader: LeaderKey, value: Bytes) -> Result<ProclaimResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| {
                let request = ProclaimRequest { leader: Some(leader.clone()), value: value.clone() };
                async move { stub(connection).proclaim(request).await }
            })
            .await
    }

    /// The leader at this moment; an error if there is none.
    pub async fn leader(&self, name: Bytes) -> Result<LeaderResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| {
                let request = LeaderRequest { name: name.clone() };
                async move { stub(connection).leader(request).await }
            })
            .await
    }

    /// Gives up leading, or waiting for it.
    pub async fn resign(&self, leader: LeaderKey) -> Result<ResignResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| {
                let request = ResignRequest { leader: Some(leader.clone()) };
                async move { stub(connection).resign(request).await }
            })
            .await
    }

    /// The leader, and each that follows or says something new.
    pub fn observe(&self, name: Bytes) -> Observation {
        Observation { client: self.client.clone(), name, answers: None }
    }
}

/// The leaders of one election, as they come.
#[derive(Debug)]
pub struct Observation {
    client: Client,
    name: Bytes,
    answers: Option<Streaming<LeaderResponse>>,
}

impl Observation {
    /// The next leader; none once the server has ended the stream.
    ///
    /// An error ends this stream; the next call opens another, which begins with
    /// the leader of that moment.
    pub async fn next(&mut self) -> Result<Option<LeaderResponse>, ClientError> {
        let answers = match &mut self.answers {
            Some(answers) => answers,
            none => {
                let limit = self.client.request_timeout;
                let connection = tokio::time::timeout(limit, self.client.failover.connection())
                    .await
                    .unwrap_or(Err(Unsent::Deadline(limit)))
                    .map_err(ClientError::Unsent)?;
                let request = LeaderRequest { name: self.name.clone() };
                // Without a deadline: a server may send its headers only with the first leader.
                let opened = stub(connection).observe(request).await?;
                none.insert(opened.into_inner())
            }
        };
        let answer = answers.message().await;
        if answer.is_err() {
            self.answers = None;
        }
        Ok(answer?)
    }
}
