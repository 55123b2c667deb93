//! Servers found by a domain's SRV records, as etcd's clients find them.

use std::net::SocketAddr;

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, rdata::SRV},
};

/// Services with the scheme of their endpoints.
const SERVICES: [(&str, &str); 2] = [("etcd-client-ssl", "https"), ("etcd-client", "http")];

/// Why no server was found.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot find servers by the SRV records of {domain}: {reason}")]
pub struct DiscoveryError {
    domain: String,
    reason: String,
}

/// Where the records are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    pub domain: String,
    /// Tells clusters of one domain apart; empty for none.
    pub service_name: String,
    /// The DNS server to ask; those of the system for `None`.
    pub server: Option<SocketAddr>,
    /// Takes only endpoints with TLS: records can be forged.
    pub only_secure: bool,
}

impl Discovery {
    /// The endpoints that the records name, in the order in which they want to be tried.
    pub async fn endpoints(&self) -> Result<Vec<String>, DiscoveryError> {
        let suffix =
            if self.service_name.is_empty() { String::new() } else { format!("-{}", self.service_name) };
        let mut endpoints = Vec::new();
        let mut reason = "it has no such records".to_owned();
        for (service, scheme) in SERVICES {
            if self.only_secure && scheme != "https" {
                continue;
            }
            match self.look_up(&format!("{service}{suffix}")).await {
                Ok(mut records) => {
                    records.sort_by_key(|record| (record.priority, u16::MAX - record.weight));
                    endpoints.extend(records.iter().map(|record| {
                        let host = record.target.to_string();
                        format!("{scheme}://{}:{}", host.trim_end_matches('.'), record.port)
                    }));
                }
                Err(error) if error.is_no_records_found() => {}
                Err(error) => reason = error.to_string(),
            }
        }
        if endpoints.is_empty() {
            return Err(DiscoveryError { domain: self.domain.clone(), reason });
        }
        Ok(endpoints)
    }

    async fn look_up(&self, service: &str) -> Result<Vec<SRV>, NetError> {
        // The dot at the end: the system's search list is for people.
        let name = format!("_{service}._tcp.{}.", self.domain.trim_end_matches('.'));
        let found = self.resolver()?.srv_lookup(name).await?;
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(record) => Some(record.clone()),
            _ => None,
        });
        Ok(records.collect())
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let Some(server) = self.server else { return TokioResolver::builder_tokio()?.build() };
        let at_port = |mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port);
        let server = NameServerConfig::new(server.ip(), true, connections.into());
        let config = ResolverConfig::from_name_servers(vec![server]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()
    }
}
