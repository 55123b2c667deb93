//! `etcfs del`

use std::ffi::OsString;

use clap::Args;
use etcfs_proto::etcdserverpb::DeleteRangeRequest;

use super::range::Reach;
use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    output::Output,
};

/// Removes a key or a range of keys, and prints how many.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs del --prefix /project/jobs/")]
pub(crate) struct DelArgs {
    /// KEY [RANGE_END]: one key, or all from KEY up to but without RANGE_END
    #[arg(value_name = "KEY")]
    args: Vec<OsString>,
    #[command(flatten)]
    reach: Reach,
    /// Print what was removed
    #[arg(long)]
    prev_kv: bool,
    /// Says that RANGE_END is meant as one; changes nothing
    #[arg(long)]
    range: bool,
}

impl DelArgs {
    pub(super) fn into_request(self) -> Result<DeleteRangeRequest, CliError> {
        let args = self.args.into_iter().map(args::bytes).collect();
        let (key, range_end) = self.reach.resolve(args, "del")?;
        Ok(DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv })
    }
}

pub(crate) async fn run(global: &Global, args: DelArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let request = args.into_request()?;
    output.delete(&connect::client(global)?.kv().delete_range(request).await?)
}
