//! Virtual files over a store in memory: no kernel, no network.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::config::View;
use crate::node::ROOT;
use crate::ops::test_mount::{mount, mount_with};
use crate::remote::memory::Memory;
use crate::remote::{Change, Lease, LeaseId, Op, Remote as _};

async fn walk(fs: &Fs, path: &str) -> Result<Entry, OpError> {
    let mut entry = None;
    let mut at = ROOT;
    for name in path.split('/') {
        let found = fs.lookup(at, OsStr::new(name)).await?;
        at = found.node;
        entry = Some(found);
    }
    Ok(entry.expect("a path has a name"))
}

async fn read(fs: &Arc<Fs>, path: &str) -> Result<String, OpError> {
    let node = walk(fs, path).await?.node;
    let how = Fs::open_how(libc::O_RDONLY);
    let fh = match fs.open_now(node, 1, how) {
        Some(opened) => opened?,
        None => fs.open_virtual(node, how).await?,
    };
    let text = fs.read(fh, 1, 0, 1 << 20)?;
    fs.release_now(fh);
    Ok(String::from_utf8(text.to_vec()).unwrap())
}

async fn list(fs: &Fs, path: &str) -> Vec<String> {
    let node = walk(fs, path).await.unwrap().node;
    let fh = fs.open_dir(node).unwrap().0;
    let listing = fs.listing(fh, 0).await.unwrap();
    assert!(fs.listing_now(fh, 1).is_some(), "the rest is of the same reading");
    fs.release_dir(fh);
    listing.from(0).map(|entry| entry.name.to_string_lossy().into_owned()).collect()
}

#[track_caller]
fn is_missing<T: std::fmt::Debug>(found: Result<T, OpError>) {
    assert!(matches!(found, Err(OpError::NotFound)), "{found:?}");
}

/// `%rev/N` is the tree as of revision N
#[tokio::test]
async fn the_past_is_a_tree_that_stays() {
    let memory = Memory::new();
    memory.put("/a", "one");
    memory.put("/d/b", "two");
    memory.put("bare", "x");
    let then = memory.revision();
    memory.put("/a", "changed");
    memory.delete("/d/b");
    let fs = mount_with(&memory, "/", Rel::Links, View::default()).await;
    let past = format!("%rev/{then}");
    assert_eq!(list(&fs, &past).await, ["%rel", "a", "bare", "d"]);
    assert_eq!(list(&fs, &format!("{past}/d")).await, ["b"]);
    assert_eq!(read(&fs, &format!("{past}/a")).await.unwrap(), "one");
    assert_eq!(read(&fs, &format!("{past}/d/b")).await.unwrap(), "two");
    assert_eq!(read(&fs, &format!("{past}/%rel/bare")).await.unwrap(), "x");
    let link = walk(&fs, &format!("{past}/bare")).await.unwrap();
    assert_eq!(fs.link_target(link.node).unwrap(), "%rel/bare");
    let a = walk(&fs, &format!("{past}/a")).await.unwrap().attr;
    assert_eq!((a.size, a.rev), (3, 2));
    is_missing(walk(&fs, &format!("%rev/{}", then.0 + 100)).await);
    is_missing(walk(&fs, "%rev/x").await);
    is_missing(walk(&fs, &format!("{past}/nothing")).await);
    is_missing(walk(&fs, &format!("{past}/%status")).await);
    assert_eq!(list(&fs, "%rev").await, [""; 0]);
    memory.compact(memory.revision());
    is_missing(walk(&fs, &past).await);
    is_missing(walk(&fs, &format!("{past}/a")).await);
}

/// `KEY%rev` lists a key's own revisions
#[tokio::test]
async fn a_keys_revisions_are_files() {
    let memory = Memory::new();
    let first = memory.put("/a", "one");
    memory.put("/b", "other");
    let second = memory.put("/a", "two");
    memory.delete("/a");
    let third = memory.put("/a", "three");
    let fs = mount(&memory).await;
    assert_eq!(list(&fs, "a%rev").await, [first, second, third].map(|rev| rev.to_string()));
    assert_eq!(read(&fs, &format!("a%rev/{second}")).await.unwrap(), "two");
    is_missing(walk(&fs, &format!("a%rev/{}", second.0 - 1)).await);
    memory.compact(second);
    assert_eq!(list(&fs, "a%rev").await, [second, third].map(|rev| rev.to_string()));
    assert_eq!(read(&fs, &format!("a%rev/{second}")).await.unwrap(), "two");
    is_missing(walk(&fs, &format!("a%rev/{first}")).await);
    // Also of a key that is gone, as long as it is not compacted.
    memory.delete("/a");
    assert_eq!(read(&fs, &format!("a%rev/{third}")).await.unwrap(), "three");
}

/// Lets the watch bring what there is.
async fn brought(fs: &Fs, memory: &Memory) {
    timeout(Duration::from_secs(10), async {
        while fs.nodes.with(|table| table.stats().seen) < memory.revision().0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the watch brings everything");
}

fn keys_of(log: &str) -> Vec<String> {
    let line = |line: &str| -> String {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("{} {}", event["type"].as_str().unwrap(), event["key"].as_str().unwrap_or_default())
    };
    log.lines().map(line).collect()
}

/// `%log` has each change below its directory, in order
#[tokio::test]
async fn a_log_has_each_change_below_its_directory() {
    let memory = Memory::new();
    let begin = memory.put("/d/before", "0");
    memory.put("/e/before", "0");
    let fs = mount(&memory).await;
    memory.put("/d/a", "1");
    memory.put("/e/b", "2");
    memory.delete("/d/a");
    brought(&fs, &memory).await;
    assert_eq!(keys_of(&read(&fs, "d/%log").await.unwrap()), ["PUT /d/a", "DELETE /d/a"]);
    assert_eq!(keys_of(&read(&fs, "e/b%log").await.unwrap()), ["PUT /e/b"]);
    let all = ["PUT /d/a", "PUT /e/b", "DELETE /d/a"];
    assert_eq!(keys_of(&read(&fs, "%log").await.unwrap()), all);
    let size = walk(&fs, "%log").await.unwrap().attr.size;
    assert_eq!(size, read(&fs, "%log").await.unwrap().len() as u64);
    // From a revision of the past on, and what comes then.
    let path = format!("%rev/{begin}/d/%log");
    let from = walk(&fs, &path).await.unwrap();
    assert_eq!(keys_of(&read(&fs, &path).await.unwrap()), ["PUT /d/before", "PUT /d/a", "DELETE /d/a"]);
    memory.put("/d/late", "3");
    timeout(Duration::from_secs(10), async {
        while fs.getattr(from.node, 1, None).unwrap().size <= from.attr.size {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the log grows");
    assert_eq!(keys_of(&read(&fs, &path).await.unwrap()).last().unwrap(), "PUT /d/late");
    // A file that the mount makes itself is no change before it is put; its records never are.
    fs.make_dir(ROOT, OsStr::new("made")).await.unwrap();
    brought(&fs, &memory).await;
    assert_eq!(keys_of(&read(&fs, "%log").await.unwrap()).len(), all.len() + 1);
}

/// A lease is a directory of its keys
#[tokio::test]
async fn a_lease_is_a_directory_of_links() {
    let memory = Memory::new();
    let fs = mount(&memory).await;
    let lease: LeaseId = memory.lease_grant(100).await.unwrap();
    let empty: LeaseId = memory.lease_grant(50).await.unwrap();
    let put = |key: &'static str| Op::Put { key: key.into(), value: "v".into(), lease: Lease::To(lease) };
    let then = vec![put("/a"), put("/d/b"), put("hidden")];
    memory.change(Change { then, ..Change::default() }).unwrap();
    memory.put("/a/below", "");
    let dir = format!("%leases/{lease}");
    assert_eq!(list(&fs, "%leases").await, [lease, empty].map(|lease| lease.to_string()));
    assert_eq!(list(&fs, &dir).await, ["ttl", "granted_ttl", "a", "d%2Fb"]);
    assert_eq!(read(&fs, &format!("{dir}/granted_ttl")).await.unwrap(), "100\n");
    let target = |name: &str| {
        let (fs, path) = (fs.clone(), format!("{dir}/{name}"));
        async move { fs.link_target(walk(&fs, &path).await.unwrap().node).unwrap() }
    };
    assert_eq!(target("a").await, "../../a/%value");
    assert_eq!(target("d%2Fb").await, "../../d/b");
    let node = walk(&fs, &dir).await.unwrap().node;
    let leases = walk(&fs, "%leases").await.unwrap().node;
    fs.unlink(node, OsStr::new("d%2Fb")).await.unwrap();
    assert_eq!(memory.key_value("/d/b").unwrap().lease, None);
    assert_eq!(memory.value("/d/b").unwrap(), "v");
    assert!(matches!(fs.unlink(node, OsStr::new("ttl")).await, Err(OpError::NotPermitted(_))));
    let name = OsString::from(lease.to_string());
    assert!(matches!(fs.remove_dir(leases, &name).await, Err(OpError::NotEmpty)));
    assert!(memory.value("/a").is_some());
    fs.remove_dir(leases, OsStr::new(&empty.to_string())).await.unwrap();
    assert_eq!(memory.lease_facts(empty).await.unwrap(), None);
    is_missing(walk(&fs, &format!("%leases/{empty}")).await);
}

/// Reserved names are found by lookup only, and nothing is made of them
#[tokio::test]
async fn nothing_virtual_is_listed_made_or_moved() {
    let memory = Memory::new();
    memory.put("/a", "1");
    memory.put("/d/b", "1");
    let fs = mount(&memory).await;
    let root = fs.open_dir(ROOT).unwrap().0;
    let listing = fs.listing(root, 0).await.unwrap();
    assert_eq!(listing.from(0).count(), 2);
    let before = memory.revision();
    let name = |text: &str| OsString::from(text);
    for word in ["%log", "a%log", "a%rev", "%rev", "%status", "%locks", "%leases"] {
        let node = walk(&fs, word).await.unwrap().node;
        assert!(fs.make_dir(ROOT, &name(word)).await.is_err(), "{word}");
        assert!(fs.create(ROOT, &name(word), 1, libc::O_CREAT | libc::O_WRONLY).await.is_err(), "{word}");
        assert!(fs.unlink(ROOT, &name(word)).await.is_err(), "{word}");
        let how = crate::ops::RenameHow::Replace;
        assert!(fs.rename((ROOT, &name(word)), (ROOT, &name("x")), how).await.is_err(), "{word}");
        assert!(fs.rename((ROOT, &name("a")), (ROOT, &name(word)), how).await.is_err(), "{word}");
        assert!(fs.open_virtual(node, Fs::open_how(libc::O_RDWR)).await.is_err(), "{word}");
        assert!(fs.set_xattr(node, OsStr::new("user.etcfs.ttl"), b"5").await.is_err(), "{word}");
        fs.forget(node, 1);
    }
    let past = walk(&fs, &format!("%rev/{before}/d")).await.unwrap().node;
    assert!(matches!(fs.unlink(past, OsStr::new("b")).await, Err(OpError::ReadOnly)));
    assert!(matches!(fs.make_dir(past, OsStr::new("x")).await, Err(OpError::ReadOnly)));
    let created = fs.create(past, OsStr::new("x"), 1, libc::O_CREAT | libc::O_WRONLY).await;
    assert!(matches!(created, Err(OpError::ReadOnly)), "{created:?}");
    assert_eq!(memory.revision(), before);
}

/// `%status` answers also while the server does not
#[tokio::test(start_paused = true)]
async fn the_status_is_told_without_a_server() {
    let memory = Memory::new();
    let fs = mount(&memory).await;
    let text = read(&fs, "%status").await.unwrap();
    assert!(text.contains("\nleader: 1\n") && text.contains("connected"), "{text}");
    memory.go_away();
    brought(&fs, &memory).await;
    let text = read(&fs, "%status").await.unwrap();
    assert!(text.contains("without a server since"), "{text}");
    assert!(text.contains("no answer from the server within 1 s"), "{text}");
}
