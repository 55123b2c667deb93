//! Many keys, a page at a time and all as of one revision: no answer grows with the key space.

use bytes::Bytes;
use etcfs_client::Client;
use etcfs_proto::{
    etcdserverpb::RangeRequest,
    key::{TO_END, prefix_end},
    mvccpb::KeyValue,
};

use crate::error::CliError;

/// Keys of a page, at most.
const KEYS: i64 = 1000;
/// With values at first, and at least: a value may have more than a megabyte.
const PAIRS: i64 = 16;
/// What a page with values is to have, going by the one before.
const PAGE_BYTES: usize = 1024 * 1024;

/// The pages of a range that are still to be read.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    client: &'a Client,
    /// `None` once there are no more.
    start: Option<Bytes>,
    end: Bytes,
    keys_only: bool,
    limit: i64,
    /// 0 until the first page has told it.
    revision: i64,
}

impl<'a> Pages<'a> {
    /// All keys that start with `prefix`, as of `revision` or, if that is 0, of now.
    pub(crate) fn of(client: &'a Client, prefix: &Bytes, keys_only: bool, revision: i64) -> Self {
        // No request can name the empty key; the smallest that there is has one byte.
        let start = if prefix.is_empty() { Bytes::from_static(b"\0") } else { prefix.clone() };
        Self::between(client, start, prefix_end(prefix), keys_only, revision)
    }

    /// All keys from `start` up to but without `end`, as in a request.
    pub(crate) fn between(
        client: &'a Client,
        start: Bytes,
        end: Bytes,
        keys_only: bool,
        revision: i64,
    ) -> Self {
        let limit = if keys_only { KEYS } else { PAIRS };
        Self { client, start: Some(start), end, keys_only, limit, revision }
    }

    /// The next page; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, CliError> {
        let Some(start) = self.start.take() else { return Ok(None) };
        let request = RangeRequest {
            key: start,
            range_end: self.end.clone(),
            limit: self.limit,
            keys_only: self.keys_only,
            revision: self.revision,
            ..RangeRequest::default()
        };
        let answer = self.client.kv().range(request).await?;
        if self.revision == 0 {
            self.revision = answer.header.unwrap_or_default().revision;
        }
        if !self.keys_only {
            self.limit = next_limit(&answer.kvs);
        }
        if answer.more
            && let Some(last) = answer.kvs.last()
        {
            self.start = Some([&last.key[..], b"\0"].concat().into());
        }
        Ok((!answer.kvs.is_empty()).then_some(answer.kvs))
    }

    /// The next page is as of its own moment, not of the first page's.
    pub(crate) fn renew(&mut self) {
        self.revision = 0;
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

/// How many pairs make a page, if they are like these.
fn next_limit(page: &[KeyValue]) -> i64 {
    let bytes: usize = page.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
    let pairs = PAGE_BYTES * page.len() / bytes.max(1);
    i64::try_from(pairs).unwrap_or(KEYS).clamp(PAIRS, KEYS)
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
    fn pages_of_small_values_are_long() {
        let page = |bytes: usize| vec![KeyValue { value: vec![0; bytes].into(), ..KeyValue::default() }; 16];
        assert_eq!(next_limit(&page(10)), KEYS);
        assert_eq!(next_limit(&page(10_000)), 104);
        assert_eq!(next_limit(&page(1_000_000)), PAIRS);
        assert_eq!(next_limit(&[]), PAIRS);
    }

    #[test]
    fn a_directory_ends_with_a_slash() {
        for (prefix, wanted) in [("", ""), ("/", "/"), ("a", "a/"), ("/a/", "/a/")] {
            assert_eq!(directory(Bytes::from(prefix)), wanted);
        }
    }
}
