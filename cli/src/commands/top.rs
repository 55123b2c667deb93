//! `etcfs top`
//!
//! [`sample`] asks every member, [`page`] makes lines of two samples, [`screen`] is the terminal.

mod page;
mod sample;
mod screen;

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;

use self::{sample::Sample, screen::Screen};
use crate::{
    args::{Global, duration},
    error::CliError,
    session,
};

/// Shows the cluster as it is now, again and again: who leads, what it does, what is slow.
///
/// Rates are those since the page before. Members' own numbers come from their metrics. Keys: q ends it, as Ctrl-C
/// does. To what is no terminal it prints one page.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs top --interval 5s")]
pub(crate) struct TopArgs {
    /// Time from page to page
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    interval: Duration,
    /// Print one page, also on a terminal
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(global: &Global, args: TopArgs) -> Result<(), CliError> {
    let first = Sample::take(global).await?;
    if args.once || !std::io::stdout().is_terminal() {
        tokio::time::sleep(args.interval).await;
        let second = Sample::take(global).await?;
        for line in page::lines(&first, &second) {
            anstream::println!("{line}");
        }
        return Ok(());
    }
    let mut screen = Screen::open()?;
    let mut stop = std::pin::pin!(async {
        tokio::select! {
            ended = session::interrupted() => ended,
            ended = screen::quit() => ended,
        }
    });
    let mut before = first;
    // The first page is there at once, with rates of nothing.
    screen.show(&page::lines(&before, &before))?;
    loop {
        tokio::select! {
            ended = &mut stop => return ended,
            () = tokio::time::sleep(args.interval) => {}
        }
        let now = tokio::select! {
            ended = &mut stop => return ended,
            now = Sample::take(global) => now?,
        };
        screen.show(&page::lines(&before, &now))?;
        before = now;
    }
}
