//! Watches read from standard input: `watch [flags] key [range_end] [-- command]`
//! starts one, `progress` asks every one of them how far it is.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use clap::Parser;
use etcfs_client::{Client, Watcher};
use futures_util::{StreamExt as _, stream::SelectAll};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{What, follow};
use crate::{
    args,
    error::{CliError, Kind},
    output::Output,
    words,
};

/// One line's watch.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Line {
    args: Vec<OsString>,
    #[arg(last = true)]
    command: Vec<OsString>,
    #[command(flatten)]
    what: What,
}

pub(super) async fn run(client: &Client, output: Output) -> Result<(), CliError> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut watches: SelectAll<Watch> = SelectAll::new();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => act(client, &mut watches, &line),
                None => return Err(CliError::new(Kind::Input, "Error reading watch request line: EOF")),
            },
            Some((batch, command)) = watches.next() => match batch {
                Ok(batch) => follow::show(&batch, output, &command).await?,
                Err(error) => return Err(follow::ended(output, error)),
            },
        }
    }
}

fn act(client: &Client, watches: &mut SelectAll<Watch>, line: &str) {
    let mut words = match words::split(line) {
        Some(words) => words.into_iter().map(OsString::from_vec),
        None => return anstream::eprintln!("Invalid command {line} (a quote is not closed)"),
    };
    match words.next() {
        Some(word) if word == "watch" => match start(client, words) {
            Some(watch) => watches.push(watch),
            None => anstream::eprintln!("Invalid command {line} (command type or key is not provided)"),
        },
        Some(word) if word == "progress" => {
            for watch in watches.iter() {
                watch.watcher.request_progress();
            }
        }
        _ => anstream::eprintln!("Invalid command {line} (only support watch)"),
    }
}

fn start(client: &Client, words: impl Iterator<Item = OsString>) -> Option<Watch> {
    let line: Line = args::read(words).ok()?;
    let request = line.what.request(line.args).ok()?;
    Some(Watch { watcher: client.watch(request), command: line.command })
}

/// A watch with what to run for its events.
struct Watch {
    watcher: Watcher,
    command: Vec<OsString>,
}

impl futures_util::Stream for Watch {
    type Item = (<Watcher as futures_util::Stream>::Item, Vec<OsString>);

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let batch = self.watcher.poll_next_unpin(cx);
        batch.map(|batch| batch.map(|batch| (batch, self.command.clone())))
    }
}
