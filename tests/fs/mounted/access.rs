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
    mount.comes_to_print("cat h", "remote");
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
    assert!(complaint.contains("may mount: /project/part; visible=mine"), "{complaint}");

    // A right that is missing, a wrong password, a server that nobody vouches for.
    let everything = format!("https://{}:/", guarded.server.endpoint());
    let complaint = guarded.refused(&everything, &options);
    assert!(complaint.contains("begins with `/`, `.etcfs/dir//`"), "{complaint}");
    assert!(complaint.contains("may mount: /project; visible=mine"), "{complaint}");
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

impl Guarded {
    /// A user of some roles, and the options of a mount as him.
    fn user(&self, name: &str, roles: &[&str]) -> String {
        self.as_root(&format!("user add {name}:{name}:s"));
        roles.iter().for_each(|role| drop(self.as_root(&format!("user grant-role {name} {role}"))));
        let file = self.certs.path(name);
        fs::write(&file, format!("username={name}\npassword={name}:s\n")).expect("a file of our own");
        format!("{},credentials={}", self.options(), file.display())
    }

    fn as_root(&self, words: &str) -> String {
        self.etcdctl(&format!("{words} --user root:root's"), "")
    }

    /// Roles of which each knows some of the keys.
    fn share_out(&self) {
        for step in [
            "role add team",
            "role add conf",
            "role add one",
            "role grant-permission one readwrite /keys/one",
            "role add exp",
            "role grant-permission --prefix=true exp readwrite /exp",
            "role grant-permission --prefix=true exp readwrite .etcfs/op/bob/",
            "put /conf/a 1",
            "put /conf/d/b 2",
            "put /keys/one 3",
            "put /keys/two x",
            "put /shared/other x",
            "put /secret x",
            "put bare x",
            "put /exp 1",
            "put /expert/1 x",
        ] {
            self.as_root(step);
        }
        self.etcfs(&["--user", "root:root's", "role", "grant-mount", "team", "/shared/team"]);
        self.etcfs(&["--user", "root:root's", "role", "grant-mount", "--read-only", "conf", "/conf"]);
    }

    fn everything(&self) -> String {
        format!("https://{}:/", self.server.endpoint())
    }
}

const TREE: &str = "conf\nconf/a\nconf/d\nconf/d/b\nkeys\nkeys/one\nshared\nshared/team\n";

fn a_user_of_some_keys_sees_those(kind: Kind) {
    let guarded = Guarded::new(kind);
    guarded.share_out();
    let ann = guarded.user("ann", &["team", "conf", "one"]);
    let complaint = guarded.refused(&guarded.everything(), &ann);
    assert!(complaint.contains("may mount: /conf, /shared/team; visible=mine"), "{complaint}");
    let complaint = guarded.refused(&guarded.source(), &format!("{ann},visible=mine"));
    assert!(complaint.contains("may not read"), "{complaint}");

    let mount = Mount::with(&guarded.everything(), &format!("{ann},visible=mine"));
    assert_eq!(mount.sh("find . -mindepth 1 -printf '%P\\n' | sort"), TREE);
    assert_eq!(mount.sh("grep '^visible' %status"), "visible: `/conf/`, key `/keys/one`, `/shared/team/`\n");
    assert_eq!(mount.sh("cat conf/a conf/d/b keys/one"), "123");
    assert_eq!(mount.sh("df --output=iused . | tail -n 1").trim(), "3");
    assert_eq!(mount.sh("ls secret keys/two shared/other %rel 2>&1 | grep -c 'No such file'"), "4\n");
    let at = mount.sh("sed -n 's/^revision: //p' %status");
    let at = at.trim();
    assert_eq!(mount.sh(&format!("cd %rev/{at}; find . -mindepth 1 -printf '%P\\n' | sort")), TREE);

    mount.sh(
        "cd shared/team; echo v > f; echo w >> f; mkdir d e; mv f d/g; flock -n d/g true; mv d h; rmdir e",
    );
    assert_eq!(mount.sh("cat shared/team/h/g; ls shared/team"), "v\nw\nh\n");
    mount.sh("echo 4 > keys/one; rm keys/one; rm -r shared/team/h");
    assert_eq!(mount.sh("ls keys shared/team"), "keys:\n\nshared/team:\n");
    guarded.as_root("put /shared/team/r remote");
    mount.comes_to_print("cat shared/team/r", "remote");
    guarded.as_root("put /secret y");
    guarded.as_root("put .etcfs/lock//secret/1 y");
    mount.comes_to_print("grep -q '\"/shared/team/r\"' %log && echo heard", "heard\n");
    assert_eq!(mount.sh("cat %log %locks | grep secret || true"), "");
    mount.sh("grep -q '\"/conf/d/b\"' %rev/2/%log; ! grep secret %rev/2/%log");

    for (script, errno) in [
        ("echo x > conf/a", "Permission denied"),
        ("echo x > conf/new", "Permission denied"),
        ("rm -f conf/a", "Permission denied"),
        ("mkdir conf/e", "Permission denied"),
        ("echo x > new", "Permission denied"),
        ("mkdir shared/others", "Permission denied"),
        ("echo x > keys/two", "Permission denied"),
        ("mv shared/team/r keys/r", "Permission denied"),
        ("rmdir keys", "Permission denied"),
        ("rmdir shared/team", "Permission denied"),
        ("rmdir shared", "Permission denied"),
        ("flock -n conf/a true", "No locks available"),
    ] {
        let complaint = sh(&mount.path(), script).failed();
        assert!(complaint.contains(errno), "{script}: {complaint}");
    }
    assert_eq!(mount.sh("cat conf/a shared/team/r; ls -d keys"), "1remotekeys\n");
}

/// `-o visible=mine` shows what the user may read
#[test]
fn a_user_of_some_keys_sees_those_on_etcfsd() {
    a_user_of_some_keys_sees_those(Kind::Etcfs);
}

#[test]
fn a_user_of_some_keys_sees_those_on_etcd() {
    a_user_of_some_keys_sees_those(Kind::Etcd);
}

fn keys_whose_records_may_not_be_kept_show_too(kind: Kind) {
    let guarded = Guarded::new(kind);
    guarded.share_out();
    let bob = guarded.user("bob", &["exp"]);
    let mount = Mount::with(&guarded.everything(), &format!("{bob},visible=mine"));
    assert_eq!(
        mount.sh("grep '^rights lacking' %status"),
        "rights lacking: `.etcfs/dir//exp`: empty directories are kept in memory; \
         `.etcfs/lock//exp`: there are no locks\n"
    );
    assert_eq!(mount.sh("find . -mindepth 1 -printf '%P\\n' | sort"), "exp\nexpert\nexpert/1\n");
    mount.sh("echo 2 > exp; rm expert/1; mkdir expand; mkdir expand/in");
    assert_eq!(mount.sh("find . -mindepth 1 -printf '%P\\n' | sort"), "exp\nexpand\nexpand/in\nexpert\n");
    assert_eq!(mount.sh("rmdir expert; ls; ls exp%rev | wc -l"), "exp\nexpand\n2\n");
    assert!(sh(&mount.path(), "flock -n exp true").failed().contains("No locks available"));
    assert!(sh(&mount.path(), "mkdir other").failed().contains("Permission denied"));
    assert_eq!(guarded.as_root("get --prefix .etcfs/dir/ --keys-only"), "");
}

/// `-o visible=mine` shows what the user may read
#[test]
fn keys_whose_records_may_not_be_kept_show_too_on_etcfsd() {
    keys_whose_records_may_not_be_kept_show_too(Kind::Etcfs);
}

#[test]
fn keys_whose_records_may_not_be_kept_show_too_on_etcd() {
    keys_whose_records_may_not_be_kept_show_too(Kind::Etcd);
}

/// `-o visible=mine` shows what the user may read
#[test]
fn more_ranges_than_can_be_shown_are_refused() {
    let guarded = Guarded::new(Kind::Etcfs);
    guarded.as_root("role add many");
    for number in 0..65 {
        guarded.as_root(&format!("role grant-permission many read /k{number}"));
    }
    let many = guarded.user("max", &["many"]);
    let complaint = guarded.refused(&guarded.everything(), &format!("{many},visible=mine"));
    assert!(complaint.contains("65 ranges of keys here, and visible=mine shows 64 at most"), "{complaint}");
}

#[track_caller]
fn until_denied(mount: &Mount, name: &str) {
    mount.comes_to_print(&format!("cat {name} 2>&1 | grep -o 'Permission denied'"), "Permission denied\n");
}

fn a_right_that_is_taken_away_is_eacces(kind: Kind) {
    let guarded = Guarded::new(kind);
    let options = format!("{},credentials={}", guarded.options(), guarded.certs.text("joe"));
    let mount = Mount::with(&guarded.source(), &options);
    mount.sh("mkdir d; echo 1 > d/f");
    guarded.as_root("user revoke-role joe app");
    // etcd refuses what it is asked for, and goes on with a watch.
    until_denied(&mount, "unknown");
    until_denied(&mount, "d/f");
    for script in ["ls", "ls d", "echo 2 | tee d/f", "mkdir e"] {
        let complaint = sh(&mount.path(), script).failed();
        assert!(complaint.contains("Permission denied"), "{script}: {complaint}");
    }
    assert_eq!(mount.sh("grep '^names' %status"), "names: are refused by the server\n");

    guarded.as_root("user grant-role joe app");
    mount.comes_to_print("cat d/f", "1\n");
    guarded.as_root("put /project/d/f 2");
    mount.comes_to_print("cat d/f", "2");
    mount.sh("echo 3 > d/f");
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
    guarded.as_root("role grant-permission --prefix=true narrow readwrite /");
    let kim = guarded.certs.path("kim");
    fs::write(&kim, "username=kim\npassword=kim:s\n").expect("a file of our own");
    let options = format!("{},credentials={}", guarded.options(), kim.display());
    let mount = Mount::with(&format!("https://{}:/", guarded.server.endpoint()), &options);
    guarded.as_root("put /f 1");
    mount.comes_to_print("cat f", "1");
    guarded.as_root("put /f 2");
    mount.comes_to_print("cat f", "2");
    // There are bare keys that it may not read.
    guarded.as_root("put bare 1");
    assert_eq!(mount.sh("ls; ls -d %rel bare 2>&1 | grep -c 'No such file'"), "f\n2\n");
    let status = mount.sh("grep '^rights lacking' %status");
    assert!(status.contains("keys without a leading slash: there is no %rel"), "{status}");
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

fn a_right_to_some_of_the_keys_is_taken_away(kind: Kind) {
    let guarded = Guarded::new(kind);
    guarded.share_out();
    let ann = guarded.user("ann", &["team", "conf"]);
    let mount = Mount::with(&guarded.everything(), &format!("{ann},visible=mine"));
    assert_eq!(mount.sh("cat conf/a; echo 1 > shared/team/f"), "1");
    guarded.as_root("user revoke-role ann conf");
    until_denied(&mount, "conf/unknown");
    until_denied(&mount, "conf/a");
    assert!(sh(&mount.path(), "ls conf").failed().contains("Permission denied"));
    assert_eq!(mount.sh("ls; echo 2 >> shared/team/f; cat shared/team/f"), "conf\nshared\n1\n2\n");
    assert_eq!(
        mount.sh("grep '^visible' %status"),
        "visible: `/conf/`, `/shared/team/`; taken away since: `/conf/`\n"
    );

    guarded.as_root("put /conf/a 2");
    guarded.as_root("user grant-role ann conf");
    mount.comes_to_print("cat conf/a", "2");
    guarded.as_root("put /conf/a 3");
    mount.comes_to_print("cat conf/a", "3");

    // What is granted later shows after a new mount.
    guarded.as_root("user grant-role ann one");
    assert_eq!(mount.sh("ls"), "conf\nshared\n");
    let anew = Mount::with(&guarded.everything(), &format!("{ann},visible=mine"));
    assert_eq!(anew.sh("ls; cat keys/one"), "conf\nkeys\nshared\n3");
}

/// A right that is taken away is EACCES
#[test]
fn a_right_to_some_of_the_keys_is_taken_away_on_etcfsd() {
    a_right_to_some_of_the_keys_is_taken_away(Kind::Etcfs);
}

#[test]
fn a_right_to_some_of_the_keys_is_taken_away_on_etcd() {
    a_right_to_some_of_the_keys_is_taken_away(Kind::Etcd);
}
