//! The page: lines of two samples, the second as it is and what it differs by from the first. Pure.

use etcfs_proto::etcdserverpb::StatusResponse;

use super::sample::{Sample, Seen};
use crate::words;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// Counters whose growth is shown: title, and names of the metric, the first that is there.
const RATES: [(&str, &[&str]); 6] = [
    ("PUT/s", &["etcd_mvcc_put_total", "etcd_debugging_mvcc_put_total"]),
    ("RANGE/s", &["etcd_mvcc_range_total", "etcd_debugging_mvcc_range_total"]),
    ("DEL/s", &["etcd_mvcc_delete_total", "etcd_debugging_mvcc_delete_total"]),
    ("TXN/s", &["etcd_mvcc_txn_total", "etcd_debugging_mvcc_txn_total"]),
    ("EVENTS/s", &["etcd_debugging_mvcc_events_total"]),
    ("APPLIED/s", &["etcd_server_proposals_applied_total"]),
];
/// Numbers that are shown as they are.
const GAUGES: [(&str, &[&str]); 3] = [
    ("WATCHERS", &["etcd_debugging_mvcc_watcher_total"]),
    ("PENDING", &["etcd_server_proposals_pending"]),
    ("FAILED", &["etcd_server_proposals_failed_total"]),
];
/// Calls that took too long, since the member started.
const SLOW: [(&str, &[&str]); 2] = [
    ("SLOW APPLY", &["etcd_server_slow_apply_total"]),
    ("SLOW READ", &["etcd_server_slow_read_indexes_total"]),
];

pub(super) fn lines(before: &Sample, now: &Sample) -> Vec<String> {
    let mut lines = vec![headline(before, now), String::new()];
    lines.extend(table(&members(now)));
    lines.push(String::new());
    lines.extend(table(&work(before, now)));
    for seen in &now.members {
        if let Err(reason) = &seen.status {
            lines.push(format!("{RED}{} does not answer: {}{PLAIN}", name(seen), plain(reason)));
        }
    }
    for alarm in &now.alarms {
        lines.push(format!("{RED}alarm {alarm}{PLAIN}"));
    }
    lines
}

fn headline(before: &Sample, now: &Sample) -> String {
    let answers = || now.members.iter().filter_map(|seen| seen.status.as_ref().ok());
    let headers = || answers().filter_map(|(status, _)| status.header);
    let cluster = headers().next().map_or(0, |header| header.cluster_id);
    let revision = |sample: &Sample| {
        let answers = sample.members.iter().filter_map(|seen| seen.status.as_ref().ok());
        answers.filter_map(|(status, _)| status.header).map(|header| header.revision).max().unwrap_or(0)
    };
    let leader = answers().map(|(status, _)| status.leader).find(|id| *id != 0);
    let leader = match leader {
        Some(id) => now.members.iter().find(|seen| seen.id == id).map_or_else(|| format!("{id:x}"), name),
        None => format!("{RED}nobody{PLAIN}"),
    };
    let rate = rate(before, now, revision(before) as f64, revision(now) as f64);
    let leases = now.leases.map_or("?".to_owned(), |leases| leases.to_string());
    format!(
        "{BOLD}cluster {cluster:x}{PLAIN}  {} of {} members answer  leader {leader}  revision {} (+{rate:.0}/s)  leases {leases}",
        answers().count(),
        now.members.len(),
        revision(now),
    )
}

/// A name that can't steer the terminal.
fn name(seen: &Seen) -> String {
    if seen.name.is_empty() { format!("{:x}", seen.id) } else { plain(&seen.name) }
}

fn plain(text: &str) -> String {
    words::harmless(text.as_bytes(), false)
}

fn rate(before: &Sample, now: &Sample, from: f64, to: f64) -> f64 {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
    // A counter that fell began anew.
    if seconds > 0.0 && to >= from { (to - from) / seconds } else { 0.0 }
}

fn members(now: &Sample) -> Vec<Vec<String>> {
    let titles =
        ["MEMBER", "ENDPOINT", "ROLE", "VERSION", "TERM", "APPLIED", "BEHIND", "SIZE", "IN USE", "ANSWER"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for seen in &now.members {
        let mut row = vec![name(seen), plain(&seen.endpoint)];
        if let Ok((status, took)) = &seen.status {
            let size = |bytes: i64| words::size(u64::try_from(bytes).unwrap_or(0));
            row.extend([
                role(status).to_owned(),
                plain(&status.version),
                status.raft_term.to_string(),
                status.raft_applied_index.to_string(),
                status.raft_index.saturating_sub(status.raft_applied_index).to_string(),
                size(status.db_size),
                size(status.db_size_in_use),
                format!("{took:.1?}"),
            ]);
        } else {
            row.push("away".to_owned());
        }
        rows.push(row);
    }
    rows
}

fn role(status: &StatusResponse) -> &'static str {
    let id = status.header.unwrap_or_default().member_id;
    match () {
        () if status.is_learner => "learner",
        () if status.leader == id => "leader",
        () => "follower",
    }
}

fn work(before: &Sample, now: &Sample) -> Vec<Vec<String>> {
    let titles = RATES.iter().chain(&GAUGES).chain(&SLOW).map(|(title, _)| (*title).to_owned());
    let mut rows =
        vec![std::iter::once("MEMBER".to_owned()).chain(titles).chain(["MEMORY".to_owned()]).collect()];
    for seen in now.members.iter().filter(|seen| seen.status.is_ok()) {
        let was = before.members.iter().find(|was| was.id == seen.id);
        let mut row = vec![name(seen)];
        for (_, names) in RATES {
            let pair = was.and_then(|was| was.metrics.value(names)).zip(seen.metrics.value(names));
            row.push(pair.map_or("-".to_owned(), |(from, to)| format!("{:.0}", rate(before, now, from, to))));
        }
        for (_, names) in GAUGES.iter().chain(&SLOW) {
            row.push(seen.metrics.value(names).map_or("-".to_owned(), |value| format!("{value:.0}")));
        }
        let memory = seen.metrics.value(&["process_resident_memory_bytes"]);
        row.push(memory.map_or("-".to_owned(), |bytes| words::size(bytes as u64)));
        rows.push(row);
    }
    rows
}

/// Columns as wide as their widest cell, under a bold line of titles; text to the left, numbers to the right.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0))
        .collect();
    let is_number = |column: usize| {
        rows.iter()
            .skip(1)
            .any(|row| row.get(column).is_some_and(|c| c.starts_with(|c: char| c.is_ascii_digit())))
            && column > 0
    };
    let lines = rows.iter().map(|row| {
        let cells = (0..columns).map(|column| {
            let (text, width) = (cell(row, column), widths[column]);
            if is_number(column) { format!("{text:>width$}") } else { format!("{text:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    let mut lines: Vec<String> = lines.collect();
    lines[0] = format!("{BOLD}{}{PLAIN}", lines[0]);
    lines
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use etcfs_proto::etcdserverpb::ResponseHeader;

    use super::*;
    use crate::connect::Metrics;

    fn member(id: u64, name: &str, puts: u64) -> Seen {
        let header =
            ResponseHeader { cluster_id: 0xc, member_id: id, revision: 100 + puts as i64, raft_term: 3 };
        let status = StatusResponse {
            header: Some(header),
            version: "3.6.0".into(),
            db_size: 20480,
            db_size_in_use: 10240,
            leader: 1,
            raft_term: 3,
            raft_index: 212,
            raft_applied_index: 210,
            ..StatusResponse::default()
        };
        let page = format!(
            "etcd_mvcc_put_total {puts}\netcd_debugging_mvcc_watcher_total 7\netcd_server_slow_apply_total 2\n\
             process_resident_memory_bytes 3.1e+07\n"
        );
        Seen {
            id,
            name: name.into(),
            endpoint: format!("http://127.0.0.1:{id}"),
            status: Ok((status, Duration::from_millis(1))),
            metrics: Metrics::of(page),
        }
    }

    fn sample(at: Instant, puts: u64) -> Sample {
        let status = Err("refused".into());
        let away = Seen { name: "n3\x1b[2J".into(), endpoint: String::new(), status, ..member(3, "", 0) };
        let members = vec![member(1, "n1", puts), member(2, "n2", 10), away];
        Sample { at, members, alarms: vec!["NOSPACE of 2".into()], leases: Some(4) }
    }

    #[test]
    fn a_page_tells_members_rates_and_what_is_wrong() {
        let begin = Instant::now();
        let page = lines(&sample(begin, 10), &sample(begin + Duration::from_secs(2), 30)).join("\n");
        let bare = page.replace(BOLD, "").replace(RED, "").replace(PLAIN, "");
        assert_eq!(
            bare,
            "\
cluster c  2 of 3 members answer  leader n1  revision 130 (+10/s)  leases 4

MEMBER     ENDPOINT            ROLE      VERSION  TERM  APPLIED  BEHIND   SIZE  IN USE  ANSWER
n1         http://127.0.0.1:1  leader      3.6.0     3      210       2  20 kB   10 kB   1.0ms
n2         http://127.0.0.1:2  follower    3.6.0     3      210       2  20 kB   10 kB   1.0ms
n3\\x1b[2J                      away

MEMBER  PUT/s  RANGE/s  DEL/s  TXN/s  EVENTS/s  APPLIED/s  WATCHERS  PENDING  FAILED  SLOW APPLY  SLOW READ  MEMORY
n1         10  -        -      -      -         -                 7  -        -                2  -           31 MB
n2          0  -        -      -      -         -                 7  -        -                2  -           31 MB
n3\\x1b[2J does not answer: refused
alarm NOSPACE of 2"
        );
        assert!(page.contains(&format!("{RED}alarm NOSPACE of 2{PLAIN}")), "in red");
    }

    #[test]
    fn a_counter_that_begins_anew_shows_no_rate() {
        let begin = Instant::now();
        let (before, now) = (sample(begin, 30), sample(begin + Duration::from_secs(1), 10));
        assert_eq!(rate(&before, &now, 30.0, 10.0), 0.0);
        assert_eq!(rate(&before, &before, 1.0, 2.0), 0.0);
    }
}
