//! `etcfs restore`

use std::ffi::OsString;

use bytes::Bytes;
use clap::Args;

use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    pages::get,
    save::save,
};

/// Puts the value back that a key had at a revision.
///
/// Should the key change at the same moment, nothing is put.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs restore /project/jobs/job1@120")]
pub(crate) struct RestoreArgs {
    /// The key, and the revision to go back to
    #[arg(value_name = "KEY@REVISION")]
    what: OsString,
}

/// The last `@` parts key and revision: a key may have others.
fn parse(word: Bytes) -> Result<(Bytes, i64), CliError> {
    let parsed = word.iter().rposition(|&byte| byte == b'@').and_then(|at| {
        let revision = std::str::from_utf8(&word[at + 1..]).ok()?.parse().ok()?;
        (revision > 0).then(|| (word.slice(..at), revision))
    });
    parsed.ok_or_else(|| {
        CliError::arguments(format!("{}: no KEY@REVISION", String::from_utf8_lossy(&word)))
            .hint("`etcfs history KEY` lists the revisions")
    })
}

pub(crate) async fn run(global: &Global, args: RestoreArgs) -> Result<(), CliError> {
    let (key, revision) = parse(args::bytes(args.what))?;
    let client = connect::client(global)?;
    let name = String::from_utf8_lossy(&key);
    let Some(old) = get(&client, &key, revision).await? else {
        return Err(CliError::failed(format!("{name} did not exist at revision {revision}")));
    };
    let now = get(&client, &key, 0).await?;
    if now.as_ref().is_some_and(|now| now.value == old.value) {
        anstream::println!("{name} has that value");
        return Ok(());
    }
    let at = save(&client, &key, old.value, now.as_ref()).await?;
    anstream::println!("{name} put as of revision {}, at revision {at}", old.mod_revision);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_at_sign_parts_key_and_revision() {
        assert_eq!(parse("a@b@12".into()).ok(), Some(("a@b".into(), 12)));
        for wrong in ["a", "a@", "a@x", "a@0", "a@-1"] {
            assert!(parse(wrong.into()).is_err(), "{wrong}");
        }
    }
}
