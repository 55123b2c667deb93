//! What `etcfs` adds to `etcdctl`'s commands: directories, history, differences, a way back.

use std::os::unix::fs::PermissionsExt as _;

use etcfs_tests::{
    certs::Certs,
    command::Client,
    server::{Kind, Options, Server},
};

fn stage(kind: Kind) -> (Server, Client) {
    let server = Server::start(kind);
    let client = Client::etcfs(&server.endpoint());
    (server, client)
}

fn says(client: &Client, line: &str) -> String {
    client.run(line.split(' ')).ok()
}

fn put(client: &Client, keys: &[(&str, &str)]) {
    for (key, value) in keys {
        client.run(["put", key, value]).ok();
    }
}

fn directories_are_listed_and_drawn(kind: Kind) {
    let (_server, client) = stage(kind);
    let keys =
        [("/a/b", "1"), ("/a/b/c", "22"), ("/a/b-x", "333"), ("/a/d/e/f", "4"), ("/z", ""), ("bare", "5")];
    put(&client, &keys);
    assert_eq!(says(&client, "ls"), "/\nbare\n");
    assert_eq!(says(&client, "ls /"), "a/\nz\n");
    assert_eq!(says(&client, "ls /a"), "b\nb-x\nb/\nd/\n");
    assert_eq!(says(&client, "ls /a/"), "b\nb-x\nb/\nd/\n");
    assert_eq!(says(&client, "ls /a --rev=3"), "b\nb/\n");
    assert_eq!(says(&client, "ls /nothing"), "");
    let long = says(&client, "ls -l /a");
    let fields: Vec<Vec<&str>> = long.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(fields[1], ["3", "4", "1", "-", "b-x"]);
    assert_eq!(fields[2], ["-", "-", "-", "-", "b/"]);
    let tree = "b\nb-x\nb/\n    c\nd/\n    e/\n        f\n\n4 keys in 3 directories\n";
    assert_eq!(says(&client, "tree /a"), tree);
}

/// More names than a page has, and more keys below one of them: each is listed once.
fn a_listing_has_every_name_however_many_lie_between(kind: Kind) {
    let (server, client) = stage(kind);
    let api = server.api();
    for number in 0..1100 {
        api.set(&format!("/d/a/{number:04}"), "");
        api.set(&format!("/d/n{number:04}"), "");
    }
    let names: String = (0..1100).map(|number| format!("n{number:04}\n")).collect();
    assert_eq!(says(&client, "ls /d"), format!("a/\n{names}"));
    assert!(says(&client, "tree /d").ends_with("\n2200 keys in 1 directories\n"));
}

fn history_goes_back_to_the_beginning_or_to_the_compaction(kind: Kind) {
    let (_server, client) = stage(kind);
    put(&client, &[("k", "one"), ("other", "x"), ("k", "two\nlines")]);
    client.run(["del", "k"]).ok();
    put(&client, &[("k", "three")]);
    let history = "         2 PUT    version 1, 3 bytes: one
         4 PUT    version 2, 9 bytes: two...
         5 DELETE
         6 PUT    version 1, 5 bytes: three
";
    assert_eq!(says(&client, "history k"), history);
    client.run(["del", "k"]).ok();
    assert_eq!(says(&client, "history k"), format!("{history}         7 DELETE\n"));
    assert_eq!(says(&client, "history nothing"), "");
    put(&client, &[("k", "four"), ("other", "y")]);
    says(&client, "compaction 9");
    let after = client.run(["history", "k"]);
    assert_eq!(after.stdout, "         8 PUT    version 1, 4 bytes: four\n");
}

fn differences_between_revisions_are_named(kind: Kind) {
    let (_server, client) = stage(kind);
    put(&client, &[("/a", "1"), ("/b", "1"), ("/c", "1"), ("x", "1")]);
    put(&client, &[("/b", "2"), ("/d", "1")]);
    client.run(["del", "/a"]).ok();
    assert_eq!(says(&client, "diff 4"), "- /a\n~ /b\n+ /d\n+ x\n");
    assert_eq!(says(&client, "diff 4 /"), "- /a\n~ /b\n+ /d\n");
    assert_eq!(says(&client, "diff 4 6"), "~ /b\n+ x\n");
    assert_eq!(says(&client, "diff 8"), "");
    client.run(["diff", "99"]).failed();
}

fn a_value_is_put_back_or_edited_if_nobody_was_faster(kind: Kind) {
    let (server, client) = stage(kind);
    put(&client, &[("k", "old"), ("k", "new")]);
    assert_eq!(says(&client, "restore k@2"), "k put as of revision 2, at revision 4\n");
    assert_eq!(says(&client, "get --print-value-only k"), "old\n");
    assert_eq!(says(&client, "restore k@2"), "k has that value\n");
    client.run(["restore", "k@1"]).failed();

    let editor = server.scratch().join("editor");
    let edit = |script: &str| {
        std::fs::write(&editor, format!("#!/bin/sh\n{script}\n")).expect("the editor is written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&editor, mode).expect("the editor may run");
        client.run_in(&[("VISUAL", editor.to_str().expect("a plain path"))], ["edit", "k"])
    };
    assert_eq!(edit("printf edited > \"$1\"").ok(), "k saved at revision 5\n");
    assert_eq!(says(&client, "get --print-value-only k"), "edited\n");
    assert_eq!(edit("true").ok(), "k is unchanged\n");
    edit("printf lost > \"$1\"; exit 1").failed();
    let faster =
        format!("ETCDCTL_API=3 etcdctl --endpoints {} put k faster; printf mine > \"$1\"", server.endpoint());
    let refused = edit(&format!("unset ETCDCTL_ENDPOINTS; {faster}")).failed();
    assert!(refused.contains("changed meanwhile") && refused.contains("what you wrote is in"), "{refused}");
    assert_eq!(says(&client, "get --print-value-only k"), "faster\n");
    let kept = refused.rsplit(' ').next().unwrap_or_default().trim();
    assert_eq!(std::fs::read_to_string(kept).expect("it is kept"), "mine");
    std::fs::remove_dir_all(std::path::Path::new(kept).parent().expect("a directory")).expect("removed");
}

fn keys_and_prefixes_are_copied_as_of_a_revision(kind: Kind) {
    let (_server, client) = stage(kind);
    put(&client, &[("/a/x", "1"), ("/a/y", "1"), ("/b/x", "mine"), ("/a/x", "2")]);
    assert_eq!(says(&client, "cp /a/x /c"), "1 key copied\n");
    assert_eq!(says(&client, "get /c --print-value-only"), "2\n");
    assert_eq!(says(&client, "cp --rev=2 /a/x /c"), "1 key copied\n");
    assert_eq!(says(&client, "get /c --print-value-only"), "1\n");
    assert!(client.run(["cp", "-n", "/a/x", "/c"]).failed().contains("/c exists"));
    assert_eq!(says(&client, "cp --prefix -n /a/ /b/"), "1 key copied, 1 left as they were\n");
    assert_eq!(says(&client, "get --prefix /b/"), "/b/x\nmine\n/b/y\n1\n");
    assert_eq!(says(&client, "cp --prefix /a/ /b/"), "2 keys copied\n");
    assert_eq!(says(&client, "get --prefix /b/"), "/b/x\n2\n/b/y\n1\n");
    assert!(client.run(["cp", "/nothing", "/c"]).failed().contains("no such key"));
    assert_eq!(says(&client, "cp --prefix /nothing /c"), "0 keys copied\n");
    // What it makes is not copied again.
    assert_eq!(says(&client, "cp --prefix /a/ /a/old/"), "2 keys copied\n");
}

fn a_key_moves_with_its_lease_in_one_revision(kind: Kind) {
    let (server, client) = stage(kind);
    let granted = says(&client, "lease grant 600");
    let lease = granted.split(' ').nth(1).expect("lease ID granted with ...").to_owned();
    client.run(["put", "/a/x", "1", "--lease", &lease]).ok();
    put(&client, &[("/a/y", "2"), ("/b", "3")]);
    let api = server.api();
    let before = api.revision();
    assert_eq!(says(&client, "mv /a/x /c/x"), "1 key moved\n");
    assert_eq!(api.revision(), before + 1);
    assert_eq!(api.get("/a/x"), None);
    let moved = api.get("/c/x").expect("it is there");
    assert_eq!((&moved.value[..], format!("{:016x}", moved.lease)), (&b"1"[..], lease));
    assert!(client.run(["mv", "-n", "/a/y", "/b"]).failed().contains("/b exists"));
    assert_eq!(says(&client, "mv --prefix /a/ /d/"), "1 key moved\n");
    assert_eq!(says(&client, "get --prefix --keys-only /").replace('\n', " "), "/b  /c/x  /d/y  ");
    assert!(client.run(["mv", "--prefix", "/d/", "/d/e/"]).failed().contains("lies within"));
    client.run(["mv", "/d/y", "/d/y"]).failed();
}

/// Options of etcdctl 3.6, which the one at hand does not have.
fn keys_are_chosen_by_revision_and_ranges_named(kind: Kind) {
    let (_server, client) = stage(kind);
    // Created at 2, 3 and 4; a changed at 5.
    put(&client, &[("a", "1"), ("b", "1"), ("c", "1"), ("a", "2")]);
    for (option, keys) in [
        ("--min-create-rev=3", "b c"),
        ("--max-create-rev=3", "a b"),
        ("--min-mod-rev=4", "a c"),
        ("--max-mod-rev=4", "b c"),
        ("--min-create-rev=3 --max-mod-rev=3", "b"),
    ] {
        let found = says(&client, &format!("get --from-key a --keys-only {option}"));
        assert_eq!(found.split_whitespace().collect::<Vec<_>>().join(" "), keys, "{option}");
    }
    assert_eq!(says(&client, "del --range a c"), "2\n");
    assert_eq!(says(&client, "get --from-key a --keys-only"), "c\n\n");
}

fn messages_have_the_bounds_that_are_named(kind: Kind) {
    let (_server, client) = stage(kind);
    let value = "v".repeat(5000);
    let refused = client.run(["put", "a", &value, "--max-request-bytes=4000"]);
    assert!(refused.code == 1 && refused.stderr.contains("larger than max"), "{refused:?}");
    client.run(["put", "a", &value, "--max-request-bytes=6000"]).ok();
    for args in [&["get", "a", "--max-recv-bytes=4000"][..], &["get", "a", "--command-timeout=60s"][..]] {
        let refused = client.run_in(&[("ETCDCTL_MAX_RECV_BYTES", "4000")], args);
        assert!(refused.code == 1 && refused.stderr.contains("too large"), "{refused:?}");
    }
    assert_eq!(client.run(["get", "a", "--max-recv-bytes=6000"]).ok().len(), "a\n\n".len() + value.len());
}

fn whoami_shows_roles_and_what_they_let_us_do(kind: Kind) {
    let (_server, client) = stage(kind);
    match kind {
        Kind::Etcfs => {
            assert_eq!(says(&client, "whoami"), "Authentication is off: everybody may do everything.\n");
            let status = says(&client, "auth status");
            assert!(status.starts_with("Authentication Status: false\nAuthRevision: "), "{status}");
        }
        // 3.4 can't be asked.
        Kind::Etcd => assert!(client.run(["whoami"]).failed().contains("no user was named")),
    }
    for line in [
        "user add root:top",
        "user grant-role root root",
        "role add dev",
        "role grant-permission --prefix dev readwrite /a/",
        "user add alice:secret",
        "user grant-role alice dev",
        "auth enable",
    ] {
        says(&client, line);
    }
    let told = client.run_in(&[("ETCFS_PASSWORD", "secret")], ["--user", "alice", "whoami"]).ok();
    let rights = "KV Read:\n\t[/a/, /a0) (prefix /a/)\nKV Write:\n\t[/a/, /a0) (prefix /a/)\n";
    assert_eq!(told, format!("User: alice\nRoles: dev\nRole dev\n{rights}"));
    assert!(client.run(["whoami"]).failed().contains("no user was named"));
    client.run(["--user", "alice:wrong", "whoami"]).failed();
}

on_both! {
    directories_are_listed_and_drawn
    a_listing_has_every_name_however_many_lie_between
    history_goes_back_to_the_beginning_or_to_the_compaction
    differences_between_revisions_are_named
    a_value_is_put_back_or_edited_if_nobody_was_faster
    keys_and_prefixes_are_copied_as_of_a_revision
    a_key_moves_with_its_lease_in_one_revision
    keys_are_chosen_by_revision_and_ranges_named
    messages_have_the_bounds_that_are_named
    whoami_shows_roles_and_what_they_let_us_do
}

#[test]
fn whoami_takes_the_name_out_of_the_certificate() {
    let certs = Certs::new();
    certs.sign("alice");
    let text = |name: &str| certs.path(name).display().to_string();
    let args = [
        format!("--cert-file={}", text("server.pem")),
        format!("--key-file={}", text("server.key")),
        format!("--trusted-ca-file={}", text("ca.pem")),
        "--client-cert-auth".to_owned(),
        "--bcrypt-cost=4".to_owned(),
    ];
    let server =
        Server::with(Kind::Etcfs, Options { args: args.to_vec(), secure: true, ..Options::default() });
    let client = Client::etcfs(&server.endpoint());
    let files = [text("ca.pem"), text("alice.pem"), text("alice.key")];
    let own = ["--cacert", &files[0], "--cert", &files[1], "--key", &files[2]];
    let run = |line: &str| client.run(line.split(' ').chain(own));
    run("user add root:rt").ok();
    run("user grant-role root root").ok();
    run("user add alice --no-password").ok();
    run("role add dev").ok();
    run("role grant-permission dev read /x").ok();
    run("user grant-role alice dev").ok();
    run("auth enable").ok();
    let told = run("whoami").ok();
    assert!(told.contains("User: alice\n") && told.contains("/x"), "{told}");
}
