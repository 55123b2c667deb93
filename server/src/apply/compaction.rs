//! Compaction: history below a revision is given up.

use etcfs_proto::{
    etcdserverpb::{CompactionRequest, CompactionResponse},
    etcfs::record,
};

use super::error::Failure;
use crate::mvcc::{Writer, header};

pub(super) fn compaction(
    writer: &mut Writer,
    meta: &mut record::Meta,
    request: &CompactionRequest,
) -> Result<CompactionResponse, Failure> {
    writer.compact(request.revision)?;
    meta.compact_revision = request.revision;
    Ok(CompactionResponse { header: header(writer.revision()) })
}
