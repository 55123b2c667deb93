use std::time::Duration;

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        CompactionRequest, CompactionResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
        LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, ResponseHeader, TxnRequest,
        WatchCreateRequest, WatchResponse, compare::CompareTarget, request_op::Request,
        response_op::Response, watch_create_request::FilterType,
    },
    mvccpb::Event,
};

use super::{
    model::{Model, deletion},
    *,
};
use crate::api::{self, Op};

mod lease;

const LEASE: i64 = 0x77;
const TTL: i64 = 2;

/// A store that keeps its word, and the clients who note what it says.
#[derive(Clone, Default)]
struct Store {
    model: Model,
    revision: i64,
    /// Milliseconds since the run began.
    now: u64,
    events: Vec<(Moment, Vec<Event>)>,
    history: History,
}

fn at(ms: u64) -> Moment {
    Duration::from_millis(ms)
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..Default::default() })
}

impl Store {
    fn new() -> Self {
        Self { revision: 1, ..Default::default() }
    }

    /// Notes a call that takes from now until two milliseconds later.
    fn note(&mut self, call: Call) -> usize {
        let (asked, answered) = (at(self.now), at(self.now + 2));
        self.now += 4;
        self.history.operations.push(Operation { asked, answered, member: 0, call });
        self.history.operations.len() - 1
    }

    fn made(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.revision += 1;
            self.events.push((at(self.now + 1), events));
        }
    }

    fn run(&mut self, request: &Request) -> Response {
        let trial = self.model.run(request, self.revision + 1);
        self.made(trial.events);
        trial.answer
    }

    fn put(&mut self, key: &str, value: &str) -> usize {
        self.put_on(key, value, 0)
    }

    fn put_on(&mut self, key: &str, value: &str, lease: i64) -> usize {
        let request = api::put_on_lease(key, value.to_owned(), lease);
        let Response::ResponsePut(mut answer) = self.run(&Request::RequestPut(request.clone())) else {
            unreachable!()
        };
        answer.header = header(self.revision);
        self.note(Call::Put(request, Outcome::Answered(answer)))
    }

    /// A put whose answer is lost; `made` or not.
    fn lost_put(&mut self, key: &str, value: &str, made: bool) -> usize {
        let request = api::put(key, value.to_owned());
        if made {
            self.run(&Request::RequestPut(request.clone()));
        }
        self.note(Call::Put(request, Outcome::Lost))
    }

    fn delete(&mut self, key: &str) -> usize {
        let request = api::delete(key);
        let Response::ResponseDeleteRange(mut answer) =
            self.run(&Request::RequestDeleteRange(request.clone()))
        else {
            unreachable!()
        };
        answer.header = header(self.revision);
        self.note(Call::Delete(request, Outcome::Answered(answer)))
    }

    fn txn(&mut self, request: TxnRequest) -> usize {
        let Response::ResponseTxn(mut answer) = self.run(&Request::RequestTxn(request.clone())) else {
            unreachable!()
        };
        answer.header = header(self.revision);
        self.note(Call::Txn(request, Outcome::Answered(answer)))
    }

    fn range(&mut self, request: etcfs_proto::etcdserverpb::RangeRequest) -> usize {
        let Response::ResponseRange(mut answer) = self.run(&Request::RequestRange(request.clone())) else {
            unreachable!()
        };
        answer.header = header(self.revision);
        self.note(Call::Range(request, Outcome::Answered(answer)))
    }

    fn get(&mut self, key: &str) -> usize {
        self.range(api::get(key))
    }

    fn compact(&mut self, revision: i64) -> usize {
        let answer = CompactionResponse { header: header(self.revision) };
        self.note(Call::Compact(CompactionRequest { revision, physical: false }, Outcome::Answered(answer)))
    }

    fn grant(&mut self) -> usize {
        let answer =
            LeaseGrantResponse { header: header(self.revision), id: LEASE, ttl: TTL, ..Default::default() };
        self.note(Call::Grant(LeaseGrantRequest { id: LEASE, ttl: TTL }, Outcome::Answered(answer)))
    }

    fn renew(&mut self, ttl: i64) -> usize {
        let answer = LeaseKeepAliveResponse { header: header(self.revision), id: LEASE, ttl };
        self.note(Call::KeepAlive(LeaseKeepAliveRequest { id: LEASE }, Outcome::Answered(answer)))
    }

    /// The lease ends, with all its keys.
    fn lease_ends(&mut self) {
        let keys: Vec<Bytes> = self.model.on_lease(LEASE).into_iter().cloned().collect();
        let gone = |key: &Bytes| deletion(self.model.get(key).cloned().unwrap(), self.revision + 1);
        let events: Vec<Event> = keys.iter().map(gone).collect();
        self.model.follow(&events);
        self.made(events);
    }

    fn revoke(&mut self) -> usize {
        self.lease_ends();
        let answer = LeaseRevokeResponse { header: header(self.revision) };
        self.note(Call::Revoke(LeaseRevokeRequest { id: LEASE }, Outcome::Answered(answer)))
    }

    /// What a watch of everything from `start` on would have been told.
    fn stream(&self, start: i64) -> Stream {
        let request = api::watch_prefix("", start);
        let mut responses =
            vec![(at(0), WatchResponse { created: true, header: header(1), ..Default::default() })];
        for (at, events) in &self.events {
            let revision = log::revision(&events[0]);
            let events = events.iter().map(log::bare).collect();
            if revision >= start {
                responses
                    .push((*at, WatchResponse { header: header(revision), events, ..Default::default() }));
            }
        }
        Stream { name: "all".into(), member: 0, request, responses, stalled_before: None }
    }

    /// The history, as one watcher of everything and two members that agree leave it.
    fn end(mut self) -> History {
        let stream = self.stream(1);
        self.history.streams.push(stream);
        let (keys, revision) = (self.model.all(), self.revision);
        let member = MemberEnd { revision, keys, hash: 7, compact_revision: 1 };
        self.history.end.members = vec![member.clone(), member];
        self.history
    }

    /// A little of everything that the judge looks at.
    fn used() -> Self {
        let mut store = Self::new();
        store.put("a", "1");
        store.put("b", "2");
        store.lost_put("a", "3", true);
        store.lost_put("a", "never", false);
        store.get("a");
        store.txn(increment("a", 4, "4"));
        store.txn(increment("a", 1, "not this"));
        store.range(api::prefix(""));
        store.range(etcfs_proto::etcdserverpb::RangeRequest { limit: 1, ..api::prefix("") });
        store.delete("b");
        store.delete("nothing");
        store
    }
}

/// A transaction that puts if the key was changed last at `revision`, and reads it either way.
fn increment(key: &str, revision: i64, value: &str) -> TxnRequest {
    let compare = etcfs_proto::etcdserverpb::Compare {
        key: key.to_owned().into(),
        target: CompareTarget::Mod.into(),
        target_union: Some(etcfs_proto::etcdserverpb::compare::TargetUnion::ModRevision(revision)),
        ..Default::default()
    };
    let success = [Op::Put(api::put(key, value.to_owned())), Op::Range(api::get(key))];
    TxnRequest {
        compare: vec![compare],
        success: success.map(Into::into).into(),
        failure: vec![Op::Range(api::get(key)).into()],
    }
}

#[track_caller]
fn passes(history: &History) -> Verdict {
    let verdict = judge(history);
    assert!(verdict.violations.is_empty(), "{verdict}");
    verdict
}

/// Checks that `rule`, and nothing that `also` does not list, is found broken.
#[track_caller]
fn breaks_also(rule: Rule, also: &[Rule], history: &History) {
    let verdict = judge(history);
    let broken = verdict.breaches();
    assert!(broken.contains_key(&rule), "{rule:?} is not found broken: {verdict}");
    assert!(broken.keys().all(|found| *found == rule || also.contains(found)), "{verdict}");
}

#[track_caller]
fn breaks(rule: Rule, history: &History) {
    breaks_also(rule, &[], history);
}

fn put_outcome(operation: &mut Operation) -> &mut Outcome<etcfs_proto::etcdserverpb::PutResponse> {
    let Call::Put(_, outcome) = &mut operation.call else { panic!("no put") };
    outcome
}

fn put_answer(operation: &mut Operation) -> &mut etcfs_proto::etcdserverpb::PutResponse {
    let Outcome::Answered(answer) = put_outcome(operation) else { panic!("no answer") };
    answer
}

fn range_answer(operation: &mut Operation) -> &mut etcfs_proto::etcdserverpb::RangeResponse {
    let Call::Range(_, Outcome::Answered(answer)) = &mut operation.call else { panic!("no range") };
    answer
}

#[test]
fn a_store_that_keeps_its_word_passes() {
    let mut store = Store::used();
    store.grant();
    store.put_on("lease/a", "5", LEASE);
    store.renew(TTL);
    store.now += 2_000;
    store.lease_ends();
    store.renew(0);
    store.compact(4);
    let verdict = passes(&store.end());
    let judged = |what| verdict.judged.get(what).copied().unwrap_or(0);
    assert_eq!(judged("changes"), 5, "{verdict}");
    assert_eq!(judged("changes of lost answers"), 1, "{verdict}");
    assert_eq!(judged("reads"), 5, "{verdict}");
    assert_eq!(judged("events of streams"), 7, "{verdict}");
    assert_eq!(judged("leases that ran out"), 1, "{verdict}");
}

#[test]
fn a_lost_deletion_that_was_made_passes_and_one_that_nobody_asked_for_does_not() {
    let mut store = Store::used();
    store.run(&Request::RequestDeleteRange(api::delete("a")));
    breaks(Rule::NothingInvented, &store.clone().end());
    store.note(Call::Delete(api::delete("a"), Outcome::Lost));
    let asked = store.history.operations.last_mut().unwrap();
    asked.asked = at(0);
    passes(&store.end());
}

#[test]
fn an_acknowledged_change_that_the_log_has_not_is_found() {
    let mut store = Store::used();
    let answer = etcfs_proto::etcdserverpb::PutResponse { header: header(3), ..Default::default() };
    // Nothing but the answer tells of it, and of a revision that another has made.
    store.note(Call::Put(api::put("c", "lost"), Outcome::Answered(answer)));
    breaks_also(Rule::RevisionIsUnique, &[Rule::RealTime], &store.end());
}

#[test]
fn an_acknowledged_change_whose_revision_somebody_else_made_is_found() {
    let mut store = Store::used();
    let lost = store.lost_put("c", "x", true);
    let answer =
        etcfs_proto::etcdserverpb::PutResponse { header: header(store.revision), ..Default::default() };
    let mine = store.note(Call::Put(api::put("d", "y"), Outcome::Answered(answer)));
    let (from, to) = (store.history.operations[lost].asked, store.history.operations[mine].answered);
    for index in [lost, mine] {
        store.history.operations[index].asked = from;
        store.history.operations[index].answered = to;
    }
    breaks(Rule::AcknowledgedIsMade, &store.end());
}

#[test]
fn a_change_made_twice_is_found() {
    let mut store = Store::used();
    store.lost_put("a", "twice", true);
    let request = Request::RequestPut(api::put("a", "twice"));
    store.run(&request);
    breaks(Rule::MadeOnce, &store.end());
}

#[test]
fn a_change_that_was_refused_but_made_is_found() {
    let mut store = Store::used();
    let index = store.lost_put("a", "refused", true);
    *put_outcome(&mut store.history.operations[index]) = Outcome::Refused(Refusal::Other);
    breaks(Rule::RefusedIsNotMade, &store.end());
}

#[test]
fn a_change_that_nobody_asked_for_is_found() {
    let mut store = Store::used();
    store.run(&Request::RequestPut(api::put("a", "ghost")));
    breaks(Rule::NothingInvented, &store.end());
}

#[test]
fn a_revision_given_twice_is_found() {
    let mut store = Store::used();
    let (first, second) = (store.put("a", "x"), store.put("b", "y"));
    let revision = store.revision - 1;
    put_answer(&mut store.history.operations[second]).header = header(revision);
    let (from, to) = (store.history.operations[first].asked, store.history.operations[second].answered);
    for index in [first, second] {
        store.history.operations[index].asked = from;
        store.history.operations[index].answered = to;
    }
    breaks(Rule::RevisionIsUnique, &store.end());
}

#[test]
fn a_revision_that_no_watcher_saw_is_found() {
    let mut store = Store::used();
    store.put("c", "x");
    store.put("c", "y");
    let mut history = store.end();
    let position = history.streams[0].responses.len() - 2;
    history.streams[0].responses.remove(position);
    breaks_also(Rule::RevisionIsSeen, &[Rule::EventIsDelivered], &history);
}

#[test]
fn a_read_beyond_the_log_is_found() {
    let mut store = Store::used();
    let index = store.get("a");
    let revision = store.revision;
    range_answer(&mut store.history.operations[index]).header = header(revision + 1);
    breaks(Rule::RevisionIsSeen, &store.end());
}

#[test]
fn a_change_that_does_other_than_asked_is_found() {
    let mut store = Store::used();
    store.put("c", "x");
    let (_, events) = store.events.last_mut().unwrap();
    events[0].kv.as_mut().unwrap().version = 5;
    breaks_also(Rule::ChangeIsRight, &[Rule::MembersAgree], &store.end());
}

#[test]
fn half_a_transaction_is_found() {
    let mut store = Store::used();
    store.txn(api::txn([Op::Put(api::put("x", "both")), Op::Put(api::put("y", "both"))]));
    let (_, events) = store.events.last_mut().unwrap();
    events.truncate(1);
    breaks_also(Rule::ChangeIsRight, &[Rule::MembersAgree], &store.end());
}

#[test]
fn a_comparison_that_should_have_failed_is_found() {
    let mut store = Store::used();
    let index = store.txn(increment("a", 5, "5"));
    let Call::Txn(request, _) = &mut store.history.operations[index].call else { unreachable!() };
    *request = increment("a", 4, "5");
    breaks_also(Rule::ChangeIsRight, &[], &store.end());
}

#[test]
fn a_wrong_answer_to_a_change_is_found() {
    let mut store = Store::used();
    let index = store.txn(increment("a", 5, "5"));
    let Call::Txn(_, Outcome::Answered(answer)) = &mut store.history.operations[index].call else {
        unreachable!()
    };
    answer.responses.pop();
    breaks(Rule::AnswerIsRight, &store.end());
}

#[test]
fn a_wrong_read_is_found() {
    let mut store = Store::used();
    let index = store.range(api::prefix(""));
    range_answer(&mut store.history.operations[index]).kvs[0].value = Bytes::from_static(b"other");
    breaks(Rule::ReadIsRight, &store.end());
}

#[test]
fn a_read_at_an_old_revision_that_tells_the_present_is_found() {
    let mut store = Store::used();
    let index = store.get("a");
    let Call::Range(request, _) = &mut store.history.operations[index].call else { unreachable!() };
    request.revision = 2;
    breaks(Rule::ReadIsRight, &store.end());
}

#[test]
fn a_transaction_that_should_have_changed_something_is_found() {
    let mut store = Store::used();
    let index = store.txn(increment("a", 1, "5"));
    let Call::Txn(request, _) = &mut store.history.operations[index].call else { unreachable!() };
    *request = increment("a", 5, "5");
    breaks(Rule::ReadIsRight, &store.end());
}

#[test]
fn a_stale_read_is_found_unless_it_is_serializable() {
    let mut store = Store::new();
    store.put("a", "1");
    let index = store.get("a");
    store.put("a", "2");
    let late = at(store.now);
    let mut history = store.end();
    history.operations[index].asked = late;
    history.operations[index].answered = late + at(1);
    breaks(Rule::RealTime, &history);
    let Call::Range(request, _) = &mut history.operations[index].call else { unreachable!() };
    request.serializable = true;
    passes(&history);
}

#[test]
fn a_write_before_what_was_answered_is_found() {
    let mut store = Store::new();
    let first = store.put("a", "1");
    store.put("b", "2");
    let mut history = store.end();
    let late = history.operations[1].answered + at(10);
    history.operations[first].asked = late;
    history.operations[first].answered = late + at(1);
    breaks(Rule::RealTime, &history);
}

#[test]
fn a_lost_change_seen_before_it_was_asked_for_is_found() {
    let mut store = Store::new();
    let lost = store.lost_put("a", "1", true);
    store.get("a");
    let mut history = store.end();
    history.operations[lost].asked = at(100);
    breaks(Rule::RealTime, &history);
}

#[test]
fn a_refusal_for_a_compaction_that_nobody_asked_for_is_found() {
    let mut store = Store::used();
    let index = store.get("a");
    let Call::Range(request, outcome) = &mut store.history.operations[index].call else { unreachable!() };
    request.revision = 3;
    *outcome = Outcome::Refused(Refusal::Compacted);
    breaks(Rule::RefusalIsRight, &store.clone().end());
    // One that was asked for in between explains it.
    store.compact(4);
    store.history.operations.last_mut().unwrap().asked = at(0);
    passes(&store.end());
}

#[test]
fn a_refusal_of_a_revision_that_was_seen_is_found() {
    let mut store = Store::used();
    let index = store.get("a");
    let Call::Range(request, outcome) = &mut store.history.operations[index].call else { unreachable!() };
    request.revision = 3;
    *outcome = Outcome::Refused(Refusal::Future);
    breaks(Rule::RefusalIsRight, &store.end());
}

#[test]
fn a_read_of_what_is_compacted_is_found() {
    let mut store = Store::used();
    store.compact(4);
    let request = etcfs_proto::etcdserverpb::RangeRequest { revision: 3, ..api::get("never there") };
    store.range(request);
    breaks(Rule::RefusalIsRight, &store.end());
}

/// A used store, its history judged after `change` of its watcher's responses.
fn watched(change: impl FnOnce(&mut Vec<(Moment, WatchResponse)>)) -> History {
    let store = Store::used();
    let second = store.stream(1);
    let mut history = store.end();
    history.streams.push(second);
    change(&mut history.streams[1].responses);
    history
}

#[test]
fn a_missing_event_is_found() {
    breaks(Rule::EventIsDelivered, &watched(|responses| drop(responses.remove(2))));
}

#[test]
fn an_event_that_comes_twice_is_found() {
    breaks(
        Rule::EventIsDeliveredOnce,
        &watched(|responses| {
            let again = responses[2].clone();
            responses.insert(3, again);
        }),
    );
}

#[test]
fn events_out_of_order_are_found() {
    breaks_also(
        Rule::EventsAreInOrder,
        &[Rule::EventIsDelivered],
        &watched(|responses| responses.swap(2, 3)),
    );
}

#[test]
fn an_event_from_before_the_start_is_found() {
    let mut history = watched(|_| {});
    history.streams[1].request.start_revision = 3;
    breaks(Rule::EventsAreInOrder, &history);
}

#[test]
fn an_event_with_another_value_is_found() {
    breaks(
        Rule::EventIsRight,
        &watched(|responses| {
            responses[2].1.events[0].kv.as_mut().unwrap().value = Bytes::from_static(b"other");
        }),
    );
}

#[test]
fn what_an_event_replaced_is_checked_where_it_was_asked_for() {
    let mut history = watched(|_| {});
    history.streams[1].request.prev_kv = true;
    // The stream tells of none: the third put replaced one.
    breaks(Rule::EventIsRight, &history);
    let mut store = Store::used();
    store.compact(store.revision);
    store.now += 10;
    let mut history = store.end();
    let mut late = history.streams[0].clone();
    late.request.prev_kv = true;
    late.responses.iter_mut().for_each(|(at, _)| *at += Duration::from_secs(1));
    history.streams.push(late);
    passes(&history);
}

#[test]
fn a_revision_in_two_parts_is_found() {
    let mut store = Store::used();
    store.txn(api::txn([Op::Put(api::put("x", "both")), Op::Put(api::put("y", "both"))]));
    let mut split = store.stream(1);
    let (at, mut last) = split.responses.last().unwrap().clone();
    split.responses.last_mut().unwrap().1.events.truncate(1);
    last.events.remove(0);
    split.responses.push((at, last));
    let mut history = store.end();
    history.streams.push(split);
    breaks_also(Rule::RevisionIsWhole, &[Rule::EventIsDeliveredOnce], &history);
}

#[test]
fn a_header_older_than_its_events_is_found() {
    breaks(Rule::HeaderCoversEvents, &watched(|responses| responses[3].1.header = header(3)));
}

fn progress(revision: i64) -> (Moment, WatchResponse) {
    (at(50), WatchResponse { header: header(revision), watch_id: -1, ..Default::default() })
}

#[test]
fn progress_ahead_of_the_events_is_found() {
    passes(&watched(|responses| responses.insert(3, progress(3))));
    breaks(Rule::ProgressIsTrue, &watched(|responses| responses.insert(3, progress(4))));
}

#[test]
fn progress_past_events_of_other_keys_is_no_lie() {
    let mut history = watched(|responses| {
        responses.truncate(1);
        responses.push(progress(6));
    });
    history.streams[1].request = WatchCreateRequest { start_revision: 1, ..api::watch_prefix("zzz", 1) };
    passes(&history);
    history.streams[1].request =
        WatchCreateRequest { filters: vec![FilterType::Noput.into()], ..api::watch_prefix("", 1) };
    history.streams[1].responses[1] = progress(5);
    passes(&history);
}

#[test]
fn a_cancelled_watch_whose_history_is_there_is_found() {
    let cancelled = |compact_revision| {
        let response =
            WatchResponse { canceled: true, compact_revision, header: header(6), ..Default::default() };
        watched(|responses| {
            responses.truncate(1);
            responses.push((at(100), response));
        })
    };
    breaks(Rule::WatchGoesOn, &cancelled(0));
    // Compacted as the server says, but nobody asked for it.
    breaks(Rule::WatchGoesOn, &cancelled(4));
    let mut store = Store::used();
    store.compact(4);
    let mut history = cancelled(4);
    history.operations = store.end().operations;
    passes(&history);
}

#[test]
fn a_watch_at_the_compacted_revision_that_lacks_its_event_is_found() {
    let mut store = Store::used();
    let deleted = store.revision;
    store.compact(deleted);
    store.put("z", "after");
    let mut stream = store.stream(deleted);
    stream.responses.remove(1);
    let mut history = store.end();
    history.streams.push(stream);
    breaks(Rule::EventAtCompactionIsDelivered, &history);
}

/// etcd 3.4 forgets the deletions of a transaction at the compacted revision, and tells its puts.
#[test]
fn a_watch_at_the_compacted_revision_that_lacks_part_of_it_is_found() {
    let mut store = Store::used();
    store.put("x", "before");
    store.txn(api::txn([Op::Delete(api::delete("x")), Op::Put(api::put("y", "after"))]));
    let both = store.revision;
    store.compact(both);
    let mut stream = store.stream(both);
    stream.responses[1].1.events.remove(0);
    let mut history = store.end();
    history.streams.push(stream);
    breaks(Rule::EventAtCompactionIsDelivered, &history);
}

#[test]
fn a_watch_from_now_on_begins_after_the_revision_that_it_was_told() {
    let store = Store::used();
    let mut stream = store.stream(4);
    stream.request.start_revision = 0;
    stream.responses[0] = (at(30), WatchResponse { header: header(3), ..stream.responses[0].1.clone() });
    let mut history = store.end();
    history.streams.push(stream);
    passes(&history);
    history.streams[1].responses[0].1.header = header(2);
    breaks(Rule::EventIsDelivered, &history);
}

#[test]
fn a_watch_that_never_comes_to_the_end_is_found() {
    let mut history = watched(|_| {});
    history.streams[1].stalled_before = Some(6);
    breaks(Rule::WatchCatchesUp, &history);
}

#[test]
fn a_member_that_ends_by_itself_is_found() {
    let mut history = Store::used().end();
    history.end.fallen.push("member 1: exit status 101".into());
    breaks(Rule::MemberRuns, &history);
}

#[test]
fn members_that_differ_are_found() {
    let mut history = Store::used().end();
    history.end.members[1].hash = 8;
    breaks(Rule::MembersAgree, &history);
    let mut history = Store::used().end();
    history.end.members[1].keys.pop();
    breaks(Rule::MembersAgree, &history);
    let mut history = Store::used().end();
    history.end.members[0].revision -= 1;
    breaks(Rule::MembersAgree, &history);
}

#[test]
fn tolerated_rules_are_set_apart_and_no_others() {
    let mut history = watched(|responses| responses.insert(3, progress(4)));
    history.end.members[1].hash = 8;
    let (rest, tolerated) = judge(&history).tolerating(&[Rule::ProgressIsTrue]);
    assert_eq!(tolerated.len(), 1);
    assert_eq!(rest.breaches().keys().collect::<Vec<_>>(), [&Rule::MembersAgree]);
    let text = rest.to_string();
    assert!(text.contains("MembersAgree"), "{text}");
}
