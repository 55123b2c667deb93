//! Answers in the form that was asked for.
//!
//! [`Output`] picks the format; `simple`, `fields`, `json` and `table` write
//! it as etcdctl does, byte for byte, so that what parses its output parses
//! ours. One difference: on a terminal, control characters in keys and values
//! are spelled out.

mod fields;
mod json;
mod members;
pub(crate) mod progress;
mod rights;
mod simple;
mod table;

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use etcfs_client::WatchBatch;
use etcfs_proto::etcdserverpb::{
    AlarmResponse, DeleteRangeResponse, HashKvResponse, LeaseGrantResponse, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse, PutResponse, RangeRequest,
    RangeResponse, ResponseHeader, StatusResponse, TxnResponse, WatchResponse,
};
use prost::Message;

pub(crate) use members::MemberChange;

use crate::{
    args::Global,
    error::{CliError, Kind},
    words,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

/// Where answers go, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    /// A person reads it, who has not said how.
    prefers_table: bool,
    hex: bool,
    escapes: bool,
    colours: bool,
}

/// How one endpoint is.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) endpoint: String,
    pub(crate) took: Duration,
    /// Why it is not well.
    pub(crate) error: Option<String>,
}

/// What a snapshot file holds.
#[derive(Debug)]
pub(crate) struct SnapshotStatus {
    pub(crate) hash: u32,
    pub(crate) revision: i64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) version: String,
}

/// The hash over keys and their history in a snapshot file.
#[derive(Debug)]
pub(crate) struct SnapshotHash {
    pub(crate) hash: u32,
    pub(crate) revision: i64,
    pub(crate) compact_revision: i64,
}

type Out<'a> = io::StdoutLock<'a>;

impl Output {
    pub(crate) fn new(global: &Global) -> Result<Self, CliError> {
        let format = match global.write_out.as_deref().unwrap_or("simple") {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return Err(CliError::new(Kind::Feature, "unsupported output format")),
        };
        let to_terminal = io::stdout().is_terminal();
        // As anstream decides for messages: NO_COLOR, TERM=dumb and the like.
        let colours = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        let prefers_table = to_terminal && global.write_out.is_none();
        Ok(Self { format, prefers_table, hex: global.hex, escapes: to_terminal && !global.raw, colours })
    }

    /// The format where there is a table.
    fn tabular(self) -> Format {
        if self.prefers_table { Format::Table } else { self.format }
    }

    /// A name that stands for more, on a terminal in bold blue as ls(1) has directories.
    pub(crate) fn directory(self, name: &[u8]) -> Vec<u8> {
        let name = self.key(name);
        if self.colours { [b"\x1b[1;34m", &name[..], b"\x1b[0m"].concat() } else { name }
    }

    pub(crate) fn put(self, answer: &PutResponse) -> Result<(), CliError> {
        self.write(
            answer,
            |out, answer| simple::put(out, self, answer),
            |out, answer| fields::put(out, answer),
            json::put,
        )
    }

    /// etcdctl prints nothing for `--count-only` but in other formats; a person wants the number.
    pub(crate) fn range(
        self,
        answer: &RangeResponse,
        request: &RangeRequest,
        values_only: bool,
    ) -> Result<(), CliError> {
        self.write(
            answer,
            |out, answer| match request.count_only {
                true => writeln!(out, "{}", answer.count),
                false => simple::range(out, self, answer, values_only),
            },
            |out, answer| fields::range(out, answer),
            json::range,
        )
    }

    pub(crate) fn delete(self, answer: &DeleteRangeResponse) -> Result<(), CliError> {
        self.write(
            answer,
            |out, answer| simple::delete(out, self, answer),
            |out, answer| fields::delete(out, answer),
            json::delete,
        )
    }

    pub(crate) fn txn(self, answer: &TxnResponse) -> Result<(), CliError> {
        self.write(
            answer,
            |out, answer| simple::txn(out, self, answer),
            |out, answer| fields::txn(out, answer),
            json::txn,
        )
    }

    pub(crate) fn watch(self, batch: &WatchBatch) -> Result<(), CliError> {
        if self.format == Format::Protobuf {
            let answer = WatchResponse {
                header: Some(batch.header),
                events: batch.events.clone(),
                ..WatchResponse::default()
            };
            return Ok(io::stdout().lock().write_all(&answer.encode_to_vec())?);
        }
        self.choose(
            |out| simple::watch(out, self, batch),
            |out| fields::watch(out, batch),
            |out| json::line(out, &json::watch(batch)),
        )
    }

    /// The last word of a watch that met compacted history.
    pub(crate) fn watch_compacted(self, revision: i64) -> Result<(), CliError> {
        match self.format {
            Format::Json => Ok(json::line(&mut io::stdout().lock(), &json::watch_compacted(revision))?),
            Format::Simple | Format::Fields | Format::Protobuf | Format::Table => Ok(()),
        }
    }

    pub(crate) fn lease_grant(self, answer: &LeaseGrantResponse) -> Result<(), CliError> {
        self.write(
            answer,
            |out, answer| writeln!(out, "lease {:016x} granted with TTL({}s)", answer.id, answer.ttl),
            |out, answer| fields::lease_grant(out, answer),
            json::lease_grant,
        )
    }

    pub(crate) fn lease_revoke(self, id: i64, answer: &LeaseRevokeResponse) -> Result<(), CliError> {
        self.write(
            answer,
            |out, _| writeln!(out, "lease {id:016x} revoked"),
            |out, answer| fields::header(out, answer.header.as_ref()),
            json::lease_revoke,
        )
    }

    pub(crate) fn lease_keep_alive(self, answer: &LeaseKeepAliveResponse) -> Result<(), CliError> {
        self.write(
            answer,
            |out, answer| writeln!(out, "lease {:016x} keepalived with TTL({})", answer.id, answer.ttl),
            |out, answer| fields::lease_keep_alive(out, answer),
            json::lease_keep_alive,
        )
    }

    pub(crate) fn lease_time_to_live(
        self,
        answer: &LeaseTimeToLiveResponse,
        keys: bool,
    ) -> Result<(), CliError> {
        self.write(
            answer,
            |out, answer| simple::lease_time_to_live(out, self, answer, keys),
            |out, answer| fields::lease_time_to_live(out, answer),
            json::lease_time_to_live,
        )
    }

    pub(crate) fn leases(self, answer: &LeaseLeasesResponse) -> Result<(), CliError> {
        self.write(
            answer,
            |out, answer| simple::leases(out, answer),
            |out, answer| fields::leases(out, answer),
            json::leases,
        )
    }

    /// A request that was carried out and says no more: a person gets `text`.
    pub(crate) fn acknowledged<M: Message>(
        self,
        answer: &M,
        header: Option<&ResponseHeader>,
        text: impl Display,
    ) -> Result<(), CliError> {
        self.write(
            answer,
            |out, _| writeln!(out, "{text}"),
            |out, _| fields::header(out, header),
            |_| json::headed(header).done(),
        )
    }

    /// A list of names, one a line.
    fn names<M: Message>(
        self,
        answer: &M,
        header: Option<&ResponseHeader>,
        json_name: &str,
        field_name: &str,
        names: &[String],
    ) -> Result<(), CliError> {
        self.write(
            answer,
            |out, _| names.iter().try_for_each(|name| writeln!(out, "{name}")),
            |out, _| {
                fields::header(out, header)?;
                fields::names(out, field_name, names)
            },
            |_| json::headed(header).with(json_name, names.to_vec()).done(),
        )
    }

    pub(crate) fn alarms(self, answer: &AlarmResponse) -> Result<(), CliError> {
        self.write(
            answer,
            |out, answer| simple::alarms(out, answer),
            |out, answer| fields::alarms(out, answer),
            json::alarms,
        )
    }

    pub(crate) fn endpoint_status(self, statuses: &[(String, StatusResponse)]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match self.tabular() {
            Format::Simple => simple::endpoint_status(&mut out, statuses)?,
            Format::Fields => fields::endpoint_status(&mut out, statuses)?,
            Format::Json => json::line(&mut out, &json::endpoint_status(statuses))?,
            Format::Table => table::endpoint_status(&mut out, statuses)?,
            Format::Protobuf => return Err(not_offered("protobuf")),
        }
        Ok(())
    }

    pub(crate) fn snapshot_status(self, status: &SnapshotStatus) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match self.tabular() {
            Format::Simple => simple::snapshot_status(&mut out, status)?,
            Format::Fields => fields::snapshot_status(&mut out, status)?,
            Format::Json => json::line(&mut out, &json::snapshot_status(status))?,
            Format::Table => table::snapshot_status(&mut out, status)?,
            Format::Protobuf => return Err(not_offered("protobuf")),
        }
        Ok(())
    }

    pub(crate) fn snapshot_hash(self, hash: &SnapshotHash) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match self.tabular() {
            Format::Simple => simple::snapshot_hash(&mut out, hash)?,
            Format::Fields => fields::snapshot_hash(&mut out, hash)?,
            Format::Json => json::line(&mut out, &json::snapshot_hash(hash))?,
            Format::Table => table::snapshot_hash(&mut out, hash)?,
            Format::Protobuf => return Err(not_offered("protobuf")),
        }
        Ok(())
    }

    pub(crate) fn endpoint_health(self, healths: &[Health]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match self.tabular() {
            Format::Simple => simple::endpoint_health(&mut out, healths)?,
            Format::Fields => fields::endpoint_health(&mut out, healths)?,
            Format::Json => json::line(&mut out, &json::endpoint_health(healths))?,
            Format::Table => table::endpoint_health(&mut out, healths)?,
            Format::Protobuf => return Err(not_offered("protobuf")),
        }
        Ok(())
    }

    pub(crate) fn endpoint_hash(self, hashes: &[(String, HashKvResponse)]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match self.tabular() {
            Format::Simple => simple::endpoint_hash(&mut out, hashes)?,
            Format::Fields => fields::endpoint_hash(&mut out, hashes)?,
            Format::Json => json::line(&mut out, &json::endpoint_hash(hashes))?,
            Format::Table => table::endpoint_hash(&mut out, hashes)?,
            Format::Protobuf => return Err(not_offered("protobuf")),
        }
        Ok(())
    }

    /// Writes an answer that has no table.
    fn write<M: Message>(
        self,
        answer: &M,
        simple: impl FnOnce(&mut Out<'_>, &M) -> io::Result<()>,
        fields: impl FnOnce(&mut Out<'_>, &M) -> io::Result<()>,
        json: impl FnOnce(&M) -> serde_json::Value,
    ) -> Result<(), CliError> {
        if self.format == Format::Protobuf {
            return Ok(io::stdout().lock().write_all(&answer.encode_to_vec())?);
        }
        self.choose(
            |out| simple(out, answer),
            |out| fields(out, answer),
            |out| json::line(out, &json(answer)),
        )
    }

    fn choose(
        self,
        simple: impl FnOnce(&mut Out<'_>) -> io::Result<()>,
        fields: impl FnOnce(&mut Out<'_>) -> io::Result<()>,
        json: impl FnOnce(&mut Out<'_>) -> io::Result<()>,
    ) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Simple => simple(&mut out)?,
            Format::Fields => fields(&mut out)?,
            Format::Json => json(&mut out)?,
            Format::Protobuf => return Err(not_offered("protobuf")),
            Format::Table => return Err(not_offered("table")),
        }
        Ok(out.flush()?)
    }

    /// A key as people see it: nothing in it may steer a terminal.
    pub(crate) fn key(self, key: &[u8]) -> Vec<u8> {
        self.shown(key, false)
    }

    /// A value as people see it: its lines stay lines.
    pub(crate) fn value(self, value: &[u8]) -> Vec<u8> {
        self.shown(value, true)
    }

    fn shown(self, bytes: &[u8], keep_lines: bool) -> Vec<u8> {
        if self.hex {
            words::hex(bytes).into_bytes()
        } else if self.escapes {
            words::harmless(bytes, keep_lines).into_bytes()
        } else {
            bytes.to_vec()
        }
    }
}

fn not_offered(format: &str) -> CliError {
    CliError::new(Kind::Feature, format!("{format} not supported as output format"))
}
