//! What each member holds when all is quiet.

use std::time::Duration;

use etcfs_proto::etcdserverpb::{HashKvRequest, RangeRequest};
use etcfs_tests::{
    api::{Api, prefix},
    judge::MemberEnd,
    partition::Cluster,
    wait,
};

/// How long members may take to have forgotten the same history.
const HASH_PATIENCE: Duration = Duration::from_secs(15);

/// Asks every member, once it has come to `revision`.
pub(crate) fn of(cluster: &Cluster, revision: i64) -> Vec<MemberEnd> {
    let apis: Vec<Api> = (0..cluster.len()).map(|member| cluster.api(member)).collect();
    let mut ends: Vec<MemberEnd> = apis.iter().map(|api| held(api, revision)).collect();
    // A member may still be at work on a compaction.
    wait::poll(HASH_PATIENCE, || {
        for (api, end) in apis.iter().zip(&mut ends) {
            let request = HashKvRequest { revision };
            let asked = async { api.maintenance().hash_kv(request).await.map(tonic::Response::into_inner) };
            if let Ok(answer) = api.wait(asked) {
                (end.hash, end.compact_revision) = (answer.hash, answer.compact_revision);
            }
        }
        ends.windows(2)
            .all(|pair| (pair[0].hash, pair[0].compact_revision) == (pair[1].hash, pair[1].compact_revision))
    });
    ends
}

fn held(api: &Api, revision: i64) -> MemberEnd {
    let request = RangeRequest { serializable: true, ..prefix("") };
    wait::until("the member has come to the last revision", || {
        let answer = api.range(request.clone()).ok()?;
        let header = answer.header?;
        (header.revision >= revision).then_some(MemberEnd {
            revision: header.revision,
            keys: answer.kvs,
            ..Default::default()
        })
    })
}
