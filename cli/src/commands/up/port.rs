//! Which port to serve at.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use crate::error::CliError;

/// etcd's port for clients.
pub(super) const USUAL: u16 = 2379;
/// Ports tried, if none was asked for.
const TRIED: u16 = 100;

/// The address to serve at: the port asked for, or the first free one from `from` on.
pub(super) fn choose(asked: Option<u16>, from: u16) -> Result<SocketAddr, CliError> {
    if let Some(port) = asked {
        return free(port)
            .map_err(|error| CliError::failed(format!("port {port} can't be served at: {error}")));
    }
    let end = USUAL + TRIED;
    for port in from..end {
        match free(port) {
            Ok(address) => return Ok(address),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(CliError::failed(format!("no port can be served at: {error}"))),
        }
    }
    Err(CliError::failed(format!("ports {USUAL} to {} are all in use", end - 1))
        .hint("name a free one with --port"))
}

/// Takes the port and gives it back; whoever comes in between, the server will say so.
fn free(port: u16) -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_chosen() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        assert!(choose(Some(port), USUAL).is_err());
        drop(held);
        assert_eq!(choose(Some(port), USUAL).unwrap().port(), port);
    }
}
