//! A server's metrics, as Prometheus reads them: HTTP/1.1 on the clients' port.

use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{
    ClientError, Config, Lost, Unsent,
    endpoint::{Endpoint, Scheme},
    tls::Connector,
};

/// Reads the page of the first endpoint.
pub async fn metrics(config: &Config) -> Result<String, ClientError> {
    let endpoint = Endpoint::parse(config.endpoints.first().map_or("", String::as_str))?;
    let failed =
        |reason: String| ClientError::Unsent(Unsent::Connect { endpoint: endpoint.to_string(), reason });
    let connector = config.tls.as_ref().map(|tls| Connector::new(tls, b"http/1.1")).transpose()?;
    let connector = connector.filter(|_| endpoint.scheme() != Scheme::Plain);
    let read = async {
        let tcp = TcpStream::connect(endpoint.authority()).await.map_err(|e| failed(e.to_string()))?;
        match connector {
            Some(tls) => {
                let stream = tls.connect(endpoint.host(), tcp).await.map_err(|e| failed(e.to_string()))?;
                page(stream, &endpoint).await
            }
            None => page(tcp, &endpoint).await,
        }
        .map_err(|error| ClientError::Unknown(Lost::Broken(error)))
    };
    let limit = config.request_timeout;
    tokio::time::timeout(limit, read).await.map_err(|_| ClientError::Unknown(Lost::Deadline(limit)))?
}

async fn page<S>(stream: S, endpoint: &Endpoint) -> Result<String, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request =
        Request::get("/metrics").header(header::HOST, endpoint.authority()).body(Empty::<Bytes>::new());
    let ask = async {
        let answer =
            send.send_request(request.map_err(|e| e.to_string())?).await.map_err(|e| e.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("/metrics: {}", answer.status()));
        }
        let body = answer.into_body().collect().await.map_err(|e| e.to_string())?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    let mut ask = std::pin::pin!(ask);
    tokio::select! {
        page = &mut ask => page,
        // It ends when all is read.
        _ = connection => ask.await,
    }
}
