//! `etcfs put`

use std::{ffi::OsString, io::Read as _};

use bytes::Bytes;
use clap::Args;
use etcfs_proto::etcdserverpb::PutRequest;

use super::lease;
use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    output::Output,
};

/// Stores a value under a key.
///
/// Without VALUE it is read from standard input, all of it. A key or value that
/// begins with `-` goes after `--`.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs put /project/jobs/job1 running")]
pub(crate) struct PutArgs {
    /// KEY [VALUE]
    #[arg(value_name = "KEY")]
    args: Vec<OsString>,
    /// Lease (in hexadecimal) that the key is to end with
    #[arg(long, default_value = "0", hide_default_value = true, value_name = "ID")]
    lease: String,
    /// Print what was there before
    #[arg(long)]
    prev_kv: bool,
    /// Keep the value, change the lease alone
    #[arg(long)]
    ignore_value: bool,
    /// Keep the lease, change the value alone
    #[arg(long)]
    ignore_lease: bool,
}

/// Where a value may come from that the arguments do not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    ReadStdin,
    Refuse,
}

impl PutArgs {
    pub(super) fn into_request(self, missing: Missing) -> Result<PutRequest, CliError> {
        let lease = lease::parse_id(&self.lease, "bad lease ID")?;
        let wrong =
            || CliError::arguments("put command needs 1 argument and input from stdin or 2 arguments");
        let mut args = self.args.into_iter().map(args::bytes);
        let key = args.next().ok_or_else(wrong)?;
        let value = match (args.next(), self.ignore_value) {
            (Some(_), true) => {
                return Err(CliError::arguments(
                    "put command needs only 1 argument when 'ignore-value' is set",
                ));
            }
            (None, true) => Bytes::new(),
            (Some(value), false) => value,
            (None, false) if missing == Missing::ReadStdin => {
                let mut value = Vec::new();
                std::io::stdin().lock().read_to_end(&mut value)?;
                if value.is_empty() {
                    return Err(wrong().hint("an empty value is given as \"\""));
                }
                value.into()
            }
            (None, false) => return Err(wrong()),
        };
        Ok(PutRequest {
            key,
            value,
            lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}

pub(crate) async fn run(global: &Global, args: PutArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let request = args.into_request(Missing::ReadStdin)?;
    output.put(&connect::client(global)?.kv().put(request).await?)
}
