//! The members of a new cluster, found by SRV records instead of a list.
//!
//! As etcd does it: each record of `_etcd-server-ssl._tcp` and `_etcd-server._tcp`
//! below the domain is a member, with the record's own host and port in its URL,
//! so that all members find the same ones. Which of them this member is, its own
//! peer URLs say, by the addresses that they stand for.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, rdata::SRV},
};
use tokio::{net::lookup_host, time};

use crate::config::Discovery;

/// Time for all that is asked: a start must not hang on a server of names.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Services with the scheme of their URLs.
const SERVICES: [(&str, &str); 2] = [("etcd-server-ssl", "https"), ("etcd-server", "http")];

/// Why no members were found, in etcd's words where it has some.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    #[error("error querying DNS SRV records for _{service}: {reason}")]
    Lookup { service: String, reason: NetError },
    #[error("there are no DNS SRV records for _{services} in {domain}")]
    Nothing { services: String, domain: String },
    #[error(
        "cannot find local etcd member \"{name}\" in SRV records: none of {found} is at an address of \
         --initial-advertise-peer-urls={own}"
    )]
    NotAmong { name: String, found: String, own: String },
    #[error("can't find out who is in the cluster within {TIMEOUT:?}: the DNS server does not answer")]
    Timeout,
}

/// The members as `--initial-cluster` names them. This one, which others reach at
/// `advertised`, has its `name`; the others have numbers.
pub async fn initial_cluster(
    discovery: &Discovery,
    name: &str,
    advertised: &[String],
) -> Result<String, DiscoveryError> {
    let found = time::timeout(TIMEOUT, find(discovery)).await.map_err(|_| DiscoveryError::Timeout)??;
    let mut own = BTreeSet::new();
    for url in advertised {
        own.extend(addresses(authority(url)).await);
    }
    let mut members = Vec::new();
    let mut numbers = (0..).map(|number: u32| number.to_string()).filter(|number| number != name);
    let mut is_among = false;
    for url in &found {
        let is_own = addresses(authority(url)).await.iter().any(|address| own.contains(address));
        is_among |= is_own;
        let called = if is_own { Some(name.to_owned()) } else { numbers.next() };
        members.push(format!("{}={url}", called.unwrap_or_default()));
    }
    if !is_among {
        let (found, own) = (found.join(","), advertised.join(","));
        return Err(DiscoveryError::NotAmong { name: name.to_owned(), found, own });
    }
    let members = members.join(",");
    tracing::info!(members, domain = discovery.domain, "got the initial cluster from DNS");
    Ok(members)
}

/// The URLs that the records name, in one order for all who ask.
async fn find(discovery: &Discovery) -> Result<Vec<String>, DiscoveryError> {
    let suffix = discovery.service_name.as_ref().map(|name| format!("-{name}")).unwrap_or_default();
    let services = SERVICES.map(|(service, scheme)| (format!("{service}{suffix}"), scheme));
    let mut urls = BTreeSet::new();
    let mut failed = None;
    for (service, scheme) in &services {
        match look_up(service, discovery).await {
            Ok(records) => urls.extend(records.iter().map(|record| {
                let host = record.target.to_string();
                format!("{scheme}://{}:{}", host.trim_end_matches('.'), record.port)
            })),
            Err(reason) if reason.is_no_records_found() => {}
            Err(reason) => failed = Some(DiscoveryError::Lookup { service: service.clone(), reason }),
        }
    }
    match failed {
        // One of the two is usual.
        _ if !urls.is_empty() => Ok(urls.into_iter().collect()),
        Some(error) => Err(error),
        None => {
            let services = services.map(|(service, _)| service).join(", _");
            Err(DiscoveryError::Nothing { services, domain: discovery.domain.clone() })
        }
    }
}

async fn look_up(service: &str, discovery: &Discovery) -> Result<Vec<SRV>, NetError> {
    // The dot at the end: the system's search list is for people.
    let name = format!("_{service}._tcp.{}.", discovery.domain.trim_end_matches('.'));
    let found = resolver(discovery.server)?.srv_lookup(name).await?;
    let records = found.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(record) => Some(record.clone()),
        _ => None,
    });
    Ok(records.collect())
}

/// Asks `server`, or those that the system asks.
fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let Some(server) = server else { return TokioResolver::builder_tokio()?.build() };
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port);
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    let config = ResolverConfig::from_name_servers(vec![server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()
}

fn authority(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, authority)| authority)
}

/// What a host and port stand for; nothing, if the name is not known (yet).
async fn addresses(authority: &str) -> Vec<SocketAddr> {
    match lookup_host(authority).await {
        Ok(found) => found.collect(),
        Err(error) => {
            tracing::warn!(authority, %error, "the host of a peer URL has no address");
            Vec::new()
        }
    }
}
