//! Which member of which cluster a data directory is of, at its first start.
//!
//! A new cluster's ids follow from its settings, so that all its members find
//! the same without a word. A member that joins asks those who are there. The
//! directory keeps the answer: from the second start on nothing here is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::Duration,
};

use etcfs_proto::etcfs::peer::{MembersRequest, MembersResponse, roster_client::RosterClient};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time;

use super::{dial::Dialer, id, links::within, types::Peer};
use crate::{
    storage::Identity,
    version::{Incompatible, Version},
};

/// Time that members have to say who is in their cluster.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What the settings say of the first start.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// This member's.
    pub name: String,
    /// All members with their peer URLs, this one among them.
    pub members: Vec<InitialMember>,
    pub token: String,
    /// The cluster is there already, and waits for this member.
    pub existing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    pub name: String,
    pub peer_urls: Vec<String>,
}

/// Why a first start is refused, in etcd's words where it has some.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    #[error(transparent)]
    Version(#[from] Incompatible),
    #[error(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs"
    )]
    NobodyAnswers,
    #[error(
        "error validating peerURLs of cluster {cluster:x}: member count is unequal: it has {found}, --initial-cluster names {named}"
    )]
    CountIsUnequal { cluster: u64, found: usize, named: usize },
    #[error(
        "error validating peerURLs of cluster {cluster:x}: unmatched member while checking PeerURLs: {name}={urls}"
    )]
    Unmatched { cluster: u64, name: String, urls: String },
    #[error(
        "member {member:x} has already been bootstrapped; if its data is lost, remove it with `etcdctl member \
         remove`, add it again and start it with --initial-cluster-state=existing"
    )]
    AlreadyBootstrapped { member: u64 },
}

impl Bootstrap {
    pub(super) fn own(&self) -> &InitialMember {
        let own = self.members.iter().find(|member| member.name == self.name);
        own.expect("the settings were checked: this member is among them")
    }

    /// The members that the settings name beside this one.
    pub(super) fn others(&self) -> impl Iterator<Item = &InitialMember> {
        self.members.iter().filter(|member| member.name != self.name)
    }

    /// The cluster that these settings make.
    pub(super) fn founders(&self) -> (Identity, BTreeMap<u64, Peer>) {
        let id = |member: &InitialMember| id::member(&member.peer_urls, &self.token);
        let peers = self
            .members
            .iter()
            .map(|member| (id(member), Peer { urls: member.peer_urls.clone(), learner: false }));
        let peers: BTreeMap<_, _> = peers.collect();
        let cluster_id = id::cluster(peers.keys().copied());
        (Identity { member_id: id(self.own()), cluster_id }, peers)
    }

    /// Who this member is, at its first start.
    pub(super) async fn identity(&self, dialer: &Dialer, own: Version) -> Result<Identity, BootstrapError> {
        if self.existing {
            let found = self.ask(dialer).await.ok_or(BootstrapError::NobodyAnswers)?;
            own.check(&found.cluster_version)?;
            return self.place_in(&found);
        }
        let (identity, _) = self.founders();
        // A founder that has lost its data has lost its votes and what it acknowledged,
        // too: as a founder it must not come again.
        let found = if self.members.len() > 1 { self.ask(dialer).await } else { None };
        let found = found.filter(|found| found.cluster_id == identity.cluster_id);
        found.iter().try_for_each(|found| own.check(&found.cluster_version))?;
        let own =
            found.iter().flat_map(|found| &found.members).find(|member| member.id == identity.member_id);
        if own.is_some_and(|own| !own.name.is_empty()) {
            return Err(BootstrapError::AlreadyBootstrapped { member: identity.member_id });
        }
        Ok(identity)
    }

    /// The first answer of the other members, all of whom are asked.
    async fn ask(&self, dialer: &Dialer) -> Option<MembersResponse> {
        let asked = self.others().flat_map(|member| &member.peer_urls).map(|url| async move {
            let channel = dialer.channel(url).ok()?;
            let request = within(MembersRequest { asker: 0 }, ASK_TIMEOUT);
            match RosterClient::new(channel).members(request).await {
                Ok(answer) => Some(answer.into_inner()),
                Err(status) => {
                    tracing::debug!(url, error = status.message(), "a peer does not tell its members");
                    None
                }
            }
        });
        let answers = asked.collect::<FuturesUnordered<_>>().filter_map(std::future::ready);
        time::timeout(ASK_TIMEOUT, pin!(answers).next()).await.ok().flatten()
    }

    /// This member's id in a cluster that is just the one in the settings.
    fn place_in(&self, found: &MembersResponse) -> Result<Identity, BootstrapError> {
        let cluster = found.cluster_id;
        if found.members.len() != self.members.len() {
            let (found, named) = (found.members.len(), self.members.len());
            return Err(BootstrapError::CountIsUnequal { cluster, found, named });
        }
        let urls = |urls: &[String]| urls.iter().cloned().collect::<BTreeSet<_>>();
        let mut own = None;
        for member in &self.members {
            let place = found.members.iter().find(|found| urls(&found.peer_urls) == urls(&member.peer_urls));
            let Some(place) = place else {
                let (name, urls) = (member.name.clone(), member.peer_urls.join(","));
                return Err(BootstrapError::Unmatched { cluster, name, urls });
            };
            if member.name == self.name {
                own = Some(place);
            }
        }
        let own = own.expect("the settings were checked: this member is among them");
        if !own.name.is_empty() {
            return Err(BootstrapError::AlreadyBootstrapped { member: own.id });
        }
        Ok(Identity { member_id: own.id, cluster_id: cluster })
    }
}

#[cfg(test)]
mod tests {
    use etcfs_proto::etcfs::record::Member;

    use super::*;

    fn bootstrap(members: &[(&str, &str)]) -> Bootstrap {
        let member =
            |&(name, url): &(&str, &str)| InitialMember { name: name.into(), peer_urls: vec![url.into()] };
        Bootstrap {
            name: "a".into(),
            members: members.iter().map(member).collect(),
            token: "etcd-cluster".into(),
            existing: true,
        }
    }

    fn found(members: &[(u64, &str, &str)]) -> MembersResponse {
        let member = |&(id, name, url): &(u64, &str, &str)| Member {
            id,
            name: name.into(),
            peer_urls: vec![url.into()],
            ..Member::default()
        };
        MembersResponse { cluster_id: 7, members: members.iter().map(member).collect(), ..Default::default() }
    }

    #[test]
    fn founders_find_one_cluster_each_from_its_own_settings() {
        let mut settings = bootstrap(&[("a", "http://a:1"), ("b", "http://b:1")]);
        let (a, peers) = settings.founders();
        settings.name = "b".into();
        settings.members.reverse();
        let (b, same) = settings.founders();
        assert_eq!((a.cluster_id, &peers), (b.cluster_id, &same));
        assert_eq!(peers.keys().copied().collect::<BTreeSet<_>>(), [a.member_id, b.member_id].into());
    }

    #[test]
    fn who_joins_takes_the_place_that_was_made_for_its_urls() {
        let settings = bootstrap(&[("a", "http://a:1"), ("b", "http://b:1")]);
        let place = settings.place_in(&found(&[(1, "b", "http://b:1"), (2, "", "http://a:1")]));
        assert_eq!(place.unwrap(), Identity { member_id: 2, cluster_id: 7 });
    }

    #[test]
    fn who_joins_another_cluster_than_it_was_told_of_is_refused() {
        let settings = bootstrap(&[("a", "http://a:1"), ("b", "http://b:1")]);
        let refused = |members| settings.place_in(&found(members)).unwrap_err().to_string();
        assert!(refused(&[(1, "b", "http://b:1")]).contains("member count is unequal"));
        let other = refused(&[(1, "b", "http://b:1"), (2, "", "http://c:1")]);
        assert!(other.contains("unmatched member while checking PeerURLs: a=http://a:1"), "{other}");
        let taken = refused(&[(1, "b", "http://b:1"), (2, "a", "http://a:1")]);
        assert!(taken.starts_with("member 2 has already been bootstrapped"), "{taken}");
    }
}
