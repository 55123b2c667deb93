//! Whom a certificate, that the handshake has verified, is for.

use std::{io, net::IpAddr};

use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName},
    server::ParsedCertificate,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use crate::config::Allowed;

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> io::Result<X509Certificate<'a>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(io::Error::other)?;
    Ok(parsed)
}

/// The first common name of the subject, if there is one.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = parsed(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Refuses who has another name than the settings ask for.
pub(super) fn check_allowed(certificate: &CertificateDer<'_>, allowed: &Allowed) -> io::Result<()> {
    let is_allowed = match allowed {
        Allowed::CommonName(name) => common_name(certificate).as_deref() == Some(name),
        Allowed::HostName(name) => {
            let name = ServerName::try_from(name.as_str()).map_err(io::Error::other)?;
            let parsed = ParsedCertificate::try_from(certificate).map_err(io::Error::other)?;
            verify_server_name(&parsed, &name).is_ok()
        }
    };
    let refused = || io::Error::other(format!("the certificate is not for {allowed}"));
    if is_allowed { Ok(()) } else { Err(refused()) }
}

/// Refuses who comes from elsewhere than the hosts that its certificate is for, if it is for any.
pub(super) async fn check_host(certificate: &CertificateDer<'_>, from: IpAddr) -> io::Result<()> {
    let hosts = hosts(certificate)?;
    if hosts.is_empty() {
        return Ok(());
    }
    let from = from.to_canonical();
    for host in &hosts {
        let is_there = match host {
            Host::Address(address) => *address == from,
            // A name that nobody knows now is no reason to let anybody in.
            Host::Name(name) => tokio::net::lookup_host((name.as_str(), 0))
                .await
                .is_ok_and(|mut addresses| addresses.any(|address| address.ip().to_canonical() == from)),
        };
        if is_there {
            return Ok(());
        }
    }
    Err(io::Error::other(format!("a certificate for {hosts:?} was shown from {from}")))
}

#[derive(Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

fn hosts(certificate: &CertificateDer<'_>) -> io::Result<Vec<Host>> {
    let parsed = parsed(certificate)?;
    let names = parsed.subject_alternative_name().map_err(io::Error::other)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    Ok(names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(Host::Name((*name).to_owned())),
            GeneralName::IPAddress(bytes) => {
                let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(Host::Address)
            }
            _ => None,
        })
        .collect())
}
