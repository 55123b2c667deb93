//! `etcfs get`

use std::ffi::OsString;

use clap::Args;
use etcfs_proto::etcdserverpb::{
    RangeRequest,
    range_request::{SortOrder, SortTarget},
};

use super::range::Reach;
use crate::{
    args::{self, Global},
    connect,
    error::{CliError, Kind},
    output::{Format, Output},
};

/// Prints a key or a range of keys with their values.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs get --prefix /project/jobs/")]
pub(crate) struct GetArgs {
    /// KEY [RANGE_END]: one key, or all from KEY up to but without RANGE_END; a path in a mount, with ./ before it
    #[arg(value_name = "KEY")]
    args: Vec<OsString>,
    #[command(flatten)]
    reach: Reach,
    /// l: confirmed by the cluster (linearizable); s: from one member (serializable)
    #[arg(long, default_value = "l", value_name = "l|s")]
    consistency: String,
    /// Order of results: ASCEND or DESCEND
    #[arg(long, default_value = "", hide_default_value = true)]
    order: String,
    /// What to sort by: CREATE, KEY, MODIFY, VALUE or VERSION
    #[arg(long, default_value = "", hide_default_value = true, value_name = "FIELD")]
    sort_by: String,
    /// Most results to print; 0 for all
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    limit: i64,
    /// State at this revision; 0 for now
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    rev: i64,
    /// Keys without their values
    #[arg(long)]
    keys_only: bool,
    /// The number of keys alone
    #[arg(long)]
    count_only: bool,
    /// Values without their keys
    #[arg(long)]
    print_value_only: bool,
    /// Lowest revision of creation
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    min_create_rev: i64,
    /// Highest revision of creation
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    max_create_rev: i64,
    /// Lowest revision of the last change
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    min_mod_rev: i64,
    /// Highest revision of the last change
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    max_mod_rev: i64,
}

impl GetArgs {
    pub(super) fn keys_mut(&mut self) -> &mut [OsString] {
        &mut self.args
    }

    pub(super) fn into_request(self) -> Result<RangeRequest, CliError> {
        if self.keys_only && self.count_only {
            return Err(CliError::arguments(
                "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
            ));
        }
        let serializable = match self.consistency.as_str() {
            "l" => false,
            "s" => true,
            other => return Err(unknown(format!("unknown consistency flag {other:?}"))),
        };
        let (sort_order, sort_target) = sorting(&self.order, &self.sort_by)?;
        let args = self.args.into_iter().map(args::bytes).collect();
        let (key, range_end) = self.reach.resolve(args, "get")?;
        Ok(RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: self.rev,
            sort_order: sort_order.into(),
            sort_target: sort_target.into(),
            serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: self.min_mod_rev,
            max_mod_revision: self.max_mod_rev,
            min_create_revision: self.min_create_rev,
            max_create_revision: self.max_create_rev,
        })
    }
}

fn unknown(message: String) -> CliError {
    CliError::new(Kind::Feature, message)
}

fn sorting(order: &str, field: &str) -> Result<(SortOrder, SortTarget), CliError> {
    let target = match field.to_ascii_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(unknown(format!("bad sort target {field}"))),
    };
    let order = match order.to_ascii_uppercase().as_str() {
        "" if target == SortTarget::Key => SortOrder::None,
        // The store keeps keys in this order: nothing is left to sort.
        "ASCEND" if target == SortTarget::Key => SortOrder::None,
        "" | "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return Err(unknown(format!("bad sort order {order}"))),
    };
    Ok((order, target))
}

pub(crate) async fn run(global: &Global, args: GetArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let values_only = args.print_value_only;
    let request = args.into_request()?;
    if values_only && output.format != Format::Simple {
        return Err(CliError::arguments("print-value-only is only for `--write-out=simple`"));
    }
    let answer = connect::client(global)?.kv().range(request.clone()).await?;
    output.range(&answer, &request, values_only)
}
