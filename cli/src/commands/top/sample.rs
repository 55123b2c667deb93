//! What every member says of itself, at one moment.

use std::time::Instant;

use etcfs_proto::etcdserverpb::{
    AlarmRequest, AlarmType, Member, MemberListRequest, StatusResponse, alarm_request::AlarmAction,
};
use futures_util::future::join_all;
use tokio::time::Duration;

use crate::{
    args::Global,
    connect::{self, Metrics},
    error::CliError,
};

#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) members: Vec<Seen>,
    /// Alarms that stand, each with the member that raised it.
    pub(super) alarms: Vec<String>,
    /// None where they may not be asked for.
    pub(super) leases: Option<usize>,
}

/// A member, as far as it was reached.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) endpoint: String,
    /// Its status and the time that the answer took; or why there is none.
    pub(super) status: Result<(StatusResponse, Duration), String>,
    pub(super) metrics: Metrics,
}

impl Sample {
    /// Asks all members at once; fails only if nobody tells who they are.
    pub(super) async fn take(global: &Global) -> Result<Self, CliError> {
        let client = connect::client(global)?;
        let list = client.cluster().member_list(MemberListRequest { linearizable: false }).await?.members;
        let members = join_all(list.into_iter().map(|member| see(global, member))).await;
        let get = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
        let alarms = client.maintenance().alarm(get).await.map(|answer| answer.alarms).unwrap_or_default();
        let name = |kind| AlarmType::try_from(kind).map_or("unknown", |kind| kind.as_str_name());
        let alarms = alarms.iter().map(|alarm| format!("{} of {:x}", name(alarm.alarm), alarm.member_id));
        let leases = client.lease().leases().await.ok().map(|answer| answer.leases.len());
        Ok(Self { at: Instant::now(), members, alarms: alarms.collect(), leases })
    }
}

async fn see(global: &Global, member: Member) -> Seen {
    let endpoint = member.client_ur_ls.first().cloned().unwrap_or_default();
    let status = Err("not started yet".to_owned());
    let seen = Seen { id: member.id, name: member.name, endpoint, status, metrics: Metrics::default() };
    if seen.endpoint.is_empty() {
        return seen;
    }
    let ask = async {
        let begin = Instant::now();
        let client = connect::client_of(global, vec![seen.endpoint.clone()])?;
        let status = client.maintenance().status().await?;
        Ok::<_, CliError>((status, begin.elapsed()))
    };
    let (status, metrics) = tokio::join!(ask, connect::metrics(global, &seen.endpoint));
    let status = status.map_err(|error| error.message().to_owned());
    Seen { status, metrics: metrics.unwrap_or_default(), ..seen }
}
