//! Many keys, a page at a time and all as of one revision: no answer grows with the key space.

use bytes::Bytes;
use etcfs_client::Client;
use etcfs_proto::{
    etcdserverpb::RangeRequest,
    key::{TO_END, prefix_end},
    mvccpb::KeyValue,
};

use crate::error::CliError;

/// Keys of a page without values, and with: a value may have more than a megabyte.
const KEYS: i64 = 1000;
const PAIRS: i64 = 16;

/// The pages of a range that are still to be read.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    client: &'a Client,
    /// `None` once there are no more.
    start: Option<Bytes>,
    end: Bytes,
    keys_only: bool,
    /// 0 until the first page has told it.
    revision: i64,
}

impl<'a> Pages<'a> {
    /// All keys that start with `prefix`, as of `revision` or, if that is 0, of now.
    pub(crate) fn of(client: &'a Client, prefix: &Bytes, keys_only: bool, revision: i64) -> Self {
        // No request can name the empty key; the smallest that there is has one byte.
        let start = if prefix.is_empty() { Bytes::from_static(b"\0") } else { prefix.clone() };
        Self { client, start: Some(start), end: prefix_end(prefix), keys_only, revision }
    }

    /// The next page; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, CliError> {
        let Some(start) = self.start.take() else { return Ok(None) };
        let request = RangeRequest {
            key: start,
            range_end: self.end.clone(),
            limit: if self.keys_only { KEYS } else { PAIRS },
            keys_only: self.keys_only,
            revision: self.revision,
            ..RangeRequest::default()
        };
        let answer = self.client.kv().range(request).await?;
        if self.revision == 0 {
            self.revision = answer.header.unwrap_or_default().revision;
        }
        if answer.more
            && let Some(last) = answer.kvs.last()
        {
            self.start = Some([&last.key[..], b"\0"].concat().into());
        }
        Ok((!answer.kvs.is_empty()).then_some(answer.kvs))
    }

    /// As of which revision the pages are; 0 before the first.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// Goes on behind all keys that start with `prefix`.
    pub(crate) fn skip(&mut self, prefix: &Bytes) {
        let behind = prefix_end(prefix);
        let is_left = behind != TO_END && (self.end == TO_END || behind < self.end);
        self.start = is_left.then_some(behind);
    }
}

/// A prefix as a directory: with a slash at its end, unless it is empty.
pub(crate) fn directory(prefix: Bytes) -> Bytes {
    if prefix.is_empty() || prefix.ends_with(b"/") {
        return prefix;
    }
    [&prefix[..], b"/"].concat().into()
}

/// One key and its value, as of `revision` or, if that is 0, of now.
pub(crate) async fn get(client: &Client, key: &Bytes, revision: i64) -> Result<Option<KeyValue>, CliError> {
    let request = RangeRequest { key: key.clone(), revision, ..RangeRequest::default() };
    Ok(client.kv().range(request).await?.kvs.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_ends_with_a_slash() {
        for (prefix, wanted) in [("", ""), ("/", "/"), ("a", "a/"), ("/a/", "/a/")] {
            assert_eq!(directory(Bytes::from(prefix)), wanted);
        }
    }
}
