//! From the global flags to a client.

use etcfs_client::{Client, Config};

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
    };
    Ok(Client::connect(config)?)
}
