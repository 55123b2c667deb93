//! Writers over a store in memory: what their process sees of what they have not saved, and when it is saved.

use std::ffi::OsStr;
use std::sync::Arc;

use super::*;
use crate::node::ROOT;
use crate::ops::test_mount::mount;
use crate::ops::{RenameHow, SetAttr};
use crate::remote::memory::Memory;
use crate::remote::{Freshness, Remote};

/// A process that is not there: of its descriptors nothing can be seen.
const NOBODY: u32 = u32::MAX;

async fn opened(fs: &Arc<Fs>, name: &str, pid: u32, flags: i32) -> (NodeId, Fh) {
    match fs.lookup(ROOT, OsStr::new(name)).await {
        Ok(entry) => (entry.node, fs.open(entry.node, pid, Fs::open_how(flags)).unwrap()),
        Err(_) => {
            let created = fs.create(ROOT, OsStr::new(name), pid, flags | libc::O_CREAT).await.unwrap();
            (created.entry.node, created.fh)
        }
    }
}

async fn value(memory: &Memory, key: &'static str) -> Option<Bytes> {
    let found = memory.get(key.into(), Freshness::Linearizable).await.unwrap().found;
    found.map(|kv| kv.value)
}

#[tokio::test]
async fn an_emptied_file_is_put_by_its_last_close() {
    let memory = Memory::new();
    memory.put("/f", "v");
    let fs = mount(&memory).await;
    // This test's own process has no such file open, so its close is the last.
    let own = std::process::id();
    let (id, fh) = opened(&fs, "f", own, libc::O_WRONLY | libc::O_TRUNC).await;
    fs.clone().close(id, fh, Owner(1), own).await.unwrap();
    assert_eq!(value(&memory, "/f").await.as_deref(), Some(b"".as_ref()));

    // Who can't be seen may have another descriptor, through which it is yet to write.
    memory.put("/g", "v");
    let (id, fh) = opened(&fs, "g", NOBODY, libc::O_WRONLY | libc::O_TRUNC).await;
    fs.clone().close(id, fh, Owner(1), NOBODY).await.unwrap();
    assert_eq!(value(&memory, "/g").await.as_deref(), Some(b"v".as_ref()));
    fs.clone().release(id, fh, None).await;
    assert_eq!(value(&memory, "/g").await.as_deref(), Some(b"".as_ref()));
}

#[tokio::test]
async fn what_is_not_saved_has_its_own_time_and_size() {
    let memory = Memory::new();
    let fs = mount(&memory).await;
    let (id, fh) = opened(&fs, "f", 7, libc::O_RDWR).await;
    let made = fs.getattr(id, 7, None).unwrap().unsaved.expect("it is no key yet");
    fs.truncate_handle(fh, 10).await.unwrap();
    let grown = fs.getattr(id, 7, None).unwrap();
    assert_eq!(grown.size, 10);
    assert!(grown.unsaved.is_some_and(|changed| changed >= made));
    assert_eq!(fs.getattr(id, 8, None).unwrap().size, 0, "to another process it is as it was");
    fs.flush(fh, Moment::Fsync).await.unwrap();
    let saved = fs.getattr(id, 7, None).unwrap();
    assert_eq!((saved.size, saved.unsaved), (10, None));
    assert!(fs.time_of(saved.rev) >= grown.unsaved.unwrap(), "times go on");
}

#[tokio::test]
async fn a_process_sees_what_it_writes_through_a_descriptor_that_the_name_has_left() {
    let memory = Memory::new();
    memory.put("/f", "v");
    let fs = mount(&memory).await;
    let (id, fh) = opened(&fs, "f", 7, libc::O_RDWR).await;
    // A reader holds the inode, so the name gets another one for the next value.
    let reader = fs.open(id, 8, Fs::open_how(libc::O_RDONLY)).unwrap();
    memory.put("/f", "longer");
    let named = loop {
        let entry = fs.lookup(ROOT, OsStr::new("f")).await.unwrap();
        if entry.node != id {
            break entry.node;
        }
        tokio::task::yield_now().await;
    };
    fs.truncate_handle(fh, 100).await.unwrap();
    assert_eq!(fs.getattr(named, 7, None).unwrap().size, 100);
    assert_eq!(fs.getattr(named, 8, None).unwrap().size, 6);
    fs.release_now(reader);
}

#[tokio::test]
async fn the_helper_does_not_cut_what_a_program_writes() {
    let memory = Memory::new();
    memory.put("/f", "v");
    let fs = mount(&memory).await;
    let (id, fh) = opened(&fs, "f", 7, libc::O_RDWR).await;
    fs.truncate_handle(fh, 100).await.unwrap();
    fs.set_helper(9);
    assert_eq!(fs.getattr(id, 9, None).unwrap().size, 100);
    assert_eq!(fs.helper_touch(id).unwrap().size, 100);
    assert_eq!(fs.lookup(ROOT, OsStr::new("f")).await.unwrap().attr.size, 100);
    assert_eq!(fs.getattr(id, 8, None).unwrap().size, 1);
}

#[tokio::test]
async fn another_thread_of_the_process_sees_what_is_written() {
    let memory = Memory::new();
    memory.put("/f", "v");
    let fs = mount(&memory).await;
    let own = std::process::id();
    let (id, fh) = opened(&fs, "f", own, libc::O_RDWR).await;
    let size = SetAttr { size: Some(100), ..SetAttr::default() };
    fs.setattr(id, own, Some(fh), size).await.unwrap();
    let (sender, ended) = std::sync::mpsc::channel::<()>();
    let (tid, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let own = std::fs::read_link("/proc/thread-self").unwrap();
        tid.send(own.file_name().unwrap().to_str().unwrap().parse().unwrap()).unwrap();
        ended.recv().unwrap();
    });
    let thread_id: u32 = told.recv().unwrap();
    assert_eq!(fs.getattr(id, thread_id, None).unwrap().size, 100);
    assert_eq!(all(&fs, opened_again(&fs, "f", thread_id).await).len(), 100);
    sender.send(()).unwrap();
    thread.join().unwrap();
}

#[tokio::test]
async fn pages_written_through_a_mapping_are_their_files_writers() {
    let memory = Memory::new();
    memory.put("/f", "v");
    let fs = mount(&memory).await;
    let (id, fh) = opened(&fs, "f", 7, libc::O_RDWR).await;
    fs.write_now(fh, 7, 0, b"written").expect("it is buffered").unwrap();
    // The kernel names no process for these.
    fs.write_now(fh, 0, 0, b"mapped").expect("it is buffered").unwrap();
    assert_eq!(fs.getattr(id, 7, None).unwrap().size, 7);
}

async fn opened_again(fs: &Arc<Fs>, name: &str, pid: u32) -> Fh {
    let named = fs.lookup(ROOT, OsStr::new(name)).await.unwrap().node;
    fs.open(named, pid, Fs::open_how(libc::O_RDONLY)).unwrap()
}

fn all(fs: &Fs, fh: Fh) -> Bytes {
    fs.read(fh, 1, 0, 1 << 20).unwrap()
}

fn written(fs: &Fs, fh: Fh, pid: u32, offset: u64, data: &[u8]) {
    fs.write_now(fh, pid, offset, data).expect("it is buffered").unwrap();
}

/// A process reads what it has written
#[tokio::test]
async fn what_a_process_opens_while_it_writes_shows_what_it_writes() {
    let memory = Memory::new();
    memory.put("/f", "saved");
    let fs = mount(&memory).await;
    let before = opened_again(&fs, "f", 7).await;
    let (id, fh) = opened(&fs, "f", 7, libc::O_RDWR).await;
    let (own, others) = (opened_again(&fs, "f", 7).await, opened_again(&fs, "f", 8).await);
    written(&fs, fh, 7, 5, b", not saved");
    assert_eq!(all(&fs, own), "saved, not saved");
    assert_eq!(fs.read(own, 7, 7, 3).unwrap(), "not");
    assert_eq!(fs.read(own, 7, 16, 9).unwrap(), "");
    assert_eq!(fs.getattr(id, 7, Some(own)).unwrap().size, 16, "by lseek");
    assert_eq!(fs.getattr(id, 7, None).unwrap().size, 16, "by stat");
    // Others have the saved value, and what was open before is its revision.
    assert_eq!((all(&fs, others), all(&fs, before)), ("saved".into(), "saved".into()));
    assert_eq!(fs.getattr(id, 8, None).unwrap().size, 5);
    fs.truncate_handle(fh, 4).await.unwrap();
    assert_eq!(all(&fs, own), "save");
    // Another client's value lies below what is written here.
    memory.put("/f", "SAVED BY OTHERS");
    while all(&fs, own) != "SAVE" {
        tokio::task::yield_now().await;
    }
    assert_eq!(value(&memory, "/f").await.unwrap(), "SAVED BY OTHERS");
    fs.flush(fh, Moment::Flush).await.unwrap();
    assert_eq!(value(&memory, "/f").await.unwrap(), "SAVE");
    assert_eq!(all(&fs, own), "SAVE");
    // Its writer is gone: it is a reader of what that left, and goes on as every reader does.
    fs.clone().release(id, fh, None).await;
    memory.put("/f", "new");
    while all(&fs, opened_again(&fs, "f", 9).await) != "new" {
        tokio::task::yield_now().await;
    }
    assert_eq!(all(&fs, own), "SAVE");
    assert_eq!(fs.read(own, 7, 4, 100).unwrap(), "", "the end, once");
    assert_eq!(fs.read(own, 7, 4, 100).unwrap(), "new");
}

#[tokio::test]
async fn several_writers_of_a_process_see_each_others_bytes() {
    let memory = Memory::new();
    memory.put("/f", "0123456789");
    let fs = mount(&memory).await;
    let (id, one) = opened(&fs, "f", 7, libc::O_RDWR).await;
    let (_, two) = opened(&fs, "f", 7, libc::O_RDWR).await;
    let (_, foreign) = opened(&fs, "f", 8, libc::O_RDWR).await;
    let reader = opened_again(&fs, "f", 7).await;
    written(&fs, two, 7, 0, b"two");
    written(&fs, one, 7, 2, b"one");
    written(&fs, foreign, 8, 8, b"x");
    for fh in [one, two, reader] {
        assert_eq!(all(&fs, fh), "twone56789");
    }
    assert_eq!(all(&fs, foreign), "01234567x9");
    written(&fs, two, 7, 10, b"end");
    assert_eq!(all(&fs, reader), "twone56789end");
    fs.flush(one, Moment::Flush).await.unwrap();
    fs.clone().release(id, one, None).await;
    assert_eq!(value(&memory, "/f").await.unwrap(), "01one56789", "one save, of its own bytes");
    assert_eq!(all(&fs, reader), "twone56789end");
    fs.flush(two, Moment::Flush).await.unwrap();
    fs.clone().release(id, two, None).await;
    assert_eq!(
        (all(&fs, reader), value(&memory, "/f").await.unwrap()),
        ("twone56789end".into(), "twone56789end".into())
    );
}

#[tokio::test]
async fn a_child_that_closes_what_it_inherited_saves_nothing_of_its_parents() {
    let memory = Memory::new();
    memory.put("/f", "v");
    let fs = mount(&memory).await;
    let (id, fh) = opened(&fs, "f", 7, libc::O_RDWR).await;
    written(&fs, fh, 7, 0, b"half");
    fs.clone().close(id, fh, Owner(1), 8).await.unwrap();
    assert_eq!(value(&memory, "/f").await.unwrap(), "v");
    written(&fs, fh, 7, 4, b" and half");
    fs.clone().close(id, fh, Owner(1), 7).await.unwrap();
    assert_eq!(value(&memory, "/f").await.unwrap(), "half and half");
}

#[tokio::test]
async fn a_child_that_writes_through_what_it_inherited_reads_it_too() {
    let memory = Memory::new();
    memory.put("/f", "v");
    let fs = mount(&memory).await;
    let (_, fh) = opened(&fs, "f", 7, libc::O_RDWR).await;
    written(&fs, fh, 8, 0, b"by the child");
    for pid in [7, 8] {
        assert_eq!(all(&fs, opened_again(&fs, "f", pid).await), "by the child");
    }
    assert_eq!(all(&fs, opened_again(&fs, "f", 9).await), "v");
}

#[tokio::test]
async fn an_unlinked_file_is_one_file_for_its_process_and_not_the_next_of_its_name() {
    let memory = Memory::new();
    memory.put("/f", "v");
    let fs = mount(&memory).await;
    let (id, fh) = opened(&fs, "f", 7, libc::O_RDWR).await;
    let reader = opened_again(&fs, "f", 7).await;
    fs.unlink(ROOT, OsStr::new("f")).await.unwrap();
    written(&fs, fh, 7, 0, b"no name");
    assert_eq!(all(&fs, reader), "no name");
    let (_, again) = opened(&fs, "f", 7, libc::O_RDWR).await;
    fs.write(again, 7, 0, Bytes::from_static(b"a ")).await.unwrap();
    written(&fs, again, 7, 2, b"name");
    assert_eq!(
        (all(&fs, reader), all(&fs, opened_again(&fs, "f", 7).await)),
        ("no name".into(), "a name".into())
    );
    // What nobody can save any more is still what the file holds.
    fs.clone().release(id, fh, None).await;
    assert_eq!(all(&fs, reader), "no name");
}

/// A save goes where the file is
#[tokio::test]
async fn what_is_written_after_a_save_and_a_rename_is_saved_under_the_new_name() {
    let memory = Memory::new();
    memory.put("/log", "one\n");
    let fs = mount(&memory).await;
    let (id, fh) = opened(&fs, "log", 7, libc::O_WRONLY | libc::O_APPEND).await;
    // A reader holds the writer's inode, so that the name has another one now.
    fs.open(id, 8, Fs::open_how(libc::O_RDONLY)).unwrap();
    fs.write(fh, 7, 0, Bytes::from_static(b"two\n")).await.unwrap();
    assert_ne!(fs.lookup(ROOT, OsStr::new("log")).await.unwrap().node, id);
    let (from, to) = (OsStr::new("log"), OsStr::new("log.1"));
    fs.rename((ROOT, from), (ROOT, to), RenameHow::Replace).await.unwrap();
    written(&fs, fh, 7, 0, b"three\n");
    assert_eq!(all(&fs, opened_again(&fs, "log.1", 7).await), "one\ntwo\nthree\n");
    fs.flush(fh, Moment::Flush).await.unwrap();
    fs.clone().release(id, fh, None).await;
    assert_eq!(value(&memory, "/log.1").await.unwrap(), "one\ntwo\nthree\n");
    assert_eq!(value(&memory, "/log").await, None);
}
