//! Framed tables, and the rows that the plain format shares with them.

use std::io::{self, Write};

use etcfs_proto::etcdserverpb::{HashKvResponse, MemberListResponse, StatusResponse};

use super::{Health, SnapshotHash, SnapshotStatus};
use crate::words;

type Row = Vec<String>;

/// Writes a frame with centered titles and cells at the right, as etcdctl's.
fn frame(out: &mut impl Write, titles: &[&str], rows: &[Row]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([titles[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect();
    writeln!(out, "{rule}+")?;
    for (title, width) in titles.iter().zip(&widths) {
        write!(out, "| {title:^width$} ")?;
    }
    writeln!(out, "|\n{rule}+")?;
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            write!(out, "| {cell:>width$} ")?;
        }
        writeln!(out, "|")?;
    }
    writeln!(out, "{rule}+")
}

pub(super) fn member_rows(answer: &MemberListResponse) -> Vec<Row> {
    let row = |member: &etcfs_proto::etcdserverpb::Member| {
        let status = if member.name.is_empty() { "unstarted" } else { "started" };
        vec![
            format!("{:x}", member.id),
            status.to_owned(),
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    answer.members.iter().map(row).collect()
}

pub(super) fn members(out: &mut impl Write, answer: &MemberListResponse) -> io::Result<()> {
    let titles = ["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"];
    frame(out, &titles, &member_rows(answer))
}

pub(super) fn status_rows(statuses: &[(String, StatusResponse)]) -> Vec<Row> {
    let size = |bytes: i64| words::size(u64::try_from(bytes).unwrap_or(0));
    let row = |(endpoint, status): &(String, StatusResponse)| {
        let member = status.header.unwrap_or_default().member_id;
        let in_use = (status.db_size_in_use * 100).checked_div(status.db_size).unwrap_or(100);
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        vec![
            endpoint.clone(),
            format!("{member:x}"),
            status.version.clone(),
            status.storage_version.clone(),
            size(status.db_size),
            size(status.db_size_in_use),
            format!("{}%", 100 - in_use),
            size(status.db_size_quota),
            (status.leader == member).to_string(),
            status.is_learner.to_string(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            status.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    };
    statuses.iter().map(row).collect()
}

pub(super) fn endpoint_status(out: &mut impl Write, statuses: &[(String, StatusResponse)]) -> io::Result<()> {
    let titles = [
        "ENDPOINT",
        "ID",
        "VERSION",
        "STORAGE VERSION",
        "DB SIZE",
        "IN USE",
        "PERCENTAGE NOT IN USE",
        "QUOTA",
        "IS LEADER",
        "IS LEARNER",
        "RAFT TERM",
        "RAFT INDEX",
        "RAFT APPLIED INDEX",
        "ERRORS",
        "DOWNGRADE TARGET VERSION",
        "DOWNGRADE ENABLED",
    ];
    frame(out, &titles, &status_rows(statuses))
}

pub(super) fn snapshot_row(status: &SnapshotStatus) -> Row {
    vec![
        format!("{:x}", status.hash),
        status.revision.to_string(),
        status.rows.to_string(),
        words::size(status.bytes),
        status.version.clone(),
    ]
}

pub(super) fn snapshot_status(out: &mut impl Write, status: &SnapshotStatus) -> io::Result<()> {
    frame(out, &["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"], &[snapshot_row(status)])
}

pub(super) fn hash_row(hash: &SnapshotHash) -> Row {
    [i64::from(hash.hash), hash.revision, hash.compact_revision].map(|number| number.to_string()).into()
}

pub(super) fn snapshot_hash(out: &mut impl Write, hash: &SnapshotHash) -> io::Result<()> {
    frame(out, &["HASH", "HASH REVISION", "COMPACT REVISION"], &[hash_row(hash)])
}

pub(super) fn endpoint_health(out: &mut impl Write, healths: &[Health]) -> io::Result<()> {
    let row = |health: &Health| {
        vec![
            health.endpoint.clone(),
            health.error.is_none().to_string(),
            words::duration(health.took),
            health.error.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<Row> = healths.iter().map(row).collect();
    frame(out, &["ENDPOINT", "HEALTH", "TOOK", "ERROR"], &rows)
}

pub(super) fn hash_rows(hashes: &[(String, HashKvResponse)]) -> Vec<Row> {
    hashes
        .iter()
        .map(|(endpoint, hash)| vec![endpoint.clone(), hash.hash.to_string(), hash.hash_revision.to_string()])
        .collect()
}

pub(super) fn endpoint_hash(out: &mut impl Write, hashes: &[(String, HashKvResponse)]) -> io::Result<()> {
    frame(out, &["ENDPOINT", "HASH", "HASH REVISION"], &hash_rows(hashes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_centers_titles_and_aligns_cells_right() {
        let mut out = Vec::new();
        frame(&mut out, &["ENDPOINT", "HASH"], &[vec!["127.0.0.1:1".into(), "7".into()]]).unwrap();
        let wanted = "\
+-------------+------+
|  ENDPOINT   | HASH |
+-------------+------+
| 127.0.0.1:1 |    7 |
+-------------+------+
";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}
