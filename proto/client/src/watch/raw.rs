//! The watch stream as it is: many watches, answers as they come, no resuming.

use std::fmt;

use etcfs_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_client::WatchClient, watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, metadata::MetadataValue};

use crate::{Client, ClientError, Lost, connection::Connection};

/// Requests that wait to be written to the stream.
const UNSENT_REQUESTS_MAX: usize = 64;

/// One stream with any number of watches.
pub struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    /// Whoever takes it up again wants to hear that this member is cut off from the rest.
    resumes: bool,
    /// None until the first request: a server may answer with headers only then.
    answers: Answers,
}

enum Answers {
    Waiting(Box<(Connection, mpsc::Receiver<WatchRequest>)>),
    Open(Box<Streaming<WatchResponse>>),
    Closed,
}

impl WatchStream {
    pub(crate) async fn open(client: &Client) -> Result<Self, ClientError> {
        let connection = client.failover.connection().await.map_err(ClientError::Unsent)?;
        Self::begin(connection, None).await
    }

    pub(super) async fn begin(
        connection: Connection,
        first: Option<WatchCreateRequest>,
    ) -> Result<Self, ClientError> {
        let (requests, stream) = mpsc::channel(UNSENT_REQUESTS_MAX);
        let resumes = first.is_some();
        let mut this = Self { requests, resumes, answers: Answers::Waiting(Box::new((connection, stream))) };
        if let Some(first) = first {
            this.create(first).await?;
            this.establish().await?;
        }
        Ok(this)
    }

    /// Asks for a watch; the answer comes with the others.
    pub async fn create(&self, request: WatchCreateRequest) -> Result<(), ClientError> {
        self.send(RequestUnion::CreateRequest(request)).await
    }

    pub async fn cancel(&self, watch_id: i64) -> Result<(), ClientError> {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await
    }

    pub async fn request_progress(&self) -> Result<(), ClientError> {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await
    }

    /// The next answer; none if the server ended the stream in peace.
    ///
    /// Ask for a watch before the first call, and see that call through: it opens the stream.
    pub async fn next(&mut self) -> Result<Option<WatchResponse>, ClientError> {
        self.establish().await?;
        match &mut self.answers {
            Answers::Open(answers) => Ok(answers.message().await?),
            Answers::Waiting(_) | Answers::Closed => Ok(None),
        }
    }

    /// Opens the stream on the wire. Not to be abandoned half-way: the stream is closed then.
    async fn establish(&mut self) -> Result<(), ClientError> {
        if let Answers::Waiting(_) = &self.answers
            && let Answers::Waiting(waiting) = std::mem::replace(&mut self.answers, Answers::Closed)
        {
            let (connection, requests) = *waiting;
            let (origin, answer_bytes_max) = (connection.origin(), connection.answer_bytes_max);
            let mut stub =
                WatchClient::with_origin(connection, origin).max_decoding_message_size(answer_bytes_max);
            let mut request = Request::new(ReceiverStream::new(requests));
            if self.resumes {
                request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            }
            let answers = stub.watch(request).await?.into_inner();
            self.answers = Answers::Open(Box::new(answers));
        }
        Ok(())
    }

    async fn send(&self, request: RequestUnion) -> Result<(), ClientError> {
        self.requests
            .send(WatchRequest { request_union: Some(request) })
            .await
            .map_err(|_| ClientError::Unknown(Lost::Broken("the watch stream is closed".into())))
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").finish_non_exhaustive()
    }
}
