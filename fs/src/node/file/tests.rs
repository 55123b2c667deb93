//! What a known key takes, and what is dropped.

use super::*;
use crate::config::{Inotify, View};
use crate::map::{KeyMap, Percent, Rel};
use crate::node::table::{Limits, Shared};
use crate::node::{Caller, ROOT};
use crate::remote::{KeyValue, Revision};

const BYTES: usize = 100;

/// A table with room for two files, each looked up by the kernel.
fn table_of(names: &[&str]) -> (Table, Vec<NodeId>) {
    let root = KeyMap::new(Bytes::from_static(b"/"), Percent::Strict, Rel::Off).root();
    let bytes_max = BYTES * 2;
    let limits = Limits { keys_max: 100, bytes_max, follow: true, inotify: Inotify::Off, strict: false };
    let mut table = Table::new(root, limits);
    let nodes = names.iter().map(|name| load(&mut table, name)).collect();
    (table, nodes)
}

fn key_of(name: &str) -> Bytes {
    Bytes::from(format!("/{name}"))
}

fn load(table: &mut Table, name: &str) -> NodeId {
    let bytes = Bytes::from(vec![b'v'; BYTES]);
    table.begin_load(&key_of(name));
    let value = Value { bytes, create: 2, rev: 2, version: 1, lease: 0 };
    table.end_load(&key_of(name), Some((2, Some(value))));
    table.trim();
    let entry = table.lookup_file(&key_of(name), ROOT, OsStr::new(name), Instant::now());
    entry.expect("it was loaded just now").node
}

/// The names that the kernel is asked to let go of.
fn asked(table: &mut Table) -> Vec<OsString> {
    std::iter::from_fn(|| table.next_work()).filter_map(|work| Some(work.drop_name?.1)).collect()
}

/// There may be hundreds of thousands: whoever adds to them says so here.
#[test]
fn a_known_key_takes_little_and_has_no_more_when_nothing_happens_to_it() {
    let sizes = (size_of::<KeyState>(), size_of::<FileNode>());
    assert!(sizes.0 <= 128 && sizes.1 <= 64, "{sizes:?}");
    assert_eq!(size_of::<Node>(), sizes.1, "what else is an inode is rare");

    let (mut table, nodes) = table_of(&["a"]);
    let key = key_of("a");
    let rests = |table: &Table| {
        let Some(Node::File(node)) = table.nodes.get(&nodes[0]) else { panic!("the kernel holds it") };
        let state = &table.keys[&key[..]];
        state.busy.is_none() && node.open.is_none()
    };
    assert!(rests(&table), "looked up");
    let open = table.open_reader(nodes[0], Caller { thread: 1, process: None }).expect("it is there");
    let value = Value { bytes: Bytes::from_static(b"new"), create: 2, rev: 3, version: 2, lease: 0 };
    table.event(&key, 3, Some(value));
    assert!(!rests(&table), "the kernel is to be told, and a reader of the old value is there");
    let work = table.next_work().expect("a publication");
    table.work_done(&work);
    table.release(open);
    assert!(rests(&table), "told and closed");
}

/// Whoever shares a value's bytes makes an allocation for that, and an inode's own handle is as large as all of it.
#[test]
fn a_value_that_was_only_looked_at_is_held_once_and_an_inode_keeps_what_its_key_has_left() {
    let (mut table, nodes) = table_of(&["a"]);
    let key = key_of("a");
    let (name, state) = table.keys.get_key_value(&key[..]).expect("it was loaded");
    assert_eq!(Arc::strong_count(name), 2, "the key's, and the inode's");
    assert!(state.bytes().is_unique());
    let base = |table: &Table| match table.nodes.get(&nodes[0]) {
        Some(Node::File(node)) => node.base.as_ref().map(|base| base.bytes.clone()),
        other => panic!("{other:?}"),
    };
    table.getattr_file(nodes[0], Caller { thread: 1, process: None }, None, Instant::now());
    assert_eq!((table.known_rev(&key), base(&table)), (Known::Present(2), None));
    assert!(table.keys[&key[..]].bytes().is_unique());

    let value = Value { bytes: Bytes::from_static(b"new"), create: 2, rev: 3, version: 2, lease: 0 };
    table.event(&key, 3, Some(value));
    assert_eq!(base(&table), Some(Bytes::from(vec![b'v'; BYTES])));
    let work = table.next_work().expect("a publication");
    table.work_done(&work);
    assert!(base(&table).is_some(), "the kernel has still the old size");
    let later = Instant::now() + std::time::Duration::from_secs(1);
    table.lookup_file(&key, ROOT, OsStr::new("a"), later).expect("it is there");
    assert_eq!(base(&table), None, "the name has led to the new value");
}

/// A file of a directory was read with hundreds of others, and then kept them all in memory.
#[test]
fn a_value_that_is_kept_keeps_nothing_of_the_answer_that_it_came_with() {
    let answer = Bytes::from(b"/key and value, and others".to_vec());
    let kv = KeyValue {
        key: answer.slice(..4).into(),
        value: answer.slice(9..14),
        create_revision: Revision(2),
        mod_revision: Revision(2),
        version: 1,
        lease: None,
    };
    let mut table = table_of(&[]).0;
    table.begin_load(&kv.key.bytes());
    table.end_load(&kv.key.bytes(), Some((2, Some(Value::from(&kv)))));
    table.witnessed(&Bytes::from_static(b"/"), 2, &kv.key.bytes());
    drop(kv);
    assert_eq!(table.stats().cached_bytes, 5);
    assert!(answer.is_unique());
}

/// A right that is taken away is EACCES
#[test]
fn what_is_withheld_is_read_again_later_and_stays_with_who_has_it_open() {
    let (mut table, nodes) = table_of(&["a"]);
    let key = key_of("a");
    let base = |table: &Table, id: NodeId| match table.nodes.get(&id) {
        Some(Node::File(node)) => node.bytes(&table.keys[&node.key]).clone(),
        other => panic!("{other:?}"),
    };
    let before = base(&table, nodes[0]);
    let open = table.open_reader(nodes[0], Caller { thread: 1, process: None }).expect("it is there");
    let mut told = table.wait_published(&key, Until::Rev(9)).expect("it is of a later revision");
    table.withhold(&key);
    assert_eq!((table.known(&key), table.stats().cached_bytes), (Known::Unknown, 0));
    assert!(told.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    assert!(table.lookup_file(&key, ROOT, OsStr::new("a"), Instant::now()).is_none());

    let value = Value { bytes: Bytes::from_static(b"new"), create: 2, rev: 9, version: 2, lease: 0 };
    table.begin_load(&key);
    table.end_load(&key, Some((9, Some(value))));
    let found = table.lookup_file(&key, ROOT, OsStr::new("a"), Instant::now()).expect("it was read");
    assert_eq!((base(&table, found.node), base(&table, nodes[0])), (Bytes::from_static(b"new"), before));
    table.release(open);
}

/// What is cached stays within its bound
#[test]
fn what_the_kernel_knows_is_let_go_of_where_there_is_no_room() {
    // Each was used just now, which counts for one round.
    let (mut table, nodes) = table_of(&["a", "b", "c"]);
    table.trim();
    assert_eq!(asked(&mut table), ["a"]);
    table.trim();
    assert_eq!(asked(&mut table), Vec::<OsString>::new(), "one is enough, and is not asked for twice");
    table.forget(nodes[0], 1);
    assert_eq!((table.known(&key_of("a")), table.stats().cached_bytes), (Known::Unknown, BYTES * 2));

    // One that is open stays; and so does one that is used again before the kernel has let go of it.
    let open = table.open_reader(nodes[1], Caller { thread: 1, process: None }).expect("it is there");
    load(&mut table, "d");
    table.trim();
    assert_eq!(asked(&mut table), ["c"]);
    table.lookup_file(&key_of("c"), ROOT, OsStr::new("c"), Instant::now());
    table.release(open);
    table.trim();
    table.trim();
    assert_eq!(asked(&mut table).len(), 1);
    assert_eq!(table.stats().keys, 3);
}

/// What was used just now stayed beyond the bound until somebody used something else.
#[test]
fn what_is_too_much_goes_though_nothing_happens_any_more() {
    let view = View { cache_bytes: 2 * BYTES as u64, ..View::default() };
    let root = KeyMap::new(Bytes::from_static(b"/"), Percent::Strict, Rel::Off).root();
    let shared = Shared::new(root, &view);
    shared.with(|table| ["a", "b", "c"].map(|name| load(table, name)));
    assert_eq!(shared.wait_work().and_then(|work| work.drop_name), Some((ROOT, OsString::from("a"))));
}
