//! A put that replaces what was read and nothing else.

use bytes::Bytes;
use etcfs_client::Client;
use etcfs_proto::{
    etcdserverpb::{PutRequest, TxnRequest},
    mvccpb::KeyValue,
};

use crate::{
    error::CliError,
    requests::{put, unchanged},
};

/// Puts `value`, keeping the lease, unless the key is no longer as `read`; gives the new revision.
pub(crate) async fn save(
    client: &Client,
    key: &Bytes,
    value: Bytes,
    read: Option<&KeyValue>,
) -> Result<i64, CliError> {
    let read_at = read.map_or(0, |kv| kv.mod_revision);
    let new = PutRequest { key: key.clone(), value, ignore_lease: read.is_some(), ..PutRequest::default() };
    let request =
        TxnRequest { compare: vec![unchanged(key, read_at)], success: vec![put(new)], failure: Vec::new() };
    let answer = client.kv().txn(request).await?;
    if answer.succeeded {
        return Ok(answer.header.unwrap_or_default().revision);
    }
    let name = String::from_utf8_lossy(key);
    Err(CliError::failed(format!("{name} was changed meanwhile, and is left as it is now")))
}
