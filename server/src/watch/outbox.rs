//! What is queued for one gRPC stream: answers and events, in order.
//!
//! The hub puts in, the stream takes out. Events are counted in bytes; when
//! they are too many, the hub is told so and lets the watcher lag instead.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use etcfs_proto::etcdserverpb::WatchResponse;
use parking_lot::Mutex;

use super::watcher::Wish;
use crate::mvcc::{Previous, WatchEvent};

/// What an answer counts, an event beside its bytes.
const ITEM_OVERHEAD_BYTES: usize = 128;

#[derive(Debug)]
pub(super) struct Outbox {
    /// Held for a few lines; the hub's state may be locked around it, nothing is locked under it.
    queue: Mutex<Queue>,
    bytes_max: usize,
    /// Watchers of the stream lag and wait for room.
    pub(super) lagging: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    events: usize,
    closed: bool,
    reader: Option<Waker>,
    /// The requests' side, waiting until answers have room.
    asker: Option<Waker>,
}

#[derive(Debug)]
pub(super) enum Item {
    Answer(WatchResponse),
    Events(Events),
}

/// Events of one watcher, of one or more whole revisions.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) wish: Wish,
    /// For the header: no event up to it is still to come.
    pub(super) revision: i64,
    /// Those that concern the watcher; what its filters drop is among them.
    pub(super) events: Arc<[WatchEvent]>,
    pub(super) bytes: usize,
}

/// What the reader finds.
#[derive(Debug)]
pub(super) enum Taken {
    Item(Item),
    /// Nothing; the waker is called when there is.
    Nothing,
    Closed,
}

impl Outbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { queue: Mutex::default(), bytes_max, lagging: AtomicBool::new(false) }
    }

    /// Queues an answer; there is always room, for askers wait until there is.
    pub(super) fn answer(&self, response: WatchResponse) {
        self.push(Item::Answer(response), ITEM_OVERHEAD_BYTES, 0);
    }

    /// Queues events. False: there is no room, nothing is queued.
    pub(super) fn events(&self, events: Events) -> bool {
        let (bytes, count) = (events.bytes, events.events.len());
        let mut queue = self.queue.lock();
        // One that is larger than all the room there is must go some time.
        if !queue.items.is_empty() && queue.bytes + bytes > self.bytes_max {
            return false;
        }
        queue.push(Item::Events(events), bytes, count);
        wake(queue);
        true
    }

    fn push(&self, item: Item, bytes: usize, events: usize) {
        let mut queue = self.queue.lock();
        queue.push(item, bytes, events);
        wake(queue);
    }

    /// Takes the next item. The second is true if lagging watchers have room now.
    pub(super) fn take(&self, waker: &Waker) -> (Taken, bool) {
        let mut queue = self.queue.lock();
        if queue.closed {
            return (Taken::Closed, false);
        }
        let taken = match queue.items.pop_front() {
            Some(item) => {
                let (bytes, events) = match &item {
                    Item::Answer(_) => (ITEM_OVERHEAD_BYTES, 0),
                    Item::Events(events) => (events.bytes, events.events.len()),
                };
                queue.bytes -= bytes;
                queue.events -= events;
                Taken::Item(item)
            }
            None => {
                queue.reader = Some(waker.clone());
                Taken::Nothing
            }
        };
        let roomy = queue.bytes <= self.bytes_max / 2;
        let asker = if roomy { queue.asker.take() } else { None };
        drop(queue);
        if let Some(asker) = asker {
            asker.wake();
        }
        (taken, roomy && self.lagging.load(Ordering::Acquire))
    }

    /// Takes the next item if it is one of events that `fits` approves of.
    pub(super) fn take_more(&self, fits: impl FnOnce(&Events) -> bool) -> Option<Events> {
        let mut queue = self.queue.lock();
        match queue.items.front() {
            Some(Item::Events(events)) if fits(events) => {}
            _ => return None,
        }
        let Some(Item::Events(events)) = queue.items.pop_front() else { return None };
        queue.bytes -= events.bytes;
        queue.events -= events.events.len();
        Some(events)
    }

    /// True if a lagging watcher may queue more.
    pub(super) fn has_room(&self) -> bool {
        let queue = self.queue.lock();
        !queue.closed && queue.bytes <= self.bytes_max / 2
    }

    /// True once answers may be queued; else the waker is called when they may.
    pub(super) fn poll_room(&self, waker: &Waker) -> bool {
        let mut queue = self.queue.lock();
        let roomy = queue.closed || queue.bytes <= self.bytes_max / 2;
        if !roomy {
            queue.asker = Some(waker.clone());
        }
        roomy
    }

    pub(super) fn queued_events(&self) -> usize {
        self.queue.lock().events
    }

    /// Ends the stream and drops what is queued.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        let (reader, asker) = (queue.reader.take(), queue.asker.take());
        *queue = Queue { closed: true, ..Queue::default() };
        drop(queue);
        for waker in [reader, asker].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Queue {
    fn push(&mut self, item: Item, bytes: usize, events: usize) {
        if self.closed {
            return;
        }
        self.items.push_back(item);
        self.bytes += bytes;
        self.events += events;
    }
}

/// Wakes the reader, after the queue is unlocked.
fn wake(mut queue: parking_lot::MutexGuard<'_, Queue>) {
    let reader = queue.reader.take();
    drop(queue);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// What queued events count: what they would keep in memory if nobody else did.
pub(super) fn weight(events: &[WatchEvent]) -> usize {
    let one = |event: &WatchEvent| {
        let previous = if let Previous::Row(row) = &event.previous { row.len() } else { 0 };
        event.kv.key.len() + event.kv.value.len() + previous + ITEM_OVERHEAD_BYTES
    };
    events.iter().map(one).sum()
}
