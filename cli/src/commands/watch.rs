//! `etcfs watch`

mod follow;
mod interactive;

use std::ffi::OsString;

use bytes::Bytes;
use clap::Args;
use etcfs_proto::{
    etcdserverpb::WatchCreateRequest,
    key::{TO_END, prefix_end},
};

use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    output::Output,
};

/// Prints changes as they happen, or runs a command for each.
///
/// The watch goes on over broken connections and server restarts, without a
/// gap and without a repetition. A command after `--` runs once for each event
/// and finds it in ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY
/// and ETCD_WATCH_VALUE (quoted).
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs watch --prefix /project/ -- env")]
pub(crate) struct WatchArgs {
    /// KEY [RANGE_END], or a path in a mount, with ./ before it; without, ETCFS_WATCH_KEY and ETCFS_WATCH_RANGE_END
    /// (or ETCDCTL_...)
    #[arg(value_name = "KEY")]
    args: Vec<OsString>,
    /// Command to run for each event
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    /// Read watches from standard input, a line each
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    what: What,
}

impl WatchArgs {
    pub(super) fn keys_mut(&mut self) -> &mut [OsString] {
        &mut self.args
    }
}

/// What a watch is about.
#[derive(Args, Clone, Copy, Debug)]
struct What {
    /// All keys that start with KEY
    #[arg(long)]
    prefix: bool,
    /// Begin with changes of this revision, in the past if need be
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    rev: i64,
    /// Print what was there before, too
    #[arg(long)]
    prev_kv: bool,
    /// Print the server's signs of life while nothing changes
    #[arg(long)]
    progress_notify: bool,
}

impl What {
    fn request(self, args: Vec<OsString>) -> Result<WatchCreateRequest, CliError> {
        let mut args = args.into_iter().map(args::bytes);
        let (Some(key), range_end, None) = (args.next(), args.next(), args.next()) else {
            return Err(CliError::arguments("bad number of arguments"));
        };
        let (key, range_end) = match (self.prefix, range_end) {
            (true, Some(_)) => {
                return Err(CliError::arguments("`range_end` and `--prefix` are mutually exclusive"));
            }
            (true, None) if key.is_empty() => (Bytes::from_static(b"\0"), Bytes::from_static(TO_END)),
            (true, None) => (key.clone(), prefix_end(&key)),
            (false, end) => (key, end.unwrap_or_default()),
        };
        Ok(WatchCreateRequest {
            key,
            range_end,
            start_revision: self.rev,
            prev_kv: self.prev_kv,
            progress_notify: self.progress_notify,
            ..WatchCreateRequest::default()
        })
    }
}

/// KEY and RANGE_END from the environment, if there.
fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Vec<OsString> {
    let either =
        |name: &str| variable(&format!("ETCFS_{name}")).or_else(|| variable(&format!("ETCDCTL_{name}")));
    either("WATCH_KEY").into_iter().chain(either("WATCH_RANGE_END")).collect()
}

pub(crate) async fn run(global: &Global, args: WatchArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let client = connect::client(global)?;
    if args.interactive {
        return interactive::run(&client, output).await;
    }
    let keys = if args.args.is_empty() { from_environment(|name| std::env::var_os(name)) } else { args.args };
    let watcher = client.watch(args.what.request(keys)?);
    follow::run(watcher, output, args.command).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: What = What { prefix: false, rev: 0, prev_kv: false, progress_notify: false };

    #[test]
    fn arguments_name_a_key_a_range_or_a_prefix() {
        let words = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        let bounds = |what: What, list: &[&str]| what.request(words(list)).map(|r| (r.key, r.range_end)).ok();
        let prefix = What { prefix: true, ..KEY };
        assert_eq!(bounds(KEY, &["a"]), Some(("a".into(), Bytes::new())));
        assert_eq!(bounds(KEY, &["a", "c"]), Some(("a".into(), "c".into())));
        assert_eq!(bounds(prefix, &["a"]), Some(("a".into(), "b".into())));
        assert_eq!(bounds(prefix, &[""]), Some(("\0".into(), "\0".into())));
        assert_eq!(bounds(prefix, &["a", "c"]), None);
        assert_eq!(bounds(KEY, &[]), None);
    }

    #[test]
    fn the_environment_may_name_the_key() {
        let lookup = |name: &str| (name == "ETCDCTL_WATCH_KEY").then(|| OsString::from("k"));
        assert_eq!(from_environment(lookup), ["k"]);
    }
}
