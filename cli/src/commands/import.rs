//! `etcfs import`

use std::{ffi::OsString, path::Path, path::PathBuf};

use bytes::Bytes;
use clap::Args;
use etcfs_client::Client;
use etcfs_fs::map::{KeyMap, Percent, Rel};
use etcfs_proto::etcdserverpb::{PutRequest, TxnRequest};
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    files::{Place, source},
    output::progress,
    pages::directory,
    requests::{put, unchanged},
};

/// Puts under way at once.
const UNDER_WAY_MAX: usize = 32;

/// Puts files below a prefix: a value for each file, under the key that its path is in a mount.
///
/// What is neither file nor directory is left out, and named. Each file is a revision of its own.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs import project.tar /project")]
pub(crate) struct ImportArgs {
    /// A directory, FILE.tar, or - for an archive from standard input
    #[arg(value_name = "DIR|FILE.tar|-")]
    from: PathBuf,
    /// The directory of keys; "" for what was exported so
    prefix: OsString,
    /// Leave keys alone that are there already
    #[arg(short, long)]
    no_clobber: bool,
}

pub(crate) async fn run(global: &Global, args: ImportArgs) -> Result<(), CliError> {
    let client = connect::client(global)?;
    let map = KeyMap::new(directory(args::bytes(args.prefix)), Percent::Escape, Rel::Off);
    let mut files = source::read(Place::new(args.from));
    let mut under_way = FuturesUnordered::new();
    let (mut done, mut left) = (0_u64, 0_u64);
    let progress = progress::counting("keys imported");
    loop {
        // The next file, as long as there is room for it; else, or after the last, what is under way.
        let file = if under_way.len() < UNDER_WAY_MAX { files.recv().await.transpose()? } else { None };
        if let Some(file) = file {
            let Some(content) = file.content else {
                anstream::eprintln!("Left out: {} is no regular file", file.path.display());
                continue;
            };
            let key = key(&map, &file.path)?;
            under_way.push(one(&client, file.path, key, content.into(), args.no_clobber));
            continue;
        }
        match under_way.next().await {
            Some(put) => *(if put? { &mut done } else { &mut left }) += 1,
            None => break,
        }
        progress.set_position(done);
    }
    progress.finish_and_clear();
    match left {
        0 => anstream::println!("{done} keys imported"),
        left => anstream::println!("{done} keys imported, {left} left as they were"),
    }
    Ok(())
}

fn key(map: &KeyMap, path: &Path) -> Result<Bytes, CliError> {
    let key = map.key_of(path).map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?;
    if map.is_own_record(&key) {
        return Err(CliError::failed(format!("{}: is a record of the mount's own", path.display())));
    }
    Ok(key.bytes())
}

/// Whether the key was put; not if it was there and is to be left alone.
async fn one(
    client: &Client,
    path: PathBuf,
    key: Bytes,
    value: Bytes,
    no_clobber: bool,
) -> Result<bool, CliError> {
    let compare = if no_clobber { vec![unchanged(&key, 0)] } else { Vec::new() };
    let new = PutRequest { key, value, ..PutRequest::default() };
    let request = TxnRequest { compare, success: vec![put(new)], failure: Vec::new() };
    match client.kv().txn(request).await {
        Ok(answer) => Ok(answer.succeeded),
        Err(error) => {
            let error = CliError::from(error);
            let kind = error.kind();
            Err(error.reworded(kind, |message| format!("{}: {message}", path.display())))
        }
    }
}
