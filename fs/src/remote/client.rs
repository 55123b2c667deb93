//! The server behind the mount, over the etcd v3 API.
//!
//! Reads are asked again until they are answered. A change is carried out exactly once: `commit` has the protocol,
//! `slots` what it remembers. The mount's patience bounds every wait; a wait ends with the caller's future.

mod commit;
mod floor;
mod merge;
mod past;
mod patience;
mod rights;
mod slots;
mod watch;
mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etcfs_client::{Client, ClientError, Config, Credentials, PasswordSource, Tls};
use etcfs_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseTimeToLiveRequest, RangeRequest, RangeResponse, ResponseHeader, TxnRequest,
};
use etcfs_proto::key::{KeyRange, KeySet};
use futures_util::FutureExt;
use futures_util::future::try_join_all;

use self::floor::Floor;
use self::past::Past;
use self::patience::{Judged, Reach, judge};
use self::slots::Sessions;
use super::{
    Answer, At, Call, Change, Children, ChildrenRequest, Committed, Freshness, KeyValue, LeaseFacts, LeaseId,
    Lookup, Page, PageRequest, Patience, Probe, Remote, RemoteError, Renewal, Revision, ServerFacts, Usage,
    Watch,
};
use crate::map::{Key, rights as needed};

pub use self::rights::Rights;

/// Names looked up in one transaction. Each may bring a value, so this bounds an answer to some 24 MiB.
const PROBES_MAX: usize = 16;

/// The connection asks for a sign of life after so long, and is given up after so long without: together less than
/// the bound after which caches are no longer trusted.
const KEEPALIVE_INTERVAL_SECONDS: u64 = 6;
const KEEPALIVE_TIMEOUT_SECONDS: u64 = 3;

/// The question why there is no answer is not worth a longer wait.
const TROUBLE_WITHIN: Duration = Duration::from_millis(500);

/// Who we are to a server, and how we know it.
#[derive(Debug, Default)]
pub struct Login {
    pub tls: Option<Tls>,
    pub credentials: Option<Credentials>,
    /// Where the password is found later on.
    pub password: Option<PasswordSource>,
}

/// A server, or a cluster of them.
#[derive(Debug)]
pub struct Server {
    client: Client,
    /// Who the mount logs in as.
    user: Option<String>,
    past: Arc<Past>,
    reach: Arc<Reach>,
    floor: Floor,
    sessions: Arc<Sessions>,
}

impl Server {
    /// Checks the endpoints' spelling; connects with the first call.
    pub fn new(endpoints: &[String], login: Login, patience: Patience) -> Result<Self, ClientError> {
        let user = login.credentials.as_ref().map(|credentials| credentials.user.clone());
        let client = Client::connect(Config {
            endpoints: endpoints.to_vec(),
            tls: login.tls,
            credentials: login.credentials,
            password: login.password,
            keepalive_interval: Duration::from_secs(KEEPALIVE_INTERVAL_SECONDS),
            keepalive_timeout: Duration::from_secs(KEEPALIVE_TIMEOUT_SECONDS),
            ..Config::default()
        })?;
        let reach = Arc::new(Reach::new(patience));
        Ok(Self {
            past: Arc::new(Past::new(&client, &reach)),
            client,
            user,
            reach,
            floor: Floor::default(),
            sessions: Arc::default(),
        })
    }

    /// Why the server does not answer, in words; for a mount that gives up before it has begun.
    pub async fn trouble(&self) -> String {
        let hasty = self.client.with_request_timeout(TROUBLE_WITHIN);
        match hasty.maintenance().status().await {
            Ok(_) => "it answers, but too late".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn heard(&self, header: Option<&ResponseHeader>) -> Revision {
        let revision = Revision(header.map_or(0, |header| header.revision));
        self.past.times.note(revision, SystemTime::now());
        self.floor.heard(revision);
        revision
    }

    /// Bounds a call by the mount's patience.
    fn call<'a, T>(&'a self, call: impl Future<Output = Result<T, RemoteError>> + Send + 'a) -> Call<'a, T>
    where
        T: Send + 'a,
    {
        self.reach.within(call).boxed()
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, RemoteError> {
        self.reach.ask(|| async { self.client.kv().range(request.clone()).await }).await
    }

    /// Asks so that the answer is as new as it must be, and says of which revision it is.
    async fn read<T, A, F>(&self, how: Freshness, ask: A) -> Result<At<T>, RemoteError>
    where
        A: Fn(How) -> F,
        F: Future<Output = Result<(Option<ResponseHeader>, T), RemoteError>>,
    {
        let (first, least) = match how {
            // Any member's, but nothing older than what was shown already.
            Freshness::Linearizable if self.reach.is_stale() => {
                (How { serializable: true, revision: 0 }, self.floor.get())
            }
            Freshness::Linearizable => (How { serializable: false, revision: 0 }, Revision(0)),
            Freshness::AtLeast(revision) => (How { serializable: true, revision: 0 }, revision),
            Freshness::Exactly(revision) => (How { serializable: true, revision: revision.0 }, Revision(0)),
        };
        let floor = self.floor.get();
        let answer = match ask(first).await {
            // The member that answers is behind: the cluster is not.
            Err(RemoteError::FutureRevision) if first.serializable => None,
            Err(error) => return Err(error),
            Ok((header, found)) => {
                let revision = self.heard(header.as_ref());
                if !first.serializable {
                    self.floor.linearized(floor, revision);
                }
                (revision >= least).then_some((revision, found))
            }
        };
        let (revision, found) = match answer {
            Some(answer) => answer,
            None => {
                let floor = self.floor.get();
                let (header, found) = ask(How { serializable: false, ..first }).await?;
                let revision = self.heard(header.as_ref());
                self.floor.linearized(floor, revision);
                (revision, found)
            }
        };
        if revision < least {
            return Err(RemoteError::FutureRevision);
        }
        Ok(At { revision: if first.revision == 0 { revision } else { Revision(first.revision) }, found })
    }

    async fn probe(&self, probes: &[Probe], how: Freshness) -> Result<At<Vec<Lookup>>, RemoteError> {
        self.read(how, |how| async move {
            let request = TxnRequest { success: wire::probes(probes, how), ..TxnRequest::default() };
            let answer = self.reach.ask(|| async { self.client.kv().txn(request.clone()).await }).await?;
            Ok((answer.header, wire::lookups(probes, answer.responses)?))
        })
        .await
    }
}

/// A read's two fields that say how new it is.
#[derive(Clone, Copy, Debug)]
struct How {
    serializable: bool,
    /// 0 is the newest.
    revision: i64,
}

impl Remote for Server {
    fn get(&self, key: Key, how: Freshness) -> Call<'_, At<Option<KeyValue>>> {
        self.call(async move {
            let got = self.read(how, |how| {
                let (request, key) = (wire::get(&key, how), &key);
                async move {
                    let mut answer = self.range(request).await?;
                    Ok((answer.header, answer.kvs.pop().map(wire::key_value).filter(|kv| kv.key == *key)))
                }
            });
            let got = got.await?;
            self.past.learn(got.found.iter().map(|kv| kv.mod_revision)).await;
            Ok(got)
        })
    }

    fn lookup(&self, probes: Vec<Probe>, how: Freshness) -> Call<'_, At<Vec<Lookup>>> {
        self.call(async move {
            let mut chunks = probes.chunks(PROBES_MAX);
            let mut all = self.probe(chunks.next().unwrap_or_default(), how).await?;
            let rest = chunks.map(|chunk| self.probe(chunk, Freshness::Exactly(all.revision)));
            for found in try_join_all(rest).await? {
                all.found.extend(found.found);
            }
            let kvs = all.found.iter().filter_map(|found| found.kv.as_ref());
            self.past.learn(kvs.map(|kv| kv.mod_revision)).await;
            Ok(all)
        })
    }

    fn page(&self, page: PageRequest) -> Call<'_, At<Page>> {
        self.call(async move {
            let read = self.read(page.how, |how| {
                let request = wire::page(&page, how);
                async move {
                    let answer = self.range(request).await?;
                    let kvs = answer.kvs.into_iter().map(wire::key_value).collect();
                    Ok((answer.header, Page { kvs, more: answer.more }))
                }
            });
            let read = read.await?;
            // Who asks for keys alone shows no attributes.
            if !page.keys_only {
                self.past.learn(read.found.kvs.iter().map(|kv| kv.mod_revision)).await;
            }
            Ok(read)
        })
    }

    fn children(&self, request: ChildrenRequest) -> Call<'_, Option<At<Children>>> {
        self.call(async move {
            if self.reach.is_plain() {
                return Ok(None);
            }
            let asked = self.read(request.how, |how| {
                let request = wire::children(&request, how);
                async move {
                    let ask = || async { self.client.tree().children(request.clone()).await };
                    let mut answer = self.reach.ask(ask).await?;
                    let header = answer.header.take();
                    let mut told = Vec::new();
                    let children = wire::children_of(answer, &mut told);
                    Ok((header, (children, told)))
                }
            });
            match asked.await {
                Ok(At { revision, found: (found, told) }) => {
                    // One question first: of where times begin to be the mount's own.
                    self.past.learn([]).await;
                    self.past.times.learn(told);
                    Ok(Some(At { revision, found }))
                }
                Err(error @ RemoteError::UnknownCall(_)) => {
                    self.reach.learn(&error);
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        })
    }

    fn moves(&self) -> bool {
        !self.reach.is_plain()
    }

    fn commit(&self, change: Change) -> Call<'_, Committed> {
        self.call(async move {
            let done = self.carry_out(change).await?;
            let got = done.answers.iter().filter_map(|answer| match answer {
                Answer::Got(kv) => kv.as_ref(),
                _ => None,
            });
            self.past.learn(got.map(|kv| kv.mod_revision)).await;
            Ok(done)
        })
    }

    fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Watch {
        self.past.on_the_way(from, watch::open(&self.client, &self.reach, ranges, from))
    }

    fn lease_grant(&self, ttl_seconds: i64) -> Call<'_, LeaseId> {
        self.call(async move {
            let id = slots::new_lease();
            self.reach.ask_again(|again| self.grant(id, ttl_seconds, again)).await?;
            Ok(id)
        })
    }

    fn lease_facts(&self, lease: LeaseId) -> Call<'_, Option<LeaseFacts>> {
        self.call(async move {
            let request = LeaseTimeToLiveRequest { id: lease.0, keys: false };
            let facts = self.reach.ask(|| async { self.client.lease().time_to_live(request).await }).await?;
            self.heard(facts.header.as_ref());
            Ok((facts.ttl >= 0)
                .then_some(LeaseFacts { granted_seconds: facts.granted_ttl, left_seconds: facts.ttl }))
        })
    }

    fn leases(&self) -> Call<'_, Vec<LeaseId>> {
        self.call(async move {
            let answer = self.reach.ask(|| async { self.client.lease().leases().await }).await?;
            Ok(answer.leases.into_iter().map(|lease| LeaseId(lease.id)).collect())
        })
    }

    fn lease_keys(&self, lease: LeaseId) -> Call<'_, Option<Vec<Key>>> {
        self.call(async move {
            let request = LeaseTimeToLiveRequest { id: lease.0, keys: true };
            let facts = self.reach.ask(|| async { self.client.lease().time_to_live(request).await }).await?;
            Ok((facts.ttl >= 0).then(|| facts.keys.into_iter().map(Key::from).collect()))
        })
    }

    fn lease_revoke(&self, lease: LeaseId) -> Call<'_, ()> {
        self.call(async move {
            self.reach
                .ask_again(|again| async move {
                    match self.client.lease().revoke(lease.0).await.map_err(judge) {
                        Ok(_) => Ok(()),
                        // The first request had been carried out.
                        Err(Judged::Final(RemoteError::NoSuchLease)) if again => Ok(()),
                        Err(judged) => Err(judged),
                    }
                })
                .await
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> Renewal {
        Renewal::new(self.client.lease().keep_alive(lease.0))
    }

    fn usage(&self, ranges: Vec<KeyRange>) -> Call<'_, Usage> {
        self.call(async move {
            let status = self.reach.ask(|| async { self.client.maintenance().status().await }).await?;
            let mut usage = Usage {
                quota_bytes: u64::try_from(status.db_size_quota).ok().filter(|&quota| quota > 0),
                in_use_bytes: status.db_size_in_use.max(0).unsigned_abs(),
                keys: 0,
            };
            for range in ranges {
                let answer = self.range(wire::count(&range)).await?;
                self.heard(answer.header.as_ref());
                usage.keys += answer.count.max(0).unsigned_abs();
            }
            Ok(usage)
        })
    }

    fn server(&self) -> Call<'_, ServerFacts> {
        self.call(async move {
            let status = self.reach.ask(|| async { self.client.maintenance().status().await }).await?;
            let header = status.header.unwrap_or_default();
            Ok(ServerFacts {
                version: status.version,
                member: header.member_id,
                leader: status.leader,
                revision: Revision(header.revision),
            })
        })
    }

    fn changes(&self) -> String {
        needed::changes_of(self.user.as_deref())
    }

    fn readable(&self) -> Call<'_, Option<KeySet>> {
        let asked = async { self.reach.ask(|| self.rights()).await };
        self.call(async { Ok(asked.await?.map(|rights| rights.read)) })
    }

    fn may_write(&self, _key: &[u8]) -> bool {
        true
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn heard(&self) -> Revision {
        self.past.times.newest()
    }

    fn endpoints(&self) -> Vec<String> {
        self.client.endpoints().iter().map(ToString::to_string).collect()
    }

    fn time_of(&self, revision: Revision) -> SystemTime {
        self.past.times.time_of(revision, SystemTime::now())
    }

    fn time_of_next(&self) -> SystemTime {
        self.past.times.time_of_next(SystemTime::now())
    }

    fn close(&self) -> Call<'_, ()> {
        self.end_session().boxed()
    }
}

impl Server {
    /// One attempt to grant a lease under an id of our own choice, so that a second attempt knows the first.
    async fn grant(&self, id: LeaseId, ttl_seconds: i64, again: bool) -> Result<(), Judged> {
        let request = LeaseGrantRequest { ttl: ttl_seconds, id: id.0 };
        match self.client.lease().grant(request).await {
            Ok(answer) => {
                self.heard(answer.header.as_ref());
                Ok(())
            }
            Err(error) if again && patience::is_lease_exists(&error) => Ok(()),
            Err(error) => Err(judge(error)),
        }
    }
}
