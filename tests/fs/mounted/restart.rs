//! The server dies under the mount and comes back: the mount waits and goes on.

use std::fs;

use etcfs_tests::{
    command::{Followed, sh},
    machine,
    mount::mounted,
};

use super::Stage;

/// Lines between two kills.
const LINES: u64 = 5;

/// Overwrites one file, appends to another, reads its own write, and says how far it is.
///
/// A program of its own and no thread of the test's: a process that is started
/// closes the files it inherits, and that flush would wait for the very server
/// that is being started.
const WRITER: &str = r#"bash -c '
    number=0
    while [ ! -e "$STOP" ]; do
        echo $number > current && echo $number >> log || exit 1
        [ "$(cat current)" = $number ] || exit 2
        echo $number
        number=$((number + 1))
    done
    echo end'"#;

/// Without the server the mount waits
#[test]
fn a_mount_goes_on_after_each_restart_of_its_server() {
    let mut s = Stage::new();
    let stop = s.server.scratch().join("stop");
    let mut writer = Followed::sh(&s.mount.path(), &WRITER.replace("$STOP", &stop.display().to_string()));
    let mut count = 0;
    let mut goes_on = |lines: u64| {
        for _ in 0..lines {
            writer.expect(&[&count.to_string()]);
            count += 1;
        }
    };
    for _ in 0..machine::setting("ETCFS_TEST_KILLS", 50) {
        goes_on(LINES);
        s.server.kill();
        s.server.run();
    }
    goes_on(LINES);
    fs::write(stop, "").expect("outside the mount");
    let mut last = writer.line();
    while last != "end" {
        assert_eq!(last, count.to_string());
        count += 1;
        last = writer.line();
    }
    // Every line once and in order: nothing lost, nothing doubled.
    let lines: String = (0..count).map(|number| format!("{number}\n")).collect();
    assert_eq!(s.api.value("/log"), Some(lines));
    let version = s.api.get("/current").expect("it is there").version;
    assert_eq!(version as u64, count, "each write is one version");
}

/// A mount whose server is gone can be unmounted
#[test]
fn a_mount_without_its_server_tells_its_space_and_goes_away() {
    let mut s = Stage::new();
    let path = s.mount.path();
    let space = s.sh("df --output=size,itotal .");
    s.server.kill();
    assert_eq!(s.sh("df --output=size,itotal ."), space);
    sh(path.parent().expect("a directory of ours"), "umount mnt").ok();
    assert!(!mounted(&path));
}
