//! Which ports to serve at.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use crate::error::CliError;

/// etcd's port for clients.
pub(super) const USUAL: u16 = 2379;
/// Ports tried, if none was asked for.
const TRIED: u16 = 100;

/// As many addresses as there are servers: the port asked for, or the first free
/// one from `from` on, and the next free ones after it.
pub(super) fn choose_all(asked: Option<u16>, from: u16, count: usize) -> Result<Vec<SocketAddr>, CliError> {
    let mut chosen = vec![choose(asked, from)?];
    while let (Some(last), true) = (chosen.last(), chosen.len() < count) {
        chosen.push(first_free(last.port().saturating_add(1))?);
    }
    Ok(chosen)
}

fn choose(asked: Option<u16>, from: u16) -> Result<SocketAddr, CliError> {
    if let Some(port) = asked {
        return free(port)
            .map_err(|error| CliError::failed(format!("port {port} can't be served at: {error}")));
    }
    first_free(from)
}

fn first_free(from: u16) -> Result<SocketAddr, CliError> {
    let end = from.saturating_add(TRIED);
    for port in from..end {
        match free(port) {
            Ok(address) => return Ok(address),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(CliError::failed(format!("no port can be served at: {error}"))),
        }
    }
    Err(CliError::failed(format!("ports {from} to {} are all in use", end.saturating_sub(1)))
        .hint("name a free one with --port"))
}

/// Takes the port and gives it back; whoever comes in between, the server will say so.
pub(super) fn free(port: u16) -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_chosen() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        assert!(choose_all(Some(port), USUAL, 1).is_err());
        drop(held);
        assert_eq!(choose_all(Some(port), USUAL, 1).unwrap()[0].port(), port);
    }

    #[test]
    fn several_servers_have_a_port_each() {
        let ports: Vec<_> =
            choose_all(None, USUAL, 3).unwrap().into_iter().map(|address| address.port()).collect();
        assert!(ports.is_sorted_by(|one, next| one < next), "{ports:?}");
    }
}
