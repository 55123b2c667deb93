//! A server whose quota is used up.

use etcfs_tests::{
    api::put,
    command::bash,
    mount::Mount,
    server::{Kind, Options, Server},
};

fn a_full_server_takes_nothing_and_gives_back(kind: Kind) {
    let args = vec!["--quota-backend-bytes=10000000".to_owned()];
    let server = Server::with(kind, Options { args, ..Options::default() });
    let api = server.api();
    let mount = Mount::with(&format!("{}:/", server.endpoint()), "rel=off");
    mount.sh("mkdir d; echo old > f; echo old > g; echo old > d/only");
    // Nobody has made this directory.
    api.set("/e/only", "old");
    mount.comes_to_print("cat e/only", "old");
    let is_full = (0..100).any(|number| api.put(put(&format!("fill/{number}"), vec![7; 500_000])).is_err());
    assert!(is_full, "the quota is reached");
    for script in [
        "echo v > f",
        "echo v >> f",
        "cp /proc/self/status f",
        "dd if=/dev/zero of=f bs=100k count=1",
        "echo v > new",
        "mkdir new",
    ] {
        let output = bash(&mount.path(), script);
        assert!(output.code != 0, "`{script}` is refused");
        assert!(output.stderr.contains("No space left on device"), "`{script}`: {}", output.stderr);
        assert_eq!(mount.sh("cat f; ls"), "old\nd\ne\nf\ng\n", "after `{script}`");
        assert_eq!(api.value("/f").as_deref(), Some("old\n"));
    }
    // What makes room works, in a new mount too.
    mount.sh("rm g; rm d/only; rm e/only; rmdir d");
    let other = Mount::with(&format!("{}:/", server.endpoint()), "rel=off");
    assert_eq!(other.sh("ls; rm f; ls"), "f\n");
    assert_eq!(api.all("/"), []);
}

/// A full server takes nothing and gives back
#[test]
fn a_full_server_takes_nothing_and_gives_back_mounted_on_etcfsd() {
    a_full_server_takes_nothing_and_gives_back(Kind::Etcfs);
}

#[test]
fn a_full_server_takes_nothing_and_gives_back_mounted_on_etcd() {
    a_full_server_takes_nothing_and_gives_back(Kind::Etcd);
}
