//! `etcfs doctor`

mod findings;
mod here;

use std::time::{Duration, Instant};

use clap::Args;
use etcfs_client::Client;
use etcfs_proto::etcdserverpb::{
    AlarmRequest, AlarmType, MemberListRequest, RangeRequest, StatusResponse, alarm_request::AlarmAction,
};
use futures_util::future::join_all;

use self::findings::Findings;
use crate::{args::Global, connect, error::CliError, words};

/// An answer that takes longer is worth a look, on any disk and in any one place.
const SLOW: Duration = Duration::from_millis(100);
/// Log entries that a member may be behind in passing.
const BEHIND_MAX: u64 = 1000;
/// Part of the quota from which on it is time to act.
const FULL_PERCENT: i64 = 80;
/// Below this share of live bytes, in files that are worth it, a defragmentation pays.
const LIVE_PERCENT_MIN: i64 = 50;
const WORTH_BYTES: i64 = 64 * 1024 * 1024;

/// Checks the servers and this machine, and says what to do about what it finds.
///
/// Exits with 1 if something is broken; a warning alone is no failure.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs --endpoints 10.0.0.1:2379,10.0.0.2:2379 doctor")]
pub(crate) struct DoctorArgs {}

pub(crate) async fn run(global: &Global, _: DoctorArgs) -> Result<(), CliError> {
    let mut findings = Findings::default();
    let statuses = endpoints(global, &mut findings).await;
    if !statuses.is_empty() {
        agreement(&statuses, &mut findings);
        let client = connect::client(global)?;
        members(global, &client, &mut findings).await;
        alarms(&client, &mut findings).await;
        reads(&client, &mut findings).await;
    }
    here::check(&mut findings).await;
    findings.verdict()
}

/// Asks every endpoint how it is; gives the answers.
async fn endpoints(global: &Global, findings: &mut Findings) -> Vec<StatusResponse> {
    let ask = |endpoint: &String| {
        let endpoint = endpoint.clone();
        async move {
            let begin = Instant::now();
            let client = connect::client_of(global, vec![endpoint.clone()]);
            let answer = match client {
                Ok(client) => client.maintenance().status().await.map_err(CliError::from),
                Err(error) => Err(error),
            };
            (endpoint, begin.elapsed(), answer)
        }
    };
    let mut statuses = Vec::new();
    for (endpoint, took, answer) in join_all(global.endpoints.iter().map(ask)).await {
        match answer {
            Err(error) => findings.broken(
                format!("{endpoint} does not answer: {}", error.message()),
                "is a server running there? `etcfs up DIR` starts one, --endpoints names others",
            ),
            Ok(status) => {
                let member = status.header.unwrap_or_default().member_id;
                let role = match member {
                    _ if status.is_learner => "learner",
                    id if id == status.leader => "leader",
                    _ => "follower",
                };
                let size = words::size(u64::try_from(status.db_size).unwrap_or(0));
                findings.good(format!(
                    "{endpoint} answers: member {member:x}, version {}, {role} in term {}, {size}",
                    status.version, status.raft_term
                ));
                if took > SLOW {
                    findings.odd(format!("{endpoint} took {took:.0?} to answer"), "is it busy, or far away?");
                }
                space(&endpoint, &status, findings);
                statuses.push(status);
            }
        }
    }
    statuses
}

fn space(endpoint: &str, status: &StatusResponse, findings: &mut Findings) {
    for error in &status.errors {
        findings.broken(format!("{endpoint} reports: {error}"), "see the alarms below, and the server's log");
    }
    if status.db_size_quota > 0 && status.db_size * 100 >= status.db_size_quota * FULL_PERCENT {
        findings.odd(
            format!("{endpoint} has used {}% of its quota", status.db_size * 100 / status.db_size_quota),
            "delete or compact, or raise --quota-backend-bytes",
        );
    }
    if status.db_size > WORTH_BYTES && status.db_size_in_use * 100 < status.db_size * LIVE_PERCENT_MIN {
        findings.odd(
            format!("more than half of the files of {endpoint} hold nothing any more"),
            "`etcfs defrag` gives the space back",
        );
    }
    if status.raft_index.saturating_sub(status.raft_applied_index) > BEHIND_MAX {
        findings.odd(
            format!(
                "{endpoint} has still to apply {} log entries",
                status.raft_index - status.raft_applied_index
            ),
            "it is slower than the others, or was just started",
        );
    }
}

/// Whether those that answered are of one mind.
fn agreement(statuses: &[StatusResponse], findings: &mut Findings) {
    let one_of = |value: fn(&StatusResponse) -> String| {
        let mut values: Vec<String> = statuses.iter().map(value).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let clusters = one_of(|status| format!("{:x}", status.header.unwrap_or_default().cluster_id));
    if clusters.len() > 1 {
        findings.broken(
            format!("the endpoints belong to several clusters: {}", clusters.join(", ")),
            "name endpoints of one cluster alone",
        );
        return;
    }
    let leaders = one_of(|status| format!("{:x}", status.leader));
    match &leaders[..] {
        [none] if none == "0" => findings.broken("no member leads: writes wait", "is a majority running?"),
        [leader] => findings.good(format!("member {leader} leads")),
        several => findings.odd(
            format!("members see different leaders: {}", several.join(", ")),
            "an election may be under way: ask again",
        ),
    }
    let versions = one_of(|status| status.version.clone());
    if versions.len() > 1 {
        findings.odd(format!("members have several versions: {}", versions.join(", ")), "finish the upgrade");
    }
}

async fn members(global: &Global, client: &Client, findings: &mut Findings) {
    let request = MemberListRequest { linearizable: false };
    let list = match client.cluster().member_list(request).await {
        Ok(list) => list.members,
        Err(error) => return findings.refused("the list of members", error),
    };
    let voters = list.iter().filter(|member| !member.is_learner).count();
    match voters {
        1 => findings
            .good("one member: nothing is lost with it but what its disk loses, nothing goes on without it"),
        even if even % 2 == 0 => findings.odd(
            format!("{even} members bear {} failures, as {} do", (even - 1) / 2, even - 1),
            "an odd number costs less and bears the same",
        ),
        odd => findings.good(format!("{odd} members bear {} failures", (odd - 1) / 2)),
    }
    for member in list {
        let name = if member.name.is_empty() { format!("{:x}", member.id) } else { member.name };
        if member.client_ur_ls.is_empty() {
            findings.odd(format!("member {name} was added and never started"), "start it, or remove it");
            continue;
        }
        let reached = match connect::client_of(global, member.client_ur_ls.clone()) {
            Ok(client) => client.maintenance().status().await.map_err(CliError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = reached {
            findings.broken(
                format!(
                    "member {name} ({}) is not reached: {}",
                    member.client_ur_ls.join(","),
                    error.message()
                ),
                "start it; or let it advertise URLs that are reached from here (--advertise-client-urls)",
            );
        }
    }
}

async fn alarms(client: &Client, findings: &mut Findings) {
    let request = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
    match client.maintenance().alarm(request).await {
        Err(error) => findings.refused("the alarms", error),
        Ok(answer) if answer.alarms.is_empty() => findings.good("no alarm stands"),
        Ok(answer) => {
            for alarm in answer.alarms {
                let (what, remedy) = match AlarmType::try_from(alarm.alarm) {
                    Ok(AlarmType::Nospace) => (
                        "is out of space",
                        "delete and compact, then `etcfs defrag` and `etcfs alarm disarm`",
                    ),
                    Ok(AlarmType::Corrupt) => (
                        "has other data than the rest",
                        "remove the member, empty its directory, add it anew",
                    ),
                    _ => ("raised an alarm that is not known here", "see its log"),
                };
                findings.broken(format!("member {:x} {what}", alarm.member_id), remedy);
            }
        }
    }
}

/// A read that a majority confirms.
async fn reads(client: &Client, findings: &mut Findings) {
    let begin = Instant::now();
    let request = RangeRequest { key: "health".into(), count_only: true, ..RangeRequest::default() };
    match client.kv().range(request).await {
        Ok(_) => findings.good(format!("a confirmed read takes {:.1?}", begin.elapsed())),
        Err(error) => findings.refused("a confirmed read", error),
    }
}
