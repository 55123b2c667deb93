//! Mounts of one store in memory, and their locks: no kernel, no network.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::node::ROOT;
use crate::ops::test_mount::mount;
use crate::ops::{Interrupts, interruptible};
use crate::remote::Remote;
use crate::remote::memory::Memory;

const WHOLE: Span = Span { start: 0, end: i64::MAX as u64 };

async fn node(fs: &Fs, name: &str) -> NodeId {
    fs.lookup(ROOT, OsStr::new(name)).await.unwrap().node
}

fn set(owner: u64, span: Span, mode: Option<Mode>, wait: bool) -> SetLock {
    SetLock { owner: Owner(owner), pid: 7, span, mode, wait }
}

fn exclusive(owner: u64, wait: bool) -> SetLock {
    set(owner, WHOLE, Some(Mode::Exclusive), wait)
}

fn unlock(owner: u64) -> SetLock {
    set(owner, WHOLE, None, false)
}

/// Lets everything that can happen now happen.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

fn records(memory: &Memory) -> usize {
    memory.dump().keys().filter(|key| key.starts_with(crate::lock::LOCK_RECORDS)).count()
}

#[tokio::test]
async fn a_lock_of_one_mount_keeps_another_out_until_it_is_let_go() {
    let memory = Memory::new();
    memory.put("/lk", "");
    let (one, two) = (mount(&memory).await, mount(&memory).await);
    let (a, b) = (node(&one, "lk").await, node(&two, "lk").await);
    one.set_lock(a, exclusive(1, false)).await.unwrap();
    assert!(matches!(two.set_lock(b, exclusive(1, false)).await, Err(OpError::WouldBlock)));
    let seen = two.get_lock(b, Owner(1), WHOLE, Mode::Shared).await.unwrap().unwrap();
    assert_eq!((seen.mode, seen.pid), (Mode::Exclusive, 0));
    one.set_lock(a, unlock(1)).await.unwrap();
    two.set_lock(b, exclusive(1, false)).await.unwrap();
    two.set_lock(b, unlock(1)).await.unwrap();
    assert_eq!(records(&memory), 0);
}

#[tokio::test]
async fn ranges_and_readers_share_a_file() {
    let memory = Memory::new();
    memory.put("/lk", "");
    let (one, two) = (mount(&memory).await, mount(&memory).await);
    let (a, b) = (node(&one, "lk").await, node(&two, "lk").await);
    let (low, high) = (Span { start: 0, end: 9 }, Span { start: 10, end: 19 });
    one.set_lock(a, set(1, low, Some(Mode::Exclusive), false)).await.unwrap();
    two.set_lock(b, set(1, high, Some(Mode::Exclusive), false)).await.unwrap();
    one.set_lock(a, set(1, low, Some(Mode::Shared), false)).await.unwrap();
    two.set_lock(b, set(2, low, Some(Mode::Shared), false)).await.unwrap();
    let refused = one.set_lock(a, set(1, low, Some(Mode::Exclusive), false)).await;
    assert!(matches!(refused, Err(OpError::WouldBlock)), "an upgrade waits for the other reader");
    // What the refused one had stays.
    let seen = two.get_lock(b, Owner(2), low, Mode::Exclusive).await.unwrap().unwrap();
    assert_eq!((seen.span, seen.mode), (low, Mode::Shared));
}

/// Who asked first gets it first
#[tokio::test]
async fn who_asked_first_gets_it_first() {
    let memory = Memory::new();
    memory.put("/lk", "");
    let mounts = [mount(&memory).await, mount(&memory).await, mount(&memory).await];
    let mut nodes = Vec::new();
    for fs in &mounts {
        nodes.push(node(fs, "lk").await);
    }
    mounts[0].set_lock(nodes[0], exclusive(1, false)).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for turn in 0..9 {
        let (fs, id, order) = (mounts[turn % 3].clone(), nodes[turn % 3], order.clone());
        tasks.push(tokio::spawn(async move {
            fs.set_lock(id, exclusive(10 + turn as u64, true)).await.unwrap();
            order.lock().push(turn);
            fs.set_lock(id, unlock(10 + turn as u64)).await.unwrap();
        }));
        // In line before the next one asks.
        while records(&memory) < turn + 2 {
            tokio::task::yield_now().await;
        }
    }
    // Nobody overtakes those who wait.
    let late = mounts[1].set_lock(nodes[1], exclusive(99, false)).await;
    assert!(matches!(late, Err(OpError::WouldBlock)));
    mounts[0].set_lock(nodes[0], unlock(1)).await.unwrap();
    for task in tasks {
        timeout(Duration::from_secs(30), task).await.expect("each gets its turn").unwrap();
    }
    assert_eq!(*order.lock(), (0..9).collect::<Vec<_>>());
    assert_eq!(records(&memory), 0);
}

#[tokio::test]
async fn one_owner_at_a_time_however_many_mounts_race() {
    let memory = Memory::new();
    memory.put("/lk", "");
    let inside = Arc::new(Mutex::new(0));
    let mut tasks = Vec::new();
    for number in 0..4 {
        let fs = mount(&memory).await;
        let id = node(&fs, "lk").await;
        let inside = inside.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..25 {
                fs.set_lock(id, exclusive(number, true)).await.unwrap();
                *inside.lock() += 1;
                settle().await;
                assert_eq!(*inside.lock(), 1);
                *inside.lock() -= 1;
                fs.set_lock(id, unlock(number)).await.unwrap();
            }
        }));
    }
    for task in tasks {
        timeout(Duration::from_secs(60), task).await.expect("nobody is forgotten").unwrap();
    }
    assert_eq!(records(&memory), 0);
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_nothing() {
    let memory = Memory::new();
    memory.put("/lk", "");
    let (one, two) = (mount(&memory).await, mount(&memory).await);
    let (a, b) = (node(&one, "lk").await, node(&two, "lk").await);
    one.set_lock(a, exclusive(1, false)).await.unwrap();
    {
        let waiting = two.set_lock(b, exclusive(2, true));
        tokio::pin!(waiting);
        let early = timeout(Duration::from_millis(50), &mut waiting).await;
        assert!(early.is_err(), "it waits");
        assert_eq!(records(&memory), 2);
    }
    while records(&memory) > 1 {
        tokio::task::yield_now().await;
    }
    one.set_lock(a, unlock(1)).await.unwrap();
    settle().await;
    assert_eq!(records(&memory), 0);
}

#[tokio::test]
async fn a_signal_that_comes_with_the_lock_leaves_no_lock() {
    let memory = Memory::new();
    memory.put("/lk", "");
    let (one, two) = (mount(&memory).await, mount(&memory).await);
    let (a, b) = (node(&one, "lk").await, node(&two, "lk").await);
    for steps in 0..60 {
        one.set_lock(a, exclusive(1, false)).await.unwrap();
        let mut waiting = Box::pin(interruptible(0, Interrupts::Any, two.set_lock(b, exclusive(2, true))));
        while records(&memory) < 2 {
            assert!(futures_util::poll!(&mut waiting).is_pending());
            tokio::task::yield_now().await;
        }
        one.set_lock(a, unlock(1)).await.unwrap();
        let mut got = false;
        for _ in 0..steps {
            if futures_util::poll!(&mut waiting).is_ready() {
                got = true;
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(waiting);
        if got {
            two.set_lock(b, unlock(2)).await.unwrap();
        }
        timeout(Duration::from_secs(10), async {
            while records(&memory) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the lock is let go");
    }
}

/// A lock ends with its holder, its mount or its host
#[tokio::test]
async fn who_lost_its_session_is_told_and_changes_nothing() {
    let memory = Memory::new();
    memory.put("/lk", "");
    memory.put("/data", "one");
    let (one, two) = (mount(&memory).await, mount(&memory).await);
    let (a, b) = (node(&one, "lk").await, node(&two, "lk").await);
    one.set_lock(a, exclusive(1, false)).await.unwrap();
    let data = node(&one, "data").await;
    let how = Fs::open_how(libc::O_WRONLY | libc::O_APPEND);
    let before = one.open(data, 0, how).unwrap();
    let lease = memory.dump().keys().find_map(|key| {
        let text = std::str::from_utf8(key).ok()?.strip_prefix(".etcfs/op/-/")?.strip_suffix("/session")?;
        i64::from_str_radix(text, 16).ok()
    });
    memory.expire(LeaseId(lease.expect("a session record")));
    two.set_lock(b, exclusive(1, true)).await.unwrap();
    let token = two.locks.revision_of(b"/lk").expect("it holds the lock");
    let refused = one.write(before, 0, 0, "two".into()).await;
    assert!(matches!(refused, Err(OpError::LocksLost)), "{refused:?}");
    let flushed = one.flush_now(before).expect("it is known");
    assert!(matches!(flushed, Err(OpError::Failed(crate::errno::Errno(libc::EIO)))), "{flushed:?}");
    assert_eq!(memory.value("/data").unwrap(), "one");
    assert!(memory.key_value("/data").unwrap().mod_revision < token);
    // Who is not known might be the one who lost it; once it has let go, all is well again.
    assert!(matches!(one.open(data, 0, how), Err(OpError::LocksLost)));
    one.set_lock(a, unlock(1)).await.unwrap();
    let after = one.open(data, 0, how).unwrap();
    one.write(after, 0, 0, "+".into()).await.unwrap();
    assert_eq!(memory.value("/data").unwrap(), "one+");
    two.set_lock(b, unlock(1)).await.unwrap();
    one.set_lock(a, exclusive(1, false)).await.expect("with a new session");
    one.shutdown().await;
    assert_eq!(records(&memory), 0, "an unmount frees the locks");
    Remote::close(&memory).await.unwrap();
}
