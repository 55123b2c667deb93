//! Mounts over TLS and as a user: certificates and passwords come from files, and what a role does not hold is refused.

use std::{fs, process::Command};

use etcfs_tests::{
    binary,
    certs::Certs,
    command::{self, sh},
    machine,
    mount::{Mount, mounted},
    server::{Kind, Options, Server},
};

/// A server that speaks TLS alone, and knows root and joe, whose role is what a mount of `/project/` needs.
struct Guarded {
    certs: Certs,
    server: Server,
}

impl Guarded {
    fn new(kind: Kind) -> Self {
        let certs = Certs::new();
        let args = ["--cert-file", &certs.text("server.pem"), "--key-file", &certs.text("server.key")];
        let args = args.into_iter().chain(["--bcrypt-cost", "4"]).map(str::to_owned).collect();
        let server = Server::with(kind, Options { args, secure: true, ..Default::default() });
        let guarded = Self { certs, server };
        guarded.etcdctl("role add root --command-timeout=30s", "|| true");
        for step in [
            "user add root:root's",
            "user grant-role root root",
            "role add app",
            "user add joe:joe:s",
            "user grant-role joe app",
            "role add viewer",
            "user add eve:eve:s",
            "user grant-role eve viewer",
            "role add narrow",
            "role grant-permission --prefix=true narrow readwrite /project/",
            "role grant-permission --prefix=true narrow readwrite .etcfs/op/kim/",
            "user add kim:kim:s",
            "user grant-role kim narrow",
        ] {
            guarded.etcdctl(step, "");
        }
        guarded.etcfs(&["role", "grant-mount", "app", "/project"]);
        guarded.etcfs(&["role", "grant-mount", "--read-only", "viewer", "/project/part"]);
        guarded.etcdctl("auth enable", "");
        fs::write(guarded.certs.path("joe"), "username=joe\npassword=joe:s\n").expect("a file of our own");
        guarded
    }

    fn etcdctl(&self, words: &str, more: &str) -> String {
        machine::program("etcdctl");
        let words = words.replace('\'', "\\'");
        let endpoint = self.server.endpoint();
        let script =
            format!("ETCDCTL_API=3 etcdctl --endpoints https://{endpoint} --cacert ca.pem {words} {more}");
        sh(self.certs.dir(), &script).ok()
    }

    fn etcfs(&self, words: &[&str]) {
        let mut command = Command::new(binary::etcfs());
        command.args(["--endpoints", &format!("https://{}", self.server.endpoint())]);
        command.args(["--cacert", &self.certs.text("ca.pem")]).args(words);
        command::run(&mut command, b"").ok();
    }

    fn source(&self) -> String {
        format!("https://{}:/project", self.server.endpoint())
    }

    fn options(&self) -> String {
        format!("cacert={}", self.certs.text("ca.pem"))
    }

    /// A mount that fails, and why.
    fn refused(&self, source: &str, options: &str) -> String {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(binary::mount_etcfs());
        command.args(["-o", &format!("retry=0,{options}")]).arg(source).arg(dir.path());
        let complaint = command::run(&mut command, b"").failed();
        assert!(!mounted(dir.path()));
        complaint
    }
}

/// A mount logs in as the user of a file or of the environment
fn a_user_of_a_file_mounts_over_tls_what_its_role_holds(kind: Kind) {
    let guarded = Guarded::new(kind);
    let options = format!("{},credentials={}", guarded.options(), guarded.certs.text("joe"));
    let mount = Mount::with(&guarded.source(), &options);
    mount.sh("mkdir d; echo v > d/f; echo w >> d/f; flock -n d/f true; mv d/f d/g; mkdir e; rmdir e; rm d/g; echo x > g");
    assert_eq!(guarded.etcdctl("get --prefix /project --user root:root's", ""), "/project/g\nx\n\n");
    guarded.etcdctl("put /project/h remote --user root:root's", "");
    assert_eq!(mount.sh("until cat h 2>/dev/null; do sleep 0.1; done"), "remote");
    mount.unmount();

    // Without a right to the mount's own records it says so, and does without.
    fs::write(guarded.certs.path("kim"), "username=kim\npassword=kim:s\n").expect("a file of our own");
    let narrow = format!("{},credentials={}", guarded.options(), guarded.certs.text("kim"));
    let records = || guarded.etcdctl("get --prefix .etcfs/dir/ --keys-only --user root:root's", "");
    let before = records();
    let mount = Mount::with(&guarded.source(), &narrow);
    let status = mount.sh("grep '^rights lacking' %status");
    assert_eq!(
        status,
        "rights lacking: `.etcfs/dir//project/`: empty directories are kept in memory; \
         `.etcfs/lock//project/`: there are no locks\n"
    );
    mount.sh("mkdir -p e/inner; mkdir f; echo 1 > f/x; rm f/x; mv e/inner e/other; ! rmdir e");
    assert_eq!(mount.sh("find e f | sort"), "e\ne/other\nf\n");
    assert_eq!(mount.sh("rmdir e/other e f; ls -d e f 2>/dev/null || echo gone"), "gone\n");
    let refused = sh(&mount.path(), "echo 1 > lk; flock -n lk true");
    assert!(refused.failed().contains("No locks available"));
    mount.sh("rm lk");
    assert_eq!(records(), before, "none is kept on the server");
    mount.unmount();

    // Who may only read, mounts only to read.
    fs::write(guarded.certs.path("eve"), "username=eve\npassword=eve:s\n").expect("a file of our own");
    let part = format!("{}/part", guarded.source());
    let viewing = format!("{},ro,credentials={}", guarded.options(), guarded.certs.text("eve"));
    guarded.etcdctl("put /project/part/p 1 --user root:root's", "");
    let mount = Mount::with(&part, &viewing);
    assert_eq!(mount.sh("cat p; ls"), "1p\n");
    mount.unmount();
    let complaint = guarded.refused(&guarded.source(), &viewing);
    assert!(complaint.contains("may not read all that begins with `/project/`"), "{complaint}");
    assert!(complaint.contains("may mount: /project/part\n"), "{complaint}");

    // A right that is missing, a wrong password, a server that nobody vouches for.
    let everything = format!("https://{}:/", guarded.server.endpoint());
    let complaint = guarded.refused(&everything, &options);
    assert!(complaint.contains("begins with `/`, `.etcfs/dir//`"), "{complaint}");
    assert!(complaint.contains("may mount: /project\n"), "{complaint}");
    fs::write(guarded.certs.path("joe"), "username=joe\npassword=wrong\n").expect("a file of our own");
    let complaint = guarded.refused(&guarded.source(), &options);
    assert!(complaint.contains(&guarded.server.endpoint()) && !complaint.contains("wrong"), "{complaint}");
    let complaint = guarded.refused(&guarded.source(), "rel=off");
    assert!(complaint.contains("certificate") || complaint.contains("trust"), "{complaint}");
}

#[test]
fn a_user_of_a_file_mounts_over_tls_what_its_role_holds_on_etcfsd() {
    a_user_of_a_file_mounts_over_tls_what_its_role_holds(Kind::Etcfs);
}

#[test]
fn a_user_of_a_file_mounts_over_tls_what_its_role_holds_on_etcd() {
    a_user_of_a_file_mounts_over_tls_what_its_role_holds(Kind::Etcd);
}

#[test]
fn a_user_of_the_environment_mounts_and_is_in_no_command_line() {
    let guarded = Guarded::new(Kind::Etcfs);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(binary::mount_etcfs());
    command.args(["-o", &guarded.options()]).arg(guarded.source()).arg(dir.path());
    command::run(command.env("ETCFS_USER", "joe:joe:s"), b"").ok();
    sh(dir.path(), "echo v > f").ok();
    command::run(Command::new("umount").arg(dir.path()), b"").ok();
    assert_eq!(guarded.etcdctl("get /project/f --user root:root's", ""), "/project/f\nv\n\n");
    let complaint = guarded.refused(&guarded.source(), "user=joe:secret");
    assert!(complaint.contains("credentials=FILE") && !complaint.contains("secret"), "{complaint}");
}

fn certificates_are_read_again_for_each_new_connection(kind: Kind) {
    let certs = Certs::new();
    certs.sign("mount");
    let args = ["--cert-file", &certs.text("server.pem"), "--key-file", &certs.text("server.key")];
    let who = ["--client-cert-auth", "--trusted-ca-file", &certs.text("ca.pem")];
    let args = args.into_iter().chain(who).map(str::to_owned).collect();
    let mut server = Server::with(kind, Options { args, secure: true, ..Default::default() });
    let [ca, cert, key] = ["ca.pem", "mount.pem", "mount.key"].map(|name| certs.text(name));
    let mut mount = Mount::with(
        &format!("https://{}:/", server.endpoint()),
        &format!("cacert={ca},cert={cert},key={key}"),
    );
    mount.sh("echo 1 > f");
    let other = Certs::new();
    other.sign("mount");
    server.stop();
    // Of another CA, on both sides: the old ones would not do.
    ["ca", "server", "mount"].iter().for_each(|name| certs.take(&other, name));
    server.run();
    assert_eq!(mount.sh("echo 2 >> f; cat f"), "1\n2\n");
    assert!(mount.process().has_ended().is_none());
}

/// Certificates and passwords are read again for each new connection
#[test]
fn a_mount_reads_certificates_again_for_each_new_connection_on_etcfsd() {
    certificates_are_read_again_for_each_new_connection(Kind::Etcfs);
}

#[test]
fn a_mount_reads_certificates_again_for_each_new_connection_on_etcd() {
    certificates_are_read_again_for_each_new_connection(Kind::Etcd);
}

fn a_password_is_read_again_for_each_login(kind: Kind) {
    let mut guarded = Guarded::new(kind);
    let options = format!("{},credentials={}", guarded.options(), guarded.certs.text("joe"));
    let mount = Mount::with(&guarded.source(), &options);
    mount.sh("echo 1 > f");
    fs::write(guarded.certs.path("joe"), "username=joe\npassword=another\n").expect("a file of our own");
    fs::write(guarded.certs.path("word"), "another\n").expect("a file of our own");
    guarded.etcdctl("user passwd joe --interactive=false --user root:root's", "<word");
    mount.sh("echo 2 >> f");
    guarded.server.stop();
    guarded.server.run();
    assert_eq!(mount.sh("echo 3 >> f; cat f"), "1\n2\n3\n");
}

/// Certificates and passwords are read again for each new connection
#[test]
fn a_mount_reads_its_password_again_for_each_login_on_etcfsd() {
    a_password_is_read_again_for_each_login(Kind::Etcfs);
}

#[test]
fn a_mount_reads_its_password_again_for_each_login_on_etcd() {
    a_password_is_read_again_for_each_login(Kind::Etcd);
}

fn a_right_that_is_taken_away_is_eacces(kind: Kind) {
    let guarded = Guarded::new(kind);
    let as_root = |words: &str| guarded.etcdctl(&format!("{words} --user root:root's"), "");
    let options = format!("{},credentials={}", guarded.options(), guarded.certs.text("joe"));
    let mount = Mount::with(&guarded.source(), &options);
    mount.sh("mkdir d; echo 1 > d/f");
    as_root("user revoke-role joe app");
    let until_denied = |name: &str| {
        mount.sh(&format!("until cat {name} 2>&1 | grep 'Permission denied'; do sleep 0.1; done"))
    };
    // etcd refuses what it is asked for, and goes on with a watch.
    until_denied("unknown");
    until_denied("d/f");
    for script in ["ls", "ls d", "echo 2 | tee d/f", "mkdir e"] {
        let complaint = sh(&mount.path(), script).failed();
        assert!(complaint.contains("Permission denied"), "{script}: {complaint}");
    }
    assert_eq!(mount.sh("grep '^names' %status"), "names: are refused by the server\n");

    as_root("user grant-role joe app");
    assert_eq!(mount.sh("until cat d/f 2>/dev/null; do sleep 0.1; done"), "1\n");
    as_root("put /project/d/f 2");
    mount.sh("until grep -q 2 d/f; do sleep 0.1; done; echo 3 > d/f");
}

/// A right that is taken away is EACCES
#[test]
fn a_right_that_is_taken_away_is_eacces_on_etcfsd() {
    a_right_that_is_taken_away_is_eacces(Kind::Etcfs);
}

#[test]
fn a_right_that_is_taken_away_is_eacces_on_etcd() {
    a_right_that_is_taken_away_is_eacces(Kind::Etcd);
}

/// Its watch was of a range that its user had no right to.
fn a_mount_of_all_keys_with_a_slash_follows_them(kind: Kind) {
    let guarded = Guarded::new(kind);
    let as_root = |words: &str| guarded.etcdctl(&format!("{words} --user root:root's"), "");
    as_root("role grant-permission --prefix=true narrow readwrite /");
    let kim = guarded.certs.path("kim");
    fs::write(&kim, "username=kim\npassword=kim:s\n").expect("a file of our own");
    let options = format!("{},credentials={},rel=off", guarded.options(), kim.display());
    let mount = Mount::with(&format!("https://{}:/", guarded.server.endpoint()), &options);
    as_root("put /f 1");
    assert_eq!(mount.sh("until cat f 2>/dev/null; do sleep 0.1; done"), "1");
    as_root("put /f 2");
    mount.sh("until grep -q 2 f; do sleep 0.1; done");
}

/// A mount logs in as the user of a file or of the environment
#[test]
fn a_mount_of_all_keys_with_a_slash_follows_them_on_etcfsd() {
    a_mount_of_all_keys_with_a_slash_follows_them(Kind::Etcfs);
}

#[test]
fn a_mount_of_all_keys_with_a_slash_follows_them_on_etcd() {
    a_mount_of_all_keys_with_a_slash_follows_them(Kind::Etcd);
}
