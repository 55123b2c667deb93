//! The machine on arbitrary log entries: members that apply the same come to the
//! same, whatever it is, and so does one that starts anew from its image.

use std::sync::Arc;

use etcfs_proto::{
    etcdserverpb::{
        AuthRoleAddRequest, AuthUserAddRequest, AuthUserGrantRoleRequest, LeaseGrantRequest, PutRequest,
    },
    etcfs::{
        command::{self, request::Body},
        record::LogId,
    },
};
use prost::Message as _;

use super::{Applied, Machine, Outcome, State};
use crate::{
    mvcc::StoreOptions,
    storage::{Engine as _, MemoryEngine},
};

/// Applies the entries in `data`: for each its length in two bytes, and what is to be a batch.
pub fn apply(data: &[u8]) {
    let (mut one, mut other) = (Member::new(), Member::new());
    one.apply(&prelude());
    other.apply(&prelude());
    let mut rest = data;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (entry, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)).min(behind.len()));
        rest = behind;
        let Ok(batch) = command::Batch::decode(entry) else { continue };
        let (outcomes, others) = (one.apply(&batch), other.apply(&batch));
        assert_eq!(outcomes, others, "{batch:?}");
    }
    assert!(one.engine.rows() == other.engine.rows(), "the images differ");
    let again = Member::on(one.engine.clone(), one.index);
    assert_eq!(again.hash(), one.hash());
    assert_eq!(again.machine.meta(), one.machine.meta());
}

/// Something to act upon.
fn prelude() -> command::Batch {
    let key = |key: &'static str| PutRequest { key: key.into(), value: "v".into(), ..Default::default() };
    let bodies = [
        Body::LeaseGrant(LeaseGrantRequest { id: 1, ttl: 60 }),
        Body::Put(key("a")),
        Body::Put(PutRequest { lease: 1, ..key("b") }),
        Body::UserAdd(AuthUserAddRequest { name: "root".into(), ..Default::default() }),
        Body::RoleAdd(AuthRoleAddRequest { name: "root".into() }),
        Body::UserGrantRole(AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() }),
    ];
    let requests = bodies.into_iter().map(|body| command::Request { body: Some(body) }).collect();
    command::Batch { requests, origin: None, unix_ms: 0 }
}

struct Member {
    machine: Machine,
    state: State,
    engine: Arc<MemoryEngine>,
    index: u64,
}

impl Member {
    fn new() -> Self {
        Self::on(Arc::new(MemoryEngine::new()), 0)
    }

    fn on(engine: Arc<MemoryEngine>, index: u64) -> Self {
        let options = StoreOptions { value_cache_bytes: 1 << 16 };
        let (machine, state) = Machine::open(engine.clone(), options).expect("the image is whole");
        Self { machine, state, engine, index }
    }

    /// What came of each request, and the revision.
    fn apply(&mut self, batch: &command::Batch) -> (Vec<Outcome>, i64) {
        self.index += 1;
        let id = LogId { term: 1, node: 0, index: self.index };
        let Applied { outcomes, batch: rows, revision, .. } =
            self.machine.apply(&id, batch).expect("memory does not fail");
        self.engine.write(&rows).expect("memory does not fail");
        self.state.store.written(revision);
        self.machine.publish(revision);
        (outcomes, revision)
    }

    fn hash(&self) -> u32 {
        self.state.store.hash_kv(0).expect("the newest revision can be read").hash
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{ApplyError, model::bodies},
        *,
    };

    /// Found by the test below: it was put, and the image refused at the next start.
    #[test]
    fn a_put_without_a_key_is_refused() {
        let put = Body::Put(PutRequest { value: "v".into(), ..Default::default() });
        let batch =
            command::Batch { requests: vec![command::Request { body: Some(put) }], origin: None, unix_ms: 0 };
        let (outcomes, _) = Member::new().apply(&batch);
        assert!(matches!(&outcomes[..], [Outcome::Err(ApplyError::KeyNotFound)]), "{outcomes:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Entries as they are made, with a few bytes changed.
        #[test]
        fn any_entry_is_applied_alike_or_is_none(
            entries in prop::collection::vec(bodies(), 0..8),
            spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let mut data = Vec::new();
            for bodies in entries {
                let requests = bodies.into_iter().map(|body| command::Request { body: Some(body) }).collect();
                let mut entry = command::Batch { requests, origin: None, unix_ms: 0 }.encode_to_vec();
                for (at, byte) in &spots {
                    let at = at.index(entry.len());
                    entry[at] = *byte;
                }
                data.extend(u16::try_from(entry.len()).expect("a few requests are short").to_be_bytes());
                data.extend(entry);
            }
            apply(&data);
        }

        #[test]
        fn any_bytes_are_applied_alike_or_are_no_entry(data in any::<Vec<u8>>()) {
            apply(&data);
        }
    }
}
