//! A snapshot on its way to another member: the file in chunks, each compressed by itself.
//!
//! A chunk says how long it is when it is unfolded, and no more than that is ever
//! unfolded of it: so neither side holds more than a chunk, whatever the other sends.

use std::io::Read;

use bytes::Bytes;
use etcfs_proto::etcfs::{peer::SnapshotChunk, record};
use lz4_flex::block;
use tonic::Status;

use super::types::{self, Vote};
use crate::storage::SnapshotFile;

/// Of the file, in one chunk.
const CHUNK_BYTES: usize = 1 << 20;

/// The file in pieces; one that can't be read ends the stream early, which its
/// receiver notices by the hash.
pub(super) fn of(vote: Vote, snapshot: &SnapshotFile) -> impl Iterator<Item = SnapshotChunk> + Send + use<> {
    let header = record::SnapshotHeader { meta: Some(snapshot.meta().clone()), ..Default::default() };
    let first =
        SnapshotChunk { vote: Some(types::to_vote(&vote)), header: Some(header), ..Default::default() };
    let mut reader = snapshot.reader();
    let rest = std::iter::from_fn(move || {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        match reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut data) {
            Ok(0) => None,
            Ok(_) => Some(SnapshotChunk { lz4: fold(&data), ..Default::default() }),
            Err(error) => {
                tracing::warn!(%error, "cannot read the snapshot to send");
                None
            }
        }
    });
    std::iter::once(first).chain(rest)
}

fn fold(data: &[u8]) -> Bytes {
    block::compress_prepend_size(data).into()
}

/// The bytes of the file that a chunk holds.
pub(super) fn unfold(chunk: &SnapshotChunk) -> Result<Vec<u8>, Status> {
    if chunk.lz4.is_empty() {
        return Ok(Vec::new());
    }
    let damaged = |error| Status::data_loss(format!("a chunk of the snapshot can't be unfolded: {error}"));
    let (length, _) = block::uncompressed_size(&chunk.lz4).map_err(damaged)?;
    if length > CHUNK_BYTES {
        return Err(Status::invalid_argument("a chunk of the snapshot is larger than any is made"));
    }
    block::decompress_size_prepended(&chunk.lz4).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(lz4: impl Into<Bytes>) -> SnapshotChunk {
        SnapshotChunk { lz4: lz4.into(), ..Default::default() }
    }

    #[test]
    fn chunks_come_back_whole_and_are_smaller_on_the_way() {
        let text = b"a key and a value, again and again; ".repeat(1000);
        let folded = chunk(fold(&text));
        assert!(folded.lz4.len() * 10 < text.len(), "{}", folded.lz4.len());
        assert_eq!(unfold(&folded).unwrap(), text);
        assert_eq!(unfold(&SnapshotChunk::default()).unwrap(), b"");
    }

    #[test]
    fn a_chunk_that_would_fill_the_memory_is_refused_before_it_does() {
        let mut folded = fold(b"small").to_vec();
        folded[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(unfold(&chunk(folded)).unwrap_err().code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn a_damaged_chunk_is_an_error_and_no_panic() {
        let folded = fold(&b"some bytes, some bytes, some bytes".repeat(20));
        for at in 0..folded.len() {
            for to in [0, 1, 0x7f, 0xff] {
                let mut damaged = folded.to_vec();
                damaged[at] = to;
                // Some damage makes other bytes, which the hash of the whole file catches.
                drop(unfold(&chunk(damaged)));
            }
            drop(unfold(&chunk(folded.slice(..at))));
        }
    }
}
