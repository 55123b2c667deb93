//! Rows to messages and back, with the row named where that fails.

use bytes::Bytes;
use prost::Message;

use super::StorageError;

/// The bytes that a row holds for `message`.
pub fn encode<M: Message>(message: &M) -> Bytes {
    message.encode_to_vec().into()
}

/// Reads a row; nested bytes fields share the row's buffer.
pub fn decode<M: Message + Default>(row: &[u8], value: Bytes) -> Result<M, StorageError> {
    M::decode(value).map_err(|source| undecodable(row, source))
}

/// What is said of a row that is no message.
pub fn undecodable(row: &[u8], source: prost::DecodeError) -> StorageError {
    StorageError::Decode { row: row.escape_ascii().to_string(), source }
}
