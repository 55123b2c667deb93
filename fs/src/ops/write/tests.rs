//! Writers over a store in memory: what their process sees of what they have not saved, and when it is saved.

use std::ffi::OsStr;
use std::sync::Arc;

use super::*;
use crate::node::ROOT;
use crate::ops::SetAttr;
use crate::ops::test_mount::mount;
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
