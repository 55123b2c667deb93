//! A mounted tree over a store in memory, without a kernel: for tests.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use super::Fs;
use crate::config::View;
use crate::map::{KeyMap, Percent, Rel};
use crate::remote::memory::Memory;

/// Mounts all keys that begin with `/`. The kernel is told of everything, and believes it.
pub(crate) async fn mount(memory: &Memory) -> Arc<Fs> {
    mount_with(memory, "/", Rel::Off, View::default()).await
}

pub(crate) async fn mount_with(memory: &Memory, prefix: &'static str, rel: Rel, view: View) -> Arc<Fs> {
    let map = KeyMap::new(prefix.into(), Percent::Strict, rel);
    let fs = Fs::new(map, Arc::new(memory.clone()), view, Handle::current());
    crate::sync::start(&fs).await.expect("a store in memory answers");
    tokio::spawn(notify(Arc::downgrade(&fs)));
    fs
}

/// The notifier of several mounts, without a pause: for tests that count their time.
pub(crate) async fn publish(mounts: &[Arc<Fs>]) {
    loop {
        for fs in mounts {
            tell(fs);
        }
        tokio::task::yield_now().await;
    }
}

/// Lets an operation take so many steps; what it came to, if it has ended by then.
pub(crate) async fn polled<T>(operation: &mut (impl Future<Output = T> + Unpin), steps: usize) -> Option<T> {
    for _ in 0..steps {
        if let std::task::Poll::Ready(done) = futures_util::poll!(&mut *operation) {
            return Some(done);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Tells the kernel all that is to be told now.
pub(crate) fn tell(fs: &Fs) {
    fs.nodes.with(|table| {
        while let Some(work) = table.next_work() {
            table.work_done(&work);
        }
    });
}

/// The notifier, with a kernel that forgets what it is told to forget.
async fn notify(fs: Weak<Fs>) {
    while let Some(fs) = fs.upgrade() {
        tell(&fs);
        drop(fs);
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}
