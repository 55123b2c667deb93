//! From the global flags to a client.

use etcfs_client::{Client, Config};
use etcfs_proto::etcdserverpb::MemberListRequest;

use crate::{args::Global, error::CliError};

/// A client for all endpoints.
pub(crate) fn client(global: &Global) -> Result<Client, CliError> {
    client_of(global, global.endpoints.clone())
}

/// A client for some endpoints, with the same waits.
pub(crate) fn client_of(global: &Global, endpoints: Vec<String>) -> Result<Client, CliError> {
    let config = Config {
        endpoints,
        connect_timeout: global.dial_timeout,
        request_timeout: global.command_timeout,
        keepalive_interval: global.keepalive_time,
        keepalive_timeout: global.keepalive_timeout,
        ..Config::default()
    };
    Ok(Client::connect(config)?)
}

/// Where each member of the cluster says that clients reach it.
pub(crate) async fn endpoints_of_cluster(global: &Global) -> Result<Vec<String>, CliError> {
    let request = MemberListRequest { linearizable: true };
    let answer = client(global)?.cluster().member_list(request).await?;
    Ok(answer.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}
