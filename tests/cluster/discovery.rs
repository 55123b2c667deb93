//! Members and servers found by SRV records.

use std::process::Command;

use etcfs_tests::{
    api::put,
    binary,
    cluster::Cluster,
    command,
    dns::{Dns, Services},
    server::{Kind, Server},
};

const DOMAIN: &str = "example.test";

fn port(endpoint: &str) -> u16 {
    endpoint.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("HOST:PORT")
}

/// Records for all members of a cluster: for other members, and for clients.
fn records(cluster: &Cluster, name: &str) -> Services {
    let at = |endpoint: fn(&Server) -> String| {
        cluster.members.iter().map(|member| ("localhost.", port(&endpoint(member)))).collect::<Vec<_>>()
    };
    Services::from([
        (format!("_etcd-server{name}._tcp.{DOMAIN}"), at(Server::peer_endpoint)),
        (format!("_etcd-client{name}._tcp.{DOMAIN}"), at(Server::endpoint)),
    ])
}

fn discovers(member: &mut Server, nth: usize, dns: &Dns, args: &[&str]) {
    member.set_discovers(&format!("m{nth}"));
    member.add_arg(&format!("--discovery-srv={DOMAIN}"));
    member.add_arg(&format!("--discovery-srv-server={}", dns.address()));
    args.iter().for_each(|arg| member.add_arg(arg));
}

fn etcfs(dns: &Dns, args: &[&str]) -> command::Output {
    let server = dns.address();
    let global = ["--discovery-srv", DOMAIN, "--discovery-srv-server", &server];
    command::run(Command::new(binary::etcfs()).args(global).args(args), b"")
}

#[test]
fn founders_and_clients_find_the_members_in_dns() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 3, &[]);
    let dns = Dns::serving(records(&cluster, ""));
    for (nth, member) in cluster.members.iter_mut().enumerate() {
        discovers(member, nth, &dns, &[]);
    }
    cluster.run();
    assert_eq!(etcfs(&dns, &["put", "a", "found"]).ok(), "OK\n");
    cluster.agree();
    let listed = etcfs(&dns, &["member", "list"]).ok();
    for (nth, member) in cluster.members.iter().enumerate() {
        let line = format!("m{nth}, http://localhost:{}", port(&member.peer_endpoint()));
        assert!(listed.contains(&line), "{line}\n{listed}");
    }
    // A member that is one already needs no DNS: ours is gone by now.
    drop(dns);
    let leader = cluster.leader();
    cluster.members[leader].stop();
    cluster.members[leader].launch();
    cluster.members[leader].wait_until_ready();
    assert_eq!(cluster.api(leader).value("a").as_deref(), Some("found"));
}

#[test]
fn clusters_of_one_domain_are_told_apart_by_the_services_name() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 1, &[]);
    let dns = Dns::serving(records(&cluster, "-blue"));
    discovers(&mut cluster.members[0], 0, &dns, &["--discovery-srv-name=blue"]);
    cluster.run();
    cluster.api(0).put(put("a", "blue")).expect("it is alone");
    assert_eq!(etcfs(&dns, &["--discovery-srv-name", "blue", "get", "a"]).ok(), "a\nblue\n");
    let asked = dns.asked();
    let nothing = etcfs(&dns, &["get", "a"]).failed();
    assert!(nothing.contains("cannot find servers by the SRV records of example.test"), "{nothing}");
    assert!(dns.asked() > asked, "it was asked");
    let insecure = ["--discovery-srv-name", "blue", "--insecure-discovery=false", "get", "a"];
    assert!(etcfs(&dns, &insecure).failed().contains("cannot find servers"), "all of them lack TLS");
}

#[test]
fn a_member_that_the_records_do_not_name_is_refused() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 2, &[]);
    let mut services = records(&cluster, "");
    services.values_mut().for_each(|hosts| hosts.truncate(1));
    let dns = Dns::serving(services);
    let member = &mut cluster.members[1];
    discovers(member, 1, &dns, &[]);
    member.launch();
    let log = member.scratch().join("log");
    assert!(!member.wait_for_end(etcfs_tests::wait::PATIENCE).success());
    let log = std::fs::read_to_string(log).expect("its log");
    assert!(log.contains("cannot find local etcd member \\\"m1\\\" in SRV records"), "{log}");
}
