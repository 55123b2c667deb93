//! `-o metrics=ADDR`: the mount's figures over HTTP, as Prometheus asks for them.
//!
//! One request a connection, and nothing but `GET /metrics`. A client that is slow is given up, and no more than a
//! few are served at a time: whoever can reach the address, none of it holds the mount up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::metrics::Metrics;
use crate::ops::Fs;

/// Clients at a time.
const CLIENTS_MAX: usize = 8;

/// A request's first line and its headers.
const HEAD_BYTES_MAX: usize = 8192;

/// A client gets so long for all of it.
const CLIENT_WITHIN: Duration = Duration::from_secs(5);

/// After a connection that could not be taken: there may be no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Takes the address, and serves what is asked for there until the mount ends.
pub(crate) async fn start(fs: &Arc<Fs>, address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    fs.measure(listener.local_addr()?, Metrics::new().map_err(io::Error::other)?);
    let mount = fs.clone();
    fs.tasks.spawn_on(
        async move {
            let stopped = mount.stopped.clone();
            stopped.run_until_cancelled(serve(&mount, &listener)).await;
        },
        &fs.runtime,
    );
    Ok(())
}

async fn serve(fs: &Arc<Fs>, listener: &TcpListener) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let place = places.clone().acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection to the metrics' address could not be taken");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (client, stopped) = (fs.clone(), fs.stopped.clone());
        fs.tasks.spawn_on(
            async move {
                let answered = timeout(CLIENT_WITHIN, answer(&client, stream));
                if let Some(Ok(Err(error))) = stopped.run_until_cancelled(answered).await {
                    tracing::debug!(%error, "who asked for metrics is gone");
                }
                drop(place);
            },
            &fs.runtime,
        );
    }
}

async fn answer(fs: &Fs, mut stream: TcpStream) -> io::Result<()> {
    let head = head(&mut stream).await?;
    let (status, allow, body) = match asked(&head) {
        Asked::Metrics => ("200 OK", "", fs.metrics_text()),
        Asked::OtherPath => ("404 Not Found", "", b"only /metrics is here\n".to_vec()),
        Asked::OtherMethod => ("405 Method Not Allowed", "Allow: GET\r\n", b"only GET is taken\n".to_vec()),
        Asked::Nonsense => ("400 Bad Request", "", b"no request of HTTP/1\n".to_vec()),
    };
    let length = body.len();
    let headers = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {TEXT}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
    );
    stream.write_all(headers.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

/// All up to the empty line, or as much as there may be.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut stream = stream.take(HEAD_BYTES_MAX as u64);
    while !is_whole(&head) && stream.read_buf(&mut head).await? > 0 {}
    Ok(head)
}

fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|bytes| bytes == b"\r\n\r\n")
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Metrics,
    OtherPath,
    OtherMethod,
    Nonsense,
}

fn asked(head: &[u8]) -> Asked {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else { return Asked::Nonsense };
    if !version.starts_with(b"HTTP/1.") || !is_whole(head) {
        return Asked::Nonsense;
    }
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    match (method, path) {
        (b"GET", b"/metrics") => Asked::Metrics,
        (b"GET", _) => Asked::OtherPath,
        _ => Asked::OtherMethod,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metrics_are_told() {
        let asked = |line: &str| asked(format!("{line}\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(asked("GET /metrics HTTP/1.1"), Asked::Metrics);
        assert_eq!(asked("GET /metrics?name=x HTTP/1.0"), Asked::Metrics);
        assert_eq!(asked("GET / HTTP/1.1"), Asked::OtherPath);
        assert_eq!(asked("POST /metrics HTTP/1.1"), Asked::OtherMethod);
        for nonsense in ["", "GET /metrics", "GET  /metrics HTTP/1.1", "GET /metrics HTTP/2"] {
            assert_eq!(asked(nonsense), Asked::Nonsense, "{nonsense}");
        }
        assert_eq!(super::asked(b"GET /metrics HTTP/1.1\r\nHost"), Asked::Nonsense, "cut off");
    }

    #[tokio::test]
    async fn a_request_is_read_to_its_empty_line_and_no_longer_than_it_may_be() {
        let endless = vec![b'x'; 2 * HEAD_BYTES_MAX];
        assert_eq!(head(&mut &endless[..]).await.unwrap().len(), HEAD_BYTES_MAX);
        let whole = b"GET / HTTP/1.1\r\n\r\n";
        assert_eq!(head(&mut &whole[..]).await.unwrap(), whole);
    }
}
