//! A store that refuses the rest, and what shows of it.

use proptest::prelude::*;

use super::*;
use crate::map::rights::granted;
use crate::remote::{Answer, Compare, Op, memory::Memory};

fn set(ranges: &[(&'static str, &'static str)]) -> KeySet {
    let mut set = KeySet::default();
    for (start, end) in ranges {
        set.insert(&KeyRange::from_request(&Bytes::from(*start), &Bytes::from(*end)));
    }
    set
}

fn all() -> KeyRange {
    KeyRange::prefix(&"/".into())
}

/// A server that refuses the rest, and what shows of it.
fn visible(memory: &Memory, read: &KeySet) -> Visible {
    memory.allow(Some(read.clone()));
    let found = granted(&all(), read, read);
    let limits = Limits {
        read: read.clone(),
        write: read.clone(),
        fixed: found.fixed,
        shown: found.shown,
        ..Limits::default()
    };
    Visible::new(Arc::new(memory.clone()), limits)
}

async fn keys(server: &Visible, range: KeyRange, limit: u32) -> Result<Vec<String>, RemoteError> {
    let mut page = PageRequest { range, limit, keys_only: true, how: Freshness::Linearizable };
    let mut keys = Vec::new();
    loop {
        let At { revision, found } = server.page(page.clone()).await?;
        assert!(found.kvs.len() <= limit as usize);
        keys.extend(found.kvs.iter().map(|kv| kv.key.to_string()));
        match found.kvs.last() {
            Some(last) if found.more => page.range.start = etcfs_proto::key::successor(&last.key),
            _ => return Ok(keys),
        }
        page.how = Freshness::Exactly(revision);
    }
}

fn probe(name: &'static str) -> Probe {
    let below = |before: &str| KeyRange::prefix(&format!("{before}{name}/").into());
    Probe { key: name.into(), below: below(""), records: below(".etcfs/dir/") }
}

fn grants() -> KeySet {
    set(&[("/a/b/", "/a/b0"), (".etcfs/dir//a/b/", ".etcfs/dir//a/b0"), ("/a/x", ""), ("/p", "/q")])
}

#[tokio::test]
async fn what_may_not_be_read_is_not_there_and_what_leads_to_the_rest_is() {
    let memory = Memory::new();
    for key in ["/a/b/1", "/a/c", "/a/x", "/a/x/y", "/p", "/plan", "/secret", "/z/1"] {
        memory.put(key, "1");
    }
    memory.put(".etcfs/dir//a/b/d/", "");
    let server = visible(&memory, &grants());
    assert_eq!(keys(&server, all(), 100).await.unwrap(), ["/a/b/1", "/a/x", "/p", "/plan"]);
    let records = KeyRange::prefix(&".etcfs/dir//".into());
    let kept = [".etcfs/dir//a/", ".etcfs/dir//a/b/", ".etcfs/dir//a/b/d/"];
    assert_eq!(keys(&server, records.clone(), 100).await.unwrap(), kept);
    assert_eq!(keys(&server, records, 1).await.unwrap(), kept);
    let names = ["/a", "/a/b", "/a/c", "/a/x", "/p", "/secret", "/z"].map(probe);
    let found = server.lookup(names.to_vec(), Freshness::Linearizable).await.unwrap().found;
    let kinds: Vec<_> =
        found.iter().map(|name| (name.kv.is_some(), name.below.is_some(), name.record.is_some())).collect();
    let [none, file] = [(false, false, false), (true, false, false)];
    assert_eq!(kinds, [(false, true, true), (false, true, true), none, file, file, none, none]);
    assert!(server.may_write(b"/a/x") && !server.may_write(b"/a/y"));
    assert!(
        server
            .children(ChildrenRequest {
                prefix: "/".into(),
                from: Bytes::new(),
                how: Freshness::Linearizable
            })
            .await
            .unwrap()
            .is_none()
    );

    // As unlink does it, in a directory that is not all visible.
    let change = Change {
        compares: vec![Compare::Present("/a/x".into()), Compare::NotPutSince(all(), memory.revision())],
        then: vec![Op::Delete("/a/x".into()), Op::Keys { range: KeyRange::prefix(&"/a/".into()), limit: 2 }],
        otherwise: vec![Op::Get("/a/x".into())],
    };
    let done = server.commit(change.clone()).await.unwrap();
    assert!(done.succeeded);
    assert_eq!(done.answers, [Answer::Done, Answer::Keys(vec!["/a/b/1".into()])]);
    let again = server.commit(change).await.unwrap();
    assert_eq!((again.succeeded, again.answers), (false, vec![Answer::Got(None)]));
    // As rmdir does it.
    let record = Key::from(".etcfs/dir//a/b/");
    let gone = |compare| Change {
        compares: vec![compare],
        then: vec![Op::Delete(record.clone())],
        otherwise: vec![Op::Get(record.clone())],
    };
    let refused = server.commit(gone(Compare::Present(record.clone()))).await;
    assert_eq!(refused, Err(RemoteError::PermissionDenied));
}

#[tokio::test]
async fn what_is_taken_away_is_refused_and_the_rest_goes_on() {
    let memory = Memory::new();
    memory.put("/a/b/1", "1");
    memory.put("/p", "1");
    let server = visible(&memory, &grants());
    let mut watch = server.watch(vec![all()], Revision(memory.revision().0 + 1));
    memory.put(".etcfs/dir//a/b/", "of another mount");
    memory.put("/secret", "1");
    memory.put("/p", "2");
    let brought = loop {
        match watch.next().await.unwrap().unwrap() {
            Watched::Changed(changed) if !changed.events.is_empty() => break changed,
            _ => {}
        }
    };
    assert!(matches!(&brought.events[..], [Event::Put(kv)] if *kv.key == *b"/p"));

    tokio::time::pause();
    memory.allow(Some(set(&[("/p", "/q")])));
    let denied = Err(RemoteError::PermissionDenied);
    assert_eq!(keys(&server, KeyRange::prefix(&"/a/b/".into()), 9).await, denied);
    assert_eq!(keys(&server, all(), 9).await.unwrap(), ["/p"]);
    let ended = loop {
        match watch.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(ended, RemoteError::PermissionDenied);
    let found = server.lookup(vec![probe("/a/b"), probe("/p")], Freshness::Linearizable).await.unwrap();
    assert!(found.found[0].record.is_some() && found.found[1].kv.is_some());
    let inside = server.lookup(vec![probe("/a/b/1")], Freshness::Linearizable).await;
    assert_eq!(inside.unwrap_err(), RemoteError::PermissionDenied);
    let shown = server.shown().unwrap();
    assert_eq!(shown, "`/a/b/`, key `/a/x`, `/p`; taken away since: `/a/b/`, key `/a/x`");

    // Given back, it is found a second later at most.
    memory.allow(Some(grants()));
    tokio::time::advance(LOOK_AGAIN).await;
    assert_eq!(keys(&server, KeyRange::prefix(&"/a/b/".into()), 9).await.unwrap(), ["/a/b/1"]);
    assert!(!server.shown().unwrap().contains("taken away"));
}

proptest! {
    #[test]
    fn pages_hold_each_key_that_may_be_read_once_and_no_other(
        keys_put in prop::collection::btree_set("/[a-c]{0,2}(/[ab]?)?", 0..20),
        ranges in prop::collection::vec(("/[a-c]{0,2}/?", "/[a-d]{0,2}0?"), 1..5),
        limit in 1u32..5,
    ) {
        let memory = Memory::new();
        for key in &keys_put {
            memory.put(key, "1");
        }
        let mut read = KeySet::default();
        for (start, end) in ranges {
            read.insert(&KeyRange { start: start.into(), end: Some(end.into()) });
        }
        let server = visible(&memory, &read);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(keys(&server, all(), limit)).unwrap();
        let may_be = keys_put.iter().filter(|key| read.contains(&Bytes::copy_from_slice(key.as_bytes())));
        prop_assert!(found.iter().eq(may_be));
    }
}
