//! TLS between members: who is let in, and that one who is not disturbs nobody.

use etcfs_tests::{
    certs::Certs,
    cluster::{Cluster, SETTLE},
    command::{Output, sh},
    machine,
    server::{Kind, Options},
    wait,
};

/// Options of a member with the peer certificate of `certs`, that asks others for one of the same CA.
fn member(certs: &Certs) -> Options {
    let args = [
        "--peer-cert-file",
        &certs.text("server.pem"),
        "--peer-key-file",
        &certs.text("server.key"),
        "--peer-trusted-ca-file",
        &certs.text("ca.pem"),
        "--peer-client-cert-auth",
    ];
    Options { args: args.map(str::to_owned).to_vec(), secure_peers: true, ..Options::default() }
}

fn curl(certs: &Certs, endpoint: &str, options: &str) -> Output {
    machine::program("curl");
    sh(certs.dir(), &format!("curl -sS -o /dev/null {options} https://{endpoint}/ 2>&1"))
}

#[test]
fn members_with_certificates_are_a_cluster_and_nobody_else_is_heard() {
    let certs = Certs::new();
    let mut cluster = Cluster::of(Kind::Etcfs, vec![member(&certs); 3]);
    cluster.run();
    for nth in 0..3 {
        cluster.api(nth).set(&format!("/of/{nth}"), "v");
    }
    let leader = cluster.leader();
    cluster.members[leader].kill();
    let next = cluster.leader();
    cluster.api(next).set("/of/3", "v");
    cluster.run();
    cluster.agree();
    assert_eq!(cluster.api(leader).all("/of/").len(), 4);
    // A stranger is hung up on in the handshake; one with a certificate is talked to.
    let peer = cluster.members[0].peer_endpoint();
    let own = "--cacert ca.pem --cert server.pem --key server.key";
    assert_eq!(curl(&certs, &peer, own).code, 0);
    assert_ne!(curl(&certs, &peer, "--cacert ca.pem").code, 0);
    let strangers = Certs::new();
    assert_ne!(curl(&strangers, &peer, "-k --cert server.pem --key server.key").code, 0);
    let clear =
        sh(certs.dir(), &format!("curl -sS -o /dev/null --http2-prior-knowledge http://{peer}/ 2>&1"));
    assert_ne!(clear.code, 0);
}

#[test]
fn a_member_with_a_certificate_of_another_ca_is_kept_out_until_it_has_a_right_one() {
    let (certs, theirs) = (Certs::new(), Certs::new());
    let mut options = vec![member(&certs); 2];
    // It believes the others, and they don't believe it.
    let mut odd = member(&theirs);
    odd.args[5] = certs.text("ca.pem");
    options.push(odd);
    let mut cluster = Cluster::of(Kind::Etcfs, options);
    cluster.members.iter_mut().for_each(|member| member.launch());
    for nth in [0, 1] {
        cluster.members[nth].wait_until_ready();
    }
    let leader = cluster.leader_among(&[0, 1]);
    cluster.api(leader).set("a", "1");
    wait::within(SETTLE, "the log says who was refused", || {
        let told = |nth: usize| cluster.members[nth].log().contains("the TLS handshake failed");
        (told(0) || told(1)).then_some(())
    });
    assert!(!cluster.members[2].log().contains("ready to serve client requests"));
    theirs.take(&certs, "server");
    cluster.members[2].wait_until_ready();
    assert_eq!(cluster.api(2).value("a").as_deref(), Some("1"));
    cluster.agree();
}

/// A cluster with `flags`, at whose peer ports a member's certificate is taken, and that of `kept_out` is not.
#[track_caller]
fn keeps_out(certs: &Certs, flags: &[&str], kept_out: &str) {
    let mut options = member(certs);
    options.args.extend(flags.iter().map(|&flag| flag.to_owned()));
    let mut cluster = Cluster::of(Kind::Etcfs, vec![options; 3]);
    cluster.run();
    cluster.api(0).set("a", "1");
    let own = |name: &str| format!("--cacert ca.pem --cert {name}.pem --key {name}.key");
    for server in &cluster.members {
        assert_eq!(curl(certs, &server.peer_endpoint(), &own("server")).code, 0);
        assert_ne!(curl(certs, &server.peer_endpoint(), &own(kept_out)).code, 0, "{flags:?}");
    }
    cluster.agree();
}

#[test]
fn a_members_certificate_must_have_the_name_that_is_allowed() {
    let certs = Certs::new();
    certs.sign("eve");
    keeps_out(&certs, &["--peer-cert-allowed-cn=server"], "eve");
}

#[test]
fn a_members_certificate_must_be_for_the_host_that_is_allowed() {
    let certs = Certs::new();
    certs.sign_for("eve", "elsewhere.example");
    keeps_out(&certs, &["--peer-cert-allowed-hostname=localhost"], "eve");
}

#[test]
fn a_members_certificate_that_is_revoked_is_not_taken_any_more() {
    let certs = Certs::new();
    certs.sign("eve");
    certs.revoke(&["eve"]);
    keeps_out(&certs, &["--peer-crl-file", &certs.text("revoked.pem")], "eve");
}

#[test]
fn certificates_that_are_made_at_the_start_hide_what_members_say() {
    let args = vec!["--peer-auto-tls".to_owned()];
    let options = Options { args, secure_peers: true, ..Options::default() };
    let mut cluster = Cluster::of(Kind::Etcfs, vec![options; 3]);
    cluster.run();
    for nth in 0..3 {
        cluster.api(nth).set(&format!("/of/{nth}"), "v");
    }
    cluster.agree();
    let peer = cluster.members[0].peer_endpoint();
    let certs = Certs::new();
    assert_eq!(curl(&certs, &peer, "-k").code, 0);
    assert_ne!(curl(&certs, &peer, "--cacert ca.pem").code, 0, "nobody vouches for it");
}
