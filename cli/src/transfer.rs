//! Keys that get other names, as copies or for good: one transaction for each, many under way at once.

use std::ffi::OsString;

use bytes::Bytes;
use clap::Args;
use etcfs_client::Client;
use etcfs_proto::{
    etcdserverpb::{PutRequest, TxnRequest, response_op::Response},
    mvccpb::KeyValue,
};
use futures_util::{TryStreamExt as _, stream};

use crate::{
    args,
    error::CliError,
    pages::{self, Pages},
    requests::{delete, get, put, unchanged},
};

/// Requests under way at once: enough for the server to make few writes of them.
const UNDER_WAY_MAX: usize = 32;

/// What the two commands take alike.
#[derive(Args, Clone, Debug)]
pub(crate) struct Names {
    from: OsString,
    to: OsString,
    /// Every key that starts with FROM; its name then starts with TO
    #[arg(long)]
    prefix: bool,
    /// Leave keys alone that are there already
    #[arg(short, long)]
    no_clobber: bool,
}

/// What becomes of the first name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It stays, as it was at this revision; 0 for now.
    Copy { revision: i64 },
    /// It goes in the moment in which the new one comes.
    Move,
}

/// What came of it, in numbers of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) done: u64,
    pub(crate) left: u64,
}

impl Tally {
    pub(crate) fn tell(self, word: &str) {
        let keys = if self.done == 1 { "key" } else { "keys" };
        match self.left {
            0 => anstream::println!("{} {keys} {word}", self.done),
            left => anstream::println!("{} {keys} {word}, {left} left as they were", self.done),
        }
    }
}

/// Gives one key, or every key of a prefix, its new name.
pub(crate) async fn transfer(client: &Client, names: Names, way: Way) -> Result<Tally, CliError> {
    let (from, to) = (args::bytes(names.from), args::bytes(names.to));
    if from == to {
        return Err(CliError::arguments("FROM and TO are the same"));
    }
    let one = One { client, way, no_clobber: names.no_clobber };
    if !names.prefix {
        return one.named(from, to).await;
    }
    if way == Way::Move && (from.starts_with(&to) || to.starts_with(&from)) {
        return Err(CliError::arguments("one prefix lies within the other")
            .hint("move to a third prefix first, or copy and then delete"));
    }
    let revision = if let Way::Copy { revision } = way { revision } else { 0 };
    let mut pages = Pages::of(client, &from, false, revision);
    let mut tally = Tally::default();
    while let Some(page) = pages.next().await? {
        let steps = page.into_iter().map(|kv| {
            let to = [&to[..], &kv.key[from.len()..]].concat().into();
            Ok(one.step(kv, to))
        });
        let mut done = stream::iter(steps).try_buffer_unordered(UNDER_WAY_MAX);
        while let Some(done) = done.try_next().await? {
            if done { tally.done += 1 } else { tally.left += 1 }
        }
    }
    Ok(tally)
}

#[derive(Clone, Copy)]
struct One<'a> {
    client: &'a Client,
    way: Way,
    no_clobber: bool,
}

impl One<'_> {
    /// A key that was named has to be there, and its new name has to be free if that was asked for.
    async fn named(self, from: Bytes, to: Bytes) -> Result<Tally, CliError> {
        let revision = if let Way::Copy { revision } = self.way { revision } else { 0 };
        let name = String::from_utf8_lossy(&from).into_owned();
        let Some(kv) = pages::get(self.client, &from, revision).await? else {
            return Err(CliError::failed(format!("{name}: no such key"))
                .hint("--prefix takes all keys that start with it"));
        };
        if self.step(kv, to.clone()).await? {
            return Ok(Tally { done: 1, left: 0 });
        }
        let to = String::from_utf8_lossy(&to);
        Err(CliError::failed(format!(
            "{name} is left as it is: {to} exists, or {name} was deleted meanwhile"
        )))
    }

    /// Whether the new name was given; not if it was taken, or the old one is gone meanwhile.
    async fn step(self, mut kv: KeyValue, to: Bytes) -> Result<bool, CliError> {
        loop {
            let mut compare = Vec::new();
            let mut new = PutRequest { key: to.clone(), value: kv.value.clone(), ..PutRequest::default() };
            let mut success = Vec::new();
            if self.no_clobber {
                compare.push(unchanged(&to, 0));
            }
            if self.way == Way::Move {
                compare.push(unchanged(&kv.key, kv.mod_revision));
                success.push(delete(kv.key.clone()));
                new.lease = kv.lease;
            }
            success.push(put(new));
            let request = TxnRequest { compare, success, failure: vec![get(kv.key.clone())] };
            let answer = self.client.kv().txn(request).await?;
            if answer.succeeded {
                return Ok(true);
            }
            let now = answer.responses.into_iter().find_map(|response| match response.response {
                Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
                _ => None,
            });
            match now {
                // What was read is out of date: the newer value moves.
                Some(now) if self.way == Way::Move && now.mod_revision != kv.mod_revision => kv = now,
                _ => return Ok(false),
            }
        }
    }
}
