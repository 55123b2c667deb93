//! Members of the cluster: who they are, and what was changed about them.

use std::{
    fmt,
    io::{self, Write},
};

use etcfs_proto::etcdserverpb::{Member, MemberAddResponse, MemberListResponse, ResponseHeader};
use prost::Message;

use super::{Format, Output, fields, json, table};
use crate::error::CliError;

/// What became of a member.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MemberChange {
    Removed,
    Updated,
    Promoted,
}

impl fmt::Display for MemberChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removed => "removed from",
            Self::Updated => "updated in",
            Self::Promoted => "promoted in",
        })
    }
}

impl Output {
    pub(crate) fn members(self, answer: &MemberListResponse) -> Result<(), CliError> {
        if self.tabular() == Format::Table {
            return Ok(table::members(&mut io::stdout().lock(), answer)?);
        }
        self.write(
            answer,
            |out, answer| {
                table::member_rows(answer).iter().try_for_each(|row| writeln!(out, "{}", row.join(", ")))
            },
            |out, answer| list(out, answer.header.as_ref(), &answer.members),
            |answer| {
                let object = json::headed(answer.header.as_ref());
                object.with("members", array(&answer.members)).done()
            },
        )
    }

    /// The new member, and the settings with which it finds the others.
    pub(crate) fn member_added(self, name: &str, answer: &MemberAddResponse) -> Result<(), CliError> {
        let new = answer.member.clone().unwrap_or_default();
        self.write(
            answer,
            |out, answer| {
                let cluster = answer.header.unwrap_or_default().cluster_id;
                let name_of = |member: &Member| {
                    if member.id == new.id { name.to_owned() } else { member.name.clone() }
                };
                let peers = answer.members.iter().flat_map(|member| {
                    let name = name_of(member);
                    member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
                });
                let peers: Vec<_> = peers.collect();
                writeln!(out, "Member {:16x} added to cluster {cluster:16x}\n", new.id)?;
                writeln!(out, "ETCD_NAME={name:?}")?;
                writeln!(out, "ETCD_INITIAL_CLUSTER=\"{}\"", peers.join(","))?;
                writeln!(out, "ETCD_INITIAL_ADVERTISE_PEER_URLS=\"{}\"", new.peer_ur_ls.join(","))?;
                writeln!(out, "ETCD_INITIAL_CLUSTER_STATE=\"existing\"")
            },
            |out, answer| list(out, answer.header.as_ref(), &answer.members),
            |answer| {
                let object = json::headed(answer.header.as_ref()).with("member", json::member(&new));
                object.with("members", array(&answer.members)).done()
            },
        )
    }

    pub(crate) fn member_changed<M: Message>(
        self,
        id: u64,
        change: MemberChange,
        answer: &M,
        header: Option<&ResponseHeader>,
        members: &[Member],
    ) -> Result<(), CliError> {
        let cluster = header.map_or(0, |header| header.cluster_id);
        self.write(
            answer,
            |out, _| writeln!(out, "Member {id:16x} {change} cluster {cluster:16x}"),
            |out, _| list(out, header, members),
            |_| json::headed(header).with("members", array(members)).done(),
        )
    }
}

fn list(out: &mut impl Write, header: Option<&ResponseHeader>, members: &[Member]) -> io::Result<()> {
    fields::header(out, header)?;
    members.iter().try_for_each(|member| fields::member(out, member))
}

fn array(members: &[Member]) -> serde_json::Value {
    members.iter().map(json::member).collect()
}
