//! Listings that the kernel keeps, and what must not come of it.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use etcfs_tests::{
    api::{Op, delete, put, txn},
    mount::Mount,
    wait,
};
use rustix::fs::{Dir, Mode, OFlags, open};

use super::{Stage, metrics::Scraped};

/// Names that stay, in a listing that takes several reads.
const STAYS: usize = 3000;

fn stays(number: usize) -> String {
    format!("stays-{number:04}-{}", "n".repeat(40))
}

fn filled() -> Stage {
    let stage = Stage::new();
    let numbers: Vec<usize> = (0..STAYS).collect();
    for numbers in numbers.chunks(100) {
        let puts = numbers.iter().map(|&number| Op::Put(put(&format!("/d/{}", stays(number)), "v")));
        stage.api.txn(txn(puts)).expect("a txn is accepted");
    }
    stage.comes_to_print("ls d | wc -l", &format!("{STAYS}\n"));
    stage
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("it opens");
    entries.map(|entry| entry.expect("it is read").file_name().into_string().expect("it is text")).collect()
}

/// Names are cached by the kernel
#[test]
fn a_directory_that_does_not_change_is_listed_by_the_kernel_alone_mounted() {
    let mut s = filled();
    s.mount = Mount::with(&format!("{}:/", s.server.endpoint()), "metrics=0");
    let dir = s.mount.at("d");
    let first = names(&dir);
    let asked = Scraped::of(&s.mount).operations("readdir", "ok");
    assert_eq!(names(&dir), first);
    assert_eq!(Scraped::of(&s.mount).operations("readdir", "ok"), asked, "nobody is asked");

    s.api.set("/d/another", "v");
    wait::until_true("what comes is listed", || names(&dir).contains(&"another".to_owned()));
    s.sh("mv d/another d/other; mkdir d/sub; ! ls d | grep -qx another; ls d | grep -qx sub");
    // What the kernel lets go of is asked for again.
    names(&dir);
    fs::write("/proc/sys/vm/drop_caches", "1").expect("the tests that mount are root's");
    assert_eq!(names(&dir).len(), STAYS + 2);

    // A directory that stays open is looked at anew from its begin.
    let open = open(&dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it opens");
    let mut open = Dir::new(open).expect("it can be read");
    let mut count = || {
        open.rewind();
        let names: Result<Vec<_>, _> = open.by_ref().collect();
        names.expect("it is read").len() - 2
    };
    assert_eq!([count(), count()], [STAYS + 2; 2]);
    s.api.set("/d/third", "v");
    wait::until_true("what comes is listed again", || count() == STAYS + 3);
    fs::remove_file(dir.join("third")).expect("it is removed");
    assert_eq!(count(), STAYS + 2);
}

/// Names are cached by the kernel
#[test]
fn a_change_deep_below_leaves_the_kernels_listings_above_mounted() {
    let mut s = Stage::new();
    for key in ["/a/x", "/a/b/x", "/a/b/c/x"] {
        s.api.set(key, "v");
    }
    s.mount = Mount::with(&format!("{}:/", s.server.endpoint()), "metrics=0");
    let list = |dir: &str| names(&s.mount.at(dir));
    let asked = || Scraped::of(&s.mount).operations("readdir", "ok");
    for dir in ["a/b/c", "a/b", "a", "a/b/c", "a/b", "a"] {
        list(dir);
    }
    let before = asked();
    for dir in ["a/b/c", "a/b", "a"] {
        list(dir);
    }
    assert_eq!(asked(), before, "the kernel keeps them");
    s.api.set("/a/b/c/new", "v");
    wait::until_true("what comes is listed", || list("a/b/c").contains(&"new".to_owned()));
    let before = asked();
    assert_eq!((list("a").len(), list("a/b").len()), (2, 2));
    assert_eq!(asked(), before, "they list what they did");
    // What comes to be with it is listed above.
    s.api.set("/a/b/d/new", "v");
    wait::until_true("what comes is listed", || list("a/b").contains(&"d".to_owned()));
    let before = asked();
    assert_eq!(list("a").len(), 2);
    assert_eq!(asked(), before, "it lists what it did");
    s.api.delete(delete("/a/b/d/new")).expect("it is deleted");
    wait::until_true("what has gone is not", || !list("a/b").contains(&"d".to_owned()));
    s.sh("rm -r a/b; test \"$(ls a)\" = x");
}

/// With `-o strict` each lookup, and so each open, and each listing asks the server first
#[test]
fn a_strict_mount_leaves_no_listing_to_the_kernel_mounted() {
    let mut s = Stage::new();
    s.api.set("/d/x", "v");
    s.mount = Mount::with(&format!("{}:/", s.server.endpoint()), "strict,metrics=0");
    let dir = s.mount.at("d");
    let asked = || Scraped::of(&s.mount).operations("readdir", "ok");
    for _ in 0..3 {
        let before = asked();
        assert_eq!(names(&dir), ["x"]);
        assert!(asked() > before, "the mount is asked");
    }
    s.api.set("/d/y", "v");
    assert_eq!(names(&dir).len(), 2, "nothing older than the server's answer is listed");
}

/// A listing is complete
#[test]
fn listings_are_complete_while_names_come_and_go_mounted() {
    let s = filled();
    let dir = s.mount.at("d");
    let (over, listed) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for slow in [false, false, true, true] {
            let (dir, over, listed) = (&dir, &over, &listed);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut seen = BTreeSet::new();
                    for (at, entry) in fs::read_dir(dir).expect("it opens").enumerate() {
                        let name = entry.expect("it is read").file_name().into_string().expect("it is text");
                        assert!(seen.insert(name.clone()), "{name} is there twice");
                        if slow && at % 500 == 0 {
                            // Another's whole listing comes between.
                            let before = listed.load(Ordering::Relaxed);
                            wait::until_true("another listing ends", || {
                                listed.load(Ordering::Relaxed) > before || over.load(Ordering::Relaxed)
                            });
                        }
                    }
                    let missing: Vec<String> =
                        (0..STAYS).map(stays).filter(|name| !seen.contains(name)).collect();
                    assert!(missing.is_empty(), "{missing:?} of {}", seen.len());
                    listed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..100 {
            // Between names that stay, so that all behind them move.
            let name = format!("stays-{:04}", round * 17);
            s.api.set(&format!("/d/{name}"), "v");
            fs::write(dir.join(format!("{name}-local")), "v").expect("it is written");
            if round % 10 == 0 {
                fs::write("/proc/sys/vm/drop_caches", "1").expect("the tests that mount are root's");
            }
            if round % 3 == 0 {
                wait::until_true("what comes is listed", || names(&dir).contains(&name));
            }
            fs::remove_file(dir.join(&name)).expect("it is removed");
            fs::remove_file(dir.join(format!("{name}-local"))).expect("it is removed");
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(listed.load(Ordering::Relaxed) > 4);
    assert_eq!(names(&dir).len(), STAYS);
}
