//! Clients that put and read without a pause, and note what they saw.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Status};

use crate::{
    api::{self, Api, runtime},
    history::{Call, What},
    wait,
};

/// Time after which a client gives a call up as lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause of a client whose server is away.
const AWAY: Duration = Duration::from_millis(5);
/// Bytes that a value is filled up to, so that the log grows as in use.
const VALUE_BYTES: usize = 200;

/// Running clients; they stop with [`Load::stop`], or when dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<Call>>>,
}

impl Load {
    /// Starts `clients` clients, each on keys of its own below `prefix`.
    pub fn start(endpoint: &str, prefix: &str, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let clients = (0..clients)
            .map(|client| {
                let worker = Worker {
                    api: Api::to(endpoint),
                    keys: (0..3).map(|key| Bytes::from(format!("{prefix}{client}/{key}"))).collect(),
                    name: client,
                    stop: stop.clone(),
                    acknowledged: acknowledged.clone(),
                };
                runtime().spawn(worker.run())
            })
            .collect();
        Self { stop, acknowledged, clients }
    }

    /// Puts acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `count` more puts were acknowledged.
    #[track_caller]
    pub fn wait_for_more(&self, count: u64) {
        let goal = self.acknowledged() + count;
        wait::until_true("the clients' puts are acknowledged", || self.acknowledged() >= goal);
    }

    /// Lets every client finish its call and returns all they saw.
    pub fn stop(mut self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        let all = async {
            let mut calls = Vec::new();
            for client in clients {
                calls.extend(client.await.expect("a client does not panic"));
            }
            calls
        };
        runtime().block_on(all)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Worker {
    api: Api,
    keys: Vec<Bytes>,
    name: usize,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Worker {
    async fn run(self) -> Vec<Call> {
        let mut calls = Vec::new();
        let mut kv = self.api.kv();
        for number in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let key = self.keys[number as usize % self.keys.len()].clone();
            let asked = Instant::now();
            let what = if number % 5 == 4 {
                let request =
                    etcfs_proto::etcdserverpb::RangeRequest { key: key.clone(), ..Default::default() };
                let Ok(Ok(answer)) = timeout(CALL_TIMEOUT, kv.range(request)).await else { continue };
                let mut answer = answer.into_inner();
                let revision = answer.header.as_ref().map_or(0, |header| header.revision);
                What::Read { value: answer.kvs.pop().map(|kv| kv.value), revision }
            } else {
                let mut value = format!("client {} put {number} ", self.name);
                value.extend(std::iter::repeat_n('.', VALUE_BYTES.saturating_sub(value.len())));
                let value = Bytes::from(value);
                let request = api::put(std::str::from_utf8(&key).expect("made of text"), value.clone());
                match timeout(CALL_TIMEOUT, kv.put(request)).await {
                    Ok(Ok(answer)) => {
                        self.acknowledged.fetch_add(1, Ordering::Relaxed);
                        let header = answer.into_inner().header.unwrap_or_default();
                        What::Put { value, revision: header.revision }
                    }
                    Ok(Err(status)) if was_refused(&status) => What::RefusedPut { value },
                    Ok(Err(_)) => {
                        tokio::time::sleep(AWAY).await;
                        What::LostPut { value }
                    }
                    Err(_) => What::LostPut { value },
                }
            };
            calls.push(Call { asked, answered: Instant::now(), key, what });
        }
        calls
    }
}

/// True where the server said that it will never make the change.
fn was_refused(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::ResourceExhausted | Code::FailedPrecondition)
}
