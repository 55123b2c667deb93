//! `etcfs ls`

use std::ffi::OsString;
use std::io::{self, Write as _};

use clap::Args;
use etcfs_proto::mvccpb::KeyValue;

use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    output::Output,
    pages::{Pages, directory},
};

/// Lists the keys and directories right below a prefix, as `ls` in a mount.
///
/// What lies deeper is passed over, not read: the cost is that of what is listed.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs ls -l /project/jobs")]
pub(crate) struct LsArgs {
    /// The directory; without, all keys' first components
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// With size, revision, version and lease
    #[arg(short, long)]
    long: bool,
    /// State at this revision; 0 for now
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    rev: i64,
}

pub(crate) async fn run(global: &Global, args: LsArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let client = connect::client(global)?;
    let prefix = directory(args::bytes(args.prefix));
    let mut pages = Pages::of(&client, &prefix, !args.long, args.rev);
    let mut out = io::stdout().lock();
    while let Some(page) = pages.next().await? {
        for kv in page {
            let name = &kv.key[prefix.len()..];
            match name.iter().position(|&byte| byte == b'/') {
                None => write_key(&mut out, output, name, &kv, args.long)?,
                Some(slash) => {
                    let below = kv.key.slice(..prefix.len() + slash + 1);
                    write_directory(&mut out, output, &name[..=slash], args.long)?;
                    pages.skip(&below);
                    // The rest of this page may lie below it too: it is read again from behind it.
                    break;
                }
            }
        }
    }
    Ok(out.flush()?)
}

fn write_key(
    out: &mut impl io::Write,
    output: Output,
    name: &[u8],
    kv: &KeyValue,
    long: bool,
) -> io::Result<()> {
    if long {
        let lease = if kv.lease == 0 { "-".to_owned() } else { format!("{:016x}", kv.lease) };
        write!(out, "{:>9} {:>10} {:>6} {lease:>16} ", kv.value.len(), kv.mod_revision, kv.version)?;
    }
    line(out, output.key(name))
}

fn write_directory(out: &mut impl io::Write, output: Output, name: &[u8], long: bool) -> io::Result<()> {
    if long {
        write!(out, "{:>9} {:>10} {:>6} {:>16} ", "-", "-", "-", "-")?;
    }
    line(out, output.directory(name))
}

fn line(out: &mut impl io::Write, name: Vec<u8>) -> io::Result<()> {
    out.write_all(&name)?;
    out.write_all(b"\n")
}
