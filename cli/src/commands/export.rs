//! `etcfs export`

use std::{collections::HashSet, ffi::OsString, io, io::IsTerminal as _, path::PathBuf};

use bytes::Bytes;
use clap::Args;
use etcfs_fs::map::{KeyMap, Percent, Rel};

use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    files::{Place, sink::Sink},
    output::progress,
    pages::{Pages, directory},
};

/// Writes the keys of a prefix as files, all as of one revision.
///
/// Names are those of a mount: a key that is a directory too has its value in `%value`. Leases are not kept. An
/// archive gets its name once it is whole.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs export /project project.tar")]
pub(crate) struct ExportArgs {
    /// The directory of keys; "" for all keys
    prefix: OsString,
    /// A directory that is empty or not there yet, FILE.tar, or - for an archive on standard output
    #[arg(value_name = "DIR|FILE.tar|-")]
    to: PathBuf,
    /// State at this revision; 0 for now
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    rev: i64,
}

pub(crate) async fn run(global: &Global, args: ExportArgs) -> Result<(), CliError> {
    let place = Place::new(args.to);
    if place == Place::Pipe && io::stdout().is_terminal() {
        return Err(CliError::arguments("an archive is not for a terminal: redirect it, or name FILE.tar"));
    }
    let client = connect::client(global)?;
    let prefix = directory(args::bytes(args.prefix));
    let map = KeyMap::new(prefix.clone(), Percent::Strict, Rel::Off);
    let mut sink = Sink::new(place.clone())?;

    // Which keys are directories too shows only in keys that may come much later.
    let mut names = Pages::of(&client, &prefix, true, args.rev);
    let mut directories: HashSet<Bytes> = HashSet::new();
    let mut keys = 0;
    while let Some(page) = names.next().await? {
        keys += page.len() as u64;
        for kv in page {
            let slashes = (prefix.len()..kv.key.len()).filter(|&at| kv.key[at] == b'/');
            // The deepest first: if that is known, all above it are.
            for slash in slashes.rev() {
                if !directories.insert(Bytes::copy_from_slice(&kv.key[..slash])) {
                    break;
                }
            }
        }
    }
    let progress = progress::of_keys(keys);
    let mut pages = Pages::of(&client, &prefix, false, names.revision());
    let mut written = 0_u64;
    while let Some(page) = pages.next().await? {
        for kv in page {
            if map.is_own_record(&kv.key) {
                continue;
            }
            let Some(mut path) = map.path_of(&kv.key) else { continue };
            if directories.contains(&kv.key) {
                path.push("%value");
            }
            sink.write(&path, &kv.value)?;
            written += 1;
            progress.set_position(written);
        }
    }
    progress.finish_and_clear();
    sink.finish()?;
    if place != Place::Pipe {
        anstream::println!("{written} keys exported as of revision {}", names.revision());
    }
    Ok(())
}
