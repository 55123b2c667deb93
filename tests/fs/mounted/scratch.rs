//! Files that editors make only to rename them: kept here, and never lost.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use etcfs_tests::{command::Followed, machine, mount::Mount, server::Server, wait};
use rustix::process::Signal;

use super::Stage;

/// How long after its last close a scratch file becomes a key.
const KEPT: Duration = Duration::from_secs(2);

/// Makes a file as editors do, says so, does what it is told line by line, and says so.
const EDITOR: &str = r#"
import os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_WRONLY)
os.write(file, b"v")
print("made", flush=True)
for line in sys.stdin:
    try:
        os.fsync(file) if line == "sync\n" else os.close(file)
        print("done", flush=True)
    except OSError as error:
        print(os.strerror(error.errno), flush=True)
"#;

fn editor(mount: &Mount, name: &str) -> Followed {
    let mut python = Command::new(machine::program("python3"));
    let mut editor = Followed::start_with_input(python.args(["-c", EDITOR, name]).current_dir(mount.path()));
    editor.expect(&["made"]);
    editor
}

/// A scratch file is kept here until it is meant as a file
#[test]
fn a_mounted_scratch_file_becomes_a_key_in_time_or_by_fsync() {
    let s = Stage::new();
    let mut emacs = editor(&s.mount, "#a#");
    assert_eq!(s.api.get("/#a#"), None);
    assert_eq!(s.sh("cat '#a#'"), "v", "it is a file here");
    let closed = Instant::now();
    emacs.type_in("close\n");
    emacs.expect(&["done"]);
    wait::until_true("it is a key", || s.api.value("/#a#").is_some());
    assert!(closed.elapsed() >= KEPT, "after {:?}", closed.elapsed());
    assert_eq!(s.api.get("/#a#").expect("it is there").version, 1);

    let mut emacs = editor(&s.mount, "#b#");
    emacs.type_in("sync\n");
    emacs.expect(&["done"]);
    assert_eq!(s.api.value("/#b#").as_deref(), Some("v"));

    // A swap file is synced all the time.
    let mut vim = editor(&s.mount, ".c.swp");
    vim.type_in("sync\n");
    vim.expect(&["done"]);
    assert_eq!(s.api.get("/.c.swp"), None);
    vim.type_in("close\n");
    vim.expect(&["done"]);
    wait::until_true("it is a key", || s.api.value("/.c.swp").as_deref() == Some("v"));

    // Renamed onto a key, it is one save.
    s.sh("echo old > f");
    let _emacs = editor(&s.mount, "#f#");
    s.sh("mv '#f#' f");
    let saved = s.api.get("/f").expect("it is there");
    assert_eq!((saved.value.as_ref(), saved.version), (b"v".as_ref(), 2));
    assert_eq!(s.api.get("/#f#"), None);
}

/// A scratch file is kept here until it is meant as a file
#[test]
fn a_scratch_file_becomes_a_key_when_its_mount_ends_mounted() {
    let server = Server::etcfs();
    let api = server.api();
    let mount = Mount::root(&server.endpoint());
    let mut emacs = editor(&mount, "#a#");
    emacs.type_in("close\n");
    emacs.expect(&["done"]);
    drop(emacs);
    mount.unmount();
    assert_eq!(api.value("/#a#").as_deref(), Some("v"), "by umount");

    let mut mount = Mount::root(&server.endpoint());
    let _open = editor(&mount, "#b#");
    mount.process().signal(Signal::TERM);
    let status = mount.process().wait_for_end(wait::PATIENCE);
    assert!(status.success(), "{status}");
    assert_eq!(api.value("/#b#").as_deref(), Some("v"), "by SIGTERM");

    let mount = Mount::with(&format!("{}:/", server.endpoint()), "scratch=none");
    let _open = editor(&mount, "#c#");
    assert_eq!(api.value("/#c#").as_deref(), Some("v"), "scratch=none");
}

/// A scratch file whose name another client takes is kept under another name
#[test]
fn a_mounted_scratch_file_whose_name_is_taken_is_not_lost() {
    let s = Stage::new();
    let mut emacs = editor(&s.mount, "#a#");
    s.api.set("/#a#", "theirs");
    s.api.set("/#a#~", "theirs too");
    emacs.type_in("sync\n");
    emacs.expect(&["Stale file handle"]);
    emacs.type_in("close\n");
    wait::until_true("it is kept", || s.api.value("/#a#~1~").as_deref() == Some("v"));
    assert_eq!(s.api.value("/#a#").as_deref(), Some("theirs"));
    assert_eq!(s.api.value("/#a#~").as_deref(), Some("theirs too"));
    s.comes_to_print("cat '#a#' '#a#~' '#a#~1~'", "theirstheirs toov");
    assert!(s.mount.log().contains("#a#~1~"), "{}", s.mount.log());
}
