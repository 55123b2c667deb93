//! Several servers that are one cluster: to be killed, paused and looked at.

use std::time::Duration;

use etcfs_proto::etcdserverpb::{
    HashKvRequest, HashRequest, MemberListRequest, StatusRequest, StatusResponse,
};
use tonic::Response;

use crate::{
    api::{Answer, Api},
    process::show,
    server::{Kind, Options, Server},
    wait,
};

/// Time that a cluster may take to find a leader and go on, on a loaded machine.
pub const SETTLE: Duration = Duration::from_secs(60);

/// A running cluster; its members are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    kind: Kind,
    pub members: Vec<Server>,
}

impl Cluster {
    /// `size` members of `etcfsd`, all serving.
    pub fn etcfs(size: usize) -> Self {
        Self::with(Kind::Etcfs, size, &[])
    }

    pub fn with(kind: Kind, size: usize, args: &[&str]) -> Self {
        let mut cluster = Self::prepared(kind, size, args);
        cluster.run();
        cluster
    }

    /// Members that are not started yet.
    pub fn prepared(kind: Kind, size: usize, args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let options = Options { args, ..Options::default() };
        Self::of(kind, vec![options; size])
    }

    /// Members that are not started yet, each with its own options.
    pub fn of(kind: Kind, options: Vec<Options>) -> Self {
        let mut members: Vec<_> =
            options.into_iter().map(|options| Server::prepared(kind, options)).collect();
        let urls: Vec<_> = members.iter().map(Server::peer_url).collect();
        let named: Vec<_> = urls.iter().enumerate().map(|(nth, url)| format!("m{nth}={url}")).collect();
        for (nth, member) in members.iter_mut().enumerate() {
            member.set_cluster(&format!("m{nth}"), named.join(","));
        }
        Self { kind, members }
    }

    /// Starts those that do not run, and waits until they serve.
    pub fn run(&mut self) {
        let stopped: Vec<_> = self.members.iter_mut().filter(|member| !member.is_running()).collect();
        for member in stopped {
            member.launch();
        }
        for member in &mut self.members {
            member.wait_until_ready();
        }
    }

    /// A further member, not started yet, for a place that was made for it: its
    /// first start names those of `self` and it.
    pub fn newcomer(&self, name: &str, args: &[&str]) -> Server {
        let args =
            args.iter().map(|&arg| arg.to_owned()).chain(["--initial-cluster-state=existing".to_owned()]);
        let options = Options { args: args.collect(), ..Options::default() };
        let mut newcomer = Server::prepared(self.kind, options);
        let named = self.members.iter().map(|member| format!("{}={}", member.name(), member.peer_url()));
        let own = format!("{name}={}", newcomer.peer_url());
        newcomer.set_cluster(name, named.chain([own]).collect::<Vec<_>>().join(","));
        newcomer
    }

    /// `HOST:PORT,...` of all members.
    pub fn endpoints(&self) -> String {
        self.members.iter().map(Server::endpoint).collect::<Vec<_>>().join(",")
    }

    pub fn api(&self, nth: usize) -> Api {
        self.members[nth].api()
    }

    /// Waits until all members that run name the same leader, and gives its place.
    #[track_caller]
    pub fn leader(&self) -> usize {
        let running: Vec<usize> =
            (0..self.members.len()).filter(|&nth| self.members[nth].is_running()).collect();
        self.leader_among(&running)
    }

    /// Waits until these members name the same leader, one of them.
    #[track_caller]
    pub fn leader_among(&self, places: &[usize]) -> usize {
        wait::within(SETTLE, "the members name one leader", || {
            let told: Vec<StatusResponse> =
                places.iter().filter_map(|&nth| status(&self.api(nth)).ok()).collect();
            let leader = told.first()?.leader;
            let agreed =
                told.len() == places.len() && leader != 0 && told.iter().all(|one| one.leader == leader);
            let own = told.iter().position(|one| one.header.is_some_and(|header| header.member_id == leader));
            own.filter(|_| agreed).map(|position| places[position])
        })
    }

    /// The first member that runs and does not lead.
    #[track_caller]
    pub fn follower(&self) -> usize {
        let leader = self.leader();
        let other = (0..self.members.len()).find(|&nth| nth != leader && self.members[nth].is_running());
        other.expect("a cluster has more members than its leader")
    }

    /// Waits until all that run hold the same keys and history, and the same users and roles.
    #[track_caller]
    pub fn agree(&self) {
        let running: Vec<_> = self.members.iter().filter(|member| member.is_running()).collect();
        wait::within(SETTLE, "all members hold the same", || {
            let revision = running[0].api().range(crate::api::get("no such key")).ok()?.header?.revision;
            let hashes: Vec<u32> =
                running.iter().filter_map(|member| hash(&member.api(), revision).ok()).collect();
            let whole: Vec<u32> =
                running.iter().filter_map(|member| whole_hash(&member.api()).ok()).collect();
            let alike = |hashes: &[u32]| {
                hashes.len() == running.len() && hashes.iter().all(|hash| *hash == hashes[0])
            };
            // etcd's is of its file, which no two members have alike.
            (alike(&hashes) && (self.kind == Kind::Etcd || alike(&whole))).then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(&format!(
                "--- a cluster of {} members was under test; their logs follow",
                self.members.len()
            ));
        }
    }
}

/// What a member says of itself.
pub fn status(api: &Api) -> Answer<StatusResponse> {
    api.wait(api.maintenance().status(StatusRequest {})).map(Response::into_inner)
}

/// The hash of a member's keys and history at a revision.
pub fn hash(api: &Api, revision: i64) -> Answer<u32> {
    let answer = api.wait(api.maintenance().hash_kv(HashKvRequest { revision }));
    answer.map(|answer| answer.into_inner().hash)
}

/// The hash of all that a member holds, users and roles among it.
pub fn whole_hash(api: &Api) -> Answer<u32> {
    api.hash(HashRequest {}).map(|answer| answer.hash)
}

/// Member ids and names, as one member lists them.
pub fn members(api: &Api) -> Answer<Vec<(u64, String)>> {
    let answer = api.wait(api.cluster().member_list(MemberListRequest { linearizable: true }))?;
    Ok(answer.into_inner().members.into_iter().map(|member| (member.id, member.name)).collect())
}
