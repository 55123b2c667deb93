//! `etcfs diff`

use std::ffi::OsString;
use std::io::{self, Write as _};

use bytes::Bytes;
use clap::Args;
use etcfs_proto::mvccpb::KeyValue;

use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    output::Output,
    pages::Pages,
};

/// Shows which keys differ between two revisions: `+` made, `-` removed, `~` changed.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs diff 120 /project/   (from revision 120 until now)")]
pub(crate) struct DiffArgs {
    /// REVISION [REVISION] [PREFIX]; the second revision is now if it is not given
    #[arg(required = true, value_name = "REVISION")]
    args: Vec<OsString>,
}

/// Revisions from and to, and the prefix.
fn parse(args: Vec<OsString>) -> Result<(i64, i64, Bytes), CliError> {
    let revision = |word: &OsString| word.to_str().and_then(|word| word.parse::<i64>().ok());
    let wrong = || CliError::arguments("diff command needs REVISION [REVISION] [PREFIX]");
    let from = args.first().and_then(revision).filter(|from| *from > 0).ok_or_else(wrong)?;
    match args.as_slice() {
        [_] => Ok((from, 0, Bytes::new())),
        [_, second] => match revision(second) {
            Some(to) => Ok((from, to, Bytes::new())),
            None => Ok((from, 0, args::bytes(second.clone()))),
        },
        [_, to, prefix] => Ok((from, revision(to).ok_or_else(wrong)?, args::bytes(prefix.clone()))),
        _ => Err(wrong()),
    }
}

pub(crate) async fn run(global: &Global, args: DiffArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let (from, to, prefix) = parse(args.args)?;
    let client = connect::client(global)?;
    let mut before = Side::new(Pages::of(&client, &prefix, true, from));
    let mut after = Side::new(Pages::of(&client, &prefix, true, to));
    let mut out = io::stdout().lock();
    let mut line = |sign: &[u8], kv: &KeyValue| {
        out.write_all(sign)?;
        out.write_all(&output.key(&kv.key))?;
        out.write_all(b"\n")
    };
    loop {
        let (old, new) = (before.peek().await?, after.peek().await?);
        match (old, new) {
            (None, None) => break,
            (Some(old), Some(new)) if old.key == new.key => {
                if old.mod_revision != new.mod_revision {
                    line(b"~ ", &new)?;
                }
                before.take();
                after.take();
            }
            (Some(old), new) if new.as_ref().is_none_or(|new| old.key < new.key) => {
                line(b"- ", &old)?;
                before.take();
            }
            (_, Some(new)) => {
                line(b"+ ", &new)?;
                after.take();
            }
            (Some(_), None) => unreachable!("the arm before the last takes it"),
        }
    }
    Ok(out.flush()?)
}

/// The keys of one revision, one by one.
struct Side<'a> {
    pages: Pages<'a>,
    page: std::vec::IntoIter<KeyValue>,
    next: Option<KeyValue>,
}

impl<'a> Side<'a> {
    fn new(pages: Pages<'a>) -> Self {
        Self { pages, page: Vec::new().into_iter(), next: None }
    }

    async fn peek(&mut self) -> Result<Option<KeyValue>, CliError> {
        if self.next.is_none() {
            self.next = self.page.next();
        }
        if self.next.is_none()
            && let Some(page) = self.pages.next().await?
        {
            self.page = page.into_iter();
            self.next = self.page.next();
        }
        Ok(self.next.clone())
    }

    fn take(&mut self) {
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_word_is_a_revision_or_a_prefix() {
        let parsed = |words: &[&str]| parse(words.iter().map(OsString::from).collect()).ok();
        assert_eq!(parsed(&["5"]), Some((5, 0, Bytes::new())));
        assert_eq!(parsed(&["5", "9"]), Some((5, 9, Bytes::new())));
        assert_eq!(parsed(&["5", "/a/"]), Some((5, 0, "/a/".into())));
        assert_eq!(parsed(&["5", "9", "7"]), Some((5, 9, "7".into())));
        assert_eq!(parsed(&["/a/"]), None);
        assert_eq!(parsed(&["0"]), None);
    }
}
