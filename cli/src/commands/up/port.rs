//! Which port to serve at.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use crate::error::CliError;

/// etcd's port for clients.
const USUAL: u16 = 2379;
/// Ports tried after it.
const TRIED: u16 = 100;

/// The address to serve at, and what a person should know about it.
pub(super) fn choose(asked: Option<u16>) -> Result<(SocketAddr, Option<String>), CliError> {
    if let Some(port) = asked {
        return match free(port) {
            Ok(address) => Ok((address, None)),
            Err(error) => Err(CliError::failed(format!("port {port} can't be served at: {error}"))),
        };
    }
    for port in USUAL..USUAL + TRIED {
        match free(port) {
            Ok(address) if port == USUAL => return Ok((address, None)),
            Ok(address) => {
                return Ok((
                    address,
                    Some(format!("Port {USUAL} is in use; serving at port {port} instead.")),
                ));
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(CliError::failed(format!("no port can be served at: {error}"))),
        }
    }
    Err(CliError::failed(format!("ports {USUAL} to {} are all in use", USUAL + TRIED - 1))
        .hint("name a free one with --port"))
}

/// Takes the port and gives it back: whoever comes in between is told by the server's log.
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
        assert!(choose(Some(port)).is_err());
        drop(held);
        assert_eq!(choose(Some(port)).unwrap().0.port(), port);
    }
}
