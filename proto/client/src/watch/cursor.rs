//! Where a watch stands, decided from the server's answers alone.
//!
//! The next revision wanted is known from the first answer on: a watch "from
//! now" starts right after the revision that its creation reports. Event
//! batches move it to their last revision plus one (never to their header's
//! revision, which for a watch that is catching up runs ahead), and a progress
//! notice addressed to this watch to its revision plus one.

use etcfs_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};

use super::{BatchKind, WatchBatch};
use crate::ClientError;

/// The id of answers that are for the whole stream.
const EVERY_WATCH: i64 = -1;

#[derive(Debug)]
pub(super) struct Cursor {
    request: WatchCreateRequest,
    /// The first revision not yet delivered; 0 until the first answer of a watch from now.
    next: i64,
    created: bool,
    resumed: bool,
    /// Events of a revision that the server cut in parts.
    parts: Vec<etcfs_proto::mvccpb::Event>,
}

/// What an answer means for the reader.
#[derive(Debug)]
pub(super) enum Step {
    Deliver(WatchBatch),
    Nothing,
    End(ClientError),
}

impl Cursor {
    pub(super) fn new(request: WatchCreateRequest) -> Self {
        let next = request.start_revision;
        Self {
            request: WatchCreateRequest { watch_id: 0, ..request },
            next,
            created: false,
            resumed: false,
            parts: Vec::new(),
        }
    }

    /// The request that opens the watch on a new stream, where it left off.
    pub(super) fn open(&mut self) -> WatchCreateRequest {
        self.resumed |= self.created;
        self.created = false;
        self.parts.clear();
        WatchCreateRequest { start_revision: self.next, ..self.request.clone() }
    }

    /// The last revision that was delivered in full.
    pub(super) fn delivered(&self) -> i64 {
        (self.next - 1).max(0)
    }

    pub(super) fn take(&mut self, answer: WatchResponse) -> Step {
        if answer.compact_revision != 0 {
            return Step::End(ClientError::Compacted { revision: answer.compact_revision });
        }
        if answer.canceled {
            return Step::End(ClientError::WatchCanceled { reason: answer.cancel_reason });
        }
        let header = answer.header.unwrap_or_default();
        if answer.created {
            self.created = true;
            if self.next == 0 {
                self.next = header.revision + 1;
            }
            return deliver(
                BatchKind::Created { resumed: self.resumed },
                header.revision,
                Vec::new(),
                header,
            );
        }
        if answer.events.is_empty() && !answer.fragment && self.parts.is_empty() {
            if answer.watch_id == EVERY_WATCH {
                return deliver(BatchKind::ProgressAnswer, header.revision, Vec::new(), header);
            }
            self.next = self.next.max(header.revision + 1);
            return deliver(BatchKind::Progress, header.revision, Vec::new(), header);
        }
        self.parts.extend(answer.events);
        if answer.fragment {
            return Step::Nothing;
        }
        let mut events = std::mem::take(&mut self.parts);
        let next = self.next;
        // A server that sends what was delivered before must not make the reader see it twice.
        events.retain(|event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision >= next));
        let Some(last) = events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision).max()
        else {
            return Step::Nothing;
        };
        self.next = last + 1;
        deliver(BatchKind::Events, last, events, header)
    }
}

fn deliver(
    kind: BatchKind,
    revision: i64,
    events: Vec<etcfs_proto::mvccpb::Event>,
    header: etcfs_proto::etcdserverpb::ResponseHeader,
) -> Step {
    Step::Deliver(WatchBatch { kind, revision, events, header })
}

#[cfg(test)]
mod tests {
    use etcfs_proto::{
        etcdserverpb::ResponseHeader,
        mvccpb::{Event, KeyValue},
    };
    use proptest::prelude::*;

    use super::*;

    fn header(revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision, ..ResponseHeader::default() })
    }

    fn created(revision: i64) -> WatchResponse {
        WatchResponse { header: header(revision), created: true, ..WatchResponse::default() }
    }

    fn events(ahead: i64, revisions: &[i64]) -> WatchResponse {
        let event = |&mod_revision: &i64| Event {
            kv: Some(KeyValue { mod_revision, ..KeyValue::default() }),
            ..Event::default()
        };
        let last = revisions.iter().max().copied().unwrap_or(0);
        WatchResponse {
            header: header(last + ahead),
            events: revisions.iter().map(event).collect(),
            ..WatchResponse::default()
        }
    }

    fn revisions(step: Step) -> Vec<i64> {
        match step {
            Step::Deliver(batch) => {
                batch.events.iter().map(|e| e.kv.as_ref().unwrap().mod_revision).collect()
            }
            Step::Nothing => Vec::new(),
            Step::End(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_watch_from_now_resumes_after_its_creation_even_if_nothing_came() {
        let mut cursor = Cursor::new(WatchCreateRequest::default());
        assert_eq!(cursor.open().start_revision, 0);
        cursor.take(created(7));
        assert_eq!(cursor.open().start_revision, 8);
        let Step::Deliver(batch) = cursor.take(created(9)) else { panic!("created is delivered") };
        assert_eq!(batch.kind, BatchKind::Created { resumed: true });
        assert_eq!(
            cursor.open().start_revision,
            8,
            "the revision of a later creation is not ours to skip to"
        );
    }

    #[test]
    fn a_header_ahead_of_the_events_does_not_move_the_watch() {
        let mut cursor =
            Cursor::new(WatchCreateRequest { start_revision: 2, ..WatchCreateRequest::default() });
        cursor.take(created(100));
        cursor.take(events(90, &[2, 3]));
        assert_eq!(cursor.open().start_revision, 4);
    }

    #[test]
    fn parts_of_a_revision_are_delivered_together_or_asked_for_again() {
        let mut cursor =
            Cursor::new(WatchCreateRequest { start_revision: 2, ..WatchCreateRequest::default() });
        cursor.take(created(5));
        let part = WatchResponse { fragment: true, ..events(0, &[2, 2]) };
        assert!(matches!(cursor.take(part.clone()), Step::Nothing));
        assert_eq!(cursor.open().start_revision, 2, "a torn revision was not delivered");
        cursor.take(created(5));
        cursor.take(part);
        assert_eq!(revisions(cursor.take(events(0, &[2]))), [2, 2, 2]);
        assert_eq!(cursor.delivered(), 2);
    }

    #[test]
    fn progress_for_the_watch_moves_it_and_an_answer_for_the_stream_does_not() {
        let mut cursor =
            Cursor::new(WatchCreateRequest { start_revision: 2, ..WatchCreateRequest::default() });
        cursor.take(created(5));
        let answer = |watch_id| WatchResponse { header: header(9), watch_id, ..WatchResponse::default() };
        let Step::Deliver(batch) = cursor.take(answer(EVERY_WATCH)) else { panic!("an answer is delivered") };
        assert_eq!((batch.kind, batch.revision), (BatchKind::ProgressAnswer, 9));
        assert_eq!(cursor.open().start_revision, 2);
        cursor.take(answer(0));
        assert_eq!(cursor.open().start_revision, 10);
    }

    #[test]
    fn compaction_and_cancellation_end_the_watch() {
        let mut cursor = Cursor::new(WatchCreateRequest::default());
        let compacted = WatchResponse { canceled: true, compact_revision: 4, ..WatchResponse::default() };
        assert!(matches!(cursor.take(compacted), Step::End(ClientError::Compacted { revision: 4 })));
        let refused = WatchResponse { created: true, canceled: true, ..WatchResponse::default() };
        assert!(matches!(cursor.take(refused), Step::End(ClientError::WatchCanceled { .. })));
    }

    proptest! {
        /// A server holds one event a revision; it sends them in batches, the
        /// connection breaks anywhere: the reader sees each once, in order.
        #[test]
        fn breaks_neither_lose_nor_double_an_event(
            start in 2i64..5,
            last in 5i64..60,
            script in proptest::collection::vec((1i64..7, any::<bool>(), any::<bool>()), 1..40),
        ) {
            let mut cursor = Cursor::new(WatchCreateRequest { start_revision: start, ..WatchCreateRequest::default() });
            let mut seen = Vec::new();
            let mut at = cursor.open().start_revision;
            for (length, breaks, torn) in script.into_iter().cycle().take(400) {
                if breaks {
                    at = cursor.open().start_revision;
                    seen.extend(revisions(cursor.take(created(last))));
                }
                let end = (at + length).min(last + 1);
                let batch: Vec<i64> = (at..end).collect();
                if batch.is_empty() { continue; }
                if torn && !breaks {
                    // The first part alone arrives before the connection breaks.
                    let part = WatchResponse { fragment: true, ..events(0, &batch) };
                    seen.extend(revisions(cursor.take(part)));
                    at = cursor.open().start_revision;
                    seen.extend(revisions(cursor.take(created(last))));
                    continue;
                }
                seen.extend(revisions(cursor.take(events(3, &batch))));
                at = end;
            }
            let wanted: Vec<i64> = (start..start + i64::try_from(seen.len()).unwrap()).collect();
            prop_assert_eq!(seen, wanted);
        }
    }
}
