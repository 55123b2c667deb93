//! `etcfs txn`

mod compare;

use std::{
    ffi::OsString,
    io::{self, BufRead},
    os::unix::ffi::OsStringExt as _,
};

use clap::{Args, Parser, Subcommand};
use etcfs_proto::etcdserverpb::{RequestOp, TxnRequest, request_op::Request};

use super::{
    del::DelArgs,
    get::GetArgs,
    put::{Missing, PutArgs},
};
use crate::{
    args::{self, Global},
    connect,
    error::{CliError, Kind},
    output::Output,
    words,
};

/// Runs several requests as one, if comparisons hold.
///
/// Reads three lists from standard input, a line each, every list closed by an
/// empty line: comparisons, requests for when all hold, requests for when not.
///
///   mod("key") > "0"        also create, version, value and lease; <, =, !=
///
///   put key "a value"
///   get key --rev 5
///
///   del key --prefix
///
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
#[command(after_help = "Example: printf 'create(\"/lock\") = \"0\"\\n\\nput /lock me\\n\\n\\n' | etcfs txn")]
pub(crate) struct TxnArgs {
    #[arg(hide = true)]
    args: Vec<OsString>,
    /// Ask for each list
    #[arg(short, long)]
    interactive: bool,
}

/// A request as a line of its own.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    request: LineRequest,
}

#[derive(Debug, Subcommand)]
enum LineRequest {
    Get(GetArgs),
    Put(PutArgs),
    Del(DelArgs),
}

pub(crate) async fn run(global: &Global, args: TxnArgs) -> Result<(), CliError> {
    if !args.args.is_empty() {
        return Err(CliError::arguments("txn command does not accept argument"));
    }
    let output = Output::new(global)?;
    let request = read(&mut io::stdin().lock(), args.interactive)?;
    output.txn(&connect::client(global)?.kv().txn(request).await?)
}

fn read(input: &mut impl BufRead, interactive: bool) -> Result<TxnRequest, CliError> {
    let ask = |question: &str| {
        if interactive {
            anstream::println!("{question}");
        }
    };
    ask("compares:");
    let compare = list(input, compare::parse)?;
    ask("success requests (get, put, del):");
    let success = list(input, parse_request)?;
    ask("failure requests (get, put, del):");
    let failure = list(input, parse_request)?;
    Ok(TxnRequest { compare, success, failure })
}

/// Reads lines up to an empty one. An end before it is an error: half a
/// transaction must not run.
fn list<T>(
    input: &mut impl BufRead,
    parse: impl Fn(&str) -> Result<T, CliError>,
) -> Result<Vec<T>, CliError> {
    let mut items = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some(line) = line.strip_suffix('\n') else {
            return Err(
                CliError::new(Kind::Input, "EOF").hint("each of the three lists ends with an empty line")
            );
        };
        match line.trim() {
            "" => return Ok(items),
            line => items.push(parse(line)?),
        }
    }
}

fn parse_request(line: &str) -> Result<RequestOp, CliError> {
    let invalid = || CliError::new(Kind::Input, format!("invalid txn request: {line}"));
    let words = words::split(line).ok_or_else(invalid)?;
    let words = words.into_iter().map(OsString::from_vec);
    let Line { request } = args::read(words).map_err(|_| invalid())?;
    let request = match request {
        LineRequest::Get(args) => Request::RequestRange(args.into_request()?),
        LineRequest::Put(args) => Request::RequestPut(args.into_request(Missing::Refuse)?),
        LineRequest::Del(args) => Request::RequestDeleteRange(args.into_request()?),
    };
    Ok(RequestOp { request: Some(request) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lists_make_a_transaction() {
        let text = "mod(\"a\") > \"0\"\n\nput k \"x y\" --prev-kv\nget a --prefix\n\n  del -- -k\n\n";
        let request = read(&mut text.as_bytes(), false).unwrap();
        assert_eq!((request.compare.len(), request.success.len(), request.failure.len()), (1, 2, 1));
        let Some(Request::RequestPut(put)) = &request.success[0].request else { panic!("a put") };
        assert_eq!((put.key.as_ref(), put.value.as_ref(), put.prev_kv), (&b"k"[..], &b"x y"[..], true));
        let Some(Request::RequestDeleteRange(delete)) = &request.failure[0].request else {
            panic!("a delete")
        };
        assert_eq!(delete.key, "-k");
    }

    #[test]
    fn an_input_that_ends_early_is_not_run() {
        for text in ["", "\n", "\nput a b\n\n", "mod(\"a\") > \"0\""] {
            assert!(read(&mut text.as_bytes(), false).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_get_put_and_del_are_requests() {
        for line in ["compaction 3", "put", "put k", "foo a", "get a b c", "put \"open v"] {
            assert!(parse_request(line).is_err(), "{line}");
        }
    }
}
