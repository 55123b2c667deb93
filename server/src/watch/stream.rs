//! One gRPC stream's two ends.
//!
//! Events become responses only here, when they are taken: filters are
//! applied, previous pairs looked up, what waits for the same watcher is joined
//! and what is too long is split, for those who ask for that.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use etcfs_proto::{
    etcdserverpb::{WatchCreateRequest, WatchResponse},
    mvccpb::{Event, event::EventType},
};
use futures_util::Stream;
use prost::Message;

use super::{
    hub::Shared,
    outbox::{Events, Item, Outbox, Taken},
    registry::header,
    watcher::StreamId,
};
use crate::mvcc::{EventKind, WatchEvent};

/// Events joined into one response, so that a busy watcher costs less.
const JOINED_EVENTS_MAX: usize = 256;
const JOINED_BYTES_MAX: usize = 256 << 10;

/// The requests of one gRPC stream. Dropping it cancels its watchers and ends the stream.
#[derive(Debug)]
pub struct WatchControl {
    hub: Arc<Shared>,
    id: StreamId,
    outbox: Arc<Outbox>,
}

impl WatchControl {
    pub(super) fn new(hub: Arc<Shared>, id: StreamId, outbox: Arc<Outbox>) -> Self {
        Self { hub, id, outbox }
    }

    /// Waits until answers can be queued: call before reading the next request, so that a client
    /// that does not read its answers cannot fill memory with them.
    pub async fn room(&self) {
        poll_fn(|cx| if self.outbox.poll_room(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// The answer comes through the stream, before the watcher's events.
    pub fn create(&self, request: WatchCreateRequest) {
        let mut registry = self.hub.registry.lock();
        // Under the lock, so that the revision and what is handed out afterwards fit together.
        let current = self.hub.expect_watcher();
        registry.create(self.id, &request, current, self.hub.store.compact_revision());
        self.hub.count_watchers(&registry);
        let lags = !registry.lagging.is_empty();
        drop(registry);
        if lags {
            self.hub.tell_room();
        }
    }

    pub fn cancel(&self, watch_id: i64) {
        let mut registry = self.hub.registry.lock();
        registry.cancel(self.id, watch_id, self.hub.store.revision());
        self.hub.count_watchers(&registry);
    }

    /// Answers a request for a watcher that the client may not have.
    pub fn refuse(&self, reason: String) {
        self.hub.registry.lock().refuse(self.id, reason, self.hub.store.revision());
    }

    /// Ends a watcher that the client may not have any more.
    pub fn end(&self, watch_id: i64, reason: String) {
        let mut registry = self.hub.registry.lock();
        registry.end(self.id, watch_id, reason);
        self.hub.count_watchers(&registry);
    }

    /// Asks for the revision up to which all watchers of the stream have everything.
    pub fn progress(&self) {
        let current = self.hub.store.revision();
        self.hub.registry.lock().ask_progress(self.id, current);
    }
}

impl Drop for WatchControl {
    fn drop(&mut self) {
        self.hub.close(self.id);
    }
}

/// Answers and events of one gRPC stream; headers hold the revision alone. Ends when the hub does.
#[derive(Debug)]
pub struct WatchStream {
    hub: Arc<Shared>,
    id: StreamId,
    outbox: Arc<Outbox>,
    /// The rest of a response that was split.
    fragments: VecDeque<WatchResponse>,
}

impl WatchStream {
    pub(super) fn new(hub: Arc<Shared>, id: StreamId, outbox: Arc<Outbox>) -> Self {
        Self { hub, id, outbox, fragments: VecDeque::new() }
    }

    /// The response for queued events, joined with more of the same watcher's. `None`: its filters
    /// drop them all.
    fn response(&self, mut events: Events) -> Option<WatchResponse> {
        let wish = events.wish;
        let mut out = Vec::new();
        let mut bytes = 0;
        loop {
            bytes += events.bytes;
            out.extend(events.events.iter().filter(|event| wish.wants(event)).map(|event| Event {
                r#type: match event.kind {
                    EventKind::Put => EventType::Put.into(),
                    EventKind::Delete => EventType::Delete.into(),
                },
                kv: Some(event.kv.clone()),
                prev_kv: if wish.prev_kv { self.previous(event) } else { None },
            }));
            let joins = |next: &Events| {
                next.wish.watch_id == wish.watch_id
                    && out.len() + next.events.len() <= JOINED_EVENTS_MAX
                    && bytes + next.bytes <= JOINED_BYTES_MAX
            };
            match self.outbox.take_more(joins) {
                Some(more) => events = more,
                None => break,
            }
        }
        let header = header(events.revision);
        let response =
            WatchResponse { header, watch_id: wish.watch_id, events: out, ..WatchResponse::default() };
        (!response.events.is_empty()).then_some(response)
    }

    fn previous(&self, event: &WatchEvent) -> Option<etcfs_proto::mvccpb::KeyValue> {
        self.hub.store.previous(event).unwrap_or_else(|error| {
            tracing::error!(%error, "the pair before an event cannot be read");
            None
        })
    }
}

impl Stream for WatchStream {
    type Item = WatchResponse;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchResponse>> {
        loop {
            if let Some(part) = self.fragments.pop_front() {
                return Poll::Ready(Some(part));
            }
            let (taken, room) = self.outbox.take(cx.waker());
            if room {
                self.hub.tell_room();
            }
            match taken {
                Taken::Nothing => return Poll::Pending,
                Taken::Closed => return Poll::Ready(None),
                Taken::Item(Item::Answer(answer)) => return Poll::Ready(Some(answer)),
                Taken::Item(Item::Events(events)) => {
                    let fragment = events.wish.fragment;
                    let Some(response) = self.response(events) else { continue };
                    if fragment {
                        self.fragments = split(response, self.hub.options.fragment_bytes);
                    } else {
                        return Poll::Ready(Some(response));
                    }
                }
            }
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.hub.close(self.id);
    }
}

/// The response in parts that stay below `bytes_max`, or hold one event; all but the last say so.
fn split(response: WatchResponse, bytes_max: usize) -> VecDeque<WatchResponse> {
    if response.encoded_len() < bytes_max || response.events.len() < 2 {
        return VecDeque::from([response]);
    }
    let (header, watch_id) = (response.header, response.watch_id);
    let empty = || WatchResponse { header, watch_id, fragment: true, ..WatchResponse::default() };
    let mut parts = VecDeque::from([empty()]);
    let mut length = 0;
    for event in response.events {
        let own = event.encoded_len();
        let part = parts.back_mut().expect("it begins with one");
        if length + own >= bytes_max && !part.events.is_empty() {
            length = own;
            parts.push_back(WatchResponse { events: vec![event], ..empty() });
        } else {
            length += own;
            part.events.push(event);
        }
    }
    parts.back_mut().expect("it begins with one").fragment = false;
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcfs_proto::mvccpb::KeyValue;

    #[test]
    fn a_long_response_is_split_and_all_but_the_last_part_say_so() {
        let event = |length: usize| Event {
            kv: Some(KeyValue { value: vec![0; length].into(), ..KeyValue::default() }),
            ..Event::default()
        };
        let response = |lengths: &[usize]| WatchResponse {
            events: lengths.iter().copied().map(event).collect(),
            ..WatchResponse::default()
        };
        let shape = |lengths: &[usize]| -> Vec<(usize, bool)> {
            let parts = split(response(lengths), 1000);
            parts.iter().map(|part| (part.events.len(), part.fragment)).collect()
        };
        assert_eq!(shape(&[10, 10]), [(2, false)]);
        assert_eq!(shape(&[5000]), [(1, false)]);
        assert_eq!(shape(&[400, 400, 400, 2000, 10]), [(2, true), (1, true), (1, true), (1, false)]);
    }
}
