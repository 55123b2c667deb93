use std::net::IpAddr;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::CertificateDer;

use super::names::{check_allowed, check_host, common_name};
use crate::config::Allowed;

fn certificate(common_name: &str, hosts: &[&str]) -> CertificateDer<'static> {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

#[test]
fn the_common_name_is_that_of_the_subject() {
    assert_eq!(common_name(&certificate("joe", &["10.0.0.1"])).as_deref(), Some("joe"));
    assert_eq!(common_name(&certificate("", &[])), None);
}

#[test]
fn only_who_is_asked_for_is_allowed() {
    let joe = certificate("joe", &["a.example", "10.0.0.1"]);
    let name = |name: &str| check_allowed(&joe, &Allowed::CommonName(name.into())).is_ok();
    assert!(name("joe") && !name("joey") && !name(""));
    let host = |name: &str| check_allowed(&joe, &Allowed::HostName(name.into())).is_ok();
    assert!(host("a.example") && host("10.0.0.1") && !host("b.example") && !host("joe"));
}

#[tokio::test]
async fn a_certificate_counts_on_the_hosts_that_it_is_for() {
    let from = |address: &str| address.parse::<IpAddr>().unwrap();
    let bound = certificate("x", &["10.0.0.1"]);
    assert!(check_host(&bound, from("10.0.0.1")).await.is_ok());
    assert!(check_host(&bound, from("::ffff:10.0.0.1")).await.is_ok());
    assert!(check_host(&bound, from("10.0.0.2")).await.is_err());
    let named = certificate("x", &["localhost"]);
    assert!(check_host(&named, from("127.0.0.1")).await.is_ok());
    assert!(check_host(&named, from("10.0.0.2")).await.is_err());
    assert!(check_host(&certificate("x", &[]), from("10.0.0.2")).await.is_ok(), "it is for no host");
}
