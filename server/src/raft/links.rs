//! The ways to the other members, and whether they are open.
//!
//! One [`Link`] for each member, kept across elections: a vote must not wait for
//! a handshake. Heartbeats, votes and questions have a connection of their own,
//! which no bulk of entries or snapshots can hold up.

use std::{
    collections::HashMap,
    error::Error as _,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use etcfs_proto::etcfs::{
    peer::{self, errands_client, peer_client::PeerClient, roster_client::RosterClient},
    record,
};
use parking_lot::Mutex;
use prost::Message;
use tokio::time::Instant;
use tonic::{
    Code, ConnectError, Request, Status, service::interceptor::InterceptedService, transport::Channel,
};

use super::{
    badge::{self, Badge},
    dial::Dialer,
    types::Peer,
};
use crate::{storage::Identity, version::Version};

/// Largest message between members: some entries, or one of the largest size.
pub(super) const MESSAGE_BYTES_MAX: usize = 576 << 20;

/// Told of a member and the time in which it answered something small.
pub type RoundTripFn = Box<dyn Fn(u64, Duration) + Send + Sync>;

pub(super) type Client = PeerClient<InterceptedService<Channel, Badge>>;
/// To another member, for what is no matter of Raft's.
pub type ErrandsClient = errands_client::ErrandsClient<InterceptedService<Channel, Badge>>;

/// All links of this member; clones share them.
#[derive(Clone)]
pub(super) struct Links {
    shared: Arc<Shared>,
}

struct Shared {
    own: Identity,
    dialer: Dialer,
    // Held to look up or to put in.
    links: Mutex<HashMap<u64, Arc<Link>>>,
    /// Called when a peer says that this member has been removed.
    on_removed: Box<dyn Fn() + Send + Sync>,
    on_round_trip: RoundTripFn,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("own", &self.shared.own).finish_non_exhaustive()
    }
}

impl Links {
    pub(super) fn new(
        own: Identity,
        dialer: Dialer,
        on_removed: Box<dyn Fn() + Send + Sync>,
        on_round_trip: RoundTripFn,
    ) -> Self {
        Self { shared: Arc::new(Shared { own, dialer, links: Mutex::default(), on_removed, on_round_trip }) }
    }

    /// The link to a member that is reached at `peer`'s URLs.
    pub(super) fn to(&self, id: u64, peer: &Peer) -> Arc<Link> {
        let mut links = self.shared.links.lock();
        if let Some(link) = links.get(&id).filter(|link| link.urls == peer.urls) {
            return link.clone();
        }
        let link = Arc::new(Link::new(&self.shared, id, &peer.urls));
        links.insert(id, link.clone());
        link
    }

    /// What passes between this member and another that calls it.
    pub(super) fn traffic(&self, id: u64) -> Arc<Traffic> {
        self.shared.links.lock().get(&id).map(|link| link.traffic.clone()).unwrap_or_default()
    }

    /// Lets go of those who are members no more.
    pub(super) fn retain(&self, is_member: impl Fn(u64) -> bool) {
        self.shared.links.lock().retain(|&id, _| is_member(id));
    }

    pub(super) fn readings(&self) -> Vec<PeerReading> {
        let links = self.shared.links.lock();
        let reading = |link: &Arc<Link>| PeerReading {
            member_id: link.id,
            up: link.health.lock().up,
            losses: link.losses.load(Ordering::Relaxed),
            failures: link.failures.load(Ordering::Relaxed),
            heartbeat_failures: link.heartbeat_failures.load(Ordering::Relaxed),
            sent_bytes: link.traffic.sent.load(Ordering::Relaxed),
            received_bytes: link.traffic.received.load(Ordering::Relaxed),
        };
        links.values().map(reading).collect()
    }

    /// True if `id` has answered all the time since `since`.
    pub(super) fn is_connected_since(&self, id: u64, since: Instant) -> bool {
        let links = self.shared.links.lock();
        links.get(&id).is_some_and(|link| {
            let health = link.health.lock();
            health.up && health.since <= since
        })
    }

    /// True if the other side's answer is that of a member to one that was removed.
    fn note_removal(&self, status: &Status) {
        if badge::says_removed(status) {
            (self.shared.on_removed)();
        }
    }
}

/// How a member is reached.
#[derive(Clone, Copy, Debug)]
pub struct PeerReading {
    pub member_id: u64,
    /// It answered its last call.
    pub up: bool,
    /// How often it stopped answering.
    pub losses: u64,
    /// Calls that it did not answer.
    pub failures: u64,
    /// Heartbeats that it did not answer in time.
    pub heartbeat_failures: u64,
    /// Of messages; what HTTP/2 and TLS add is not counted.
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// Bytes of entries, snapshots and proposals, and of the answers to entries, whoever called.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub(super) fn sends(&self, message: &impl Message) {
        self.sent.fetch_add(message.encoded_len() as u64, Ordering::Relaxed);
    }

    pub(super) fn receives(&self, message: &impl Message) {
        self.received.fetch_add(message.encoded_len() as u64, Ordering::Relaxed);
    }
}

/// The connections to one member.
pub(super) struct Link {
    id: u64,
    urls: Vec<String>,
    /// One for each usable URL; all name the same member.
    ways: Vec<Way>,
    /// Which way is taken; the next after a failure.
    at: AtomicUsize,
    badge: Badge,
    health: Mutex<Health>,
    losses: AtomicU64,
    failures: AtomicU64,
    heartbeat_failures: AtomicU64,
    pub(super) traffic: Arc<Traffic>,
}

struct Way {
    control: Channel,
    bulk: Channel,
}

struct Health {
    up: bool,
    /// When that began.
    since: Instant,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("id", &self.id).field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.id)
    }
}

impl Link {
    fn new(shared: &Shared, id: u64, urls: &[String]) -> Self {
        let way = |url: &String| match (shared.dialer.channel(url), shared.dialer.channel(url)) {
            (Ok(control), Ok(bulk)) => Some(Way { control, bulk }),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(member = format!("{id:x}"), url, %error, "a peer URL can't be used");
                None
            }
        };
        Self {
            id,
            urls: urls.to_vec(),
            ways: urls.iter().filter_map(way).collect(),
            at: AtomicUsize::new(0),
            badge: Badge::new(shared.own, id, Version::own()),
            health: Mutex::new(Health { up: false, since: Instant::now() }),
            losses: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            heartbeat_failures: AtomicU64::new(0),
            traffic: Arc::default(),
        }
    }

    /// For what is small and urgent.
    pub(super) fn control(&self) -> Result<Client, Status> {
        Ok(self.client(self.way()?.control.clone()))
    }

    /// For entries and snapshots.
    pub(super) fn bulk(&self) -> Result<Client, Status> {
        Ok(self.client(self.way()?.bulk.clone()))
    }

    pub(super) fn errands(&self) -> Result<ErrandsClient, Status> {
        Ok(ErrandsClient::new(InterceptedService::new(self.way()?.control.clone(), self.badge.clone())))
    }

    /// Counts a heartbeat as failed unless it is answered before the caller gives it up.
    pub(super) fn heartbeat(&self) -> Heartbeat<'_> {
        Heartbeat { link: self, answered: false }
    }

    fn way(&self) -> Result<&Way, Status> {
        let unusable = || Status::unavailable(format!("member {:x} has no usable peer URL", self.id));
        let count = self.ways.len().max(1);
        self.ways.get(self.at.load(Ordering::Relaxed) % count).ok_or_else(unusable)
    }

    fn client(&self, channel: Channel) -> Client {
        PeerClient::with_interceptor(channel, self.badge.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

pub(super) struct Heartbeat<'l> {
    link: &'l Link,
    answered: bool,
}

impl Heartbeat<'_> {
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Heartbeat<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.link.heartbeat_failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Links {
    /// Notes what a call came to, and passes it on.
    pub(super) fn noted<T>(&self, link: &Link, result: Result<T, Status>) -> Result<T, Status> {
        let up = match &result {
            Ok(_) => true,
            Err(status) => {
                self.note_removal(status);
                // An answer of any other kind came from somebody who is there.
                !matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown)
                    && !is_unsent(status)
            }
        };
        if !up {
            link.failures.fetch_add(1, Ordering::Relaxed);
            link.at.fetch_add(1, Ordering::Relaxed);
        }
        let mut health = link.health.lock();
        if health.up != up {
            *health = Health { up, since: Instant::now() };
            drop(health);
            let member = format!("{:x}", link.id);
            match &result {
                Err(error) if !up => {
                    let error = cause(error);
                    link.losses.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(member, urls = ?link.urls, error, "lost contact with a peer");
                }
                _ => tracing::info!(member, urls = ?link.urls, "in contact with a peer"),
            }
        }
        result
    }

    /// Notes how long a member took to answer something small.
    pub(super) fn round_trip(&self, link: &Link, took: Duration) {
        (self.shared.on_round_trip)(link.id, took);
    }

    /// Asks a leader up to where a linearizable read must wait.
    pub(super) async fn read_index(
        &self,
        link: &Link,
        timeout: Duration,
    ) -> Result<Option<record::LogId>, Status> {
        let request = within(peer::ReadIndexRequest {}, timeout);
        let answer = self.noted(link, link.control()?.read_index(request).await)?;
        Ok(answer.into_inner().read)
    }

    /// Asks a member which version of the API it speaks.
    pub(super) async fn version(&self, link: &Link, timeout: Duration) -> Result<String, Status> {
        let mut roster = RosterClient::with_interceptor(link.way()?.control.clone(), link.badge.clone());
        let answer = roster.members(within(peer::MembersRequest { asker: 0 }, timeout)).await?.into_inner();
        if answer.member_id != link.id {
            return Err(Status::unavailable("another member answers there"));
        }
        Ok(answer.version)
    }

    /// Has a leader append an encoded batch; true if it refused.
    pub(super) async fn propose(
        &self,
        link: &Link,
        term: u64,
        batch: Bytes,
        timeout: Duration,
    ) -> Result<bool, Status> {
        let request = peer::ProposeRequest { term, batch };
        link.traffic.sends(&request);
        let request = within(request, timeout);
        let answer = self.noted(link, link.bulk()?.propose(request).await)?;
        Ok(answer.into_inner().refused)
    }
}

pub(super) fn within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// The innermost reason: what surrounds it says "transport error".
fn cause(status: &Status) -> String {
    let mut error = status.source();
    let mut text = status.message().to_owned();
    while let Some(inner) = error {
        text = inner.to_string();
        error = inner.source();
    }
    text
}

/// True if a call was surely not carried out: no connection, or turned away.
pub(super) fn surely_not_done(status: &Status) -> bool {
    let mut error = status.source();
    while let Some(inner) = error {
        if inner.is::<ConnectError>() {
            return true;
        }
        error = inner.source();
    }
    is_unsent(status) || badge::is_turned_away(status)
}

/// True for a request that was still to be sent when its connection broke. hyper says so, and tonic leaves its
/// words alone; a call that is over by its time is `Cancelled` with others.
fn is_unsent(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message() == "operation was canceled"
}
